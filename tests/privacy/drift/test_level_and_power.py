"""False alarms and power over many windows, with fixed seeds: short forms of bench/drift_power.py."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtr, ndtri

from fedseal.privacy.inference.drift.contrasts import every, middles, tail_levels
from fedseal.privacy.inference.drift.difference import (
    Difference,
    Strata,
    expected_weights,
    released,
    stratified,
    sum_strata,
    two_sample,
)
from fedseal.privacy.inference.drift.power import Design, Shift, ShiftKind, cells, power
from fedseal.privacy.inference.drift.smooth import null_law, p_values, smooth_contrasts, statistic
from fedseal.privacy.inference.noise import CountNoise

Real = NDArray[np.float64]
ALPHA = 0.05
WINDOWS = 4000
# Three standard deviations of a rate of .05 over so many windows.
NEAR = 3 * (0.05 * 0.95 / WINDOWS) ** 0.5
SHIFTS = [Shift(ShiftKind.MEAN, 0.12), Shift(ShiftKind.SCALE, 1.1), Shift(ShiftKind.TAIL, 0.02)]


def windows(
    rng: np.random.Generator, noise: CountNoise | None, rows: int, before: Real, after: Real, count: int = WINDOWS
) -> Difference:
    found = []
    for n, shares in ((rows, after), (10_000, before)):
        counts = rng.multinomial(n, shares, count).astype(np.float64)
        found.append(released(counts if noise is None else counts + noise.draw(rng, counts.shape), noise))
    return two_sample(*found)


def smooth_rate(difference: Difference, alpha: float = ALPHA) -> float:
    return float((p_values(difference, smooth_contrasts(difference)) <= alpha).mean())


@pytest.mark.parametrize("noise", [None, CountNoise(0.5, 1, 1), CountNoise(0.5, 10, 5), CountNoise(0.25, 10, 5)])
@pytest.mark.parametrize("rows", [200, 1000])
def test_false_alarms_are_at_the_level(noise: CountNoise | None, rows: int) -> None:
    shares = np.diff(tail_levels())
    found = windows(np.random.default_rng([1, rows]), noise, rows, shares, shares)
    assert smooth_rate(found) == pytest.approx(ALPHA, abs=NEAR)
    assert float((p_values(found, every(10)) <= ALPHA).mean()) == pytest.approx(ALPHA, abs=NEAR)


def test_a_textbook_test_of_the_same_windows_would_be_noticed() -> None:
    noise, shares = CountNoise(0.25, 10, 5), np.diff(tail_levels())
    found = windows(np.random.default_rng(1), noise, 1000, shares, shares)
    blind = Difference(
        shares=found.shares,
        covariance=found.covariance - found.noise_covariance,
        before=found.before,
        common=found.common,
        noise_factor=0 * found.noise_factor,
        noise_kurtosis=0 * found.noise_kurtosis,
        diagonal_noise=found.diagonal_noise,
        window_part=found.window_part,
    )
    assert float((p_values(blind, every(10)) <= ALPHA).mean()) > ALPHA + 5 * NEAR


def test_heavy_tails_of_the_noise_would_be_noticed() -> None:
    # Plain chi-squared of the same statistic, in a window that is mostly noise.
    shares = np.diff(tail_levels())
    found = windows(np.random.default_rng(2), CountNoise(0.25, 1, 1), 200, shares, shares)
    plain = float((chdtrc(9, statistic(found, every(10))) <= ALPHA).mean())
    assert plain > ALPHA + 2 * NEAR
    law = null_law(found, every(10))
    assert np.all(law.scale > 1)
    assert np.all(law.degrees < 9)


@pytest.mark.parametrize(("shift", "kept"), [*zip(SHIFTS, (0.95, 0.95, 0.90), strict=True)], ids=str)
def test_power_at_epsilon_one_half(shift: Shift, kept: float) -> None:
    before, after = cells(shift, tail_levels())
    rng = np.random.default_rng(3)
    exact = smooth_rate(windows(rng, None, 1000, before, after, 10_000))
    noisy = smooth_rate(windows(rng, CountNoise(0.5, 1, 1), 1000, before, after, 10_000))
    assert noisy / exact > kept - 0.03


@pytest.mark.parametrize("noise", [None, CountNoise(0.5, 1, 1)])
@pytest.mark.parametrize("shift", [*SHIFTS, Shift(ShiftKind.SCALE, 0.8), Shift(ShiftKind.MEAN, -0.2)], ids=str)
def test_the_planner_says_what_is_seen(noise: CountNoise | None, shift: Shift) -> None:
    before, after = cells(shift, tail_levels())
    seen = smooth_rate(windows(np.random.default_rng(4), noise, 600, before, after))
    variance = 0.0 if noise is None else noise.variance
    said = power(Design(600, 10_000, variance, variance, over_strata=False), shift, ALPHA)
    assert said == pytest.approx(seen, abs=0.03)


@pytest.mark.parametrize("epsilon", [None, 2.0, 0.1])
def test_the_planner_says_what_is_seen_of_rates(epsilon: float | None) -> None:
    noise = None if epsilon is None else CountNoise(epsilon, 1, 1)
    shift = Shift(ShiftKind.RATE, 0.08, 0.2)
    before, after = cells(shift, tail_levels())
    found = windows(np.random.default_rng(5), noise, 300, before, after)
    variance = 0.0 if noise is None else noise.variance
    said = power(Design(300, 10_000, variance, variance, over_strata=False), shift, ALPHA)
    assert said == pytest.approx(float((p_values(found, every(2)) <= ALPHA).mean()), abs=0.03)


class Sites:
    """Ten sites whose means differ, one of which sends five times as many rows as before."""

    means = 0.5 * ndtri((np.arange(10) + 0.5) / 10)
    edges = ndtri(tail_levels()) * 1.1
    rows = np.where(np.arange(10) == 9, 1000, 200)

    @classmethod
    def shares(cls, shift: float) -> Real:
        return np.diff(ndtr(cls.edges[None, :] - cls.means[:, None] - shift), axis=1)

    @classmethod
    def drawn(cls, rng: np.random.Generator, shift: float) -> tuple[Real, Real]:
        first = [rng.multinomial(n, p, WINDOWS) for n, p in zip(cls.rows, cls.shares(shift), strict=True)]
        past = [rng.multinomial(1000, p, WINDOWS) for p in cls.shares(0.0)]
        return np.stack(first, axis=1).astype(np.float64), np.stack(past, axis=1).astype(np.float64)


@pytest.mark.parametrize("weights_released", [True, False])
def test_another_mix_of_sites_is_no_drift(weights_released: bool) -> None:
    rng = np.random.default_rng(6)
    for shift, low, high in ((0.0, 0.0, 0.06), (0.12, 0.8, 1.0)):
        now, past = Sites.drawn(rng, shift)
        exact = sum_strata(now, past)
        part = 0.85 if weights_released else 1.0
        first, second = CountNoise(0.5 * part / 2, 1, 1), CountNoise(0.5 * 0.15 / 3, 1, 1)
        noisy = exact.difference + first.draw(rng, exact.difference.shape)
        if weights_released:
            weights = exact.weights + second.draw(rng, exact.weights.shape)
        else:
            weights = expected_weights(exact.rows, Sites.shares(0.0).mean(axis=0), 1.0)
        strata = Strata(
            noisy,
            weights,
            exact.rows,
            first.variance,
            second.variance if weights_released else 0.0,
            first.excess_kurtosis,
        )
        assert low <= smooth_rate(stratified(strata)) <= high
        # What pooling would have said of the same rows.
        pooled = two_sample(released(now.sum(axis=1), None), released(past.sum(axis=1), None))
        assert smooth_rate(pooled) > 0.99


def test_weights_that_were_released_keep_the_level_in_small_windows() -> None:
    rng = np.random.default_rng(7)
    shares = np.diff(tail_levels())
    now = rng.multinomial(80, shares, (WINDOWS, 10)).astype(np.float64)
    past = rng.multinomial(1000, shares, (WINDOWS, 10)).astype(np.float64)
    exact = sum_strata(now, past)
    first, second = CountNoise(0.425, 1, 1), CountNoise(0.06, 1, 1)
    noisy = exact.difference + first.draw(rng, exact.difference.shape)
    weights = exact.weights + second.draw(rng, exact.weights.shape)
    found = stratified(Strata(noisy, weights, exact.rows, first.variance, second.variance, first.excess_kurtosis))
    assert smooth_rate(found) <= 0.06
    # The twin: without taking W's noise into account there are more.
    blind = stratified(Strata(noisy, weights, exact.rows, first.variance, 0.0, first.excess_kurtosis))
    assert smooth_rate(blind) > smooth_rate(found) + 0.005


def test_positions_of_bins_come_from_the_shares() -> None:
    assert middles(np.array([0.5, 0.3, 0.2])) == pytest.approx([0.25, 0.65, 0.9])


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [None, 2.0, 1.0, 0.5, 0.25])
@pytest.mark.parametrize("rows", [200, 1000, 10_000])
@pytest.mark.parametrize("ratio", [1, 2])
def test_ten_thousand_null_windows(epsilon: float | None, rows: int, ratio: int) -> None:
    noise = None if epsilon is None else CountNoise(epsilon, ratio, 1)
    for shares in (np.diff(tail_levels()), np.full(16, 1 / 16)):
        found = windows(np.random.default_rng([8, rows]), noise, rows, shares, shares, 10_000)
        assert 0.04 <= smooth_rate(found) <= 0.06
        assert 0.04 <= float((p_values(found, every(len(shares))) <= ALPHA).mean()) <= 0.06
