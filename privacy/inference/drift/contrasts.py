"""Where bins are cut, and what a test looks at: columns of weights over bins, orthonormal, each summing to zero."""

import numpy as np
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from scipy.special import ndtri

from fedseal.errors import LocalError

Real = NDArray[np.float64]
ORDER = 4
BINS = 10


def tail_levels(bins: int = BINS) -> Real:
    """At which quantiles of the reference to cut: B + 1 levels from 0 to 1, symmetric, finer towards both ends.

    Half evenly spaced, half by 3 t^2 - 2 t^3. A noisy cell costs the same whatever it holds, so few cells are better,
    and those few are best spent where changes of scale and tails show. For 1,000 rows at epsilon 0.5 ten of these
    cells see more of every shift than sixteen equal ones (docs/monitoring.md).

    Raises:
        LocalError: fewer than two bins.
    """
    if bins < 2:
        raise LocalError("a histogram has two bins or more")
    t = np.arange(bins + 1) / bins
    return np.asarray(0.5 * t + 0.5 * (3 * t**2 - 2 * t**3))


def middles(shares: Real) -> Real:
    """The level in the middle of each bin, shape (..., B): the shares before it and half its own."""
    return np.asarray(np.cumsum(shares, axis=-1) - shares / 2)


def normal_scores(positions: Real, order: int = ORDER) -> Real:
    """Powers 1 to ``order`` of the normal scores of levels in (0, 1), shape (..., B) -> (..., B, k).

    Location, scale, skewness and tails as they are for a normal variable, to which any other is brought by its ranks.
    Heavier on the ends than Legendre's polynomials. With fewer than order + 1 bins: all contrasts there are.

    Raises:
        LocalError: fewer than two bins, or an order below 1.
    """
    degree = _degree(positions, order)
    return _contrasts(np.asarray(ndtri(positions))[..., None] ** np.arange(degree + 1))


def legendre(positions: Real, order: int = ORDER) -> Real:
    """Legendre polynomials of degree 1 to ``order``, as in Neyman's smooth test of 1937; shapes as `normal_scores`.

    Raises:
        LocalError: fewer than two bins, or an order below 1.
    """
    return _contrasts(np.asarray(legvander(2 * positions - 1, _degree(positions, order)), dtype=np.float64))


def every(bins: int) -> Real:
    """All B - 1 contrasts, shape (B, B - 1): what Pearson's test looks at, in no order of bins.

    Raises:
        LocalError: fewer than two bins.
    """
    if bins < 2:
        raise LocalError("contrasts need two bins or more")
    return _contrasts(np.column_stack([np.ones(bins), np.eye(bins)[:, :-1]]))


def _degree(positions: Real, order: int) -> int:
    if positions.shape[-1] < 2 or order < 1:
        raise LocalError("contrasts need two bins or more, and an order of 1 or more")
    return min(order, int(positions.shape[-1]) - 1)


def _contrasts(columns: Real) -> Real:
    # The first column is constant, and the others are made orthogonal to it and to each other.
    found, _ = np.linalg.qr(columns)
    return np.asarray(found[..., 1:], dtype=np.float64)
