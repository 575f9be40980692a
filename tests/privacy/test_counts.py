"""Releases of counts: what may be counted, what a layout has to leave, and that a person moves one cell a table."""

import math
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from scipy import stats
from support.keys import make_roster
from support.rounds import make_header

from fedseal.errors import ConfigError, PeerError
from fedseal.privacy.counts import (
    Axis,
    Source,
    Table,
    Tables,
    agreement,
    check_tables,
    codes,
    counted,
    encode_tables,
    labels,
    read_tables,
)
from fedseal.privacy.inference.tally import CountNoise
from fedseal.privacy.plan import NoPrivacy, PlanKind, SharedGeometric, encode_plan
from fedseal.privacy.polya import polya
from fedseal.privacy.quantize import Layout, Rounding, SumRangeError, bound, check_sum, signed
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.releases import (
    COUNTS,
    EVALUATION,
    REGISTRY,
    UPDATE,
    VALUES,
    MetricRange,
    check_layout,
    release_layout,
)
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import Room, add_share, room, room_of

SITES, COLLUDERS, MINIMUM = 6, 1, 4
LENGTH = 12
PLAN = SharedGeometric(epsilon=1.0, cells=1, length=LENGTH, releases=1, retries=0)
BOTH = (COUNTS, EVALUATION)


# Tables

LABELS = labels(3)
BINS = Axis(int(Source.FEATURE), (0.0, 1.0, 2.5), outside=True, number=1)


@pytest.mark.parametrize(
    ("axis", "values", "places"),
    [
        (LABELS, [0, 1, 2, -1, 3, np.nan], [0, 1, 2, 0, 2, -1]),
        (BINS, [0, 0.99, 1, 2.5, -0.1, 2.6, np.nan, np.inf, -np.inf], [0, 0, 1, 1, 2, 3, 4, 3, 2]),
        (Axis(int(Source.SCORE), (0.0, 0.5, 1.0)), [0.0, 0.4999, 0.5, 1.0], [0, 0, 1, 1]),
    ],
)
def test_every_number_has_its_cell(axis: Axis, values: list[float], places: list[int]) -> None:
    assert axis.places(np.array(values, dtype=float)).tolist() == places


def test_counts_are_those_of_persons_one_by_one() -> None:
    """The twin: a dictionary of cells, person by person."""
    rng = np.random.default_rng(4)
    label, feature = rng.integers(0, 3, 500).astype(float), rng.normal(1, 1, 500)
    feature[::7] = np.nan
    tables = Tables((Table((LABELS, BINS)), Table((BINS,))))
    found = counted(tables, lambda axis: label if axis == LABELS else feature)
    cells: dict[tuple[int, ...], int] = {}
    for y, x in zip(label, feature, strict=True):
        place = 4 if math.isnan(x) else 2 if x < 0 else 3 if x > 2.5 else int(x >= 1)
        for key in ((0, int(y), place), (1, place)):
            cells[key] = cells.get(key, 0) + 1
    both, one = tables.split(found)
    assert both.shape == (3, 5)
    assert {(0, *k): int(v) for k, v in np.ndenumerate(both) if v} | {
        (1, *k): int(v) for k, v in np.ndenumerate(one) if v
    } == cells
    assert found.sum() == 1000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), min_size=1, max_size=30), st.booleans(), st.integers(0, 29))
def test_one_person_moves_at_most_one_cell_of_a_table_by_one(values: list[float], outside: bool, who: int) -> None:
    tables = Tables((Table((replace(BINS, outside=outside),)), Table((LABELS,))))
    whole = np.array(values)
    rest = np.delete(whole, who % len(values))
    moved = np.abs(counted(tables, lambda _: whole) - counted(tables, lambda _: rest))
    assert moved.sum() <= len(tables.tables)
    assert moved.max() <= 1


def test_two_columns_that_agree_are_on_the_diagonal() -> None:
    table = agreement("first", "second", 3)
    said = {"first": np.array([0.0, 1, 2, 2, np.nan]), "second": np.array([0.0, 1, 2, 0, 1])}
    found = Tables((table,)).split(counted(Tables((table,)), lambda axis: said[axis.name]))[0]
    assert found.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 1]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Axis(int(Source.LABEL), (0.0,)),
        lambda: Axis(int(Source.LABEL), (0.0, 0.0)),
        lambda: Axis(int(Source.LABEL), (1.0, 0.0)),
        lambda: Axis(int(Source.LABEL), (0.0, math.inf)),
        lambda: Axis(6, (0.0, 1.0)),
        lambda: Axis(int(Source.LABEL), (0.0, 1.0), number=1),
        lambda: Axis(int(Source.LABEL), (0.0, 1.0), name="age"),
        lambda: Axis(int(Source.COLUMN), (0.0, 1.0)),
        lambda: Table(()),
        lambda: Table((labels(1 << 10), labels(1 << 11))),
        lambda: Tables(()),
    ],
)
def test_what_is_no_table_cannot_exist(make: Any) -> None:
    with pytest.raises(ValueError, match=r"needs|expected|goes with"):
        make()


