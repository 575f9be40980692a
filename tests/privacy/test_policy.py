"""A site answers what its policy allows by name and nothing else; a policy without a line allows private plans only."""

import typing
from dataclasses import replace
from typing import Any

import pytest
from support.keys import make_roster
from support.rounds import make_header, ring_layout

from fedseal.compliance.policy import (
    CohortRules,
    ReleaseRules,
    SitePolicy,
    check_header,
    policy_text,
    read_policy,
)
from fedseal.compliance.site_rules.plans import PlanName
from fedseal.errors import ConfigError, ExitCode, PolicyRefused
from fedseal.privacy.plan import (
    PLANS,
    AdaptiveSkellam,
    LocalGaussian,
    NoPrivacy,
    PlanKind,
    PrivacyPlan,
    SharedGeometric,
    SharedSkellam,
    Unit,
)
from fedseal.privacy.releases import REGISTRY
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.parameters import minimum_sites, threshold

LOCAL = LocalGaussian(clip_norm=1.0, noise_multiplier=1.0, sample_rate=0.5, steps=1, releases=1, retries=0)
NONE = NoPrivacy(releases=1, retries=0)
SKELLAM = SharedSkellam(
    unit=int(Unit.PERSON), clip_norm=1.0, resolution=1024, length=2, variance=1 << 20, releases=1, retries=0
)
PLAN_OF: dict[str, PrivacyPlan] = {
    "local": LOCAL,
    "none": NONE,
    "distributed": SKELLAM,
    "client": replace(SKELLAM, unit=int(Unit.SITE)),
    "histogram": SharedGeometric(epsilon=1.0, cells=1, length=2, releases=1, retries=0),
}
OPEN = "[releases]\n" + "".join(f'{name} = ["none", "local"]\n' for name in REGISTRY)


def header_of(sites: int, **changes: Any) -> Header:
    """A header for a cohort of some sites, all of which have to be left unless a change says otherwise."""
    fields = {"site_minimum": sites} | changes
    return make_header(make_roster(sites), list(range(1, sites + 1)), ring_layout(2, sites), **fields)


def ask(text: str, header: Header, release: str = "update", plan: PrivacyPlan = LOCAL) -> None:
    """Ask a policy about a round."""
    check_header(read_policy(text), header, REGISTRY[release], plan)


def refused(text: str, header: Header, match: str, release: str = "update", plan: PrivacyPlan = LOCAL) -> str:
    """The advice that comes with the refusal."""
    with pytest.raises(PolicyRefused, match=match) as caught:
        ask(text, header, release, plan)
    assert caught.value.exit_code == ExitCode.POLICY
    return caught.value.next_step


# Files


def test_an_empty_policy_allows_private_training_and_statistics_of_three_sites() -> None:
    for text in ("", "version = 2\n", "[cohort]\n[releases]\n", "{}", policy_text(SitePolicy())):
        assert read_policy(text) == SitePolicy()
    assert read_policy("version = 1\n") == SitePolicy(version=1)
    assert SitePolicy() == SitePolicy(
        version=2,
        cohort=CohortRules(minimum=3, colluders=0),
        releases=ReleaseRules(update=("local",), moments=("local",), evaluation=()),
    )


