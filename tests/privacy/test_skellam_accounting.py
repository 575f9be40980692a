"""What shared noise costs: published values, the exact divergence where it can be summed, and calibration."""

import json
import math
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from dp_accounting.rdp.rdp_privacy_accountant import RdpAccountant, compute_epsilon
from hypothesis import given, settings
from scipy.special import ive

from fedseal.privacy import accounting
from fedseal.privacy.ledger import Release, cost, epsilon_enforced, epsilon_spent, open_ledger, open_terms
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, SharedGeometric, SharedSkellam, Unit
from fedseal.privacy.skellam_accounting import (
    pure_rdp,
    sensitivities,
    skellam_bound,
    skellam_rdp,
    smallest_variance,
)

KNOWN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "skellam.json").read_text())
ORDERS = list(RdpAccountant()._orders)
DELTA = KNOWN["delta"]


def rounded_norm(resolution: float, length: int) -> float:
    """One whole vector's norm after conditional rounding: what the published values assume. Not a sum's sensitivity."""
    likely = resolution**2 + length / 4 + (resolution + math.sqrt(length) / 2)
    return math.sqrt(min(likely, (resolution + math.sqrt(length)) ** 2))


@pytest.mark.parametrize("case", KNOWN["cases"], ids=lambda c: f"{c['length']}-{c['resolution']}")
def test_the_bound_gives_the_published_epsilons(case: dict[str, Any]) -> None:
    noise = (KNOWN["noise_multiplier"] * case["resolution"]) ** 2
    l2 = rounded_norm(case["resolution"], case["length"])
    l1 = min(math.sqrt(case["length"]) * l2, l2 * l2)
    curve = [case["releases"] * skellam_bound(order, noise, l2, l1) for order in ORDERS]
    assert round(compute_epsilon(ORDERS, curve, DELTA)[0], 4) == case["skellam"]
    gaussian = SelfComposedDpEvent(GaussianDpEvent(KNOWN["noise_multiplier"]), case["releases"])
    assert round(accounting.epsilon_rdp(gaussian, DELTA), 4) == case["gaussian"]


@pytest.mark.parametrize("case", KNOWN["dropout"], ids=lambda c: str(c["share"]))
def test_noise_that_drops_out_costs_what_is_published(case: dict[str, Any]) -> None:
    """Why a share is made for those who are left, not for those who began."""
    multiplier = KNOWN["noise_multiplier"] * math.sqrt(case["share"])
    # T Gaussian releases are one with the noise divided by sqrt(T).
    epsilon = accounting.epsilon_pld(GaussianDpEvent(multiplier / math.sqrt(100)), DELTA)
    assert epsilon == pytest.approx(case["epsilon"], abs=0.006)


def exact_divergence(order: float, variance: float, shift: int) -> float:
    """The Rényi divergence of Skellam noise from itself shifted, summed up."""
    reach = round(9 * math.sqrt(variance) + order * shift)
    x = np.arange(-reach, reach + 1)
    # P(x) = exp(-v) I_x(v).
    logs = order * np.log(ive(x, variance)) - (order - 1) * np.log(ive(x - shift, variance))
    return float(np.log(np.exp(logs - logs.max()).sum()) + logs.max()) / (order - 1)


@pytest.mark.parametrize("variance", [30.0, 200.0, 1000.0])
@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("order", [1.5, 2.0, 2.5, 5.0, 7.25, 16.0])
def test_the_bound_is_above_the_divergence_and_near_it(order: float, shift: int, variance: float) -> None:
    bound, exact = skellam_rdp(order, variance, float(shift), float(shift)), exact_divergence(order, variance, shift)
    assert bound >= exact
    # What is lost: the paper's second term, and below order 2 the chord to 0.
    assert bound <= exact * (2.1 if order < 2 else 1.4)
    # The twin: with half the noise it is exceeded.
    if order >= 2:
        assert bound < exact_divergence(order, variance / 2, shift)


@settings(max_examples=200, deadline=None)
@given(st.floats(1.01, 300), st.floats(1, 1e12), st.floats(1, 1e5), st.integers(1, 10**6))
def test_between_whole_orders_the_bound_lies_between(order: float, ratio: float, units: float, length: int) -> None:
    l2, l1 = sensitivities(units, length)
    variance = l2 * l2 * ratio
    below, above = max(2, math.floor(order)), math.ceil(order) if order > 2 else 2
    value = skellam_rdp(order, variance, l2, l1)
    assert 0 < value <= skellam_bound(above, variance, l2, l1) * (1 + 1e-12)
    if order >= 2:
        assert value >= skellam_bound(below, variance, l2, l1) * (1 - 1e-12)
    # More noise costs less, and more of the Gaussian's cost is never cheaper than the Gaussian.
    assert skellam_rdp(order, 2 * variance, l2, l1) < value
    assert value >= order * l2 * l2 / (2 * variance) * (1 - 1e-12)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 2**32 - 1), st.integers(1, 20), st.integers(10, 1000))
