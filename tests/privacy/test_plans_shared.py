"""Noise in shares: what plans say, which headers are refused, and what is in a sum when sites drop out."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support.keys import make_roster
from support.rounds import Cohort, make_header, signed_sum

from fedseal.errors import ConfigError, PeerError
from fedseal.privacy.plan import (
    NoPrivacy,
    PlanKind,
    SharedGeometric,
    SharedPlan,
    SharedSkellam,
    Unit,
    decode_plan,
    encode_plan,
)
from fedseal.privacy.quantize import BoundedUpdate, Layout, SumRangeError, check_sum, signed
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import REGISTRY, UPDATE, VALUES, check_layout, release_layout
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.server_states import Aborted, Finished
from fedseal.privacy.shares import Room, add_share, draw_share, noise_minimum, room, room_of, share_variance

SKELLAM: dict[str, Any] = {
    "unit": int(Unit.PERSON),
    "clip_norm": 0.5,
    "resolution": 1 << 10,
    "length": 20_000,
    "variance": 1 << 24,
    "releases": 3,
    "retries": 1,
}
GEOMETRIC: dict[str, Any] = {"epsilon": 1.0, "cells": 2, "length": 20_000, "releases": 3, "retries": 1}
PLANS: list[SharedPlan] = [SharedSkellam(**SKELLAM), SharedGeometric(**GEOMETRIC)]
SITES, COLLUDERS = 6, 1


# Plans


@pytest.mark.parametrize(
    ("kind", "fields", "changes"),
    [
        *[
            (SharedSkellam, SKELLAM, c)
            for c in (
                {"unit": 2},
                {"clip_norm": 0.0},
                {"clip_norm": math.nan},
                {"resolution": 15},
                {"resolution": 1 << 45},
                {"length": 0},
                {"variance": 1 << 9},
                {"variance": 1 << 51},
                {"releases": 0},
            )
        ],
        *[
            (SharedGeometric, GEOMETRIC, c)
            for c in ({"epsilon": 0.0}, {"epsilon": math.nan}, {"cells": 0}, {"cells": 20_001}, {"releases": 0})
        ],
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_cannot_exist(kind: Any, fields: dict[str, Any], changes: dict[str, Any]) -> None:
    kind(**fields)
    with pytest.raises(ValueError, match=r"expected|needs at least one release"):
        kind(**(fields | changes))


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_is_read_back_from_its_header(plan: SharedPlan) -> None:
    assert decode_plan(encode_plan(plan)) == plan
    assert plan.attempts == 4


def test_a_plan_says_which_kind_it_is() -> None:
    person, site = SharedSkellam(**SKELLAM), SharedSkellam(**(SKELLAM | {"unit": int(Unit.SITE)}))
    assert [p.kind.label for p in (person, site, PLANS[1])] == ["distributed", "client", "histogram"]
    assert person.noise_multiplier == pytest.approx(4.0)


# Headers


def room_in(plan: SharedPlan, sites: int = SITES, colluders: int = COLLUDERS) -> Room:
    found = room(plan, sites=sites, minimum=noise_minimum(plan, sites, colluders, 2), colluders=colluders)
    if found is None:
        raise AssertionError("a shared plan without a room")
    return found


def layout_for(plan: SharedPlan, **changes: Any) -> Layout:
    arguments: dict[str, Any] = {
        "values": plan.length,
        "value_range": 123.0,
        "weight_key": "num-examples",
        "largest_weight": 100,
        "metrics": {},
        "sites": SITES,
        "room": room_in(plan),
    }
    return release_layout(REGISTRY[UPDATE], **(arguments | changes))


def header_for(plan: SharedPlan, **changes: Any) -> Header:
    fields: dict[str, Any] = {
        "colluders": COLLUDERS,
        "noise_minimum": noise_minimum(plan, SITES, COLLUDERS, 2),
        "plan": encode_plan(plan),
    }
    layout = changes.pop("layout", None) or layout_for(plan)
    return make_header(make_roster(SITES), list(range(1, SITES + 1)), layout, **(fields | changes))


def accepts(header: Header) -> None:
    """What a site checks of a header's noise and layout."""
    plan = decode_plan(header.plan)
    check_layout(REGISTRY[UPDATE], plan.kind, header.layout, len(header.cohort), room=room_of(header, plan))


def values_with(**changes: Any) -> Layout:
    layout = layout_for(PLANS[0])
    return replace(layout, segments=(replace(layout.segments[0], **changes), *layout.segments[1:]))


