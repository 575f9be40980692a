"""The rules of a site's policy one by one: known answers, and that allowing more never refuses more."""

import math
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.keys import key

from fedseal.compliance.data.facts import Purpose
from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.policy import SitePolicy, check_cohort, check_plan, check_range, policy_text, read_policy
from fedseal.compliance.site_rules.approval import approvals_file, approve, read_approvals, signers_of
from fedseal.compliance.site_rules.hours import WEEK, HourRules
from fedseal.compliance.site_rules.outbox import OutboxRules
from fedseal.compliance.site_rules.period import PeriodRule, check_period
from fedseal.compliance.site_rules.refused import Refused
from fedseal.compliance.site_rules.study import (
    DataRules,
    InUse,
    StudyFacts,
    StudyRules,
    check_data,
    check_study,
)
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan
from fedseal.privacy.releases import REGISTRY
from fedseal.study import Purpose as StudyPurpose

PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=2.0, sample_rate=1.0, steps=1, releases=9, retries=0)
NONE = NoPrivacy(releases=9, retries=0)
CODE = "sha256:" + "5" * 64
SOMEBODY = key("somebody").public.hex()


# Hours. 2026-11-28 is a Saturday.


@pytest.mark.parametrize(
    ("rules", "moment", "is_open"),
    [
        (HourRules(), "2026-11-28T12:00+00:00", True),
        (HourRules(days=("sat",)), "2026-11-28T00:00+00:00", True),
        (HourRules(days=("sun",)), "2026-11-28T23:59+00:00", False),
        (HourRules(begin=time(8), end=time(18)), "2026-11-28T08:00+00:00", True),
        (HourRules(begin=time(8), end=time(18)), "2026-11-28T18:00+00:00", False),
        # In Berlin it is an hour later in winter, and two in summer.
        (HourRules(begin=time(8), end=time(18), zone="Europe/Berlin"), "2026-11-28T07:00+00:00", True),
        (HourRules(begin=time(8), end=time(18), zone="Europe/Berlin"), "2026-11-28T06:59+00:00", False),
        (HourRules(begin=time(8), end=time(18), zone="Europe/Berlin"), "2026-07-28T06:00+00:00", True),
        # Friday's night is Friday's also after midnight, and Saturday's is not.
        (HourRules(days=("fri",), begin=time(20), end=time(6)), "2026-11-28T05:59+00:00", True),
        (HourRules(days=("fri",), begin=time(20), end=time(6)), "2026-11-28T06:00+00:00", False),
        (HourRules(days=("fri",), begin=time(20), end=time(6)), "2026-11-28T21:00+00:00", False),
        (HourRules(days=("sat",), begin=time(20), end=time(6)), "2026-11-28T05:00+00:00", False),
    ],
)
def test_hours_are_by_the_sites_own_wall(rules: HourRules, moment: str, is_open: bool) -> None:
    now = datetime.fromisoformat(moment)
    assert rules.open_at(now) is is_open
    assert rules.open_at(now.astimezone(ZoneInfo("America/New_York"))) is is_open


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(WEEK), min_size=1, unique=True), st.times(), st.times(), st.datetimes())
def test_of_a_day_and_all_others_one_is_open(days: list[str], begin: time, end: time, moment: datetime) -> None:
    """Over a whole round of the clock: hours and their complement leave no gap and share nothing."""
    begin, end, now = begin.replace(microsecond=0), end.replace(microsecond=0), moment.replace(tzinfo=UTC)
    if begin == end:
        return
    found = [HourRules(begin=a, end=b).open_at(now) for a, b in ((begin, end), (end, begin))]
    assert sorted(found) == [False, True]
    some = HourRules.model_validate({"days": days, "begin": begin, "end": end})
    assert not some.open_at(now) or HourRules(begin=begin, end=end).open_at(now)