def test_one_contribution_moves_a_rounded_sum_no_further(seed: int, length: int, units: int) -> None:
    """Sums that differ by a vector of norm s C, rounded with the same coins, at any place of the grid."""
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=length)
    vector *= units / np.linalg.norm(vector)
    others, coins = rng.normal(size=length) * 1e4, rng.random(length)
    moved = np.floor(others + vector + coins) - np.floor(others + coins)
    l2, l1 = sensitivities(units, length)
    assert np.linalg.norm(moved) <= l2
    assert np.abs(moved).sum() <= l1


def test_rounding_can_move_a_sum_further_than_the_vector_is_long() -> None:
    """The twin: without the square root of the length it would be no bound."""
    vector = np.full(100, 1.01)
    moved = np.ceil(vector - 0.005)
    assert np.linalg.norm(moved) > np.linalg.norm(vector) + 5
    assert np.linalg.norm(moved) <= sensitivities(float(np.linalg.norm(vector)), 100)[0]


# Counts


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 2.0])
@pytest.mark.parametrize("order", [1.5, 4.0, 30.0])
def test_geometric_noise_costs_no_more_than_is_charged(epsilon: float, order: float) -> None:
    x = np.arange(-2000, 2001)
    logs = math.log(math.tanh(epsilon / 2)) - epsilon * (order * np.abs(x) - (order - 1) * np.abs(x - 1))
    exact = float(np.log(np.exp(logs).sum())) / (order - 1)
    assert exact <= pure_rdp(order, epsilon) * (1 + 1e-12)
    assert pure_rdp(order, epsilon) == min(epsilon, order * epsilon**2 / 2)


# Plans and the ledger

SKELLAM = SharedSkellam(
    unit=int(Unit.PERSON), clip_norm=0.5, resolution=1 << 16, length=1000, variance=1 << 40, releases=10, retries=1
)
GEOMETRIC = SharedGeometric(epsilon=0.2, cells=2, length=30, releases=4, retries=0)


def test_a_ledger_charges_shared_noise_at_its_order_and_stops() -> None:
    terms = open_terms("train", epsilon=2.0, delta=1e-5, order=10.0)
    ledger, entry = open_ledger(terms)
    ledger, _ = ledger.reserve(b"r" * 16, GEOMETRIC)
    entries = [entry]
    for i in range(4):
        ledger, entry, _ = ledger.charge(Release(b"r" * 16, "counts", i, 0, bytes([i]) * 32), GEOMETRIC)
        entries.append(entry)
    assert ledger.last.charged == 4 * math.ceil(10.0 * 0.2 * 0.2 / 2 * 1e12) == 4 * cost(GEOMETRIC, 10.0)
    # Shown is the best order's number, which no single order's is below.
    shown = epsilon_spent(terms, entries)
    assert 0 < shown <= epsilon_enforced(terms, ledger.last.charged)
    assert shown == accounting.spent_by(((GEOMETRIC, 4),), 1e-5)


def test_what_is_shown_of_several_kinds_is_never_less_than_of_one() -> None:
    local = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=1.0, steps=1, releases=2, retries=0)
    alone = accounting.spent_by(((SKELLAM, 5),), 1e-5)
    assert accounting.spent_by(((SKELLAM, 5), (local, 2)), 1e-5) > alone > 0
    # Where dp-accounting knows every plan, its tight number is shown.
    assert accounting.spent_by(((local, 2), (SKELLAM, 0)), 1e-5) == accounting.epsilon_pld(local.event(2), 1e-5)
    assert accounting.spent_by(((SKELLAM, 0),), 1e-5) == 0.0
    assert NoPrivacy(releases=1, retries=0).divergence(2.0) == math.inf


@pytest.mark.parametrize("epsilon", [0.5, 3.0])
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_the_smallest_variance_fits_and_a_little_less_does_not(epsilon: float, share: float) -> None:
    found = smallest_variance(21, resolution=1 << 18, length=500, epsilon=epsilon, delta=1e-5, share=share)
    assert found is not None
    variance, order = found
    budget = share * accounting.rdp_budget(epsilon, 1e-5, order)
    l2, l1 = sensitivities(1 << 18, 500)
    assert variance % 2 == 0
    assert 21 * skellam_rdp(order, variance, l2, l1) <= budget
    for other in accounting.ORDERS:
        if (left := share * accounting.rdp_budget(epsilon, 1e-5, other)) > 0:
            assert 21 * skellam_rdp(other, variance * 0.999, l2, l1) > left


def test_no_variance_is_enough_for_a_promise_that_delta_does_not_carry() -> None:
    assert smallest_variance(1, resolution=100, length=1, epsilon=1e-6, delta=1e-9) is None
