"""How many rows each site has."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import Stream
from fedseal.simulation.partition import Indices, generator

Rule = Literal["equal", "dirichlet", "linear", "square", "exponential", "lognormal", "explicit"]


def relative_size(
    rule: Rule, site: int, sites: int, *, stream: Stream, alpha: float = 1.0, sizes: Sequence[int] = ()
) -> float:
    """A site's size as a multiple of the mean one. What is drawn is drawn for this site alone.

    Args:
        rule: ``equal``; ``dirichlet``: gamma variates of shape ``alpha``, whose shares are Dirichlet(alpha);
            ``linear``, ``square``, ``exponential`` in the site's number from 1; ``lognormal``: exp(N(4, 2^2)) + 50, the
            sizes of synthetic(alpha, beta) of Li et al. 2020; ``explicit``: by ``sizes``, repeated if too few.
        site: its number, from 0.
        sites: how many there are.
        stream: this site's own.
        alpha: concentration, above 0; small is very unequal.
        sizes: the explicit sizes.
    """
    place = site + 1
    if rule == "dirichlet":
        return float(generator(stream).gamma(alpha) / alpha)
    if rule == "lognormal":
        # A lognormal variate's mean is exp(mu + sigma^2 / 2).
        return float((np.exp(generator(stream).normal(4.0, 2.0)) + 50.0) / (math.exp(6.0) + 50.0))
    if rule == "linear":
        return 2.0 * place / (sites + 1)
    if rule == "square":
        return 6.0 * place * place / ((sites + 1) * (2 * sites + 1))
    if rule == "exponential":
        # exp(place) over the mean of a geometric series, scaled by exp(sites) so that nothing overflows.
        return math.exp(place - sites) * sites * (1 - math.exp(-1)) / (1 - math.exp(-sites))
    if rule == "explicit":
        turns, rest = divmod(sites, len(sizes))
        return sizes[site % len(sizes)] * sites / (turns * sum(sizes) + sum(sizes[:rest]))
    return 1.0


def apportion(weights: NDArray[np.float64], rows: int, least: int) -> NDArray[np.intp]:
    """Whole numbers in proportion to ``weights`` that sum to ``rows``, none below ``least``.

    Each gets ``least``, then the rest is shared by largest remainders (Hamilton's method), so that sites whose share is
    small are not rounded away.

    Args:
        weights: shape (sites,), at least 0 and not all 0.
        rows: how many there are to share.
        least: the smallest number a site may get.

    Raises:
        ConfigError: there are fewer rows than ``least`` for each.
    """
    sites = len(weights)
    if rows < sites * least:
        raise ConfigError(
            f"{rows} rows cannot fill {sites} sites with at least {least} each",
            next_step="Use fewer sites or a smaller min_rows.",
        )
    wanted = np.maximum(weights / weights.sum() * rows - least, 0.0)
    rest = rows - sites * least
    exact = wanted / wanted.sum() * rest if wanted.sum() > 0 else np.full(sites, rest / sites)
    whole = np.floor(exact).astype(np.intp)
    remainders = np.argsort(-(exact - whole), kind="stable")
    whole[remainders[: rest - int(whole.sum())]] += 1
    return np.asarray(whole + least, dtype=np.intp)


def by_sizes(rows: int, sizes: NDArray[np.intp], stream: Stream) -> list[Indices]:
    """All rows in a random order, cut into parts of the given sizes.

    Returns:
        Per site the indices of its rows in increasing order; disjoint, and together all of them.
    """
    order = generator(stream).permutation(rows)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def iid(rows: int, sites: int, stream: Stream) -> list[Indices]:
    """All rows in a random order, cut into parts whose sizes differ by at most one."""
    return by_sizes(rows, apportion(np.ones(sites), rows, 1), stream)