@pytest.mark.parametrize(
    "text",
    ['zone = "Mars/Olympus"', "days = []", 'days = ["monday"]', "begin = 25", 'begin = "08:00+02:00"', 'zone = "../x"'],
)
def test_wrong_hours_are_named(text: str) -> None:
    with pytest.raises(ConfigError, match=r"site policy:[12]: 'hours"):
        read_policy(f"[hours]\n{text}\n")


# Periods


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-6), (1.0, 1e-5), (3.0, 1e-5), (10.0, 1e-3)])
def test_the_order_of_a_period_wastes_little(epsilon: float, delta: float) -> None:
    """Beside the best epsilon of a Gaussian of the budget's size, rho + 2 sqrt(rho ln(1/delta)), Bun and Steinke 2016,
    proposition 1.3: the conversion here is a better one, so as much or more fits.
    """
    rule = PeriodRule(epsilon=epsilon, days=30)
    order, unlikely = rule.order(delta), math.log(1 / delta)
    rho = (math.sqrt(unlikely + epsilon) - math.sqrt(unlikely)) ** 2
    assert rho + 2 * math.sqrt(rho * unlikely) == pytest.approx(epsilon)
    assert rule.budget(delta) / 1e12 / order >= 0.95 * rho


def refused_by_period(rule: PeriodRule, past: int, plan: PrivacyPlan = PLAN) -> bool:
    try:
        check_period(rule, "train", 1e-5, ((PLAN, past),) if past else (), plan)
    except Refused as refusal:
        assert refusal.rule is RefusedRule.PERIOD
        assert "periods.train" in refusal.next_step
        return True
    return False


def test_a_period_takes_what_fits_and_nothing_more() -> None:
    """Gaussian noise of multiplier z costs order / (2 z^2) at an order: with z = 2 an eighth of the order."""
    rule = PeriodRule(epsilon=5.0, days=30)
    fitting = int(rule.budget(1e-5) // (rule.order(1e-5) / 8 * 1e12))
    assert fitting > 1
    assert not refused_by_period(rule, fitting - 1)
    assert refused_by_period(rule, fitting)
    assert refused_by_period(rule, 0, NONE)
    check_period(None, "train", 1e-5, ((NONE, 5),), NONE)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.05, 50), st.floats(0.05, 50), st.integers(0, 40))
def test_a_larger_period_never_refuses_what_a_smaller_one_allowed(a: float, b: float, past: int) -> None:
    small, large = (PeriodRule(epsilon=e, days=30) for e in sorted((a, b)))
    assert refused_by_period(small, past) or not refused_by_period(large, past)


def test_a_period_is_the_last_days_to_the_second() -> None:
    now = datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert PeriodRule(epsilon=1, days=30).begins(now) == int((now - timedelta(days=30)).timestamp())


# Studies and data


def test_a_study_states_its_purpose_in_a_data_contracts_words() -> None:
    assert set(StudyPurpose.__args__) == {purpose.value for purpose in Purpose}  # type: ignore[attr-defined]


def facts(
    purposes: tuple[str | None, ...] = ("research",), strategies: tuple[str, ...] = ("fedavg",), signed: bool = False
) -> StudyFacts:
    signers = frozenset({SOMEBODY}) if signed else frozenset()
    return StudyFacts(frozenset(purposes), frozenset(strategies), CODE, signers)


