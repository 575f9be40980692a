"""The one-run audit's statistics against slow twins, known answers and worst-case mechanisms."""

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.privacy.audit.one_run import Guesses, ceiling, epsilon_lower_bound, p_value
from fedseal.privacy.audit.scores import Mechanism, guess, log_likelihood_ratios, noise_test, reach_test
from fedseal.privacy.randomness import KeyedRandomness

VECTORS = json.loads((Path(__file__).resolve().parents[1] / "vectors" / "audit.json").read_text(encoding="utf-8"))


def mechanism(noise: float = 2.0, rate: float = 0.2, steps: int = 5) -> Mechanism:
    return Mechanism(noise, rate, steps)


def slow_p_value(m: int, r: int, v: int, odds: Fraction, delta: Fraction) -> Fraction:
    """Theorem 5.2 as it is written, in exact fractions; e^epsilon is ``odds``."""
    q = odds / (1 + odds)

    def f(at_least: int) -> Fraction:
        return sum(
            (math.comb(r, k) * q**k * (1 - q) ** (r - k) for k in range(max(at_least, 0), r + 1)), start=Fraction(0)
        )

    steepest = max((f(v - i) - f(v)) / i for i in range(1, m + 1))
    return min(Fraction(1), f(v) + 2 * m * delta * steepest)


@pytest.mark.parametrize(("made", "known"), VECTORS["ceilings"])
def test_ceilings_are_the_known_ones(made: int, known: float) -> None:
    assert ceiling(made) == pytest.approx(known, abs=0.005)
    # With probability 1/20 randomised response of that epsilon gets them all right.
    assert (1 + math.exp(-ceiling(made))) ** -made == pytest.approx(0.05, rel=1e-6)


def test_nobody_guessed_shows_nothing() -> None:
    assert ceiling(0) == 0.0
    assert ceiling(4) == 0.0  # (1/2)^4 is above 1/20


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_p_value_is_that_of_the_theorem(data: st.DataObject) -> None:
    m = data.draw(st.integers(1, 30))
    r = data.draw(st.integers(0, m))
    v = data.draw(st.integers(0, r))
    odds = Fraction(data.draw(st.integers(1, 40)))
    delta = Fraction(data.draw(st.sampled_from([0, 1, 10, 500])), 10_000)
    expected = slow_p_value(m, r, v, odds, delta)
    found = p_value(Guesses(m, r, v), math.log(odds), float(delta))
    assert found == pytest.approx(float(expected), rel=1e-9, abs=1e-15)