@pytest.mark.parametrize("raw", [None, b"", b"garbage", encode_plan(PLAN), "score"])
def test_tables_that_are_not_in_the_closed_list_are_the_servers_fault(raw: object) -> None:
    tables = Tables((Table((LABELS,)),))
    assert read_tables(encode_tables(tables)) == tables
    with pytest.raises(PeerError, match="closed list") as caught:
        read_tables(raw)
    assert caught.value.peer == "server"


def test_a_person_in_more_cells_than_the_noise_covers_is_refused() -> None:
    one, two = Tables((Table((LABELS,)),)), Tables((Table((LABELS,)), Table((LABELS,))))
    plan = replace(PLAN, length=6)
    check_tables(one, 3, plan)
    check_tables(two, 6, replace(plan, cells=2))
    # Without privacy nothing is covered anyway.
    check_tables(two, 6, NoPrivacy(releases=1, retries=0))
    with pytest.raises(PeerError, match="more cells than the plan"):
        check_tables(two, 6, plan)
    with pytest.raises(PeerError, match="another length"):
        check_tables(one, 6, plan)


# Layouts


def space(plan: SharedGeometric = PLAN, sites: int = SITES) -> Room:
    found = room(plan, sites=sites, minimum=MINIMUM, colluders=COLLUDERS)
    if found is None:
        raise AssertionError("no room")
    return found


def layout_for(name: str = COUNTS, **changes: Any) -> Layout:
    arguments: dict[str, Any] = {
        "values": LENGTH,
        "value_range": 100.0,
        "weight_key": "num-examples",
        "largest_weight": 500,
        "metrics": {},
        "sites": SITES,
        "room": space(),
    }
    return release_layout(REGISTRY[name], **(arguments | changes))


def header_for(name: str = COUNTS, **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "release_name": name,
        "colluders": COLLUDERS,
        "noise_minimum": MINIMUM,
        "plan": encode_plan(PLAN),
    }
    layout = changes.pop("layout", None) or layout_for(name)
    return make_header(make_roster(SITES), list(range(1, SITES + 1)), layout, **(fields | changes))


def accepts(header: Header) -> None:
    """What a site checks of a header's noise and layout."""
    check_layout(REGISTRY[header.release_name], PlanKind.HISTOGRAM, header.layout, SITES, room=room_of(header, PLAN))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_a_layout_of_counts_is_one_the_site_makes_itself(name: str, rounding: Rounding, ring_bits: int) -> None:
    layout = layout_for(name, rounding=rounding, ring_bits=ring_bits)
    accepts(header_for(name, layout=layout))
    counts = layout.segments[0]
    assert (counts.name, counts.low, counts.high, counts.scale, counts.weighted) == (VALUES, 0.0, 100.0, 1.0, False)
    assert counts.headroom == space().headroom
    assert [s.headroom for s in layout.segments[1:]] == [0, 0]


def changed(**changes: Any) -> dict[str, Any]:
    layout = layout_for()
    return {"layout": replace(layout, segments=(replace(layout.segments[0], **changes), *layout.segments[1:]))}


UNDER_NOISED: dict[str, dict[str, Any]] = {
    "nobody is assumed to collude": {"colluders": 0},
    "no site is counted on": {"noise_minimum": 0},
    "only the colluder is counted on": {"noise_minimum": COLLUDERS},
    "more sites are counted on than there are": {"noise_minimum": SITES + 1},
    "a finer scale": changed(scale=2.0),
    "counts that may be negative": changed(low=-100.0),
    "a longer vector than was charged for": {"layout": layout_for(values=LENGTH + 1)},
    "a shorter vector than was charged for": {"layout": layout_for(values=LENGTH - 1)},
    "less room than the noise needs": changed(headroom=space().headroom - 1),
    "no noise": {"layout": layout_for(room=None)},
    "weighted counts": changed(weighted=True),
}


@pytest.mark.parametrize("name", UNDER_NOISED)
def test_a_header_that_could_end_in_too_little_noise_is_refused(name: str) -> None:
    accepts(header_for())
    with pytest.raises(PeerError) as caught:
        accepts(header_for(**UNDER_NOISED[name]))
    assert caught.value.peer == "server"


def test_counts_take_no_metrics_along_and_vectors_no_plan_for_counts() -> None:
    metrics = {"loss": MetricRange(0.0, 1.0)}
    for name in BOTH:
        with pytest.raises(PeerError, match="metrics of persons beside a private release"):
            accepts(header_for(name, layout=layout_for(name, metrics=metrics)))
    with pytest.raises(PeerError, match="under plan histogram"):
        check_layout(REGISTRY[UPDATE], PlanKind.HISTOGRAM, layout_for(UPDATE, room=None), SITES)
    assert not REGISTRY[UPDATE].counted(PlanKind.HISTOGRAM)
    assert not REGISTRY[EVALUATION].counted(PlanKind.NONE)


@pytest.mark.parametrize(
    "changes", [{"value_range": 0.5}, {"value_range": 2.5}, {"value_range": 2.0**60}, {"values": 0}, {"ring_bits": 12}]
)
def test_a_layout_that_cannot_hold_counts_is_not_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        layout_for(**changes)