@pytest.mark.parametrize(
    ("rules", "found", "rule"),
    [
        (StudyRules(), facts((), ()), None),
        (StudyRules(purposes=(Purpose.RESEARCH,)), facts(), None),
        (StudyRules(purposes=(Purpose.RESEARCH,)), facts((None,)), RefusedRule.PURPOSE),
        (StudyRules(purposes=(Purpose.RESEARCH,)), facts(()), RefusedRule.PURPOSE),
        # The site's own copy says one, the run another.
        (StudyRules(purposes=(Purpose.RESEARCH,)), facts(("research", "operations")), RefusedRule.PURPOSE),
        (StudyRules(purposes=(Purpose.RESEARCH, Purpose.OPERATIONS)), facts(("research", "operations")), None),
        (StudyRules(strategies=("fedavg", "fedprox")), facts(), None),
        (StudyRules(strategies=("fedprox",)), facts(), RefusedRule.STRATEGY),
        (StudyRules(strategies=("fedavg",)), facts((), ()), RefusedRule.STRATEGY),
        (StudyRules(code=(CODE,)), facts(), None),
        (StudyRules(code=("sha256:" + "6" * 64,)), facts(), RefusedRule.CODE),
        (StudyRules(signers=(SOMEBODY,)), facts(), RefusedRule.CODE),
        (StudyRules(signers=(SOMEBODY,)), facts(signed=True), None),
        (StudyRules(signers=(key("other").public.hex(),)), facts(signed=True), RefusedRule.CODE),
        (StudyRules(code=(CODE,), signers=(key("other").public.hex(),)), facts(), None),
    ],
)
def test_what_may_run(rules: StudyRules, found: StudyFacts, rule: RefusedRule | None) -> None:
    if rule is None:
        check_study(rules, found)
        return
    with pytest.raises(Refused) as caught:
        check_study(rules, found)
    assert caught.value.rule is rule
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("rules", "found", "rule"),
    [
        (DataRules(), InUse(None, None, frozenset()), None),
        (DataRules(datasets=("cohort",)), InUse("cohort", 7, frozenset()), None),
        (DataRules(datasets=("cohort:7",)), InUse("cohort", 7, frozenset()), None),
        (DataRules(datasets=("cohort:6",)), InUse("cohort", 7, frozenset()), RefusedRule.DATA),
        (DataRules(datasets=("other",)), InUse("cohort", 7, frozenset()), RefusedRule.DATA),
        (DataRules(datasets=("cohort",)), InUse(None, None, frozenset()), RefusedRule.DATA),
        (DataRules(labels=("v2",)), InUse(None, None, frozenset({"v2", "lsv"})), None),
        (DataRules(labels=("v1",)), InUse(None, None, frozenset({"v2", "lsv"})), RefusedRule.LABELS),
        (DataRules(labels=("v1",)), InUse("cohort", 1, frozenset()), RefusedRule.LABELS),
    ],
)
def test_what_data_may_be_used(rules: DataRules, found: InUse, rule: RefusedRule | None) -> None:
    if rule is None:
        check_data(rules, found)
        return
    with pytest.raises(Refused) as caught:
        check_data(rules, found)
    assert caught.value.rule is rule


# Approvals of code


