"""The matrix of stage x kind x count: no cell breaks a promise, and for each kind a build that does is noticed."""

from collections import Counter
from collections.abc import Iterator

import pytest
from support import fault_twins as twins

from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.faults.attacks import Attack, Lie
from fedseal.simulation.faults.cells import LIES, Cell, Fault, Shape, all_cells
from fedseal.simulation.faults.matrix import Breach, run_cell, run_matrix

SIX, FIVE = Shape(6, 1), Shape(5, 0)
CELLS = list(all_cells())
# A stride that has no factor in common with the number of stages, counts or lies.
SOME = CELLS[::7]


def test_there_are_enough_cells_and_each_is_there_once() -> None:
    assert len(CELLS) == len(set(CELLS)) >= 500
    for shape in (SIX, FIVE):
        counts = {cell.count for cell in CELLS if cell.shape == shape}
        assert counts == set(range(shape.threshold + 2))
    kinds = Counter(cell.fault for cell in CELLS)
    assert set(kinds) == set(Fault) and min(kinds.values()) >= 45
    assert {cell.lie for cell in CELLS} == {None, *LIES}


def test_the_right_sum_or_a_clean_abort() -> None:
    """A seventh of the cells, of every kind."""
    report = run_matrix(SOME)
    assert [str(v.cell) for v in report.broken] == []
    assert set(report.table()) == set(run_names())
    # Neither outcome is there by default.
    finished = Counter(v.finished for v in report.verdicts)
    assert min(finished.values()) > len(SOME) / 4


def run_names() -> Iterator[str]:
    for cell in CELLS:
        yield cell.fault.value if cell.lie is None else f"{cell.lie.lie.value} and dropouts"


@pytest.mark.slow
def test_the_whole_matrix() -> None:
    report = run_matrix(CELLS)
    assert [str(v.cell) for v in report.broken] == []


@pytest.mark.slow
def test_charges_are_lost_unseen_only_where_the_restored_can_make_a_sum_alone() -> None:
    cells = [c for c in CELLS if c.fault is Fault.RESTORED]
    for verdict in run_matrix(cells).verdicts:
        alone = verdict.cell.count >= max(verdict.cell.shape.threshold, 2)
        assert bool(verdict.foreseen.unpaid) == alone or verdict.cell.stage == "advertise", str(verdict.cell)


# For each kind a build with a defect, a cell, and what the matrix says of it.

TWINS: dict[str, tuple[twins.Twin, Cell, Breach]] = {
    "dropout": (twins.dropouts_masks_left_in, Cell(SIX, Fault.DROPOUT, "masked_input", 1), Breach.WRONG_SUM),
    "below threshold": (twins.two_sites_are_enough, Cell(SIX, Fault.DROPOUT, "masked_input", 3), Breach.TOO_FEW),
    "lost": (twins.lost_vectors_count_as_there, Cell(SIX, Fault.LOST, "masked_input", 1), Breach.WRONG_SUM),
    "slow": (twins.late_vectors_are_added, Cell(SIX, Fault.SLOW, "masked_input", 1), Breach.WRONG_SUM),
    "replay": (
        twins.any_vector_is_taken,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.REPLAY, Stage.MASK)),
        Breach.WRONG_SUM,
    ),
    "wrong share, dealt": (
        twins.any_secret_is_true,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.WRONG_SHARE, Stage.SHARE)),
        Breach.WRONG_SUM,
    ),
    "wrong share, opened": (
        twins.any_share_is_true,
        Cell(SIX, Fault.DROPOUT, "masked_input", 2, Attack(Lie.WRONG_SHARE, Stage.UNMASK)),
        Breach.WRONG_SUM,
    ),
    "nan": (
        twins.not_bounded,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.NAN)),
        Breach.OTHERWISE,
    ),
    "scale": (
        twins.bounded_by_coordinate,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.SCALE, factor=-1e6)),
        Breach.UNBOUNDED,
    ),
    "sign flip": (
        twins.turned_round_behind_the_bound,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.SIGN_FLIP)),
        Breach.WRONG_SUM,
    ),
    "label flip": (
        twins.turned_round_behind_the_bound,
        Cell(SIX, Fault.DROPOUT, "before_round", 0, Attack(Lie.LABEL_FLIP)),
        Breach.WRONG_SUM,
    ),
    "server crash": (twins.forgetful_after_a_crash, Cell(SIX, Fault.CRASH, "consistency", 1), Breach.SECOND_ANSWER),
    "restored backup": (
        twins.peers_remember_nothing,
        Cell(SIX, Fault.RESTORED, "advertise", 1),
        Breach.UNCHARGED,
    ),
    "ledger": (twins.nothing_is_charged, Cell(SIX, Fault.DROPOUT, "before_round", 0), Breach.LEDGER),
    "blame": (twins.the_first_is_always_blamed, Cell(SIX, Fault.DROPOUT, "before_round", 0), Breach.INNOCENT),
    "our own error": (twins.unmasking_fails, Cell(SIX, Fault.DROPOUT, "before_round", 0), Breach.CRASHED),
}


@pytest.mark.parametrize("name", TWINS)
def test_the_matrix_notices(name: str) -> None:
    twin, cell, breach = TWINS[name]
    assert run_cell(cell).breaches == ()
    with twin():
        assert breach in run_cell(cell).breaches
    assert run_cell(cell).breaches == ()


def test_every_breach_and_every_kind_has_its_twin() -> None:
    assert {breach for _, _, breach in TWINS.values()} == set(Breach)
    assert {cell.fault for _, cell, _ in TWINS.values()} == set(Fault)
    assert {cell.lie.lie for _, cell, _ in TWINS.values() if cell.lie is not None} == set(Lie)


def test_without_the_range_check_the_honest_matrix_is_as_it_was() -> None:
    """The twins' other change, alone, breaks nothing: what they show is their own."""
    with twins.every_sum_passes():
        assert run_matrix(SOME[::15]).broken == ()
