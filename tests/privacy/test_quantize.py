"""From reals to a ring and back: no honest sum wraps, the mean stays within its bound, rounding has no bias."""

import math
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings
from numpy.typing import NDArray
from support.keys import make_roster
from support.rounds import make_header

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.quantize import (
    CHUNK,
    BoundedUpdate,
    IntegerSum,
    Layout,
    RangeError,
    Rounding,
    Segment,
    SumRangeError,
    bound,
    check_sum,
    levels_for,
    mean_error,
    ranged_segment,
    weight_segment,
)
from fedseal.privacy.randomness import Stream

Real = NDArray[np.float64]
# The layout, and per site its weight as a fraction of the largest, its weight in examples, and its values.
Release = tuple[Layout, list[float], list[int], Real]
rings = st.sampled_from([32, 64])
roundings = st.sampled_from(list(Rounding))
bounds = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False), min_size=2, max_size=2, unique=True).map(sorted)


def stream(purpose: int = 0) -> Stream:
    return Stream(purpose.to_bytes(32, "big"))


def total_of(updates: list[BoundedUpdate]) -> IntegerSum:
    """What the protocol hands to the server: the sum modulo the ring, checked."""
    vector = updates[0].vector.copy()
    for update in updates[1:]:
        vector += update.vector
    return check_sum(updates[0].layout, len(updates), vector)


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, int, int]:
    """A segment as `ranged_segment` makes it, with its number of sites and ring."""
    low, high = draw(bounds)
    assume(high - low > 1e-6)
    sites, ring_bits = draw(st.integers(2, 256)), draw(rings)
    weighted = draw(st.booleans())
    return ranged_segment("x", 1, low, high, sites=sites, ring_bits=ring_bits, weighted=weighted), sites, ring_bits


@settings(max_examples=300, deadline=None)
@given(segments(), roundings)
def test_no_sum_of_the_most_extreme_honest_values_wraps(made: tuple[Segment, int, int], rounding: Rounding) -> None:
    segment, sites, ring_bits = made
    layout = Layout(ring_bits, int(rounding), (segment,))
    assert layout.capacity() >= sites
    many = layout.capacity()
    assert many * segment.levels <= 2 ** (ring_bits - 1) - 1 < (many + 1) * segment.levels
    low, high = segment.integer_range(many)
    assert -(2 ** (ring_bits - 1)) <= low <= high < 2 ** (ring_bits - 1)
    for extreme in (segment.low, segment.high):
        vector = bound({"x": np.array([extreme])}, layout, stream()).vector
        one = int(vector.view(f"<i{ring_bits // 8}")[0])
        assert abs(one) <= segment.levels
        assert low <= many * one <= high


def test_a_full_cohort_at_the_top_of_the_ring_adds_up() -> None:
    """256 sites, all at the largest value, as words in the ring."""
    for ring_bits in (32, 64):
        segment = ranged_segment("x", 2, -3.0, 7.0, sites=256, ring_bits=ring_bits, weighted=False)
        layout = Layout(ring_bits, 0, (segment,))
        updates = [bound({"x": np.array([7.0, -3.0])}, layout, stream()) for _ in range(256)]
        assert total_of(updates).real("x") == pytest.approx([256 * 7, -256 * 3], rel=1e-6)


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_one_site_more_than_the_capacity_makes_no_header(ring_bits: int) -> None:
    """The bound is sharp: with one level more, the largest sum would be the ring's smallest number."""
    roster, most = make_roster(4), (2 ** (ring_bits - 1) - 1) // 4
    fits, wraps = float(min(most, 2**52)), float(most + 1)
    segment = Segment("x", 1, -fits, fits, 1.0, False)
    assert make_header(roster, [1, 2, 3, 4], Layout(ring_bits, 0, (segment,))).layout.capacity() >= 4
    with pytest.raises(ValueError, match=r"wrap around|finer than doubles"):
        make_header(roster, [1, 2, 3, 4], Layout(ring_bits, 0, (Segment("x", 1, -wraps, wraps, 1.0, False),)))


def test_one_coarse_segment_makes_the_whole_layout_illegal() -> None:
    fine, coarse = Segment("a", 1, 0.0, 1.0, 1.0, False), Segment("b", 1, 0.0, 1.0, 2.0**31 - 1, False)
    assert Layout(32, 0, (fine,)).capacity() == 2**31 - 1
    assert Layout(32, 0, (fine, coarse)).capacity() == 1
    with pytest.raises(ValueError, match="wrap around"):
        make_header(make_roster(2), [1, 2], Layout(32, 0, (fine, coarse)))