def test_a_policy_is_read_as_it_is_written() -> None:
    text = 'version = 1\n[cohort]\nminimum = 7\ncolluders = 2\n[releases]\nupdate = ["none", "local"]\nmoments = []\n'
    policy = read_policy(text)
    assert (policy.cohort.minimum, policy.cohort.colluders) == (7, 2)
    assert (policy.releases.update, policy.releases.moments) == (("none", "local"), ())
    assert policy.releases.evaluation == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version = 3\n", "site policy:1: 'version'"),
        ("version = 1\n[ranges]\nupdate = 1\n", "ranges came with version 2"),
        ("version = 1\n[cohort]\nthreshold = 3\n", "cohort.threshold came with version 2"),
        ("versoin = 1\n", "site policy:1: unknown key 'versoin'"),
        ("[cohort]\nminimun = 3\n", "site policy:2: unknown key 'cohort.minimun'"),
        ("[cohort]\n[cohort.more]\n", "unknown key 'cohort.more'"),
        ("[release]\n", "site policy:1: unknown key 'release'"),
        ('[releases]\nupdates = ["none"]\n', "site policy:2: unknown key 'releases.updates'"),
        ('[releases]\nupdate = ["central"]\n', "site policy:2: 'releases.update.0'"),
        ('[releases]\nupdate = ["Local"]\n', "site policy:2: 'releases.update.0'"),
        ('[releases]\nupdate = "local"\n', "site policy:2: 'releases.update'"),
        ("[releases]\nupdate = true\n", "site policy:2: 'releases.update'"),
        *[
            (f"[cohort]\nminimum = {bad}\n", "site policy:2: 'cohort.minimum'")
            for bad in (-1, 0, 1, 100_001, 2.5, "nan")
        ],
        *[(f"[cohort]\ncolluders = {bad}\n", "site policy:2: 'cohort.colluders'") for bad in (-1, 99_999, "inf")],
        ("minimum = \n", "site policy: not TOML"),
    ],
)
def test_a_wrong_policy_is_a_config_error_and_never_a_laxer_one(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_policy(text)
    assert message in caught.value.message


def test_a_policy_says_where_it_was_read() -> None:
    with pytest.raises(ConfigError, match="of site-1:1: unknown key 'x'"):
        read_policy("x = 1\n", "of site-1")


# Plans


def test_the_policy_has_a_rule_for_every_release_and_a_name_for_every_plan() -> None:
    assert set(ReleaseRules.model_fields) == set(REGISTRY)
    assert all(isinstance(ReleaseRules().allowed(name), tuple) for name in REGISTRY)
    with pytest.raises(KeyError):
        ReleaseRules().allowed("rows")
    names = typing.get_args(PlanName)
    # One name for each kind of plan, so that none goes by another's.
    assert {kind.name.lower() for kind in PlanKind} == set(names) == set(PLAN_OF)
    assert {name: plan.kind.label for name, plan in PLAN_OF.items()} == {name: name for name in names}
    # One whose clip norm adapts is of its vector's kind and goes by that name.
    assert {type(plan) for plan in PLAN_OF.values()} == set(PLANS) - {AdaptiveSkellam}


@pytest.mark.parametrize("allowed", [(), ("none",), ("local",), ("none", "local")], ids=str)
@pytest.mark.parametrize("release", REGISTRY)
def test_a_release_is_answered_under_the_plans_of_its_own_list(release: str, allowed: tuple[str, ...]) -> None:
    others = "".join(f'{name} = ["none", "local"]\n' for name in REGISTRY if name != release)
    text = f"[releases]\n{release} = {list(allowed)}\n{others}"
    for name, plan in PLAN_OF.items():
        if name in allowed:
            ask(text, header_of(3), release, plan)
        else:
            match = f"release '{release}' under plan '{name}' is not allowed at this site"
            advice = refused(text, header_of(3), match, release, plan)
            assert advice == f"The data owner may add '{name}' to releases.{release} in the site's policy."


def test_without_a_line_nothing_leaves_without_privacy() -> None:
    for release in REGISTRY:
        refused("", header_of(3), "is not allowed", release, NONE)
    refused("", header_of(3), "is not allowed", "evaluation", LOCAL)
    ask("", header_of(3), "update")
    ask("", header_of(3), "moments")


# Cohorts


@pytest.mark.parametrize("minimum", [2, 3, 5, 8])
@pytest.mark.parametrize("sites", [2, 3, 5, 8, 9])
def test_a_sum_is_over_as_many_sites_as_the_policy_asks_for(sites: int, minimum: int) -> None:
    """Whoever drops out: the round ends before fewer are left."""
    text = f"[cohort]\nminimum = {minimum}\n{OPEN}"
    for site_minimum in {0, 2, minimum - 1, minimum, minimum + 1, sites}:
        header = header_of(sites, site_minimum=site_minimum)
        fewest = min(sites, minimum_sites(threshold(sites, 0), site_minimum, 0, 0))
        if fewest >= minimum:
            ask(text, header)
        else:
            match = f"a sum over as few as {fewest} sites; this site asks for {minimum}"
            assert "cohort.minimum" in refused(text, header, match)


@pytest.mark.parametrize("colluders", [0, 1, 2, 3])
@pytest.mark.parametrize("asked", [0, 1, 2, 3, 254])
def test_a_round_is_safe_against_as_many_colluders_as_the_policy_asks_for(asked: int, colluders: int) -> None:
    text = f"[cohort]\ncolluders = {asked}\n{OPEN}"
    header = header_of(6, colluders=colluders)
    if colluders >= asked:
        ask(text, header)
    else:
        match = f"a round safe against {colluders} colluding sites; this site asks for {asked}"
        assert "cohort.colluders" in refused(text, header, match)


# Limits


def test_a_plan_may_clip_as_high_as_the_policy_says_and_no_higher() -> None:
    text = '[releases]\nupdate = ["local", "distributed", "client"]\n[limits]\nclip_norm = 1.0\n'
    for plan in (LOCAL, SKELLAM, replace(SKELLAM, unit=int(Unit.SITE))):
        ask(text, header_of(3), "update", plan)
        ask(text.replace("1.0", "2.0"), header_of(3), "update", replace(plan, clip_norm=2.0))
        refused(
            text, header_of(3), "a plan with clip norm 1.5; this site allows 1", "update", replace(plan, clip_norm=1.5)
        )
