"""The test that is the default: Neyman's smooth test of a difference whose noise is known.

T = y' S^-1 y with y = H'd for k contrasts H and S = H' C H, C the covariance of sampling and noise together; it is
chi-squared with k degrees of freedom under no change, and noncentral after one. Four contrasts see location, scale,
skewness and tails, and not the bins one by one, so they lose little of a plain shift's power to anything else.
"""

import numpy as np
from scipy.special import chdtrc

from fedseal.privacy.inference.drift.contrasts import ORDER, Real, middles, normal_scores
from fedseal.privacy.inference.drift.difference import Difference
from fedseal.privacy.inference.drift.results import Effect, Method, TestResult


def statistic(difference: Difference, contrasts: Real) -> Real:
    """T, shape (...), for contrasts of shape (B, k) or (..., B, k)."""
    seen = np.swapaxes(contrasts, -1, -2) @ difference.shares[..., None]
    spread = np.swapaxes(contrasts, -1, -2) @ difference.covariance @ contrasts
    return np.asarray((seen * np.linalg.solve(spread, seen))[..., 0].sum(axis=-1))


def smooth_contrasts(difference: Difference, order: int = ORDER) -> Real:
    """Normal scores at the bins' middles, as the common shares place them: right for bins of any cut."""
    return normal_scores(middles(difference.common), order)


def p_values(statistics: Real | float, degrees: int) -> Real:
    """Upper tail of chi-squared."""
    return np.asarray(chdtrc(degrees, np.maximum(statistics, 0.0)), dtype=np.float64)


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
    value, degrees = float(statistic(difference, contrasts)), int(contrasts.shape[-1])
    return TestResult(method, value, degrees, float(p_values(value, degrees)), alpha, power, effects)
