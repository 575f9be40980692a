"""The same tests at a site, on its own rows: exact, with noise 0. What they say stays at the site.

A server's sums say whether the federation as a whole drifts; a change at one site out of many shows at that site long
before it shows in a sum.
"""

import numpy as np

from fedseal.errors import DataError
from fedseal.privacy.inference.drift.chi2 import chi2_test
from fedseal.privacy.inference.drift.contrasts import BINS, Real, tail_levels
from fedseal.privacy.inference.drift.difference import Difference, Histogram, two_sample
from fedseal.privacy.inference.drift.effect import mean_and_scale, psi_like, rate_change
from fedseal.privacy.inference.drift.results import Method, TestResult
from fedseal.privacy.inference.drift.smooth import smooth_test


def inner_edges(reference: Real, bins: int = BINS) -> Real:
    """Where to cut, from a site's own values: at most B - 1 increasing numbers, fewer where values repeat.

    Missing values (NaN) are left out.

    Raises:
        DataError: no values.
    """
    known = _known(reference)
    # Values that occur: between two of them there may be nobody.
    cuts = np.unique(np.quantile(known, tail_levels(bins)[1:-1], method="inverted_cdf"))
    # An edge below which nothing lies cuts nothing off.
    return np.asarray(cuts[cuts > known.min()], dtype=np.float64)


def histogram(values: Real, edges: Real) -> Histogram:
    """Counts of values in the bins between inner edges; an edge belongs to the bin above it. NaN is left out."""
    places = np.searchsorted(edges, values[~np.isnan(values)], side="right")
    return Histogram(np.bincount(places, minlength=len(edges) + 1).astype(np.float64))


def smooth(values: Real, reference: Real, *, alpha: float, bins: int = BINS) -> TestResult:
    """The smooth test of a site's window against its own reference, with effects.

    Raises:
        DataError: no values in either, or a reference that has one value only.
    """
    edges = inner_edges(reference, bins)
    if len(edges) < 1:
        raise DataError("a column with one value only has no distribution to watch")
    _known(values)
    difference = two_sample(histogram(values, edges), histogram(reference, edges))
    if difference.bins < 3:
        return smooth_test(difference, alpha=alpha, effects=(rate_change(difference, difference.bins - 1),))
    return smooth_test(difference, alpha=alpha, effects=(psi_like(difference), *mean_and_scale(difference)))


def ks(values: Real, reference: Real, *, alpha: float) -> TestResult:
    """Kolmogorov and Smirnov's test of two samples, exact for small ones. At a site only: noise would break it.

    Raises:
        DataError: no values in either.
    """
    # Half a second of import that only this test needs.
    from scipy.stats import ks_2samp

    found = ks_2samp(_known(values), _known(reference))
    return TestResult(Method.KS, float(found.statistic), None, float(found.pvalue), alpha)


def categories(counts: Real, reference: Real, *, alpha: float) -> TestResult:
    """Pearson's test of a site's class counts against those of its reference; categories that neither has are left out.

    Raises:
        DataError: fewer than two categories occur, or one of the samples is empty.
    """
    if counts.sum() <= 0 or reference.sum() <= 0:
        raise DataError("a column without values cannot be tested")
    occur = (counts + reference) > 0
    if occur.sum() < 2:
        raise DataError("a column with one category only has no distribution to watch")
    difference: Difference = two_sample(Histogram(counts[occur]), Histogram(reference[occur]))
    effects = (rate_change(difference, 1),) if difference.bins == 2 else (psi_like(difference),)
    return chi2_test(difference, alpha=alpha, effects=effects)


def _known(values: Real) -> Real:
    known = values[~np.isnan(values)]
    if not len(known):
        raise DataError("a column without values cannot be tested")
    return known
