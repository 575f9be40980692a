"""Two-sided truth: every disagreement that is built in is found, and an honest history has none."""

from collections.abc import Callable

import pytest
from support.two_sides import FINDS, Lie, Sides, Story

from fedseal.compliance.audit import reconcile as module
from fedseal.compliance.audit.reconcile import Dispute, Reconciled, reconcile


def compared(sides: Sides) -> Reconciled:
    return reconcile(sides.entries, sides.site, answered=sides.answered)


def found(lie: Lie, seed: int) -> set[Dispute]:
    return {one.dispute for one in compared(Story(seed, lie).told()).found}


def trial(number: int) -> tuple[Lie, set[Dispute]]:
    lie = list(Lie)[number % len(Lie)]
    return lie, found(lie, seed=number)


def test_every_kind_of_disagreement_can_be_built_in() -> None:
    assert set(FINDS) == set(Lie)
    assert set(FINDS.values()) == set(Dispute)


@pytest.mark.slow
def test_a_hundred_disagreements_are_all_found() -> None:
    missed = [lie for lie, disputes in map(trial, range(100)) if FINDS[lie] not in disputes]
    assert missed == []


@pytest.mark.slow
def test_a_thousand_disagreements_are_all_found() -> None:
    missed = [lie for lie, disputes in map(trial, range(1000, 2000)) if FINDS[lie] not in disputes]
    assert missed == []


def test_an_honest_history_with_dropouts_has_none() -> None:
    waiting = 0
    for seed in range(40):
        result = compared(Story(seed, rounds=4).told())
        assert result.found == [], seed
        waiting += result.waiting
    # Some answers were lost: entries on their way are no disagreement.
    assert waiting > 0


def nothing(*_: object) -> None:
    """A check that is not made."""


# Without the check that is named the disagreement is not seen: it is that check that finds it.
TWINS = {
    Lie.CLAIMED: "_compare_sums",
    Lie.CLAIMED_HEADER: "_compare_sums",
    Lie.DATASET: "_compare_reading",
    Lie.LABELS: "_compare_reading",
    Lie.CODE_RUN: "_compare_reading",
    Lie.CODE_OTHER: "_compare_reading",
    Lie.NOT_READ: "_compare_reading",
    Lie.PLAN: "_compare_charges",
    Lie.CHARGE_HIDDEN: "_compare_charges",
    Lie.CHARGE_EXTRA: "_compare_charges",
    Lie.EPSILON: "_compare_charges",
    Lie.OWN_REWRITTEN: "_compare_histories",
    Lie.OWN_CUT: "_compare_histories",
    Lie.OTHER_HISTORY: "_compare_histories",
    Lie.ROLLED_BACK: "_compare_histories",
}


@pytest.mark.parametrize("lie", TWINS)
def test_without_its_check_a_disagreement_is_not_seen(lie: Lie, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FINDS[lie] in found(lie, 7)
    monkeypatch.setattr(module, TWINS[lie], nothing)
    assert FINDS[lie] not in found(lie, 7)


@pytest.mark.parametrize("lie", [Lie.LEFT_OUT_SEEN, Lie.LEFT_OUT_ANSWERED, Lie.INVENTED])
def test_without_comparing_entries_nothing_left_out_or_invented_is_seen(
    lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    none: Callable[..., list[bytes]] = lambda *_: []
    assert FINDS[lie] in found(lie, 7)
    monkeypatch.setattr(module, "_compare_entries", none)
    assert FINDS[lie] not in found(lie, 7)


def test_without_the_servers_cosignature_an_entry_is_only_late() -> None:
    sides = Story(7, Lie.LEFT_OUT_ANSWERED).told()
    sides.answered = 0
    result = compared(sides)
    assert Dispute.UNLOGGED not in {one.dispute for one in result.found}
    assert result.waiting > 0


def test_what_an_answer_had_no_room_for_is_only_late(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = Story(7, Lie.LEFT_OUT_ANSWERED).told()
    assert Dispute.UNLOGGED in {one.dispute for one in compared(sides).found}
    monkeypatch.setattr(module, "MOST_EVENTS", 0)
    assert Dispute.UNLOGGED not in {one.dispute for one in compared(sides).found}


def test_a_disagreement_names_the_entries_it_is_about() -> None:
    sides = Story(3, Lie.DATASET).told()
    (one,) = compared(sides).found
    assert one.federation is not None
    assert one.own is not None
    assert b"round.contributed/v1" in sides.entries[one.federation]
    assert b"data.accessed/v1" in sides.site.own[one.own]
