"""Bounds, approvals, differences, and how people name things."""

import math
from collections.abc import Iterator

import pytest
from opacus.accountants import PRVAccountant
from sqlalchemy import Connection
from support.histories import FREE, NOISY, Story, digest, memory, run_of, secret

from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.fields import (
    Alias,
    CorrectionReason,
    GateKind,
    Meaning,
    ReleaseName,
    Role,
    RollbackReason,
)
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.events.registry import EVENTS
from fedseal.compliance.lineage.answers import indices
from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.questions import Questions
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, SharedSkellam, Unit


@pytest.fixture
def tables() -> Iterator[Connection]:
    with memory().begin() as connection:
        yield connection


@pytest.fixture
def story() -> Iterator[Story]:
    with memory().begin() as connection:
        yield Story(connection, 2)


def asked(tables: Connection, story: Story) -> Questions:
    Projection(tables).update(story.log)
    return Questions(tables)


def two_runs(story: Story) -> None:
    """Run a for two rounds from m0 to a2, run b for one from there to b1; site 2 is only in the first."""
    story.register("m0")
    story.begin("a", "m0", plan=NOISY)
    story.begin("b", "a2", plan=NOISY)
    for run in "ab":
        for site in (1, 2):
            story.accept(run, site, f"data {site}", f"labels {site}")
    for number, start in ((1, "m0"), (2, "a1")):
        for site in (1, 2):
            story.charge("a", site, number)
        story.round("a", start, {1: "data 1", 2: "data 2"})
    story.finish("a", "a2")
    story.charge("b", 1, 1)
    story.round("b", "a2", {1: "data 1"})
    story.finish("b", "b1")


# What bounds an influence


def prv(plan: LocalGaussian, releases: int, delta: float) -> float:
    """Opacus' figure, which shares no code with ours."""
    accountant = PRVAccountant()
    accountant.history = [(plan.noise_multiplier, plan.sample_rate, plan.steps * releases)]
    return float(accountant.get_epsilon(delta, eps_error=0.001))


def test_the_bound_counts_what_the_model_descends_from(tables: Connection, story: Story) -> None:
    two_runs(story)
    questions = asked(tables, story)
    assert isinstance(NOISY, LocalGaussian)
    found = {one.model.digest: one.bounds for one in questions.impact(secret("data 1")).models}
    charges = {name: (one[0].population, one[0].charges) for name, one in found.items() if one}
    population = secret("population 1")
    assert charges == {digest("a2"): (population, 2), digest("b1"): (population, 3)}
    for name, releases in (("a2", 2), ("b1", 3)):
        (bound,) = found[digest(name)]
        assert bound.epsilon == pytest.approx(prv(NOISY, releases, 1e-5), rel=0.01)
        assert bound.second is not None
        assert bound.epsilon <= bound.second < 1.25 * bound.epsilon
    # Site 2 was in the first run only: b1 inherits, and nothing was charged to it since.
    inherited = next(one for one in questions.impact(secret("data 2")).models if one.model.digest == digest("b1"))
    assert (inherited.inherited, inherited.direct_rounds, inherited.bounds[0].charges) == (True, 0, 2)


def test_a_sites_epsilon_is_composed_over_all_runs(tables: Connection, story: Story) -> None:
    two_runs(story)
    story.charge("b", 1, 2)  # of an attempt that no sum came of
    story.site(
        1, bodies.BudgetSet(population=secret("population 1"), epsilon="9", delta="0.000001", alpha="8", until=None)
    )
    (spent,) = asked(tables, story).epsilon("site-1").populations
    assert (spent.charges, spent.runs, spent.promised, spent.delta) == (4, 2, 9.0, 1e-6)
    assert isinstance(NOISY, LocalGaussian)
    assert spent.epsilon == pytest.approx(prv(NOISY, 4, 1e-6), rel=0.01)
    # The twin: of one charge fewer it would be another number.
    assert spent.epsilon != pytest.approx(prv(NOISY, 3, 1e-6), rel=0.01)


def test_skellam_has_one_accountant_only(tables: Connection, story: Story) -> None:
    plan = SharedSkellam(
        unit=int(Unit.PERSON), clip_norm=1.0, resolution=16, length=1, variance=60_000, releases=9, retries=0
    )
    story.begin("a", "m0", plan=plan)
    story.charge("a", 1, 1, plan)
    (spent,) = asked(tables, story).epsilon("site-1").populations
    assert 0 < spent.epsilon < math.inf
    assert spent.second is None


