"""What a site says of a window: apportionment, exact sensitivity on neighbouring windows, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.errors import PeerError
from fedseal.privacy.counts import Axis, Real, Source, Table, Whole, codes, labels
from fedseal.privacy.plan import SharedGeometric
from fedseal.privacy.watch import (
    Reference,
    Stratum,
    Watch,
    Weights,
    apportion,
    check_watch,
    encode_watch,
    make_reference,
    plan_watch,
    read_watch,
    site_vector,
    window_weight,
)

SCORE = Stratum("score", Table((Axis(int(Source.SCORE), tuple(i / 4 for i in range(5))),)), True)
OUTCOME = Stratum("outcome", Table((labels(2), codes(Source.RIGHT, 2))), False)
AGE = Stratum("age", Table((Axis(int(Source.FEATURE), (-1.0, 0.0, 1.0), outside=True),)), True)
BOTH = Table((labels(2, outside=True), SCORE.table.axes[0]))
WATCH = Watch((SCORE, OUTCOME, AGE), (BOTH,), 3, int(Weights.REFERENCE), 2, 1.0)
RELEASED = replace(WATCH, weights=int(Weights.RELEASED))

PASTS = st.lists(st.integers(0, 40), min_size=2, max_size=9).map(lambda x: np.array(x, dtype=np.int64))


def slow(past: Whole, seats: int) -> Whole:
    """Seat by seat, with exact fractions: the next goes where (j + 1/2) / past is smallest."""
    past = past if past.sum() else np.ones_like(past)
    found = np.zeros(len(past), dtype=np.int64)
    for _ in range(seats):
        # a / b < c / d without a division: all positive.
        best = None
        for cell, share in enumerate(past):
            if share > 0 and (best is None or (2 * found[cell] + 1) * past[best] < (2 * found[best] + 1) * share):
                best = cell
        found[best] += 1
    return found


@given(PASTS, st.integers(0, 90))
@settings(max_examples=150, deadline=None)
def test_seats_are_those_of_the_slow_method(past: Whole, seats: int) -> None:
    fast = apportion(past, seats)
    assert fast.sum() == seats
    assert fast.tolist() == slow(past, seats).tolist()


@given(PASTS, st.integers(0, 3000))
@settings(max_examples=150, deadline=None)
def test_one_seat_more_leaves_all_others_where_they_are(past: Whole, seats: int) -> None:
    moved = apportion(past, seats + 1) - apportion(past, seats)
    assert sorted(moved.tolist()) == [0] * (len(past) - 1) + [1]


def test_rounding_shares_would_move_seats() -> None:
    """The twin: the largest remainders, as the Alabama paradox has them, take a seat away from who had it."""

    def remainders(past: Whole, seats: int) -> Whole:
        quota = seats * past / past.sum()
        found: Whole = np.floor(quota).astype(np.int64)
        found[np.argsort(-(quota - found), kind="stable")[: seats - found.sum()]] += 1
        return found

    past = np.array([60, 60, 20])
    assert (remainders(past, 11) - remainders(past, 10)).min() < 0
    assert (apportion(past, 11) - apportion(past, 10)).min() == 0


def test_no_cell_is_far_from_its_share() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        past = rng.integers(1, 500, 16)
        seats = int(rng.integers(0, 5000))
        assert np.abs(apportion(past, seats) - seats * past / past.sum()).max() < 1.5


def test_a_past_of_nobody_expects_everything_alike() -> None:
    assert apportion(np.zeros(4, dtype=np.int64), 8).tolist() == [2, 2, 2, 2]


def test_the_weight_of_a_window_grows_by_at_most_three() -> None:
    for past in (0, 1, 7, 100):
        weights = [window_weight(n, past) for n in range(400)]
        assert all(0 <= b - a <= 3 for a, b in pairwise(weights))
        assert all(weights[n] == n + n * n // past for n in range(past + 1) if past)


# Sensitivity


Row = tuple[float, float, float, float]
ROW = st.tuples(
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0, np.nan]),
    st.sampled_from([0.0, 1.0]),
    st.floats(-2, 2) | st.just(np.nan),
)


def numbers_of(rows: list[Row]) -> Callable[[Axis], Real]:
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 4)

    def numbers(axis: Axis) -> Real:
        found = {Source.SCORE: 0, Source.LABEL: 1, Source.RIGHT: 2, Source.FEATURE: 3}[Source(axis.source)]
        column: Real = table[:, found]
        return np.where(np.isnan(table[:, 1]), np.nan, column) if found == 2 else column

    return numbers


def past_of(watch: Watch, seed: int, scale: int = 30) -> Reference:
    rng = np.random.default_rng(seed)
    return make_reference(watch, [rng.integers(0, scale, s.cells) for s in watch.strata])


@pytest.mark.parametrize("watch", [WATCH, RELEASED], ids=["reference", "released"])
@given(rows=st.lists(ROW, min_size=1, max_size=14), where=st.integers(0, 13), seed=st.integers(0, 20))
@settings(max_examples=120, deadline=None)
def test_a_person_moves_a_window_by_no_more_than_is_charged(
    watch: Watch, rows: list[Row], where: int, seed: int
) -> None:
    without = rows[: where % len(rows)] + rows[where % len(rows) + 1 :]
    past = past_of(watch, seed)
    first = site_vector(watch, past, numbers_of(rows), len(rows))
    second = site_vector(watch, past, numbers_of(without), len(without))
    assert len(first) == watch.length
    assert int(np.abs(first - second).sum()) <= watch.sensitivity


@pytest.mark.parametrize("watch", [WATCH, RELEASED], ids=["reference", "released"])
def test_the_sensitivity_is_reached(watch: Watch) -> None:
    """No smaller number would do: some window and person move the vector by exactly what is charged."""
    watch = replace(watch, hold_back=0)
    past = make_reference(watch, [np.array([1] + [0] * (s.cells - 1)) for s in watch.strata])
    row = (0.9, 1.0, 1.0, 0.5)
    first = site_vector(watch, past, numbers_of([row] * 4), 4)
    second = site_vector(watch, past, numbers_of([row] * 3), 3)
    assert int(np.abs(first - second).sum()) == watch.sensitivity


def test_a_threshold_on_the_number_of_persons_would_move_a_whole_window() -> None:
    """The twin of `hold_back`: zero below a minimum, everything from there on."""
    watch = replace(WATCH, hold_back=0)
    past = past_of(watch, 1)

    def gated(rows: list[Row]) -> Whole:
        found = site_vector(watch, past, numbers_of(rows), len(rows))
        return found if len(rows) >= 20 else np.zeros_like(found)

    rows: list[Row] = [(0.9, 1.0, 0.0, 0.5)] * 20
    assert np.abs(gated(rows) - gated(rows[1:])).sum() > watch.sensitivity


def test_a_site_with_no_more_than_is_held_back_adds_nothing() -> None:
    for count in (0, 1, 2):
        rows: list[Row] = [(0.9, 1.0, 0.0, 0.5)] * count
        assert not site_vector(WATCH, past_of(WATCH, 1), numbers_of(rows), count).any()
    rows = [(0.9, 1.0, 0.0, 0.5)] * 3
    assert site_vector(WATCH, past_of(WATCH, 1), numbers_of(rows), 3).any()


def test_a_site_that_is_as_it_was_adds_hardly_anything_however_large_it_is() -> None:
    """No mix of sites makes a drift: the differences of sites without one are sampling alone."""
    watch = Watch((SCORE,), (), 1, int(Weights.REFERENCE), 0, 1.0)
    past = make_reference(watch, [np.array([10, 20, 30, 40])])
    rows: list[Row] = [(cell / 4 + 0.1, 1.0, 1.0, 0.0) for cell in range(4) for _ in range(500 * (cell + 1))]
    parts = watch.split(site_vector(watch, past, numbers_of(rows), len(rows)))
    assert not parts.differences[0].any()
    assert parts.rows == (5000,)


@pytest.mark.parametrize("watch", [WATCH, RELEASED], ids=["reference", "released"])
def test_parts_are_what_a_person_would_count(watch: Watch) -> None:
    rows: list[Row] = [(0.1, 1.0, 1.0, 0.5), (0.6, 0.0, 0.0, np.nan), (0.7, 1.0, 1.0, 9.0), (0.3, np.nan, 0.0, -0.5)]
    past = past_of(watch, 3)
    parts = replace(watch, hold_back=0).split(site_vector(replace(watch, hold_back=0), past, numbers_of(rows), 4))
    assert parts.rows == (4, 3)
    score, outcome, age = parts.differences
    assert (score // watch.share + apportion(past.counts[0], 4)).tolist() == [1, 1, 2, 0]
    assert (outcome // watch.share + apportion(past.counts[1], 3)).tolist() == [1, 0, 0, 2]
    # Inside, inside, below, above, missing.
    assert (age // watch.share + apportion(past.counts[2], 4)).tolist() == [1, 1, 0, 1, 1]
    assert parts.tables[0].tolist() == [[0, 0, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    weights = tuple(window_weight(n, int(p.sum())) for n, p in zip((4, 3), past.counts, strict=False))
    assert parts.totals == (() if watch.released else weights)
    assert len(parts.weights) == (3 if watch.released else 0)


# Forms


def test_a_watch_is_read_as_it_was_written() -> None:
    assert read_watch(encode_watch(WATCH)) == WATCH


@pytest.mark.parametrize("raw", [b"", b"FS", encode_watch(WATCH)[:-1], encode_watch(WATCH) + b"x", "text", None])
def test_what_is_no_watch_is_refused(raw: object) -> None:
    with pytest.raises(PeerError, match="closed list"):
        read_watch(raw)


def test_a_round_asks_for_no_more_than_its_plan_is_charged_for() -> None:
    plan = plan_watch(WATCH, 1.0, windows=4)
    check_watch(WATCH, WATCH.length, plan)
    with pytest.raises(PeerError, match="by more than"):
        check_watch(WATCH, WATCH.length, replace(plan, cells=WATCH.sensitivity - 1))
    with pytest.raises(PeerError, match="another length"):
        check_watch(WATCH, WATCH.length + 1, plan)


def test_the_plans_noise_is_that_of_the_whole_vector() -> None:
    plan = plan_watch(WATCH, 1.0, windows=4)
    # Three strata at 2 x 3, two bases at 1 + 3, one table.
    assert (plan.cells, plan.length) == (27, 4 + 4 + 5 + 4 + 5 * 4)
    assert plan.decay == pytest.approx(1 / 27)
    assert plan_watch(RELEASED, 1.0, windows=1).cells == 3 * (6 + 3) + 2 + 1
    assert isinstance(plan, SharedGeometric)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Watch((), (), 1, 0, 0, 1.0),
        lambda: Watch((SCORE, SCORE), (), 1, 0, 0, 1.0),
        lambda: Watch((SCORE,), (), 0, 0, 0, 1.0),
        lambda: Watch((SCORE,), (), 65, 0, 0, 1.0),
        lambda: Watch((SCORE,), (), 1, 2, 0, 1.0),
        lambda: Stratum("", SCORE.table, True),
        lambda: Stratum("x", Table((Axis(int(Source.FEATURE), (0.0, 1.0)),)), True),
    ],
)
def test_forms_without_meaning_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|axis"):
        make()