@st.composite
def cohorts(draw: st.DrawFn, ring_bits: int) -> Release:
    """A release as the server lays it out: values in [-R, R] and weights in examples, per site."""
    sites = draw(st.integers(2, 12))
    largest = draw(st.integers(1, 10_000))
    radius = draw(st.floats(1e-3, 1e3))
    layout = Layout(
        ring_bits,
        int(draw(roundings)),
        (
            ranged_segment("values", 3, -radius, radius, sites=sites, ring_bits=ring_bits, weighted=True),
            weight_segment("n", largest, sites=sites, ring_bits=ring_bits),
        ),
    )
    weights = draw(st.lists(st.integers(1, largest), min_size=sites, max_size=sites))
    unit = st.floats(-1, 1, allow_subnormal=False)
    values = draw(st.lists(st.lists(unit, min_size=3, max_size=3), min_size=sites, max_size=sites))
    return layout, [w / largest for w in weights], weights, radius * np.array(values)


def mean_and_its_error(layout: Layout, fractions: list[float], weights: list[int], values: Real) -> tuple[float, float]:
    """How far the decoded weighted mean is from the clear one, and how far it may be."""
    updates = [
        bound({"values": f * v, "weight:n": np.array([float(w)])}, layout, stream(i))
        for i, (f, w, v) in enumerate(zip(fractions, weights, values, strict=True))
    ]
    total = total_of(updates)
    largest = layout.weight.high
    decoded = total.real("values") / (total.weight / largest)
    exact = [Fraction(w) / int(largest) for w in weights]
    clear = [sum(f * Fraction(float(v[i])) for f, v in zip(exact, values, strict=True)) / sum(exact) for i in range(3)]
    allowed = mean_error(layout.segment("values"), Rounding(layout.rounding), len(weights), sum(fractions))
    return max(abs(float(Fraction(float(d)) - c)) for d, c in zip(decoded, clear, strict=True)), allowed


@settings(max_examples=300, deadline=None)
@given(cohorts(32))
def test_the_decoded_mean_is_within_its_error_of_the_clear_mean(
    made: tuple[Layout, list[float], list[int], Real],
) -> None:
    error, allowed = mean_and_its_error(*made)
    # Doubles carry 53 bits and the ring 31, so floating point adds next to nothing to the bound.
    assert error <= allowed * (1 + 1e-6)


@settings(max_examples=200, deadline=None)
@given(cohorts(64))
def test_in_the_large_ring_the_error_is_that_of_a_double(made: Release) -> None:
    """The integers are finer than doubles count here: what remains is the rounding of the doubles themselves."""
    error, allowed = mean_and_its_error(*made)
    radius = made[0].segment("values").high
    assert error <= allowed + 8 * len(made[2]) * 2.0**-53 * radius / sum(made[1]) * max(made[1])


def test_nearest_rounding_errs_by_half_a_unit_and_stochastic_by_less_than_one() -> None:
    values = np.linspace(-1, 1, 10_001)
    for rounding, largest in ((Rounding.NEAREST, 0.5), (Rounding.STOCHASTIC, 1.0)):
        layout = Layout(32, int(rounding), (Segment("x", len(values), -1.0, 1.0, 997.0, False),))
        real = check_sum(layout, 1, bound({"x": values}, layout, stream()).vector).real("x")
        error = np.abs(real - values) * 997
        assert error.max() <= largest + 1e-9
        assert error.max() > 0.9 * largest
        assert rounding.largest_error == largest


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("whole", [-12, 0, 7])
def test_stochastic_rounding_is_unbiased(fraction: float, whole: int) -> None:
    count = 400_000
    layout = Layout(32, int(Rounding.STOCHASTIC), (Segment("x", count, -100.0, 100.0, 1.0, False),))
    values = np.full(count, whole + fraction)
    words = bound({"x": values}, layout, stream(whole + 50)).vector.view("<i4")
    assert set(np.unique(words)) <= {whole, whole + 1}
    ups = int((words == whole + 1).sum())
    spread = math.sqrt(count * fraction * (1 - fraction))
    assert abs(ups - count * fraction) <= 4 * spread


@pytest.mark.parametrize("fraction", [0.0, 0.5])
@pytest.mark.parametrize("whole", [2**40, 2**51 - 2, 3 * 2**50])
def test_stochastic_rounding_is_unbiased_up_to_the_finest_level(whole: int, fraction: float) -> None:
    """Below 2^52 a double holds every half, so these values are exact; adding a coin to them is not."""
    count = 100_000
    layout = Layout(64, int(Rounding.STOCHASTIC), (Segment("x", count, -1.0, 1.0, 2.0**52, False),))
    words = bound({"x": np.full(count, (whole + fraction) * 2.0**-52)}, layout, stream(1)).vector.view("<i8")
    ups = int((words == whole + 1).sum())
    assert int((words == whole).sum()) + ups == count
    assert abs(ups - count * fraction) <= 4 * math.sqrt(count * fraction * (1 - fraction))


