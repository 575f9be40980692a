"""What two samples differ by, cell by cell, with the covariance it would have if nothing had changed.

Everything else in this package works on a `Difference`, whether it comes from two histograms (`two_sample`) or from
sums of every site's own difference from its own past (`stratified`). The second is what to use over sites: a
histogram pooled over sites moves when another mix of sites takes part, though nothing has changed anywhere.
"""

from dataclasses import dataclass

import numpy as np

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.contrasts import Real
from fedseal.privacy.inference.noise import CountNoise

# A cell is believed to hold one standard deviation of its noise, as a negative one would have a negative variance, but
# not more than this part of an equal share.
RAREST = 0.2
# Of Laplace's distribution, to which two-sided geometric noise comes near where it is large.
LAPLACE_KURTOSIS = 3.0


@dataclass(frozen=True, slots=True)
class Histogram:
    """Released counts, shape (..., B), and the variance of the noise in each cell; 0 where a site counts for itself.

    ``kurtosis`` is the noise's excess kurtosis (`CountNoise.excess_kurtosis`): heavy tails matter in small windows.
    """

    counts: Real
    noise: float = 0.0
    kurtosis: float = LAPLACE_KURTOSIS


@dataclass(frozen=True, slots=True)
class Strata:
    """Sums over sites i with c1_i of n1_i persons in the window, n0_i persons and shares q0_i in the reference.

    Attributes:
        difference: V = sum_i (c1_i - n1_i q0_i), shape (..., B), in persons.
        weights: W = sum_i n1_i (1 + n1_i / n0_i) q0_i, shape (..., B): released beside V, or `expected_weights`.
        rows: sum_i n1_i, shape (...). Scales effect sizes; no test depends on it.
        noise: variance of the noise in a cell of V, in persons squared.
        weights_noise: the same of W; 0 if W was not released.
        kurtosis: excess kurtosis of the noise in V.
    """

    difference: Real
    weights: Real
    rows: Real
    noise: float = 0.0
    weights_noise: float = 0.0
    kurtosis: float = LAPLACE_KURTOSIS


@dataclass(frozen=True, slots=True)
class Difference:
    """Shares in the window minus shares before.

    Attributes:
        shares: shape (..., B).
        covariance: of ``shares`` under no change, sampling and noise, shape (..., B, B).
        before: the shares of the reference, shape (..., B), every cell above 0.
        common: the shares both have if nothing changed, shape (..., B), every cell above 0.
        noise_factor: F of the part F F' of ``covariance`` that is noise: independent noise of variance 1, times F.
        noise_kurtosis: excess kurtosis of that independent noise, shape (...).
        diagonal_noise: variance of the noise in each cell of the covariance's diagonal, shape (...): of a released W.
        window_part: how much of the sampling variance is the window's own, shape (...): 1 for an endless reference.
    """

    shares: Real
    covariance: Real
    before: Real
    common: Real
    noise_factor: Real
    noise_kurtosis: Real
    diagonal_noise: Real
    window_part: Real

    @property
    def bins(self) -> int:
        """How many cells."""
        return int(self.shares.shape[-1])

    @property
    def noise_covariance(self) -> Real:
        """The part of ``covariance`` that is noise."""
        return np.asarray(self.noise_factor @ np.swapaxes(self.noise_factor, -1, -2))


def released(counts: Real, noise: CountNoise | None) -> Histogram:
    """A histogram with the noise it was released with; None for none."""
    if noise is None:
        return Histogram(counts)
    return Histogram(counts, noise.variance, noise.excess_kurtosis)


def effective_rows(rows: Real | float, bins: int, noise: float) -> Real:
    """N / (1 + B v / N): how many rows without noise would tell as much, for bins of equal share."""
    rows = np.asarray(rows, dtype=np.float64)
    return np.asarray(rows / (1 + bins * noise / rows))


def enough_rows(rows: float, bins: int, noise: float) -> bool:
    """Whether a released sum of ``rows`` stands clear of its own noise: by eight standard deviations.

    Less cannot be divided by, and a window with less is not evaluable.
    """
    return rows > 0 and rows**2 >= 64 * bins * noise


def two_sample(window: Histogram, reference: Histogram) -> Difference:
    """c1 / n1 - c0 / n0 with n the sum of the released counts.

    The covariance is (diag p - p p') (1/n0 + 1/n1) + (I - p 1') (I - 1 p') (v0/n0^2 + v1/n1^2): dividing by a noisy sum
    takes from every cell its share of the sum's noise. p is the mean of both, weighted by effective rows.

    Raises:
        LocalError: other bins, or a released sum that is not positive (such a window cannot be judged at all).
    """
    if window.counts.shape[-1] != reference.counts.shape[-1]:
        raise LocalError("two histograms with different bins cannot be compared")
    bins = window.counts.shape[-1]
    n1, n0 = _total(window), _total(reference)
    first, before = window.counts / n1[..., None], reference.counts / n0[..., None]
    weight1 = effective_rows(n1, bins, window.noise)[..., None]
    weight0 = effective_rows(n0, bins, reference.noise)[..., None]
    weights = weight1 + weight0
    pooled = (weight1 * first + weight0 * before) / weights
    spread = np.hypot(weight1 / n1[..., None] * window.noise**0.5, weight0 / n0[..., None] * reference.noise**0.5)
    least = _least(bins, spread / weights, (n1 + n0)[..., None])
    common = floored(pooled, least)
    v1, v0 = window.noise / n1**2, reference.noise / n0**2
    factor = (np.eye(bins) - common[..., :, None]) * np.sqrt(v1 + v0)[..., None, None]
    noise = factor @ np.swapaxes(factor, -1, -2)
    total_noise = np.maximum(v1 + v0, np.finfo(np.float64).tiny)
    return Difference(
        shares=first - before,
        covariance=multinomial(common) * (1 / n1 + 1 / n0)[..., None, None] + noise,
        before=floored(before, least),
        common=common,
        noise_factor=factor,
        noise_kurtosis=window.kurtosis * (v1 / total_noise) ** 2 + reference.kurtosis * (v0 / total_noise) ** 2,
        diagonal_noise=np.zeros_like(n1),
        window_part=n0 / (n1 + n0),
    )