@pytest.mark.parametrize("charged", [True, False], ids=["charged without protection", "not charged"])
def test_without_protection_nothing_bounds(tables: Connection, story: Story, charged: bool) -> None:
    story.begin("a", "m0")
    story.accept("a", 1, "data 1")
    if charged:
        story.charge("a", 1, 1, FREE)
    story.round("a", "m0", {1: "data 1"})
    story.finish("a", "m1")
    (one,) = asked(tables, story).impact(secret("data 1")).models
    assert one.bounds[0].epsilon == math.inf
    assert one.bounds[0].uncharged == (0 if charged else 1)


def test_test_persons_pay_for_themselves(tables: Connection, story: Story) -> None:
    """An evaluation is charged to the site's other population: it does not count as not charged."""
    story.begin("a", "m0", rounds=2)
    story.accept("a", 1, "data 1")
    story.charge("a", 1, 1)
    story.round("a", "m0", {1: "data 1"}, at=1)
    story.site(
        1,
        bodies.Charged(
            release=ReleaseName.EVALUATION,
            sequence=2,
            attempt=0,
            population=secret("test persons"),
            plan=plan_facts(NOISY),
            delta="0.00001",
            alpha="8",
        ),
        "a",
    )
    story.round("a", None, {1: "data 1"}, release=ReleaseName.EVALUATION, at=1)
    story.charge("a", 1, 3)
    story.round("a", "m1", {1: "data 1"}, at=2)
    story.finish("a", "m2", rounds=2)
    found = {one.model.digest: one.bounds for one in asked(tables, story).impact("site-1").models}
    bounds = {bound.population: (bound.charges, bound.uncharged) for bound in found[digest("m2")]}
    assert bounds == {secret("population 1"): (2, 0), secret("test persons"): (1, 0)}


def test_a_guideline_reaches_the_models_of_its_labels(tables: Connection, story: Story) -> None:
    story.site(1, subjects.Guideline(guideline=digest("old guide"), replaces=None))
    story.site(1, subjects.Guideline(guideline=digest("new guide"), replaces=digest("old guide")))
    for name, guide, data in (("labels 1", "old guide", "data 1"), ("labels 2", "new guide", "data 2")):
        story.site(
            1,
            subjects.LabelSetRegistered.model_validate(
                {
                    "label_set": secret(name),
                    "dataset": secret(data),
                    "guideline": digest(guide),
                    "label_schema": digest("schema"),
                    "adjudication": "majority",
                    "tool": "table",
                    "parents": (),
                }
            ),
        )
    for run, number, data, labels in (("a", 1, "data 1", "labels 1"), ("b", 2, "data 2", "labels 2")):
        story.begin(run, "m0")
        story.accept(run, number, data, labels)
        story.contribute(run, number, 1, 1, data, labels)
        story.sum(run, 1, 1, "m0", (number,))
        story.finish(run, f"{run}1")
    found = asked(tables, story).impact(digest("old guide"))
    assert [one.model.digest for one in found.models] == [digest("a1")]
    assert found.populations == (secret("population 1"),)
    assert found.models[0].clean is not None
    assert found.models[0].clean.digest == digest("m0")


# Who said yes


def test_approvals_and_what_a_promotion_rests_on(tables: Connection, story: Story) -> None:
    two_runs(story)
    other = story.person("bo", signature("a2"))
    yes = story.person("anna", signature("b1"))
    gate = story.server(
        subjects.GateChecked(
            model=digest("b1"),
            alias=Alias.PRODUCTION,
            gate=GateKind.METRIC,
            name="auc",
            limit="0.8",
            found="0.83",
            passed=True,
        )
    )
    story.server(promoted("a2", None, (other,), ()))
    story.server(promoted("b1", "a2", (yes, other), (gate,)))
    questions = asked(tables, story)
    found = questions.approvals("production")
    assert found.model.digest == digest("b1")
    assert [(one.meaning, one.role, one.org, one.idx) for one in found.signatures] == [
        ("approved", "approver", "site-1", yes)
    ]
    assert [(one.gate, one.passed, one.idx) for one in found.gates] == [("metric", True, gate)]
    (promotion,) = found.promotions
    # One of the approvals that it names is of another model.
    assert (promotion.approvals, promotion.gates, promotion.missing) == ((yes, other), (gate,), (other,))
    impact = {one.model.digest: (one.aliases, one.was) for one in questions.impact(secret("data 1")).models}
    assert impact[digest("b1")] == (("production",), ())
    assert impact[digest("a2")] == ((), ("production",))
    story.server(
        subjects.RolledBack(
            model=digest("a2"), alias=Alias.PRODUCTION, replaces=digest("b1"), reason=RollbackReason.DRIFT
        )
    )
    status = subjects.ModelStatus(model=digest("b1"), reason=RollbackReason.DRIFT)
    story.server(status, kind=EVENTS["model.suspended/v1"])
    questions = asked(tables, story)
    assert questions.approvals("production").model.digest == digest("a2")
    assert [step.action for step in questions.approvals(digest("b1")).promotions] == ["promoted", "suspended"]