def test_every_chunk_has_coins_of_its_own() -> None:
    count = 2 * CHUNK
    layout = Layout(32, int(Rounding.STOCHASTIC), (Segment("x", count, 0.0, 1.0, 1.0, False),))
    words = bound({"x": np.full(count, 0.5)}, layout, stream()).vector
    assert not np.array_equal(words[:CHUNK], words[CHUNK:])


def test_chunks_do_not_change_the_nearest_rounding() -> None:
    count = CHUNK + 17
    layout = Layout(32, int(Rounding.NEAREST), (Segment("x", count, -1.0, 1.0, 1000.0, False),))
    values = np.sin(np.arange(count))
    assert np.array_equal(bound({"x": values}, layout, stream()).vector.view("<i4"), np.rint(values * 1000).astype(int))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 256), st.integers(1, 10**7), rings, roundings, st.data())
def test_weights_are_exact_whole_numbers(
    sites: int, largest: int, ring_bits: int, rounding: Rounding, data: st.DataObject
) -> None:
    if levels_for(sites, ring_bits) < largest:
        with pytest.raises(ConfigError, match="do not fit"):
            weight_segment("n", largest, sites=sites, ring_bits=ring_bits)
        return
    segment = weight_segment("n", largest, sites=sites, ring_bits=ring_bits)
    layout = Layout(ring_bits, int(rounding), (segment,))
    assert segment.name == "weight:n"
    assert layout.weight is segment
    assert layout.capacity() >= sites
    weights = data.draw(st.lists(st.integers(0, largest), min_size=2, max_size=min(sites, 20)))
    updates = [bound({"weight:n": np.array([float(w)])}, layout, stream(i)) for i, w in enumerate(weights)]
    assert total_of(updates).weight == sum(weights)


@pytest.mark.parametrize("sites", [2, 3, 100, 256])
def test_the_largest_weight_ends_where_the_ring_does(sites: int) -> None:
    most = levels_for(sites, 32)
    assert weight_segment("n", most, sites=sites, ring_bits=32).scale == 1.0
    for wrong in (most + 1, 0, -1):
        with pytest.raises(ConfigError, match=f"{wrong} examples a site do not fit 32 bits for {sites} sites"):
            weight_segment("n", wrong, sites=sites, ring_bits=32)


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_the_sum_of_weights_is_exact_though_its_integer_is_beyond_doubles(ring_bits: int) -> None:
    layout = Layout(ring_bits, int(Rounding.NEAREST), (weight_segment("n", 92, sites=5, ring_bits=ring_bits),))
    weights = [1, 92, 92, 92, 92]
    assert total_of([bound({"weight:n": np.array([float(w)])}, layout, stream()) for w in weights]).weight == 369.0


@pytest.mark.parametrize("ring_bits", [32, 64])
def test_the_coins_of_stochastic_rounding_leave_weights_alone(ring_bits: int) -> None:
    """A weight is a whole number of units, so there is nothing to round, whatever the coin."""
    layout = Layout(ring_bits, int(Rounding.STOCHASTIC), (weight_segment("n", 100, sites=3, ring_bits=ring_bits),))
    found = {total_of([bound({"weight:n": np.array([99.0])}, layout, stream(i))]).weight for i in range(200)}
    assert found == {99.0}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.001, -2.001, 1e308, -1e308])
@pytest.mark.parametrize("place", [0, 1, 4])
def test_a_value_out_of_range_is_refused_and_not_shown(value: float, place: int) -> None:
    layout = Layout(32, 0, (Segment("a", 1, 0.0, 1.0, 10.0, False), Segment("x", 5, -2.0, 1.0, 10.0, False)))
    values = np.zeros(5)
    values[place] = value
    with pytest.raises(RangeError, match="a value of 'x' is outside") as caught:
        bound({"a": np.zeros(1), "x": values}, layout, stream())
    assert caught.value.segment == "x"
    assert str(value) not in caught.value.explain()


@settings(max_examples=200, deadline=None)
@given(st.floats(-2, 1), st.booleans())
def test_a_value_in_its_range_is_never_refused(value: float, weighted: bool) -> None:
    layout = Layout(32, 0, (Segment("x", 1, -2.0, 1.0, 10.0, weighted),))
    bound({"x": np.array([value])}, layout, stream())