UNDER_NOISED: dict[str, dict[str, Any]] = {
    "nobody is assumed to collude": {"colluders": 0},
    "no site is counted on": {"noise_minimum": 0},
    "only the colluders are counted on": {"noise_minimum": COLLUDERS},
    "more sites are counted on than there are": {"noise_minimum": SITES + 1},
    # The noise of the plan, in units of a finer scale, is less noise.
    "a finer scale": {"layout": values_with(scale=layout_for(PLANS[0]).segments[0].scale * 2)},
    "a slightly finer scale": {
        "layout": values_with(scale=math.nextafter(layout_for(PLANS[0]).segments[0].scale, math.inf))
    },
    "a wider range": {"layout": values_with(high=1.0, low=-1.0)},
    "a longer vector than was charged for": {"layout": layout_for(PLANS[0], values=20_001)},
    "a shorter vector than was charged for": {"layout": layout_for(PLANS[0], values=19_999)},
    "less room than the noise needs": {"layout": values_with(headroom=layout_for(PLANS[0]).segments[0].headroom - 1)},
    "more room than the noise needs": {"layout": values_with(headroom=layout_for(PLANS[0]).segments[0].headroom + 1)},
    "a layout without noise": {"layout": layout_for(PLANS[0], room=None)},
}


@pytest.mark.parametrize("name", UNDER_NOISED)
def test_a_header_that_could_end_in_too_little_noise_is_refused(name: str) -> None:
    accepts(header_for(PLANS[0]))
    with pytest.raises(PeerError) as caught:
        accepts(header_for(PLANS[0], **UNDER_NOISED[name]))
    assert caught.value.peer == "server"


@pytest.mark.parametrize("noise_minimum_", range(COLLUDERS + 1, SITES + 1))
def test_whatever_number_a_header_counts_on_their_shares_are_enough(noise_minimum_: int) -> None:
    """A server may count on fewer or more sites: shares follow, and with fewer survivors there is no sum."""
    plan = SharedSkellam(**SKELLAM)
    honest = noise_minimum_ - COLLUDERS
    layout = layout_for(plan, room=Room(plan, SITES, honest))
    header = header_for(plan, noise_minimum=noise_minimum_, layout=layout)
    accepts(header)
    assert header.minimum >= noise_minimum_
    assert (header.minimum - COLLUDERS) * share_variance(plan, honest) >= plan.variance
    # One site fewer on each side of the count would not do, but for what rounding up adds.
    assert (honest - 1) * share_variance(plan, honest) < plan.variance


def test_a_plan_without_shares_takes_no_room() -> None:
    plan = NoPrivacy(releases=1, retries=0)
    assert room_of(make_header(make_roster(3), [1, 2, 3], values_with(), plan=encode_plan(plan)), plan) is None
    assert noise_minimum(plan, 6, 1, 2) == 0


def test_a_layout_that_cannot_hold_values_and_noise_is_not_made() -> None:
    plan = SharedSkellam(**(SKELLAM | {"resolution": 1 << 22}))
    with pytest.raises(ConfigError, match="do not fit 32 bits"):
        layout_for(plan, room=room_in(plan))
    wide = layout_for(plan, room=room_in(plan), ring_bits=64)
    assert wide.capacity() >= SITES
    with pytest.raises(ConfigError, match="finer than doubles can count"):
        layout_for(plan, room=room_in(plan), ring_bits=64, largest_weight=1 << 31)


# Sums

ShareOf = Callable[[Room, int], NDArray[np.int64]]


@dataclass
class Noisy(Cohort):
    """A cohort whose sites add shares to their whole numbers."""

    share_of: ShareOf | None = None
    drawn: dict[int, NDArray[Any]] = field(default_factory=dict)

    def vector(self, number: int) -> BoundedUpdate:
        update = super().vector(number)
        found = room_of(self.header, decode_plan(self.header.plan))
        if found is None:
            raise AssertionError("a plan without shared noise")
        before = signed(update.vector).astype(np.int64)
        if self.share_of is None:
            add_share(update, found, KeyedRandomness(17, number).stream("share"))
        else:
            place = update.layout.offsets()[VALUES]
            share = self.share_of(found, number).astype(np.int32).view(np.uint32)
            update.vector[place] += share
        self.drawn[number] = (signed(update.vector).astype(np.int64) - before)[: decode_plan_length(self.header)]
        return update


def decode_plan_length(header: Header) -> int:
    return header.layout.segment(VALUES).length