def stratified(strata: Strata) -> Difference:
    """V / n1 with the covariance (diag W - W W' / w + v I) / n1^2, w the sum of W.

    W W' / w is at most the sites' own sum_i w_i q_i q_i' (convexity), so the more the sites differ the more cautious
    the test is: its false alarms stay below the level. W's noise would make W W' larger by its variance, on average,
    and is taken off.

    Raises:
        LocalError: other numbers of cells in V and W, or sums of rows or weights that are not positive.
    """
    bins = strata.difference.shape[-1]
    if strata.weights.shape[-1] != bins:
        raise LocalError("the weights of stratified sums have as many cells as the differences")
    rows, total = np.asarray(strata.rows, dtype=np.float64), strata.weights.sum(axis=-1)
    if not (np.all(rows > 0) and np.all(total > 0)):
        raise LocalError("stratified sums over no persons cannot be tested", next_step="Call it not evaluable.")
    least = _least(bins, strata.weights_noise**0.5 / total[..., None], total[..., None])
    common = floored(strata.weights / total[..., None], least)
    bias = strata.weights_noise / total
    sampling = multinomial(common) * total[..., None, None] + np.eye(bins) * bias[..., None, None]
    scale = (rows**2)[..., None, None]
    factor = np.broadcast_to(np.eye(bins) * strata.noise**0.5, sampling.shape) / rows[..., None, None]
    return Difference(
        shares=strata.difference / rows[..., None],
        covariance=sampling / scale + factor**2,
        before=common,
        common=common,
        noise_factor=factor,
        noise_kurtosis=np.full(rows.shape, strata.kurtosis if strata.noise else 0.0),
        diagonal_noise=strata.weights_noise / rows**4,
        window_part=np.minimum(rows / total, 1.0),
    )


def expected_weights(rows: Real | float, reference: Real, ratio: float) -> Real:
    """W without a release of its own: n1 (1 + ``ratio``) p, p the federation's ``reference`` shares at training.

    Args:
        rows: sum_i n1_i, shape (...).
        reference: public shares, shape (B,), or (..., B).
        ratio: n1_i / n0_i, a window's rows over the reference's, the same public number for all sites. The test keeps
            its level if no site has a larger one and the shares are close to those of the sites that take part.
    """
    return np.asarray(rows, dtype=np.float64)[..., None] * (1 + ratio) * reference


def sum_strata(windows: Real, references: Real) -> Strata:
    """The stratified sums of sites without noise: counts of windows and references, shape (..., sites, B).

    What every site computes of itself, added up; the slow twin of a release, and what simulations start from.
    """
    n1, n0 = windows.sum(axis=-1, keepdims=True), references.sum(axis=-1, keepdims=True)
    shares = references / n0
    difference = (windows - n1 * shares).sum(axis=-2)
    weights = (n1 * (1 + n1 / n0) * shares).sum(axis=-2)
    return Strata(difference, weights, n1[..., 0].sum(axis=-1))


def sampling_covariance(difference: Difference, now: Real) -> Real:
    """The sampling part of the covariance if the window's shares are ``now``, shape (..., B), as after a change."""
    part = difference.window_part[..., None, None]
    found = part * multinomial(now) + (1 - part) * multinomial(difference.before)
    sampling = difference.covariance - difference.noise_covariance
    scale = np.trace(sampling, axis1=-2, axis2=-1) / np.trace(multinomial(difference.common), axis1=-2, axis2=-1)
    return np.asarray(found * scale[..., None, None])


def multinomial(shares: Real) -> Real:
    """diag p - p p', shape (..., B, B)."""
    return np.asarray(shares[..., :, None] * (np.eye(shares.shape[-1]) - shares[..., None, :]))


def floored(shares: Real, least: Real) -> Real:
    """Shares of at least ``least`` that add up to 1."""
    found = np.maximum(shares, least)
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


def _least(bins: int, spread: Real, persons: Real) -> Real:
    """The smallest share believed: half a person, and what noise of that ``spread`` in a share does not let be told."""
    return np.asarray(np.maximum(np.minimum(RAREST / bins, spread), 0.5 / persons))


def _total(histogram: Histogram) -> Real:
    total = np.asarray(histogram.counts.sum(axis=-1), dtype=np.float64)
    if not np.all(total > 0):
        raise LocalError("a window without persons cannot be tested", next_step="Call it not evaluable.")
    return total