def promoted(model: str, replaces: str | None, approvals: tuple[int, ...], gates: tuple[int, ...]) -> subjects.Promoted:
    return subjects.Promoted(
        model=digest(model),
        alias=Alias.PRODUCTION,
        replaces=None if replaces is None else digest(replaces),
        approvals=approvals,
        gates=gates,
        final_size=3,
    )


def signature(model: str) -> subjects.Signature:
    return subjects.Signature(model=digest(model), alias=Alias.PRODUCTION, meaning=Meaning.APPROVED, role=Role.APPROVER)


# Side by side


def test_two_models_side_by_side(tables: Connection, story: Story) -> None:
    two_runs(story)
    story.begin("c", "m0")
    story.round("c", "m0", {2: "data 3"})
    story.finish("c", "c1")
    questions = asked(tables, story)
    found = questions.diff(digest("b1"), digest("c1"))
    assert found.common is not None
    assert found.common.digest == digest("m0")
    assert [run.run for run in found.runs_only_first] == [run_of("a"), run_of("b")]
    assert [run.run for run in found.runs_only_second] == [run_of("c")]
    only = [{part.thing.digest for part in parts if part.thing.kind == "dataset"} for parts in (found.only_first,)]
    assert only == [{secret("data 1"), secret("data 2")}]
    assert {part.thing.digest for part in found.only_second} == {secret("data 3"), digest("contract c")}
    same = questions.diff(digest("b1"), digest("b1"))
    assert (same.only_first, same.only_second, same.common) == ((), (), same.first)


# What rests on what


def test_a_corrected_entry_still_counts_and_is_named(tables: Connection, story: Story) -> None:
    two_runs(story)
    wrong = story.person("anna", signature("b1"))
    story.server(subjects.Correction(index=wrong, by=None, reason=CorrectionReason.ENTRY_ERROR))
    shown = asked(tables, story).show(digest("b1"))
    assert shown.corrected == (wrong,)
    assert [one.idx for one in shown.approvals.signatures] == [wrong]


def test_every_row_of_an_answer_names_its_entry(tables: Connection, story: Story) -> None:
    two_runs(story)
    questions = asked(tables, story)
    answers = (
        questions.show(digest("b1")),
        questions.impact("site-1"),
        questions.epsilon("site-1"),
        questions.diff(digest("a2"), digest("b1")),
    )
    for answer in answers:
        named = list(indices(answer))
        assert named
        assert all(0 <= idx < story.log.size for idx in named)


# Names


def test_things_go_by_the_beginning_of_their_id(tables: Connection, story: Story) -> None:
    two_runs(story)
    questions = asked(tables, story)
    whole = digest("b1")
    for name in (whole, whole[:14], whole.partition(":")[2], whole.partition(":")[2][:6], f"model:{whole[7:15]}"):
        assert questions.show(name).model.digest == whole
    for name, says in (
        ("no such thing", "nothing in this log"),
        ("", "nothing in this log"),
        ("sha", "nothing in this log"),
        ("sha256:", "nothing in this log"),
        (secret("data 1"), "nothing in this log"),
        ("dataset:abcd", "not what is asked for"),
        ("%%%%", "nothing in this log"),
    ):
        with pytest.raises(ConfigError, match=says):
            questions.show(name)


def test_an_ambiguous_beginning_is_refused(tables: Connection, story: Story) -> None:
    names: dict[str, str] = {}
    for number in range(2000):
        first = digest(f"m{number}")[:11]
        if first in names:
            break
        names[first] = f"m{number}"
    one, two = names[first], f"m{number}"
    story.register(one)
    story.register(two)
    with pytest.raises(ConfigError, match="several ids begin so"):
        asked(tables, story).show(first)
