"""A clip norm that adapts: the rule against its published steps, what vector and count cost together, which clip norms
a site follows, and what of a header may move.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent
from hypothesis import given, settings
from scipy.special import ive
from support.studies import tiny

from fedseal.compliance.policy import SitePolicy, check_plan, read_policy
from fedseal.errors import ConfigError, PeerError, PolicyRefused
from fedseal.privacy import accounting
from fedseal.privacy.adaptive import AcceptedClip, accepted, clip_step
from fedseal.privacy.forecast import all_plans, fits, noise_that_fits, with_noise
from fedseal.privacy.ledger import open_ledger, open_terms
from fedseal.privacy.plan import AdaptiveSkellam, SharedSkellam, Unit, decode_plan, encode_plan
from fedseal.privacy.planning import plan_run
from fedseal.privacy.quantize import CLIPPED, UNCLIPPED, IntegerSum, Layout, Rounding, Segment, bound, signed
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import MOMENTS, REGISTRY, UPDATE, VALUES, check_layout, release_layout, terms_digest
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.shares import Room, add_share, room, share_variance
from fedseal.privacy.skellam_accounting import sensitivities, skellam_rdp

SITES, LARGEST = 4, 100


def vector(**changes: Any) -> SharedSkellam:
    fields: dict[str, Any] = {
        "unit": int(Unit.PERSON),
        "clip_norm": 1.0,
        "resolution": 1 << 12,
        "length": 9,
        "variance": 1 << 26,
        "releases": 20,
        "retries": 1,
    }
    return SharedSkellam(**(fields | changes))


def adaptive(clip_norm: float = 1.0, unit: Unit = Unit.PERSON, **changes: Any) -> AdaptiveSkellam:
    fields: dict[str, Any] = {
        "vector": vector(clip_norm=clip_norm, unit=int(unit)),
        "count_units": 1 << 10,
        "lowest": 1e-3,
        "highest": 1e3,
        "quantile": 0.5,
        "rate": 0.2,
    }
    return AdaptiveSkellam(**(fields | changes))


# Plans


@pytest.mark.parametrize(
    "changes",
    [
        {"count_units": 0},
        {"count_units": 3},
        {"count_units": (1 << 13) + 2},
        {"lowest": 1.1},
        {"highest": 0.9},
        {"highest": 2e6},
        {"lowest": 1e-7},
        {"quantile": 1.01},
        {"quantile": math.nan},
        {"rate": 0.0},
        {"rate": 2.1},
    ],
    ids=str,
)
def test_a_plan_that_makes_no_sense_cannot_exist(changes: dict[str, Any]) -> None:
    adaptive()
    with pytest.raises(ValueError, match="expected"):
        adaptive(**changes)


def test_a_plan_is_read_back_and_is_its_vectors_but_for_the_count() -> None:
    for unit, label in ((Unit.PERSON, "distributed"), (Unit.SITE, "client")):
        plan = adaptive(unit=unit)
        assert decode_plan(encode_plan(plan)) == plan
        assert plan.kind.label == label
        assert (plan.releases, plan.retries, plan.attempts, plan.clip_norm) == (20, 1, 21, 1.0)
        assert plan.noise_multiplier == plan.vector.noise_multiplier == 2.0
        assert plan.count_deviation == 8.0
        assert plan.at(0.25) == replace(plan.vector, clip_norm=0.25)
    with pytest.raises(ValueError, match="interval"):
        adaptive().at(1e3 * 1.0001)


# The rule. Sources: tensorflow_privacy/privacy/dp_query/quantile_estimator_query_test.py,
# test_target_zero_geometric and test_target_one_geometric; tensorflow_federated/python/aggregators/
# differential_privacy_test.py, test_tree_adaptive_factory_estimate_clip; pfl tests/privacy/test_adaptive_clipping.py.

PUBLISHED: dict[str, tuple[float, float, float, list[float], list[float]]] = {
    "target zero": (16.0, 0.0, math.log(2), [5.0, 2.5], [8.0, 4.0, 4 / math.sqrt(2), 2.0, 2.0]),
    "target one": (0.5, 1.0, math.log(2), [1.5, 3.0], [1.0, 2.0, 2 * math.sqrt(2), 4.0, 4.0]),
    "two of three clipped": (1.0, 1.0, 1.0, [0.5, 1.5, 2.5], [math.exp(2 / 3)]),
    "pfl, quantile .2": (3.0, 0.2, 0.2, [2.0, 4.0], [2.825293600752746]),
    "pfl, quantile .5": (3.0, 0.5, 0.1, [2.0, 4.0], [3.0]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rule_takes_the_published_steps(name: str) -> None:
    first, quantile, rate, records, expected = PUBLISHED[name]
    plan, clip = adaptive(first, quantile=quantile, rate=rate), first
    for following in expected:
        clip = plan.following(clip, sum(norm <= clip for norm in records) / len(records))
        assert clip == pytest.approx(following, rel=1e-12)


def counted_to_the_end(start: float, noise: float, rounds: int = 50) -> list[float]:
    """The clip norms over 21 norms from 0 to 10: what test_linspace of the same file does."""
    plan, rng, clip, norms = adaptive(start, rate=1.0), np.random.default_rng(1), start, np.linspace(0.0, 10.0, 21)
    seen = []
    for _ in range(rounds):
        clip = plan.following(clip, (norms <= clip).mean() + noise * rng.normal() / len(norms))
        seen.append(clip)
    return seen


@pytest.mark.parametrize("start", [1.0, 10.0, 1e-3, 1e3])
def test_the_clip_norm_comes_to_the_median_from_far_away(start: float) -> None:
    """Published: within .25 of it after 40 rounds, with noise of .01 in the count. With noise of one it stays near."""
    assert all(abs(clip - 5.0) < 0.25 for clip in counted_to_the_end(start, 1e-2)[40:])
    assert all(2.5 < clip < 10 for clip in counted_to_the_end(start, 1.0)[40:])


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(allow_nan=False, allow_infinity=True), st.floats(0, 1), st.floats(0.01, 2))
def test_whatever_the_noise_a_step_stays_within_reach(clip: float, share: float, quantile: float, rate: float) -> None:
    plan = adaptive(quantile=quantile, rate=rate)
    least, most = plan.reach(clip, 1)
    assert plan.lowest <= least <= plan.following(clip, share) <= most <= plan.highest
    assert plan.reach(clip, 0) == (clip, clip)
    # Further in more rounds, and always within the interval.
    wider = plan.reach(clip, 7)
    assert plan.lowest <= wider[0] <= least <= most <= wider[1] <= plan.highest
    assert plan.reach(clip, 1 << 31)[0] >= plan.lowest


def test_a_share_is_of_the_public_number_of_persons_or_of_sites() -> None:
    for unit, of in ((Unit.PERSON, 300.0), (Unit.SITE, 4.0)):
        plan = adaptive(unit=unit)
        layout = layout_of(plan)
        places, sums = layout.offsets(), np.zeros(layout.length, dtype="<u4")
        sums[places[layout.weight.name]] = int(300 * layout.weight.scale)
        # One more was clipped than not.
        sums[places[UNCLIPPED]] = np.array([-plan.count_units], dtype="<i4").view("<u4")
        step = clip_step(plan, 2.0, IntegerSum(layout, SITES, sums))
        assert step.unclipped == pytest.approx(0.5 - 1 / of)
        assert step.following == pytest.approx(2.0 * math.exp(0.2 / of))
        assert step.clip_norm == 2.0


# What it costs


@pytest.mark.parametrize(
    ("joint", "deviation", "alone"),
    [
        # TFF's own case, by its formula (z^-2 - (2 sigma_b)^-2)^(-1/2): noise multiplier 2, 100 clients, sigma_b = 5.
        (2.0, 5.0, (2.0**-2 - 10.0**-2) ** -0.5),
        # pfl: relative noise .6, indicator of plus or minus one with noise 1: a scale of .75, so 1.25 times the noise.
        (0.6, 0.5, 0.6 * 1.25),
    ],
)
def test_the_split_of_the_noise_is_the_papers(joint: float, deviation: float, alone: float) -> None:
    """With integers so fine that rounding is nothing: the pair costs what one Gaussian of the joint multiplier does."""
    resolution = 1 << 40
    units = 2 * round(alone * resolution / deviation / 2)
    variance = round((alone * resolution) ** 2)
    assert math.sqrt(variance) / units == pytest.approx(deviation, rel=1e-9)
    for order in (2.0, 5.0, 32.0):
        l2, l1 = sensitivities(resolution, 9, units)
        gaussian = accounting.rdp_at(GaussianDpEvent(joint), order)
        assert skellam_rdp(order, variance, l2, l1) == pytest.approx(gaussian, rel=1e-9)
        # The twin: who forgets the count charges for the larger multiplier alone.
        assert skellam_rdp(order, variance, *sensitivities(resolution, 9)) < gaussian * 0.97


def exact_divergence(order: float, variance: float, shift: int) -> float:
    """Of Skellam noise from itself shifted, summed up: P(x) = exp(-v) I_x(v)."""
    reach = round(9 * math.sqrt(variance) + order * shift)
    x = np.arange(-reach, reach + 1)
    logs = order * np.log(ive(x, variance)) - (order - 1) * np.log(ive(x - shift, variance))
    return float(np.log(np.exp(logs - logs.max()).sum()) + logs.max()) / (order - 1)


def worst_pair(order: float, variance: float, resolution: int, length: int, units: int) -> float:
    """The exact divergence of vector and count for contributions that reach the sensitivity as whole numbers can:
    along one axis, and spread over all; coordinates have independent noise, so divergences add up.
    """
    along = [resolution + 1] + [1] * (length - 1)
    spread = [math.floor((resolution + math.sqrt(length)) / math.sqrt(length))] * length
    return max(
        sum(exact_divergence(order, variance, shift) for shift in shifts)
        + exact_divergence(order, variance, units // 2)
        for shifts in (along, spread)
    )


def check_pair(order: float, variance: float, resolution: int, length: int, units: int) -> None:
    cost = skellam_rdp(order, variance, *sensitivities(resolution, length, units))
    exact = worst_pair(order, variance, resolution, length, units)
    assert exact <= cost
    assert cost < exact * 2
    if units >= resolution:
        assert skellam_rdp(order, variance, *sensitivities(resolution, length)) < exact


@pytest.mark.parametrize(("order", "units"), [(2.0, 16), (7.25, 16), (7.25, 6), (16.0, 32)])
def test_what_is_charged_is_above_the_exact_divergence_of_the_pair(order: float, units: int) -> None:
    """Twin inside: without the count the charge is below what the pair really gives away."""
    check_pair(order, 2000.0, 16, 4, units)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1.5, 2.0, 2.5, 4.0, 7.25, 16.0, 40.0])
@pytest.mark.parametrize("variance", [1024.0, 5e3, 1e5])
def test_what_is_charged_is_above_it_on_a_grid(order: float, variance: float) -> None:
    checked = 0
    for resolution in (16, 40, 128):
        # Further out the probabilities are no doubles any more.
        if 9 + order * (resolution + 1) / math.sqrt(variance) > 35:
            continue
        for length in (1, 4, 25):
            for units in (2, 10, resolution, 2 * resolution):
                cost = skellam_rdp(order, variance, *sensitivities(resolution, length, units))
                assert worst_pair(order, variance, resolution, length, units) <= cost
                checked += 1
    assert checked


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**32 - 1), st.integers(1, 20), st.integers(1, 40))
def test_one_person_moves_vector_and_count_no_further(seed: int, length: int, persons: int) -> None:
    """Rounded in the real layout with the same coins, with one person more: at any clip norm."""
    rng = np.random.default_rng(seed)
    plan = adaptive(float(rng.uniform(0.01, 5)), vector=vector(length=length, clip_norm=1.0))
    clip = float(rng.uniform(0.01, 5))
    layout = layout_of(plan, clip, values=length)
    rows = rng.normal(size=(persons + 1, length)) * rng.exponential(2 * clip, size=(persons + 1, 1)) / math.sqrt(length)
    norms = np.linalg.norm(rows, axis=1)
    rows *= np.minimum(1.0, clip / norms)[:, None]
    halves = np.where(norms <= clip, 0.5, -0.5)
    whole = []
    for count in (persons, persons + 1):
        values = {
            VALUES: rows[:count].sum(axis=0) / LARGEST,
            UNCLIPPED: np.array([halves[:count].sum()]),
            layout.weight.name: np.array([float(LARGEST)]),
            CLIPPED: np.zeros(1),
        }
        whole.append(signed(bound(values, layout, KeyedRandomness(3).stream("coins")).vector).astype(np.int64))
    moved = whole[1] - whole[0]
    l2, l1 = sensitivities(plan.vector.resolution, length, plan.count_units)
    assert np.linalg.norm(moved) <= l2
    assert np.abs(moved).sum() <= l1
    assert abs(moved[layout.offsets()[UNCLIPPED]][0]) == plan.count_units // 2


# Planning


def contract(**privacy: Any) -> Any:
    return tiny(
        privacy={"plan": "distributed", "epsilon": 3.0, "delta": 1e-5, "retries": 2} | privacy,
        training={"rounds": 12},
        cohort={"minimum": 3, "colluders": 1, "largest_site": 200},
    ).contract


@pytest.mark.parametrize("share", [0.01, 0.05, 0.4])
def test_the_promise_covers_count_and_vector_with_all_retries(share: float) -> None:
    rule = {"budget_share": share, "lowest": 0.01, "highest": 20.0, "quantile": 0.7, "learning_rate": 0.3}
    asked = contract(adaptive_clip=rule)
    plans, fixed = plan_run(asked, Extent(50, 6)), plan_run(contract(), Extent(50, 6)).update
    plan = plans.update
    assert isinstance(plan, AdaptiveSkellam)
    assert isinstance(fixed, SharedSkellam)
    assert (plan.lowest, plan.highest, plan.quantile, plan.rate, plan.clip_norm) == (0.01, 20.0, 0.7, 0.3, 1.0)
    assert (plan.attempts, plan.vector.unit) == (14, Unit.PERSON)
    budget = accounting.rdp_budget(3.0, 1e-5, plans.order)
    assert plan.attempts * plan.divergence(plans.order) <= budget
    # No noise is wasted: with a thousandth less it does not fit.
    ledger = open_ledger(open_terms("train", epsilon=3.0, delta=1e-5, order=plans.order))[0]
    assert fits(ledger, all_plans(plans))
    assert not fits(ledger, [with_noise(plan, 0.999)])
    # The vector's noise pays for the count as theorem 1 says; sigma_b = z / (2 sqrt(share)).
    assert plan.noise_multiplier / fixed.noise_multiplier == pytest.approx((1 - share) ** -0.5, rel=2e-3)
    assert 2 * plan.count_deviation == pytest.approx(fixed.noise_multiplier * share**-0.5, rel=2e-3)
    # The twin: a ledger that charged the vector alone would have let too little noise pass.
    assert plan.attempts * plan.vector.divergence(plans.order) < budget * (1 - share / 2)


def test_noise_is_sought_for_such_a_plan_too() -> None:
    ledger = open_ledger(open_terms("train", epsilon=2.0, delta=1e-5, order=10.0))[0]
    plan = adaptive()
    plan = replace(plan, vector=replace(plan.vector, releases=4000))
    factor = noise_that_fits(ledger, [plan])
    assert factor is not None
    assert factor > 1
    assert fits(ledger, [with_noise(plan, factor)])
    assert not fits(ledger, [with_noise(plan, factor * 0.999)])


def test_a_count_of_sites_that_is_mostly_noise_is_not_planned() -> None:
    rule: dict[str, Any] = {"adaptive_clip": {"budget_share": 0.3}}
    with pytest.raises(ConfigError, match=r"cannot follow a count of 8 sites with noise of \d+\.\d sites"):
        plan_run(contract(plan="client", **rule), Extent(50, 8))
    plan = plan_run(contract(plan="client", **rule), Extent(50, 60)).update
    assert isinstance(plan, AdaptiveSkellam)
    assert plan.vector.unit == Unit.SITE
    assert plan.count_deviation <= 30
    # Persons are not known where a plan is made; theirs is shown, not refused.
    assert isinstance(plan_run(contract(**rule), Extent(50, 8)).update, AdaptiveSkellam)


@pytest.mark.parametrize(
    ("privacy", "says"),
    [
        ({"clip_norm": 3.0, "adaptive_clip": {"highest": 2.0}}, "where adaptive_clip begins"),
        ({"clip_norm": 0.1, "adaptive_clip": {"lowest": 0.2}}, "where adaptive_clip begins"),
        ({"plan": "local", "adaptive_clip": {}}, "plans distributed and client"),
    ],
)
def test_a_contract_that_makes_no_sense_is_refused(privacy: dict[str, Any], says: str) -> None:
    contract(adaptive_clip={})
    with pytest.raises(ValueError, match=says):
        contract(**privacy)


# What a site follows


def test_a_site_follows_what_the_rule_can_have_led_to() -> None:
    plan = adaptive(rate=0.2)
    step = math.exp(0.1)
    first = accepted(plan, 1, 1.0, None)
    assert first == AcceptedClip(1, 1.0)
    # A retry, or a server that goes on from its checkpoint: the same round has the same clip norm.
    assert accepted(plan, 1, 1.0, first) == first
    assert accepted(plan, 2, step, first) == AcceptedClip(2, step)
    assert accepted(plan, 2, 1 / step, first) == AcceptedClip(2, 1 / step)
    # It was away for two rounds, or comes late.
    assert accepted(plan, 4, step**3, first).clip_norm == step**3
    assert accepted(plan, 4, step**-3, None).clip_norm == step**-3


REFUSED: dict[str, tuple[int, float]] = {
    "further up than a step": (6, math.exp(0.1) * 1.0001),
    "further down than a step": (6, math.exp(-0.1) / 1.0001),
    "another one in the same round": (5, 1.0000001),
    "a round before": (4, 1.0),
    "no round of the plan": (21, 1.0),
    "round 0": (0, 1.0),
    "above the interval": (20, 1.0e3 * 1.001),
    "below the interval": (20, 1.0e-3 / 1.001),
    "not a number": (6, math.nan),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_site_follows_nothing_else(name: str) -> None:
    fl_round, clip = REFUSED[name]
    # Steps so large that only the interval bounds what they reach in 15 rounds.
    plan = adaptive(rate=2.0 if "interval" in name else 0.2)
    with pytest.raises(PeerError):
        accepted(plan, fl_round, clip, AcceptedClip(5, 1.0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2, 3), min_size=19, max_size=19), st.floats(0.01, 2), st.floats(0.01, 0.99), st.data())
def test_an_honest_server_is_always_followed(
    shares: list[float], rate: float, quantile: float, data: st.DataObject
) -> None:
    """Also by a site that misses rounds, and at either end of the interval."""
    plan = adaptive(1.0, rate=rate, quantile=quantile, lowest=0.3, highest=2.0)
    clip, memory = 1.0, None
    for number, share in enumerate(shares, start=1):
        if data.draw(st.booleans()):
            memory = accepted(plan, number, clip, memory)
        clip = plan.following(clip, share)
    assert accepted(plan, 20, clip, memory).clip_norm == clip


def test_a_policys_limit_holds_for_the_largest_clip_norm() -> None:
    text = 'version = 1\n[releases]\nupdate = ["distributed"]\n[limits]\nclip_norm = {}\n'
    check_plan(read_policy(text.format(1000)), REGISTRY[UPDATE], adaptive())
    with pytest.raises(PolicyRefused, match=r"clip norm of up to 1000; this site allows 999"):
        check_plan(read_policy(text.format(999)), REGISTRY[UPDATE], adaptive())
    # The twin: the first round's alone would have passed.
    check_plan(read_policy(text.format(999)), REGISTRY[UPDATE], adaptive().vector)
    assert SitePolicy().limits.clip_norm == 1e6


# Layouts


def room_of_plan(plan: AdaptiveSkellam, clip: float) -> Room:
    found = room(plan, sites=SITES, minimum=3, colluders=1, clip_norm=clip)
    if found is None:
        raise AssertionError("a shared plan without a room")
    return found


def layout_of(plan: AdaptiveSkellam, clip: float = 1.0, kind: str = UPDATE, **changes: Any) -> Layout:
    arguments: dict[str, Any] = {
        "values": 9,
        "value_range": 123.0,
        "weight_key": "num-examples",
        "largest_weight": LARGEST,
        "metrics": {},
        "sites": SITES,
        "room": room_of_plan(plan, clip),
    }
    return release_layout(REGISTRY[kind], **(arguments | changes))


@pytest.mark.parametrize("unit", Unit)
def test_the_layout_has_the_rounds_clip_norm_and_a_count_with_room_for_its_noise(unit: Unit) -> None:
    plan = adaptive(unit=unit)
    for clip in (0.01, 1.0, 40.0):
        layout = layout_of(plan, clip)
        values, count = layout.segment(VALUES), layout.segment(UNCLIPPED)
        assert values.high == clip
        assert (count.low, count.high) == ((-50.0, 50.0) if unit is Unit.PERSON else (-0.5, 0.5))
        # The noise in integer units does not move, so its multiple of the clip norm stays.
        assert values.headroom == count.headroom == layout_of(plan).segment(VALUES).headroom
        largest = LARGEST if unit is Unit.PERSON else 1
        assert values.scale * clip / largest == pytest.approx(plan.vector.resolution)
        check_layout(REGISTRY[UPDATE], plan.kind, layout, SITES, room=room_of_plan(plan, clip))


MOVES: dict[str, Callable[[Segment], Segment]] = {
    "the count in finer units": lambda s: replace(s, scale=2 * s.scale) if s.name == UNCLIPPED else s,
    "a count of more than all": lambda s: replace(s, high=2 * s.high, low=2 * s.low) if s.name == UNCLIPPED else s,
    "no room for its noise": lambda s: replace(s, headroom=0) if s.name == UNCLIPPED else s,
    "two numbers": lambda s: replace(s, length=2) if s.name == UNCLIPPED else s,
    "values of another range": lambda s: replace(s, high=2 * s.high, low=2 * s.low) if s.name == VALUES else s,
}


@pytest.mark.parametrize("name", MOVES)
def test_a_count_of_another_form_is_refused(name: str) -> None:
    plan = adaptive()
    made = layout_of(plan, 2.0)
    other = replace(made, segments=tuple(MOVES[name](s) for s in made.segments))
    assert other != made
    with pytest.raises(PeerError, match="not that of release 'update'"):
        check_layout(REGISTRY[UPDATE], plan.kind, other, SITES, room=room_of_plan(plan, 2.0))


def test_a_count_goes_with_its_plan_alone() -> None:
    plan = adaptive()
    without = replace(layout_of(plan), segments=tuple(s for s in layout_of(plan).segments if s.name != UNCLIPPED))
    fixed = Room(plan.vector, SITES, 2)
    with pytest.raises(PeerError, match="not that of release"):
        check_layout(REGISTRY[UPDATE], plan.kind, without, SITES, room=room_of_plan(plan, 1.0))
    with pytest.raises(PeerError, match="not that of release"):
        check_layout(REGISTRY[UPDATE], plan.kind, layout_of(plan), SITES, room=fixed)
    check_layout(REGISTRY[UPDATE], plan.kind, without, SITES, room=fixed)


def test_statistics_have_no_clip_norm_that_adapts() -> None:
    """There is one of them in a run; and nothing in it counts who was not clipped."""
    plan = adaptive()
    with pytest.raises(PeerError, match="adapts, for release 'moments'"):
        check_layout(REGISTRY[MOMENTS], plan.kind, layout_of(plan, kind=MOMENTS), SITES, room=room_of_plan(plan, 1.0))


def test_of_a_runs_terms_the_clip_norm_alone_may_move() -> None:
    plan = adaptive()
    raw = encode_plan(plan)
    digest = terms_digest(layout_of(plan, 1.0), raw)
    assert terms_digest(layout_of(plan, 7.0), raw) == digest
    assert terms_digest(layout_of(plan, 1.0, sites=3), raw) == digest
    for change in ({"largest_weight": 99}, {"values": 8}, {"ring_bits": 64}, {"rounding": Rounding.NEAREST}):
        assert terms_digest(layout_of(plan, 1.0, **change), raw) != digest
    assert terms_digest(layout_of(plan), encode_plan(replace(plan, highest=2e3))) != digest
    # The twin: with a fixed clip norm its range is pinned.
    fixed = [release_layout_of_fixed(clip) for clip in (1.0, 7.0)]
    assert terms_digest(fixed[0], raw) != terms_digest(fixed[1], raw)


def release_layout_of_fixed(clip: float) -> Layout:
    return layout_of(adaptive(), room=Room(vector(clip_norm=clip), SITES, 2))


# Noise


def test_the_count_gets_its_share_of_the_noise_too() -> None:
    plan, rows = adaptive(), []
    layout = layout_of(plan)
    values = {s.name: np.zeros(s.length) for s in layout.segments}
    for count_units in (plan.count_units, 0):
        drawn = []
        for i in range(400):
            update = bound(values, layout, KeyedRandomness(1).stream("coins"))
            add_share(update, Room(plan.vector, SITES, 2, count_units), KeyedRandomness(i).stream("noise"))
            drawn.append(signed(update.vector)[layout.offsets()[UNCLIPPED]][0])
        rows.append(drawn)
    variance = share_variance(plan.vector, 2)
    # 400 squares of a normal variable: four standard errors are 28 %.
    assert np.var(rows[0]) == pytest.approx(variance, rel=0.3)
    assert abs(np.mean(rows[0])) < 4 * math.sqrt(variance / 400)
    # The twin: a plan with a fixed clip norm adds none there.
    assert not np.any(rows[1])
