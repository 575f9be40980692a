"""Every attack of the list, three times: against the build, and against builds without what stands against it.

Against the build none succeeds, nothing is changed by a refusal, and the refusal says whose fault it was. Without its
checks each succeeds: the attacker ends up holding what it wanted, bit by bit. Where several checks stand against it,
each of them alone is enough.
"""

import runpy
from itertools import chain, combinations
from pathlib import Path

import pytest
from adversary.attack import Attack, Refusal
from adversary.attacks import ATTACKS
from adversary.field import Field, Sites, field
from adversary.removal import Check, exists, without
from support.rings import SMALL

from fedseal.errors import FedsealError
from fedseal.privacy.secagg import checks
from fedseal.privacy.secagg.parameters import PROTOCOL_RULES, GraphRules

attacks = pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.name)


def played(attack: Attack, *removed: Check) -> tuple[bool, list[Refusal]]:
    """Whether it succeeds against a build without some checks, and the refusals that it met."""
    refusals: list[Refusal] = []
    with without(removed):
        try:
            return attack.play(refusals), refusals
        except FedsealError:
            if not refusals:
                raise
            return False, refusals


@attacks
def test_it_fails_and_the_refusal_says_whose_fault_it_was(attack: Attack) -> None:
    succeeded, refusals = played(attack)
    assert not succeeded
    assert all(r.unchanged for r in refusals)
    if attack.fault is None:
        assert not refusals
        return
    first = refusals[0]
    assert first.fault == attack.fault
    assert attack.says in first.text


@attacks
def test_without_its_checks_it_succeeds(attack: Attack) -> None:
    succeeded, _ = played(attack, *attack.checks)
    assert succeeded


@pytest.mark.parametrize(
    ("attack", "kept"),
    [pytest.param(a, c, id=f"{a.name}: {c.what}") for a in ATTACKS if a.also for c in a.checks],
)
def test_each_of_several_checks_is_enough(attack: Attack, kept: Check) -> None:
    """None is there for show: with all others removed the attack still fails."""
    try:
        succeeded, _ = played(attack, *(c for c in attack.checks if c != kept))
    except (AttributeError, KeyError, ValueError):
        succeeded = False
    assert not succeeded


def test_at_least_forty_checks_are_attacked_and_each_is_in_the_code() -> None:
    targets = [(a.check.where, a.check.what) for a in ATTACKS]
    assert len(targets) >= 40
    assert len(set(targets)) == len(targets)
    assert len({a.name for a in ATTACKS}) == len(ATTACKS)
    assert all(exists(c) for a in ATTACKS for c in a.checks)


def test_what_is_not_in_the_code_cannot_be_removed() -> None:
    """The twin of the test above."""
    assert not exists(Check("privacy.secagg.checks.check_keys", "message.site in cohort"))
    assert not exists(Check("privacy.secagg.checks.nothing", "message.site not in cohort"))
    assert not exists(Check("privacy.secagg.client.TRANSITIONS", "(Confirmed, UnmaskRequest)", "None"))


def test_the_page_is_that_of_the_list() -> None:
    docs = Path(__file__).resolve().parents[2] / "docs"
    made = runpy.run_path(str(docs / "adversary.py"))
    assert (docs / "adversary.md").read_text(encoding="utf-8") == made["page"](), "run: python docs/adversary.py"


def honest_sums(f: Field) -> set[Sites]:
    """Over which honest sites the attacker has a sum after an honest round, its colluding sites' shares included."""
    everyone = f.header.cohort
    f.advertise()
    f.share()
    f.mask()
    f.confirm(lambda _: everyone)
    f.unmask(lambda _: everyone)
    subsets = chain.from_iterable(combinations(f.sites, size) for size in range(1, len(f.sites) + 1))
    return {s for s in subsets if f.has_sum_over(s)}


@pytest.mark.parametrize(
    ("n", "m", "rules"), [(5, 1, PROTOCOL_RULES), (6, 2, PROTOCOL_RULES), (7, 0, SMALL), (9, 1, SMALL)]
)
def test_an_honest_round_gives_one_sum_and_no_smaller_one(n: int, m: int, rules: GraphRules) -> None:
    """What the attacks rely on to compute their gain finds the sum that it should, and none of its parts."""
    refusals: list[Refusal] = []
    f = field(refusals, n, m=m, rules=rules, dropouts=0)
    assert honest_sums(f) == {f.sites}
    assert not refusals


def test_a_removed_check_is_back_afterwards() -> None:
    """Also where the attack ends in an error."""
    check = ATTACKS[0].check
    before = checks.open_header.__code__
    with pytest.raises(ZeroDivisionError), without([check]):
        assert checks.open_header.__code__ is not before
        _ = 1 / 0
    assert checks.open_header.__code__ is before
