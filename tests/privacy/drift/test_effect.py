"""Effect sizes: unbiased, with intervals that hold what they promise."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fedseal.privacy.inference.drift.contrasts import tail_levels
from fedseal.privacy.inference.drift.difference import Difference, released, two_sample
from fedseal.privacy.inference.drift.effect import mean_and_scale, psi_like, rate_change
from fedseal.privacy.inference.drift.results import Effect
from fedseal.privacy.inference.noise import CountNoise

Real = NDArray[np.float64]
NOISE = CountNoise(0.5, 10, 6)
REPEATS = 300


def shares(mean: float, scale: float, levels: Real) -> Real:
    return np.diff(ndtr((ndtri(levels) - mean) / scale))


def drawn(rng: np.random.Generator, after: Real, before: Real, rows: int) -> Difference:
    found = []
    for n, p in ((rows, after), (10_000, before)):
        counts = rng.multinomial(n, p).astype(np.float64) + NOISE.draw(rng, p.shape)
        found.append(released(counts, NOISE))
    return two_sample(*found)


def held(effects: list[Effect], truth: float) -> float:
    return sum(e.low <= truth <= e.high for e in effects) / len(effects)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.2, 1.1), (-0.8, 0.8)])
def test_mean_and_scale(mean: float, scale: float) -> None:
    rng, levels = np.random.default_rng(1), tail_levels()
    pairs = [mean_and_scale(drawn(rng, shares(mean, scale, levels), np.diff(levels), 1000)) for _ in range(REPEATS)]
    first, second = [m for m, _ in pairs], [s for _, s in pairs]
    assert np.mean([e.value for e in first]) == pytest.approx(mean, abs=0.02)
    assert np.mean([e.value for e in second]) == pytest.approx(scale, abs=0.02)
    assert 0.90 <= held(first, mean) <= 0.99
    assert 0.90 <= held(second, scale) <= 0.99
    # The twin: an interval half as wide would be found out.
    halves = [Effect(e.kind, e.value, (e.low + e.value) / 2, (e.high + e.value) / 2, e.level) for e in first]
    assert held(halves, mean) < 0.85


def test_exact_shares_give_the_exact_shift() -> None:
    levels = tail_levels()
    exact = two_sample(released(1e9 * shares(0.3, 1.25, levels), None), released(1e9 * np.diff(levels), None))
    mean, scale = mean_and_scale(exact)
    assert mean.value == pytest.approx(0.3, abs=1e-6)
    assert scale.value == pytest.approx(1.25, abs=1e-6)


@pytest.mark.parametrize("mean", [0.0, 0.15, 0.5])
def test_psi_like_is_unbiased_and_its_interval_holds(mean: float) -> None:
    rng, equal = np.random.default_rng(2), np.linspace(0, 1, 17)
    after, before = shares(mean, 1.0, equal), np.diff(equal)
    found, truths, raw = [], [], []
    for _ in range(REPEATS):
        difference = drawn(rng, after, before, 1000)
        found.append(psi_like(difference))
        truths.append(float(((after - before) ** 2 / difference.common).sum()))
        raw.append(float((difference.shares**2 / difference.common).sum()))
    errors = np.array([e.value for e in found]) - np.array(truths)
    assert errors.mean() == pytest.approx(0.0, abs=0.004 + 0.05 * mean**2)
    inside = np.mean([e.low <= t <= e.high for e, t in zip(found, truths, strict=True)])
    assert inside >= 0.9
    # The twin: the raw number is far too large where nothing happened.
    assert mean > 0 or np.mean(raw) > 0.015


def test_its_bias_on_equal_bins_is_that_of_the_formula() -> None:
    window, past = np.full(16, 1000 / 16), np.full(16, 10_000 / 16)
    difference = two_sample(released(window, NOISE), released(past, NOISE))
    v = NOISE.variance
    formula = 15 * (1 / 1000 + 1 / 10_000) + 16 * 15 * v * (1 / 1000**2 + 1 / 10_000**2)
    assert psi_like(difference).value == pytest.approx(-formula, rel=1e-9)


def test_a_rates_change() -> None:
    rng = np.random.default_rng(3)
    found = [rate_change(drawn(rng, np.array([0.72, 0.28]), np.array([0.8, 0.2]), 500), 1) for _ in range(REPEATS)]
    assert np.mean([e.value for e in found]) == pytest.approx(0.08, abs=0.005)
    assert 0.91 <= held(found, 0.08) <= 0.99