# Sums


def stream(*purpose: str | int) -> Stream:
    return KeyedRandomness(23, "counts").stream(*purpose)


def noisy_sum(plan: SharedGeometric, sites: range, honest: int, exact: int = 7) -> NDArray[np.int64]:
    """The noise in a sum of shares of these sites, with the very code that a site runs."""
    found = Room(plan, SITES, honest)
    layout = layout_for(values=plan.length, room=found)
    total = np.zeros(layout.length, dtype=np.int64)
    for site in sites:
        values = {VALUES: np.full(plan.length, float(exact)), "weight:num-examples": np.zeros(1)}
        update = bound(values | {"clipped": np.zeros(1)}, layout, stream("round", site))
        add_share(update, found, stream("share", site))
        total += signed(update.vector)
    return (total - exact * len(sites))[: plan.length]


def chi_square(noise: NDArray[np.int64], masses: NDArray[np.float64]) -> float:
    """The p-value of noise against masses of -k..k, the tails lumped together."""
    k = len(masses) // 2
    seen = np.bincount(np.clip(noise, -k - 1, k + 1) + k + 1, minlength=2 * k + 3)
    tail = (1 - masses.sum()) / 2
    expected = np.concatenate([[tail], masses, [tail]]) * len(noise)
    keep = expected >= 5
    seen, expected = seen[keep], expected[keep]
    return float(stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue)


def two_sided(decay: float, k: int = 40) -> NDArray[np.float64]:
    """Ghosh, Roughgarden and Sundararajan 2009: P(x) = (1 - q) / (1 + q) q^|x|."""
    q = math.exp(-decay)
    return np.asarray((1 - q) / (1 + q) * q ** np.abs(np.arange(-k, k + 1)))


@pytest.mark.parametrize(("epsilon", "cells"), [(1.0, 1), (1.0, 2), (0.3, 1)])
def test_what_the_honest_survivors_add_is_two_sided_geometric(epsilon: float, cells: int) -> None:
    """Four have to be left, one of them colludes: the shares of three are the whole noise, and no less."""
    plan = SharedGeometric(epsilon=epsilon, cells=cells, length=20_000, releases=1, retries=0)
    assert chi_square(noisy_sum(plan, range(1, 4), MINIMUM - COLLUDERS), two_sided(epsilon / cells)) > 1e-3


def test_half_the_noise_is_noticed() -> None:
    """The twins: shares made for all six sites of which three are left, and noise of twice the epsilon."""
    plan = replace(PLAN, length=20_000)
    assert chi_square(noisy_sum(plan, range(1, 4), SITES), two_sided(1.0)) < 1e-6
    assert chi_square(noisy_sum(replace(plan, epsilon=2.0), range(1, 4), 3), two_sided(1.0)) < 1e-6


def test_no_outcome_is_more_than_e_epsilon_times_as_likely_without_a_person() -> None:
    """Pure epsilon, of the masses: a person moves a count by one. With half the noise it does not hold."""
    masses = two_sided(1.0)
    assert np.max(masses[1:] / masses[:-1]) <= math.exp(1.0) * (1 + 1e-12)
    half = two_sided(2.0)
    assert np.max(half[1:] / half[:-1]) > math.exp(1.0)


def test_the_noise_that_intervals_are_made_of_is_that_of_the_shares() -> None:
    """Five shares where three are counted on: the sum of Polya shares against numpy's negative binomials."""
    noise = CountNoise(decay=0.7, shares=5, honest=3)
    drawn = noise.draw(np.random.default_rng(1), (20_000,))
    summed = np.sum([polya(3, 0.7, stream("polya", i), 20_000) for i in range(5)], axis=0)
    assert noise.variance == pytest.approx(5 / 3 * 2 * math.exp(-0.7) / (1 - math.exp(-0.7)) ** 2)
    for found in (drawn, summed):
        spread = float(np.square(found.astype(float)).mean())
        assert spread == pytest.approx(noise.variance, rel=0.06)
    assert stats.ks_2samp(drawn, summed).pvalue > 1e-3


def test_a_sum_of_counts_may_be_as_far_out_as_its_noise_and_no_further() -> None:
    layout = layout_for()
    top, low = SITES * 100 + space().headroom, -space().headroom
    vector = np.zeros(layout.length, dtype=np.int32)
    for value, step in ((top, 1), (low, -1)):
        vector[3] = value
        check_sum(layout, SITES, vector.view(np.uint32))
        vector[3] += step
        with pytest.raises(SumRangeError, match="the sum of 'values'"):
            check_sum(layout, SITES, vector.view(np.uint32))
        vector[3] = 0
    # Without noise no count is below 0 or above what all sites may have.
    exact = layout_for(room=None)
    vector[3] = -1
    with pytest.raises(SumRangeError):
        check_sum(exact, SITES, vector.view(np.uint32))


def test_codes_are_whole_numbers() -> None:
    axis = codes(Source.FEATURE, 4, number=2)
    assert axis.cells == 4
    assert axis.places(np.arange(4.0)).tolist() == [0, 1, 2, 3]