def test_an_approval_lies_beside_the_study_and_holds_for_its_digest_only(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    assert signers_of(folder, CODE) == frozenset()
    path = approve(folder, CODE, key("somebody"))
    assert path == approvals_file(folder) == tmp_path.resolve() / "study.approvals"
    assert signers_of(folder, CODE) == {SOMEBODY}
    assert signers_of(folder, "sha256:" + "6" * 64) == frozenset()
    before = path.read_bytes()
    assert approve(folder, CODE, key("somebody")).read_bytes() == before
    approve(folder, CODE, key("other"))
    assert signers_of(folder, CODE) == {SOMEBODY, key("other").public.hex()}


def test_a_forged_approval_counts_for_nothing(tmp_path: Path) -> None:
    path = approve(tmp_path / "study", CODE, key("somebody"))
    line = path.read_text(encoding="utf-8")
    path.write_text(line.replace(SOMEBODY, key("other").public.hex()), encoding="utf-8")
    assert len(read_approvals(path)) == 1
    assert signers_of(tmp_path / "study", CODE) == frozenset()


@pytest.mark.parametrize("text", ["x\n", "{}\n", '{"code": 1}\n', "\x00", "[" * 70_000, '{"code":"sha256:00"}\n'])
def test_a_file_of_something_else_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.approvals"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"study\.approvals"):
        signers_of(tmp_path / "study", CODE)


# The whole policy


def test_the_outboxs_first_rule_that_fits_decides() -> None:
    rules = read_policy(
        """
        [outbox]
        otherwise = "deny"
        [[outbox.rule]]
        releases = ["evaluation"]
        then = "hold"
        [[outbox.rule]]
        plans = ["distributed"]
        smallest_cohort = 10
        then = "send"
        [[outbox.rule]]
        plans = ["distributed"]
        then = "hold"
        """
    ).outbox
    assert rules.verdict("evaluation", "distributed", 20) == "hold"
    assert rules.verdict("update", "distributed", 10) == "send"
    assert rules.verdict("update", "distributed", 9) == "hold"
    assert rules.verdict("update", "local", 99) == "deny"
    assert OutboxRules().verdict("update", "none", 2) == "send"


NAMES = ("none", "local", "distributed", "client", "histogram")


@st.composite
def policies(draw: st.DrawFn) -> SitePolicy:
    """Policies with something in every table."""
    some_plans = st.lists(st.sampled_from(NAMES), unique=True)
    return SitePolicy.model_validate(
        {
            "cohort": {"minimum": draw(st.integers(2, 30)), "colluders": draw(st.integers(0, 9))},
            "releases": {name: draw(some_plans) for name in REGISTRY},
            "limits": {"clip_norm": draw(st.floats(0.01, 100)), "ring_bits": draw(st.integers(12, 64))},
            "ranges": {name: draw(st.none() | st.floats(0.01, 100)) for name in REGISTRY},
            "study": {"purposes": draw(st.lists(st.sampled_from(list(Purpose)), unique=True))},
            "data": {"datasets": draw(st.lists(st.sampled_from(["a", "b:2", "c"]), unique=True))},
            "periods": {"train": draw(st.none() | st.builds(lambda e: {"epsilon": e, "days": 3}, st.floats(0.1, 9)))},
            "hours": draw(st.none() | st.builds(lambda b: {"begin": b}, st.times().map(lambda t: t.isoformat()))),
            "outbox": {
                "otherwise": draw(st.sampled_from(["send", "hold", "deny"])),
                "rule": draw(
                    st.lists(st.fixed_dictionaries({"then": st.just("hold"), "plans": some_plans}), max_size=2)
                ),
            },
        }
    )


@settings(max_examples=60, deadline=None)
@given(policies())
def test_a_policy_is_read_as_it_was_written(policy: SitePolicy) -> None:
    text = policy_text(policy)
    assert read_policy(text) == policy
    assert policy_text(read_policy(text)) == text


def wider(policy: SitePolicy) -> SitePolicy:
    """A policy that allows more, by one step in everything."""
    return SitePolicy.model_validate(
        {
            "cohort": {"minimum": max(2, policy.cohort.minimum - 1), "colluders": max(0, policy.cohort.colluders - 1)},
            "releases": {name: [*policy.releases.allowed(name), "none"] for name in REGISTRY},
            "limits": {"clip_norm": 2 * policy.limits.clip_norm},
            "ranges": {n: None if (r := policy.ranges.largest(n)) is None else 2 * r for n in REGISTRY},
        }
    )


@settings(max_examples=60, deadline=None)
@given(policies(), st.integers(2, 30), st.integers(0, 9), st.sampled_from(sorted(REGISTRY)), st.floats(0.01, 200))
def test_a_policy_that_allows_more_never_refuses_what_a_stricter_one_allowed(
    policy: SitePolicy, sites: int, colluders: int, release: str, largest: float
) -> None:
    kind = REGISTRY[release]

    def refused(by: SitePolicy) -> bool:
        try:
            check_cohort(by, sites, colluders)
            check_plan(by, kind, PLAN)
            check_range(by, kind, largest)
        except Refused:
            return True
        return False

    assert refused(policy) or not refused(wider(policy))
