"""Pearson's test with the noise of the counts in it, for categories: cells in no order.

All B - 1 contrasts with the covariance of sampling and noise together. Without noise, and with the pooled shares as
the common ones, it is Pearson's test of two samples exactly.
"""

from fedseal.privacy.inference.drift.contrasts import every
from fedseal.privacy.inference.drift.difference import Difference
from fedseal.privacy.inference.drift.results import Effect, Method, TestResult
from fedseal.privacy.inference.drift.smooth import contrast_test


def chi2_test(
    difference: Difference, *, alpha: float, power: float | None = None, effects: tuple[Effect, ...] = ()
) -> TestResult:
    """The chi-squared test of categories; with two cells that of two proportions."""
    return contrast_test(difference, every(difference.bins), Method.CHI2, alpha, power, effects)
