"""The test that is the default: Neyman's smooth test of a difference whose noise is known.

T = y' S^-1 y with y = H'd for k contrasts H and S = H' C H, C the covariance of sampling and noise together; it is
chi-squared with k degrees of freedom under no change, and noncentral after one. Four contrasts see location, scale,
skewness and tails, and not the bins one by one, so they lose little of a plain shift's power to anything else.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, chdtri

from fedseal.privacy.inference.drift.contrasts import ORDER, Real, middles, normal_scores
from fedseal.privacy.inference.drift.difference import Difference
from fedseal.privacy.inference.drift.results import Effect, Method, TestResult


@dataclass(frozen=True, slots=True)
class Law:
    """Under no change T is ``scale`` times chi-squared of ``degrees``; both of shape (...)."""

    scale: Real
    degrees: Real

    def p_values(self, statistics: Real) -> Real:
        """The upper tail."""
        return np.asarray(chdtrc(self.degrees, np.maximum(statistics, 0.0) / self.scale), dtype=np.float64)

    def critical(self, alpha: float) -> Real:
        """What T exceeds with probability ``alpha``."""
        return np.asarray(self.scale * chdtri(self.degrees, alpha), dtype=np.float64)


def statistic(difference: Difference, contrasts: Real) -> Real:
    """T, shape (...), for contrasts of shape (B, k) or (..., B, k)."""
    turned = np.swapaxes(contrasts, -1, -2)
    seen = turned @ difference.shares[..., None]
    return np.asarray((seen * np.linalg.solve(turned @ difference.covariance @ contrasts, seen))[..., 0].sum(axis=-1))


def null_law(difference: Difference, contrasts: Real) -> Law:
    """Chi-squared of k degrees of freedom, but for what noise changes in its first two moments.

    Noise of excess kurtosis g raises the variance of T from 2 k by g times the sum over cells of (f_b' S^-1 f_b)^2,
    f_b what one cell's noise of variance 1 does to y. Noise in the covariance itself, as from a released W, raises the
    mean from k by tr E[(S^-1 E)^2], E = H' diag(e) H: var(e) times the sum over bins of (h_b' S^-1 h_b)^2.
    """
    turned = np.swapaxes(contrasts, -1, -2)
    spread, k = turned @ difference.covariance @ contrasts, contrasts.shape[-1]
    mean, variance = np.full(spread.shape[:-2], float(k)), np.full(spread.shape[:-2], 2.0 * k)
    if np.any(difference.noise_kurtosis):
        variance += difference.noise_kurtosis * (_leverage(spread, turned @ difference.noise_factor) ** 2).sum(axis=-1)
    if np.any(difference.diagonal_noise):
        mean += difference.diagonal_noise * (_leverage(spread, turned) ** 2).sum(axis=-1)
        variance *= (mean / k) ** 2
    return Law(variance / (2 * mean), 2 * mean**2 / variance)


def _leverage(spread: Real, columns: Real) -> Real:
    return np.asarray((columns * np.linalg.solve(spread, columns)).sum(axis=-2))


def p_values(difference: Difference, contrasts: Real) -> Real:
    """Of T, shape (...)."""
    return null_law(difference, contrasts).p_values(statistic(difference, contrasts))


def smooth_contrasts(difference: Difference, order: int = ORDER) -> Real:
    """Normal scores at the bins' middles, as the common shares place them: right for bins of any cut."""
    return normal_scores(middles(difference.common), order)


def smooth_test(
    difference: Difference,
    *,
    alpha: float,
    order: int = ORDER,
    power: float | None = None,
    effects: tuple[Effect, ...] = (),
) -> TestResult:
    """The smooth test of bins in order; ``power`` and ``effects`` are shown beside it."""
    return contrast_test(difference, smooth_contrasts(difference, order), Method.SMOOTH, alpha, power, effects)


def contrast_test(
    difference: Difference,
    contrasts: Real,
    method: Method,
    alpha: float,
    power: float | None = None,
    effects: tuple[Effect, ...] = (),
) -> TestResult:
    """T and its p-value, for one difference."""
    value = float(statistic(difference, contrasts))
    p = float(null_law(difference, contrasts).p_values(np.asarray(value)))
    return TestResult(method, value, int(contrasts.shape[-1]), p, alpha, power, effects)
