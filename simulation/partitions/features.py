"""Sites that differ in their features: by a column that says so, by the order of one, by cells of several."""

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import Stream
from fedseal.simulation.partition import Indices, generator


def natural(groups: NDArray[np.intp], *, sites: int, stream: Stream) -> list[Indices]:
    """Rows of one group at one site. With more groups than sites the largest are dealt out first, each to the site
    with fewest rows; groups of equal size in a random order.

    Args:
        groups: the group of each row, codes from 0, shape (rows,).
        sites: how many sites; with as many groups, site i has group i.
        stream: where the order comes from.

    Raises:
        ConfigError: there are fewer groups than sites.
    """
    sizes = np.bincount(groups)
    if len(sizes) < sites:
        raise ConfigError(
            f"{len(sizes)} groups cannot be {sites} sites", next_step=f"Set sites = {len(sizes)}, or leave it out."
        )
    if len(sizes) == sites:
        return [np.flatnonzero(groups == group) for group in range(sites)]
    order = np.lexsort((generator(stream).random(len(sizes)), -sizes))
    home = np.zeros(len(sizes), dtype=np.intp)
    filled = np.zeros(sites, dtype=np.intp)
    for group in order:
        home[group] = int(np.argmin(filled))
        filled[home[group]] += sizes[group]
    return [np.flatnonzero(home[groups] == site) for site in range(sites)]


def continuous(values: NDArray[np.float64], *, sites: int, strictness: float, stream: Stream) -> list[Indices]:
    """Equal parts in the order of one feature, blurred.

    Rows are ordered by strictness * rank + (1 - strictness) * noise, ranks and noise both uniform on [0, 1): at
    1 site i has exactly the i-th slice of values, at 0 the partition is random. Missing values come last.
    """
    rows = len(values)
    rng = generator(stream)
    # Ties are broken by chance, else equal values would stand in the order of the file.
    ranks = np.empty(rows)
    ranks[np.lexsort((rng.random(rows), values))] = np.arange(rows) / rows
    score = strictness * ranks + (1.0 - strictness) * rng.random(rows)
    return [np.sort(part) for part in np.array_split(np.argsort(score, kind="stable"), sites)]


def feature_cells(x: NDArray[np.float64], *, sites: int, bins: int, stream: Stream) -> list[Indices]:
    """Features cut into equally full bins; a cell and the one opposite to it belong together.

    With three features and two bins these are the eight octants of FCUBE (Li, Diao, Chen and He 2022): four
    sites, each with two octants that mirror one another, so that all see both sides of every plane. With more sites
    than pairs of cells a pair is shared at random; with fewer a site has several.

    Args:
        x: the features that are cut, shape (rows, features).
        sites: how many sites.
        bins: parts of each feature.
        stream: where the sharing comes from.

    Raises:
        ConfigError: a site would have no row.
    """
    cell = np.zeros(len(x), dtype=np.intp)
    for column in x.T:
        cuts = np.nanquantile(column, np.arange(1, bins) / bins)
        # searchsorted puts what is missing behind all cuts: in the last bin.
        cell = cell * bins + np.searchsorted(cuts, column, side="right")
    last = bins ** x.shape[1] - 1
    pairs = np.unique(np.minimum(cell, last - cell), return_inverse=True)[1]
    count = int(pairs.max()) + 1
    home = pairs % sites
    if count < sites:
        home = np.zeros(len(x), dtype=np.intp)
        rng = generator(stream)
        for pair in range(count):
            rows = rng.permutation(np.flatnonzero(pairs == pair))
            shared = np.arange(pair, sites, count)
            for site, part in zip(shared, np.array_split(rows, len(shared)), strict=True):
                home[part] = site
    parts = [np.flatnonzero(home == site) for site in range(sites)]
    if min(len(part) for part in parts) == 0:
        raise ConfigError(
            f"{count} pairs of cells leave one of {sites} sites without rows",
            next_step="Use fewer sites, fewer bins or fewer features.",
        )
    return parts
