"""The chart against published run lengths, an independent computation of them, and a slow twin."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.cusum import (
    Chart,
    CusumState,
    Excess,
    Side,
    advance,
    error_excess,
    step,
    stratified_excess,
)
from fedseal.privacy.inference.noise import CountNoise

# Run lengths of a two-sided chart with k = 1/2, h = 4 and h = 5 by shift in standard deviations: Montgomery,
# Introduction to Statistical Quality Control, table 9.3 (after Lucas 1976).
PUBLISHED = [
    (4.0, 0.0, 168.0),
    (4.0, 1.0, 8.38),
    (4.0, 2.0, 3.34),
    (5.0, 0.0, 465.0),
    (5.0, 1.0, 10.4),
    (5.0, 2.0, 4.01),
]


def markov(threshold: float, shift: float, states: int = 400) -> float:
    """Mean run length of a one-sided chart of normal variables (Brook and Evans 1972)."""
    width = 2 * threshold / (2 * states - 1)
    place = np.arange(states) * width
    apart = place[None, :] - place[:, None] + 0.5 - shift
    steps = ndtr(apart + width / 2) - ndtr(apart - width / 2)
    steps[:, 0] = ndtr(width / 2 - place + 0.5 - shift)
    return float(np.linalg.solve(np.eye(states) - steps, np.ones(states))[0])


def simulated(threshold: float, shift: float, chains: int = 2000) -> float:
    rng = np.random.default_rng(1)
    sums, length = np.zeros(chains), np.zeros(chains)
    for window in range(1, 10_000):
        sums = advance(sums, rng.normal(shift, 1, chains), 0.5)
        length[(length == 0) & (sums > threshold)] = window
        if np.all(length > 0):
            break
    return float(length.mean())


@pytest.mark.parametrize(("threshold", "shift", "published"), PUBLISHED)
def test_run_lengths_are_the_published_ones(threshold: float, shift: float, published: float) -> None:
    # Two sides: the rates of false signals add up.
    both = 1 / (1 / markov(threshold, shift) + 1 / markov(threshold, -shift))
    assert both == pytest.approx(published, rel=0.01)
    if shift:
        assert simulated(threshold, shift) == pytest.approx(markov(threshold, shift), rel=0.04)


def test_the_default_chart_signals_falsely_once_in_300_windows_or_less() -> None:
    assert markov(4.1, 0.0) == pytest.approx(simulated(4.1, 0.0), rel=0.08)
    assert markov(4.1, 0.0) > 300
    # The twin: a lower threshold would not do.
    assert markov(3.5, 0.0) < 300


@given(st.lists(st.floats(-4, 4), max_size=60))
def test_the_state_machine_is_the_textbooks_sum(deviations: list[float]) -> None:
    chart, state, sums, since = Chart(two_sided=True), CusumState(), [0.0, 0.0], 0
    for z in deviations:
        state, side = step(chart, state, Excess(3 * z, 9.0))
        sums = [max(0.0, sums[0] + z - 0.5), max(0.0, sums[1] - z - 0.5)]
        since += 1
        expected = Side.RISE if sums[0] > 4.1 else Side.FALL if sums[1] > 4.1 else None
        assert side == expected
        if expected:
            sums, since = [0.0, 0.0], 0
        assert (state.rise, state.fall, state.windows) == pytest.approx((*sums, since))


def test_a_one_sided_chart_does_not_see_a_fall() -> None:
    falling = [Excess(-2.0, 1.0)] * 10
    seen: dict[bool, list[Side | None]] = {}
    for two_sided in (False, True):
        state = CusumState()
        for excess in falling:
            state, side = step(Chart(two_sided=two_sided), state, excess)
            seen.setdefault(two_sided, []).append(side)
    assert seen[False] == [None] * 10
    assert Side.FALL in seen[True]


def delay(noise: CountNoise | None, rate: float, chains: int = 1500) -> float:
    """Mean windows to a signal of a chart of errors that expects .2, with 200 rows a window."""
    rng = np.random.default_rng(3)
    sums, length = np.zeros(chains), np.zeros(chains)
    for window in range(1, 10_000):
        wrong = rng.binomial(200, rate, chains).astype(np.float64)
        right = 200 - wrong
        if noise is not None:
            wrong, right = wrong + noise.draw(rng, wrong.shape), right + noise.draw(rng, right.shape)
        variance = np.maximum(wrong + right, 1) * 0.16 + (0.68 * noise.variance if noise else 0.0)
        sums = advance(sums, (0.8 * wrong - 0.2 * right) / np.sqrt(variance), 0.5)
        length[(length == 0) & (sums > 4.1)] = window
        if np.all(length > 0):
            break
    return float(length.mean())


def test_noise_of_epsilon_one_half_delays_a_signal_of_errors_little() -> None:
    noise = CountNoise(0.5, 1, 1)
    assert delay(noise, 0.28) <= 1.15 * delay(None, 0.28)
    assert delay(noise, 0.2, chains=600) >= 280
    # The twin: noise of a tenth of that epsilon would be noticed.
    assert delay(CountNoise(0.05, 1, 1), 0.28, chains=300) > 2 * delay(None, 0.28)


def test_the_excess_has_the_variance_of_noisy_counts() -> None:
    rng, noise = np.random.default_rng(2), CountNoise(0.5, 4, 3)
    wrong = rng.binomial(200, 0.2, 40_000)
    noisy = [c + noise.draw(rng, (40_000,)) for c in (wrong, 200 - wrong)]
    found = [error_excess(float(w), float(r), rate=0.2, noise=noise.variance) for w, r in zip(*noisy, strict=True)]
    values = np.array([e.value for e in found])
    assert values.mean() == pytest.approx(0.0, abs=0.15)
    assert values.var() == pytest.approx(np.mean([e.variance for e in found]), rel=0.03)
    # The twin: without the noise it would be too small.
    assert values.var() > 1.1 * error_excess(40.0, 160.0, rate=0.2).variance


def test_the_excess_over_strata_is_that_of_one_site() -> None:
    one = error_excess(50.0, 150.0, rate=0.2)
    # An endless reference: W = n q.
    found = stratified_excess(50 - 200 * 0.2, (200 * 0.2, 200 * 0.8))
    assert (found.value, found.variance) == pytest.approx((one.value, one.variance))
    assert math.isclose(found.deviations, 10 / math.sqrt(32))


def test_windows_without_persons_are_refused() -> None:
    with pytest.raises(LocalError):
        error_excess(-3.0, 2.0, rate=0.2)
    with pytest.raises(LocalError):
        error_excess(3.0, 2.0, rate=0.0)
    with pytest.raises(LocalError):
        stratified_excess(1.0, (0.0, 3.0))
