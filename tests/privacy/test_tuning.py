"""The number of trials, and what the best of them costs whom."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from fedseal.errors import ConfigError
from fedseal.privacy.accounting import conversion
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.tuning import (
    Trials,
    epsilon_of_all,
    epsilon_selected,
    refusal_delta,
    selected_divergence,
    trials_of,
)


@settings(max_examples=25)
@given(st.floats(-0.9, 5), st.floats(0.1, 0.9))
def test_probabilities_add_up_to_one_and_to_the_mean(eta: float, gamma: float) -> None:
    trials = Trials(eta, gamma)
    found = [trials.probability(k) for k in range(1, 500)]
    assert math.fsum(found) == pytest.approx(1, abs=1e-6)
    assert math.fsum(k * p for k, p in enumerate(found, start=1)) == pytest.approx(trials.mean, rel=1e-4)
    assert trials.probability(0) == 0


def test_the_geometric_and_the_logarithmic_distribution_are_two_of_them() -> None:
    ks = np.arange(1, 40)
    assert [Trials(1.0, 0.3).probability(int(k)) for k in ks] == pytest.approx(list(stats.geom(0.3).pmf(ks)))
    assert [Trials(0.0, 0.3).probability(int(k)) for k in ks] == pytest.approx(list(stats.logser(0.7).pmf(ks)))
    # The limit from both sides.
    assert Trials(1e-9, 0.3).probability(3) == pytest.approx(Trials(0.0, 0.3).probability(3), rel=1e-6)
    assert Trials(1e-9, 0.3).mean == pytest.approx(Trials(0.0, 0.3).mean, rel=1e-6)


@pytest.mark.parametrize("eta", [-0.5, 0.0, 1.0, 2.0])
def test_what_is_drawn_has_the_distribution(eta: float) -> None:
    trials, random = trials_of(4.0, eta), KeyedRandomness(3, "search")
    drawn = [trials.draw(random.stream("trials", i), 10) for i in range(3000)]
    expected = [3000 * trials.probability(k) for k in range(1, 11)] + [3000 * trials.beyond(10)]
    seen = [sum(d == k for d in drawn) for k in range(1, 11)] + [sum(d is None for d in drawn)]
    assert stats.chisquare(seen, np.array(expected) * 3000 / sum(expected)).pvalue > 1e-3
    # The twin: the test tells it from another one.
    wrong = trials_of(5.0, eta)
    other = np.array([3000 * wrong.probability(k) for k in range(1, 11)] + [3000 * wrong.beyond(10)])
    assert stats.chisquare(seen, other * 3000 / other.sum()).pvalue < 1e-3


@pytest.mark.parametrize("mean", [1.5, 4.0, 30.0])
def test_a_mean_has_its_distribution(mean: float) -> None:
    assert trials_of(mean, 0.5).mean == pytest.approx(mean, rel=1e-6)
    with pytest.raises(ConfigError, match="above 1"):
        trials_of(1.0, 0.5)
    with pytest.raises(ConfigError, match="shape"):
        Trials(-1.0, 0.5)


def divergence_of_the_best(trials: Trials, sigma: float, order: float) -> float:
    """The exact divergence where a trial is one Gaussian number and the best one is the largest: both directions.

    The density of the largest of K is f(x) times the derivative of K's generating function at F(x).
    """

    def slope(z: np.ndarray) -> np.ndarray:
        # Of (1 - (1 - gamma) z)^-eta, normalised, for eta above 0.
        top = trials.eta * (1 - trials.gamma) * (1 - (1 - trials.gamma) * z) ** (-trials.eta - 1)
        return np.asarray(top / (trials.gamma**-trials.eta - 1))

    def log_density(x: np.ndarray, mean: float) -> np.ndarray:
        return np.asarray(stats.norm.logpdf(x, mean, sigma) + np.log(slope(stats.norm.cdf(x, mean, sigma))))

    x = np.linspace(-14 * sigma, 14 * sigma + 1, 60_001)
    found = []
    for p, q in ((0.0, 1.0), (1.0, 0.0)):
        ratio = np.exp(order * log_density(x, p) + (1 - order) * log_density(x, q))
        found.append(math.log(integrate.trapezoid(ratio, x)) / (order - 1))
    return max(found)


@pytest.mark.parametrize("eta", [0.5, 1.0])
@pytest.mark.parametrize("order", [2.0, 5.0, 12.0])
def test_the_bound_holds_where_the_divergence_is_known(eta: float, order: float) -> None:
    sigma, trials = 3.0, trials_of(8.0, eta)
    exact = divergence_of_the_best(trials, sigma, order)
    bound = selected_divergence(lambda a: a / (2 * sigma**2), trials, order)
    assert exact <= bound
    # The twin: what one trial costs does not cover the best of them.
    assert exact > order / (2 * sigma**2)


def test_many_trials_cost_those_who_see_only_the_best_far_less_than_those_who_see_all() -> None:
    def one(order: float) -> float:
        return order / (2 * 4.0**2)

    delta, trials = 1e-6, trials_of(30.0, 0.0)
    single = min(one(a) + conversion(a, delta) for a in (2.0, 4.0, 8.0, 16.0, 32.0, 64.0))
    best, everything = epsilon_selected(one, trials, delta), epsilon_of_all(one, 30, delta)
    assert single < best < everything
    assert best < 3 * single
    assert everything > 4 * single


@settings(max_examples=25)
@given(st.floats(-0.5, 3), st.floats(0.2, 0.8), st.floats(1e-9, 0.3))
def test_enough_trials_are_the_least_number_of_that_chance(eta: float, gamma: float, chance: float) -> None:
    trials = Trials(eta, gamma)
    most = trials.enough(chance, 500)
    assert most is not None
    tail = math.fsum(trials.probability(k) for k in range(most + 1, most + 400))
    assert tail <= chance * (1 + 1e-6) + 1e-15
    if most > 1:
        assert tail + trials.probability(most) > chance * (1 - 1e-3) - 1e-15
    assert trials.enough(1e-300, 3) is None


def test_one_call_for_all_orders_is_the_bound_of_each() -> None:
    def one(order: float) -> float:
        return order / 18

    trials = trials_of(5.0, 1.0)
    found = [selected_divergence(one, trials, a) + conversion(a, 1e-5) for a in (2.0, 4.0, 8.0, 16.0, 32.0)]
    assert epsilon_selected(one, trials, 1e-5) <= min(found)


def test_a_search_that_may_not_take_place_adds_to_delta() -> None:
    trials = Trials(1.0, 0.5)
    assert trials.beyond(20) == pytest.approx(0.5**20, rel=1e-6)
    assert refusal_delta(trials, 20, 1.0) == pytest.approx((1 + math.e) * 0.5**20, rel=1e-6)
    assert refusal_delta(trials, 1000, 1e6) >= 0