def test_the_twin_would_notice_a_missing_delta() -> None:
    with_delta = p_value(Guesses(30, 20, 18), 1.0, 0.01)
    assert with_delta > 1.05 * p_value(Guesses(30, 20, 18), 1.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(made=st.integers(1, 400), extra=st.integers(0, 400), share=st.floats(0, 1), delta=st.floats(0, 1e-4))
def test_the_bound_is_where_the_claim_begins_to_stand(made: int, extra: int, share: float, delta: float) -> None:
    guesses = Guesses(made + extra, made, round(share * made))
    bound = epsilon_lower_bound(guesses, delta)
    assert 0 <= bound <= ceiling(made) + 1e-9
    if bound > 0:
        assert p_value(guesses, bound, delta) <= 0.05 + 1e-9
        assert p_value(guesses, bound + 1e-6, delta) > 0.05 - 1e-9
    if guesses.right < made:
        better = Guesses(guesses.canaries, made, guesses.right + 1)
        assert epsilon_lower_bound(better, delta) >= bound


def falsified_share(epsilon: float, claimed: float, trials: int, made: int = 400) -> float:
    """How often randomised response of ``epsilon``, the worst there is, falsifies a claim."""
    right = np.random.default_rng(7).binomial(made, 1 / (1 + math.exp(-epsilon)), size=trials)
    verdicts = {int(v): p_value(Guesses(made, made, int(v)), claimed, 0.0) <= 0.05 for v in np.unique(right)}
    return float(np.mean([verdicts[int(v)] for v in right]))


def test_the_worst_private_mechanism_is_falsified_in_at_most_a_twentieth_of_the_runs() -> None:
    share = falsified_share(2.0, 2.0, trials=20_000)
    # Close to 5 %, so the test is neither loose nor wrong: three standard errors are 0.0046.
    assert 0.02 < share <= 0.05 + 0.0046


def test_a_mechanism_of_twice_the_claim_is_falsified() -> None:
    assert falsified_share(2.0, 1.0, trials=2_000) > 0.99


def test_impossible_counts_are_refused() -> None:
    for numbers in ((10, 11, 3), (10, 5, 6), (0, 0, 0), (10, 5, -1)):
        with pytest.raises(ValueError, match="right"):
            Guesses(*numbers)
    with pytest.raises(ValueError, match="epsilon"):
        p_value(Guesses(10, 5, 3), -1.0, 0.0)
    with pytest.raises(ValueError, match="confidence"):
        epsilon_lower_bound(Guesses(10, 5, 3), 0.0, 1.0)


# Scores


def slow_ratio(score: float, spent: Mechanism, releases: int) -> float:
    """The likelihood ratio from the two densities, summed over every number of draws."""
    steps = spent.steps * releases
    variance = spent.noise_multiplier**2 * steps

    def density(mean: float) -> float:
        return math.exp(-((score - mean) ** 2) / (2 * variance))

    q = spent.sample_rate
    mixed = sum(math.comb(steps, k) * q**k * (1 - q) ** (steps - k) * density(k) for k in range(steps + 1))
    return math.log(mixed / density(0.0))


@pytest.mark.parametrize("rate", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("noise", [0.7, 3.0])
def test_log_likelihood_ratios_are_those_of_the_densities(rate: float, noise: float) -> None:
    spent = mechanism(noise, rate)
    scores = np.array([-6.0, 0.0, 1.5, 10.0, 19.0])
    found = log_likelihood_ratios(scores, spent, 4)
    assert found == pytest.approx([slow_ratio(float(s), spent, 4) for s in scores], rel=1e-9, abs=1e-9)


def test_without_noise_the_coins_are_seen() -> None:
    included = KeyedRandomness(1, "test").stream("coins").coins(0.5, 400)
    scores = np.where(included, 4.0, 0.0)
    ratios = log_likelihood_ratios(scores, mechanism(0.1), 4)
    assert guess(ratios, included, 200) == Guesses(400, 200, 200)
    assert guess(ratios, ~included, 200) == Guesses(400, 200, 0)


def test_the_surest_are_guessed_whatever_the_coins_are() -> None:
    ratios = np.array([0.1, -3.0, 2.0, -0.2])
    assert guess(ratios, np.array([True, False, True, False]), 2) == Guesses(4, 2, 2)
    assert guess(ratios, np.array([True, True, True, False]), 2) == Guesses(4, 2, 1)
    with pytest.raises(ValueError, match="coin"):
        guess(ratios, np.array([True]), 1)


def test_noise_of_the_right_variance_passes_and_half_of_it_never_does() -> None:
    values = []
    for seed in range(200):
        draws = 3.0 * KeyedRandomness(seed, "test").stream("noise").normal(2000)
        values.append(noise_test(draws, 9.0).p_value)
        assert noise_test(draws * 0.5**0.5, 9.0).p_value < 1e-6
    # Uniform in a correct build: a tenth below 0.1 (three standard errors), none at a thousandth's thousandth.
    assert 0.03 < np.mean(np.array(values) < 0.1) < 0.17
    assert min(values) > 1e-6


def test_the_interval_of_the_noise_is_a_chi_squares() -> None:
    found = noise_test(np.full(2000, 2.0), 4.0)
    assert found.ratio == 1.0
    # +- 1.96 sqrt(2 / 2000), to first order
    assert (found.low, found.high) == pytest.approx((0.938, 1.062), abs=0.005)
    with pytest.raises(ValueError, match="2000"):
        noise_test(np.ones(1999), 1.0)


def test_a_reach_beyond_the_plan_is_seen() -> None:
    stream, spent, count = KeyedRandomness(3, "test").stream("scores"), mechanism(1.0), 500
    included = np.arange(count) < 250
    draws = stream.coins(spent.sample_rate, 250 * 20).reshape(250, 20).sum(axis=1)
    scores = np.concatenate([draws, np.zeros(250)]) + math.sqrt(20) * stream.normal(count)
    usual = reach_test(scores, included, spent, 4)
    assert usual is not None
    assert usual.p_value > 0.001
    assert usual.low < 1 < usual.high
    longer = reach_test(scores + 2.0 * np.concatenate([draws, np.zeros(250)]), included, spent, 4)
    assert longer is not None
    assert longer.p_value < 1e-6
    assert longer.ratio == pytest.approx(3.0, rel=0.15)
    assert reach_test(scores, np.zeros(count, dtype=np.bool_), spent, 4) is None
