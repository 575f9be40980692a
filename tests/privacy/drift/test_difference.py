"""Differences of counts: their covariance against drawn counts, and what cannot be divided by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2_contingency

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.chi2 import chi2_test
from fedseal.privacy.inference.drift.contrasts import every, legendre, middles, normal_scores, tail_levels
from fedseal.privacy.inference.drift.difference import (
    Difference,
    Histogram,
    Strata,
    effective_rows,
    enough_rows,
    expected_weights,
    released,
    sampling_covariance,
    stratified,
    sum_strata,
    two_sample,
)
from fedseal.privacy.inference.drift.smooth import smooth_test, statistic
from fedseal.privacy.inference.noise import CountNoise

Real = NDArray[np.float64]
SHARES = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
NOISE = CountNoise(0.5, 10, 6)


def drawn(rng: np.random.Generator, rows: int, shares: Real, noise: CountNoise | None, count: int) -> Histogram:
    counts = rng.multinomial(rows, shares, count).astype(np.float64)
    return released(counts if noise is None else counts + noise.draw(rng, counts.shape), noise)


def test_without_noise_all_contrasts_are_pearsons_test() -> None:
    window, reference = np.array([30.0, 50, 20, 7]), np.array([200.0, 280, 150, 60])
    found = chi2_test(two_sample(Histogram(window), Histogram(reference)), alpha=0.05)
    theirs = chi2_contingency([window, reference], correction=False)
    assert found.statistic == pytest.approx(theirs[0])
    assert found.p == pytest.approx(theirs[1])
    assert found.degrees == 3


@pytest.mark.parametrize("noise", [None, NOISE])
def test_the_covariance_is_that_of_drawn_counts(noise: CountNoise | None) -> None:
    rng = np.random.default_rng(1)
    found = two_sample(drawn(rng, 400, SHARES, noise, 20_000), drawn(rng, 3000, SHARES, noise, 20_000))
    empirical, said = np.cov(found.shares.T), found.covariance.mean(axis=0)
    assert empirical == pytest.approx(said, rel=0.06, abs=2e-5)
    if noise is not None:
        # Its twin: a covariance that forgot the noise would have been noticed.
        sampling = said - found.noise_covariance.mean(axis=0)
        assert np.abs(empirical - sampling).max() > 0.06 * np.abs(sampling).max() + 2e-5


def test_the_covariance_of_strata_is_that_of_drawn_sites() -> None:
    rng = np.random.default_rng(2)
    sites = np.array([SHARES, SHARES[::-1], np.full(5, 0.2)])
    windows = np.stack([rng.multinomial(n, p, 20_000) for n, p in zip((100, 200, 400), sites, strict=True)], axis=1)
    past = np.stack([rng.multinomial(n, p, 20_000) for n, p in zip((500, 900, 3000), sites, strict=True)], axis=1)
    exact = sum_strata(windows.astype(np.float64), past.astype(np.float64))
    noisy = exact.difference + NOISE.draw(rng, exact.difference.shape)
    found = stratified(Strata(noisy, exact.weights, exact.rows, NOISE.variance))
    contrasts = legendre(middles(np.full(5, 0.2)), 2)
    empirical = np.cov((found.shares @ contrasts).T)
    said = contrasts.T @ found.covariance.mean(axis=0) @ contrasts
    # At least the true one (convexity), and not much more.
    assert np.all(np.linalg.eigvalsh(said - 0.97 * empirical) > 0)
    assert np.all(np.linalg.eigvalsh(1.25 * empirical - said) > 0)


def test_stratified_sums_are_the_sum_of_what_each_site_computes() -> None:
    rng = np.random.default_rng(3)
    windows, past = rng.integers(1, 50, (4, 6)).astype(float), rng.integers(50, 90, (4, 6)).astype(float)
    found = sum_strata(windows, past)
    difference, weights = np.zeros(6), np.zeros(6)
    for c1, c0 in zip(windows, past, strict=True):
        for b in range(6):
            q = c0[b] / c0.sum()
            difference[b] += c1[b] - c1.sum() * q
            weights[b] += c1.sum() * (1 + c1.sum() / c0.sum()) * q
    assert found.difference == pytest.approx(difference)
    assert found.weights == pytest.approx(weights)
    assert float(found.rows) == windows.sum()


def test_weights_from_the_reference_are_those_of_alike_sites() -> None:
    past = np.tile(1000 * SHARES, (3, 1))
    exact = sum_strata(np.tile(200 * SHARES, (3, 1)), past)
    assert expected_weights(600.0, SHARES, 0.2) == pytest.approx(exact.weights)


def test_sites_that_did_not_change_give_zero_whatever_their_mix() -> None:
    past = np.array([1000 * SHARES, 500 * SHARES[::-1]])
    for mix in ((1.0, 1.0), (5.0, 0.2), (0.1, 3.0)):
        windows = past * np.array(mix)[:, None]
        found = smooth_test(stratified(sum_strata(windows, past)), alpha=0.05)
        assert found.p == pytest.approx(1.0)
        # Its twin: the pooled histogram moves with the mix alone.
        pooled = two_sample(Histogram(windows.sum(axis=0)), Histogram(past.sum(axis=0)))
        assert mix == (1.0, 1.0) or smooth_test(pooled, alpha=0.05).rejects


@given(
    st.lists(st.integers(1, 500), min_size=3, max_size=8),
    st.integers(1, 7),
    st.floats(0, 30),
)
def test_a_sample_against_itself_is_no_difference(counts: list[int], factor: int, noise: float) -> None:
    window = Histogram(np.array(counts, dtype=np.float64), noise)
    found = two_sample(window, Histogram(window.counts * factor, noise))
    assert float(statistic(found, every(len(counts)))) == pytest.approx(0.0, abs=1e-9)
    assert np.linalg.eigvalsh(found.covariance).min() > -1e-12
    assert np.all(found.common > 0)


@given(st.lists(st.integers(-20, 300), min_size=3, max_size=8).filter(lambda c: sum(c) > 0), st.floats(1, 60))
def test_noisy_counts_of_any_sign_have_a_p_value(counts: list[int], noise: float) -> None:
    window = Histogram(np.array(counts, dtype=np.float64), noise)
    reference = Histogram(np.full(len(counts), 100.0), noise)
    for found in (
        smooth_test(two_sample(window, reference), alpha=0.05),
        chi2_test(two_sample(window, reference), alpha=0.1),
    ):
        assert 0 <= found.p <= 1
        assert found.statistic >= 0


def test_replicates_are_judged_as_one_by_one() -> None:
    rng = np.random.default_rng(4)
    windows, past = drawn(rng, 300, SHARES, NOISE, 5), drawn(rng, 900, SHARES, NOISE, 5)
    together = two_sample(windows, past)
    for i in range(5):
        alone = two_sample(released(windows.counts[i], NOISE), released(past.counts[i], NOISE))
        assert together.covariance[i] == pytest.approx(alone.covariance)
        assert statistic(together, every(5))[i] == pytest.approx(float(statistic(alone, every(5))))


def test_after_a_change_the_sampling_covariance_is_the_windows_own() -> None:
    rng = np.random.default_rng(5)
    after = SHARES[::-1]
    found = two_sample(drawn(rng, 400, after, None, 20_000), drawn(rng, 3000, SHARES, None, 20_000))
    mean = Difference(**{name: getattr(found, name).mean(axis=0) for name in Difference.__dataclass_fields__})
    assert np.cov(found.shares.T) == pytest.approx(sampling_covariance(mean, after), rel=0.08, abs=3e-5)


@pytest.mark.parametrize(
    ("window", "reference"),
    [
        (np.zeros(3), np.ones(3)),
        (np.array([5.0, -9, 1]), np.ones(3)),
        (np.ones(3), np.zeros(3)),
        (np.ones(3), np.ones(4)),
    ],
)
def test_what_cannot_be_judged_is_refused(window: Real, reference: Real) -> None:
    with pytest.raises(LocalError):
        two_sample(Histogram(window), Histogram(reference))


def test_strata_over_nobody_are_refused() -> None:
    with pytest.raises(LocalError, match="no persons"):
        stratified(Strata(np.zeros(3), np.ones(3), np.asarray(0.0)))
    with pytest.raises(LocalError, match="no persons"):
        stratified(Strata(np.zeros(3), -np.ones(3), np.asarray(9.0)))
    with pytest.raises(LocalError, match="as many cells"):
        stratified(Strata(np.zeros(3), np.ones(4), np.asarray(9.0)))


def test_effective_rows() -> None:
    # 1,000 / (1 + 16 * 7.835 / 1,000)
    assert float(effective_rows(1000, 16, CountNoise(0.5, 1, 1).variance)) == pytest.approx(889, abs=1)
    assert enough_rows(1000, 16, CountNoise(0.5, 1, 1).variance)
    assert not enough_rows(80, 16, CountNoise(0.5, 1, 1).variance)
    assert not enough_rows(0, 16, 0.0)


@pytest.mark.parametrize("bins", [2, 3, 5, 10, 16])
def test_contrasts_are_orthonormal_and_sum_to_zero(bins: int) -> None:
    for found in (
        every(bins),
        legendre(middles(np.full(bins, 1 / bins))),
        normal_scores(middles(np.full(bins, 1 / bins))),
    ):
        assert found.sum(axis=0) == pytest.approx(0.0, abs=1e-9)
        assert found.T @ found == pytest.approx(np.eye(found.shape[1]), abs=1e-9)
    assert every(bins).shape == (bins, bins - 1)
    assert normal_scores(middles(np.full(bins, 1 / bins))).shape == (bins, min(4, bins - 1))


def test_bins_are_finer_at_both_ends() -> None:
    widths = np.diff(tail_levels(10))
    assert widths == pytest.approx(widths[::-1])
    assert np.all(np.diff(widths[:5]) > 0)
    assert tail_levels(10)[[0, -1]] == pytest.approx([0, 1])


def test_less_than_two_bins_are_refused() -> None:
    with pytest.raises(LocalError):
        tail_levels(1)
    with pytest.raises(LocalError):
        every(1)
    with pytest.raises(LocalError):
        legendre(np.array([0.5]))


def test_the_noises_moments_are_those_of_its_draws() -> None:
    drawn_noise = NOISE.draw(np.random.default_rng(6), (1_000_000,)).astype(np.float64)
    assert drawn_noise.var() == pytest.approx(NOISE.variance, rel=0.01)
    assert (drawn_noise**4).mean() / drawn_noise.var() ** 2 - 3 == pytest.approx(NOISE.excess_kurtosis, rel=0.06)
