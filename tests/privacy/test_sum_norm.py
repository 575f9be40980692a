"""A sum of honest vectors in a ball lies in a ball of n times its radius: what is longer is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.rounds import make_cohort

from fedseal.privacy.quantize import Layout, Rounding, Segment, SumRangeError, bound, check_sum
from fedseal.privacy.randomness import Stream
from fedseal.privacy.releases import REGISTRY, UPDATE, VALUES, release_layout
from fedseal.privacy.secagg.masks import ring_dtype
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished

RADIUS, WEIGHT = 2.0, "num-examples"


def layout(length: int, sites: int, rounding: Rounding = Rounding.STOCHASTIC, ring_bits: int = 32) -> Layout:
    return release_layout(
        REGISTRY[UPDATE],
        values=length,
        value_range=RADIUS,
        weight_key=WEIGHT,
        largest_weight=10,
        metrics={},
        sites=sites,
        ring_bits=ring_bits,
        rounding=rounding,
    )


def summed(made: Layout, vectors: list[NDArray[np.float64]]) -> NDArray[Any]:
    """The sum in the ring of sites with these values and the largest weight."""
    total = np.zeros(made.length, dtype=ring_dtype(made.ring_bits))
    for i, values in enumerate(vectors):
        named = {VALUES: values, made.weight.name: np.array([10.0]), "clipped": np.zeros(1)}
        total += bound(named, made, Stream(i.to_bytes(32, "big"))).vector
    return total


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.sampled_from(Rounding), st.sampled_from([32, 64]), st.integers(0, 9))
def test_honest_sums_are_inside(sites: int, length: int, rounding: Rounding, ring_bits: int, seed: int) -> None:
    """All at the ball's rim, in one direction: the longest sum that honest sites make."""
    direction = np.random.default_rng(seed).normal(size=length)
    rim = direction / np.linalg.norm(direction) * RADIUS
    made = layout(length, sites, rounding, ring_bits)
    assert check_sum(made, sites, summed(made, [rim] * sites)).sites == sites


def test_honest_sums_of_a_coarse_grid_are_inside() -> None:
    """With two levels rounding is as long as the values: the bound has room for it, and not for much more."""
    made = Layout(32, int(Rounding.STOCHASTIC), (Segment("x", 400, -1.0, 1.0, 2.0, True, 0, True),))
    rim = np.full(400, 1 / 20)
    total = np.zeros(400, dtype=np.uint32)
    for i in range(50):
        total += bound({"x": rim}, made, Stream(i.to_bytes(32, "big"))).vector
    check_sum(made, 50, total)
    norm = float(np.linalg.norm(total.view(np.int32)))
    assert norm > 50 * made.segments[0].scale * 0.99
    assert norm < made.segments[0].norm_limit(50, Rounding.STOCHASTIC)


def test_a_sum_whose_coordinates_are_legal_and_whose_norm_is_not_is_refused() -> None:
    """One site of three puts its range into every coordinate: each alone could be honest."""
    made = layout(100, 3)
    total = summed(made, [np.full(100, RADIUS), np.zeros(100), np.zeros(100)])
    with pytest.raises(SumRangeError, match="'values'"):
        check_sum(made, 3, total)
    # The twin: without the ball every coordinate passes, which is what was checked before.
    boxes = replace(made, segments=tuple(replace(s, ball=False) for s in made.segments))
    assert check_sum(boxes, 3, total).sites == 3


def test_noise_has_its_headroom_in_the_norm_too() -> None:
    made = Layout(32, int(Rounding.NEAREST), (Segment("x", 4, -1.0, 1.0, 10.0, True, 5, True),))
    inside, outside = np.full(4, 15, dtype=np.uint32), np.full(4, 18, dtype=np.uint32)
    assert check_sum(made, 2, inside).sites == 2
    with pytest.raises(SumRangeError):
        check_sum(made, 2, outside)
    with pytest.raises(SumRangeError):
        check_sum(replace(made, segments=(replace(made.segments[0], headroom=0),)), 2, inside)


def test_every_layout_of_a_model_says_that_its_values_lie_in_a_ball() -> None:
    assert [s.ball for s in layout(5, 3).segments] == [s.name == VALUES for s in layout(5, 3).segments]


@pytest.mark.parametrize("length", [4, 400])
def test_a_round_ends_when_a_site_sends_a_vector_longer_than_the_ball(length: int) -> None:
    """The server finds it in the sum, says so and releases nothing; inside the ball the same round finishes."""
    for long, kind in ((False, Finished), (True, Aborted)):
        cohort = make_cohort(3, length)
        segment = Segment("values", length, -1000.0, 1000.0, 1.0, False, 0, True)
        cohort.header = replace(cohort.header, layout=replace(cohort.header.layout, segments=(segment,)))
        for site in cohort.header.cohort:
            cohort.values[site] = np.zeros(length)
        cohort.values[2] = np.full(length, 1600 if long else 1000 // int(np.sqrt(length)))
        outcome = cohort.run()
        assert isinstance(outcome, kind)
        if isinstance(outcome, Aborted):
            assert outcome.reason is AbortReason.OUT_OF_RANGE