def test_the_range_of_a_weighted_segment_includes_zero() -> None:
    """Weight times value is small where the weight is."""
    plain, weighted = (Layout(32, 0, (Segment("x", 1, 2.0, 3.0, 10.0, w),)) for w in (False, True))
    assert bound({"x": np.array([0.1])}, weighted, stream()).vector[0] == 1
    with pytest.raises(RangeError):
        bound({"x": np.array([0.1])}, plain, stream())
    assert plain.segments[0].integer_range(3) == (60, 90)
    assert weighted.segments[0].integer_range(3) == (0, 90)


@pytest.mark.parametrize("excess", [1, 1000])
@pytest.mark.parametrize("sites", [1, 3])
@pytest.mark.parametrize("ring_bits", [32, 64])
def test_a_sum_that_honest_sites_cannot_make_is_refused(ring_bits: int, sites: int, excess: int) -> None:
    layout = Layout(ring_bits, 0, (Segment("a", 2, -1.0, 2.0, 10.0, False), Segment("b", 1, 0.0, 1.0, 10.0, False)))
    for place, low, high in ((0, -10, 20), (1, -10, 20), (2, 0, 10)):
        for good, bad in ((sites * low, sites * low - excess), (sites * high, sites * high + excess)):
            words: Any = np.zeros(3, dtype=f"<i{ring_bits // 8}")
            words[place] = good
            check_sum(layout, sites, words.view(f"<u{ring_bits // 8}"))
            words[place] = bad
            with pytest.raises(SumRangeError, match=f"the sum of '{'aab'[place]}' is outside"):
                check_sum(layout, sites, words.view(f"<u{ring_bits // 8}"))


@pytest.mark.parametrize("values", [{}, {"x": np.zeros(2), "y": np.zeros(1)}, {"y": np.zeros(2)}])
def test_values_for_other_segments_are_a_bug(values: dict[str, Real]) -> None:
    layout = Layout(32, 0, (Segment("x", 2, 0.0, 1.0, 1.0, False),))
    with pytest.raises(LocalError, match="exactly one vector"):
        bound(values, layout, stream())


@pytest.mark.parametrize("shape", [(1,), (3,), (2, 1), ()])
def test_values_of_another_shape_are_a_bug(shape: tuple[int, ...]) -> None:
    layout = Layout(32, 0, (Segment("x", 2, 0.0, 1.0, 1.0, False),))
    with pytest.raises(LocalError, match="expected 2 values for 'x'"):
        bound({"x": np.zeros(shape)}, layout, stream())


def test_segments_are_found_by_name_and_lie_one_after_the_other() -> None:
    layout = Layout(32, 0, tuple(Segment(n, k, 0.0, 1.0, 1.0, False) for n, k in (("a", 2), ("weight:n", 1), ("b", 3))))
    assert layout.length == 6
    assert layout.offsets() == {"a": slice(0, 2), "weight:n": slice(2, 3), "b": slice(3, 6)}
    assert layout.weight is layout.segment("weight:n")
    with pytest.raises(LocalError, match="no segment 'c'"):
        layout.segment("c")
    with pytest.raises(LocalError, match="no weights"):
        _ = Layout(32, 0, layout.segments[:1]).weight


@pytest.mark.parametrize(
    ("ring_bits", "rounding", "names"), [(11, 0, "a"), (32, 2, "a"), (32, 0, ""), (32, 0, "aa"), (0, 0, "a")]
)
def test_a_layout_that_contradicts_itself_cannot_exist(ring_bits: int, rounding: int, names: str) -> None:
    with pytest.raises(ValueError, match=r"a layout needs|share a name"):
        Layout(ring_bits, rounding, tuple(Segment(n, 1, 0.0, 1.0, 1.0, False) for n in names))


@pytest.mark.parametrize(
    ("low", "high", "scale"), [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (0.0, 1.0, 0.0), (0.0, 1.0, -1.0)]
)
def test_a_segment_without_range_or_scale_cannot_exist(low: float, high: float, scale: float) -> None:
    with pytest.raises(ValueError, match="low < high and a positive scale"):
        Segment("x", 1, float(low), float(high), float(scale), False)


def test_a_segment_finer_than_doubles_count_cannot_exist() -> None:
    assert Segment("x", 1, 0.0, 1.0, 2.0**52, False).levels == 2**52
    with pytest.raises(ValueError, match="finer than doubles"):
        Segment("x", 1, 0.0, 1.0, 2.0**52 + 1, False)