def noise_of_a_round(plan: SharedPlan, lost: set[int], share_of: ShareOf | None = None) -> tuple[Any, Noisy]:
    """The unmasked sum minus the exact one, after sites were lost before MASK."""
    header = header_for(plan)
    rng = np.random.default_rng(3)
    top = header.layout.segments[0].levels
    whole = header.layout.length
    values = {}
    for site in header.cohort:
        values[site] = np.zeros(whole, dtype=np.int64)
        values[site][: plan.length] = rng.integers(0, min(top, 1000), plan.length)
    cohort = Noisy(header, make_roster(SITES), values, silent={Stage.MASK: lost}, share_of=share_of)
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert set(finished.survivors) == set(header.cohort) - lost
    exact = sum(values[s] for s in finished.survivors)
    return (signed_sum(finished) - exact)[: plan.length], cohort


def promised(plan: SharedSkellam, noise: NDArray[Any], *, shares: int) -> float:
    """The p-value of noise against so many shares of the plan's variance over the three that are counted on."""
    deviation = math.sqrt(shares * plan.variance / 3)
    return float(stats.kstest(noise + np.random.default_rng(1).random(len(noise)) - 0.5, "norm", (0, deviation)).pvalue)


@pytest.mark.parametrize("lost", [set(), {2}, {2, 5}])
def test_a_sum_holds_the_noise_of_its_survivors(lost: set[int]) -> None:
    """Six sites, one colluder: four have to be left, three of them honest, whose shares make the plan's variance."""
    plan = SharedSkellam(**SKELLAM)
    noise, cohort = noise_of_a_round(plan, lost)
    survivors = SITES - len(lost)
    assert promised(plan, noise, shares=survivors) > 1e-3
    # What the server and the colluder, site 1, cannot take off again.
    rest = noise - cohort.drawn[1]
    assert promised(plan, rest, shares=survivors - 1) > 1e-3
    assert float(np.square(rest.astype(float)).mean()) >= plan.variance * (1 - 5 * math.sqrt(2 / plan.length))


def test_shares_made_for_all_sites_leave_too_little_when_some_are_lost() -> None:
    """The twin: a share of one in six, as if nobody were ever lost or colluded, fails the same test."""
    plan = SharedSkellam(**SKELLAM)

    def sixth(found: Room, number: int) -> NDArray[np.int64]:
        return draw_share(found.plan, SITES, found.plan.length, KeyedRandomness(17, number).stream("share"))

    noise, cohort = noise_of_a_round(plan, {2, 5}, sixth)
    assert promised(plan, noise, shares=4) < 1e-6
    rest = noise - cohort.drawn[1]
    assert float(np.square(rest.astype(float)).mean()) < 0.6 * plan.variance


def test_a_round_that_loses_more_has_no_sum() -> None:
    plan = SharedSkellam(**SKELLAM)
    header = header_for(plan)
    values = {site: np.zeros(header.layout.length, dtype=np.int64) for site in header.cohort}
    cohort = Noisy(header, make_roster(SITES), values, silent={Stage.MASK: {2, 4, 5}})
    assert isinstance(cohort.run(), Aborted)


def test_counts_hold_two_sided_geometric_noise() -> None:
    plan = SharedGeometric(**GEOMETRIC)
    noise, _ = noise_of_a_round(plan, {2, 5})
    # Four shares of three: the whole noise, and a third more. Its variance is known.
    q = math.exp(-plan.decay)
    variance = 4 / 3 * 2 * q / (1 - q) ** 2
    assert float(np.square(noise.astype(float)).mean()) == pytest.approx(variance, rel=5 * math.sqrt(7 / plan.length))


def test_a_sum_may_be_as_far_out_as_its_noise_and_no_further() -> None:
    plan = SharedSkellam(**SKELLAM)
    layout = layout_for(plan)
    top = SITES * layout.segments[0].levels + layout.segments[0].headroom
    assert layout.segments[0].headroom == math.ceil(12 * math.sqrt(SITES * share_variance(plan, 3)))
    vector = np.zeros(layout.length, dtype=np.int32)
    for value in (top, -top):
        vector[7] = value
        check_sum(layout, SITES, vector.view(np.uint32))
        vector[7] += 1 if value > 0 else -1
        with pytest.raises(SumRangeError, match="the sum of 'values'"):
            check_sum(layout, SITES, vector.view(np.uint32))
    # Weights get no noise, and no room.
    assert [s.headroom for s in layout.segments[1:]] == [0, 0]


def test_the_kinds_of_a_release_are_those_of_the_registry() -> None:
    assert PlanKind.HISTOGRAM not in REGISTRY[UPDATE].plans
    assert {PlanKind.DISTRIBUTED, PlanKind.CLIENT} <= REGISTRY[UPDATE].plans
