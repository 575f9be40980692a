"""Sites that differ in how frequent classes are."""

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.simulation.partition import ATTEMPTS, Indices, generator


def label_dirichlet(
    labels: NDArray[np.intp],
    *,
    sites: int,
    alpha: float,
    min_rows: int,
    self_balancing: bool,
    randomness: KeyedRandomness,
) -> list[Indices]:
    """Each class spread over the sites by one Dirichlet(alpha, ..., alpha) draw (Yurochkin et al. 2019).

    Args:
        labels: the class of each row, shape (rows,).
        sites: how many sites.
        alpha: concentration; below 1 most sites hold mostly a few classes.
        min_rows: no site gets fewer; draws are repeated until this holds.
        self_balancing: a site that has its equal share of all rows gets nothing of the classes that follow (Li, Diao,
            Chen and He 2022).
        randomness: a stream for each attempt is taken from it.

    Returns:
        Per site the indices of its rows, in increasing order; disjoint, and together all of them.

    Raises:
        ConfigError: there are too few rows, or no draw in a thousand gives every site its minimum.
    """
    if len(labels) < sites * min_rows:
        raise ConfigError(
            f"{len(labels)} rows cannot fill {sites} sites with at least {min_rows} each",
            next_step="Use fewer sites or a smaller min_rows.",
        )
    for attempt in range(ATTEMPTS):
        rng = generator(randomness.stream("label dirichlet", attempt))
        parts: list[list[Indices]] = [[] for _ in range(sites)]
        sizes = np.zeros(sites, dtype=np.intp)
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            shares = rng.dirichlet(np.full(sites, alpha))
            if self_balancing:
                shares = shares * (sizes < len(labels) / sites)
            # For a tiny alpha all of the draw may underflow, or stand at sites that are full.
            shares = shares / shares.sum() if shares.sum() > 0 else np.full(sites, 1.0 / sites)
            cuts = np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.intp)
            for site, part in enumerate(np.split(rows, cuts)):
                parts[site].append(part)
                sizes[site] += len(part)
        if sizes.min() >= min_rows:
            return [np.sort(np.concatenate(part)) for part in parts]
    raise ConfigError(
        f"no draw in {ATTEMPTS} gave each of {sites} sites {min_rows} rows",
        next_step="Use fewer sites, a smaller min_rows or a larger alpha, or set self_balancing = true.",
    )


def labels_per_site(labels: NDArray[np.intp], *, sites: int, count: int, stream: Stream) -> list[Indices]:
    """Each site has rows of ``count`` classes, and a class's rows are shared equally by the sites that have it.

    This is #C = count of Li, Diao, Chen and He 2022, but that classes are dealt out evenly: no class is at two sites
    more than another.

    Returns:
        Per site the indices of its rows, in increasing order; disjoint, and together all of them.

    Raises:
        ConfigError: more classes a site than there are, too few places for all classes, or too few rows of one.
    """
    classes = np.unique(labels)
    deal = deal_labels(len(classes), sites=sites, count=count, stream=stream)
    rng = generator(stream)
    parts: list[list[Indices]] = [[] for _ in range(sites)]
    for code, label in enumerate(classes):
        holders = np.flatnonzero(deal[:, code])
        rows = rng.permutation(np.flatnonzero(labels == label))
        if len(rows) < len(holders):
            raise ConfigError(
                f"a class of {len(rows)} rows cannot be at {len(holders)} sites",
                next_step="Use fewer sites, or fewer labels a site.",
            )
        for site, part in zip(holders, np.array_split(rows, len(holders)), strict=True):
            parts[site].append(part)
    return [np.sort(np.concatenate(part)) for part in parts]


def deal_labels(classes: int, *, sites: int, count: int, stream: Stream) -> NDArray[np.bool_]:
    """Which site has which classes, shape (sites, classes): ``count`` in every row, and every column has one.

    A site takes the classes that fewest sites before it have, ties by chance, so what it has does not depend on the
    sites that come after it.

    Raises:
        ConfigError: more classes a site than there are, or too few places for all classes.
    """
    if count > classes:
        raise ConfigError(f"labels = {count}, but there are {classes} classes")
    if sites * count < classes:
        raise ConfigError(
            f"{sites} sites of {count} classes leave some of {classes} classes at no site",
            next_step="Use more sites, or more labels a site.",
        )
    rng = generator(stream)
    held = np.zeros(classes, dtype=np.intp)
    deal = np.zeros((sites, classes), dtype=np.bool_)
    for site in range(sites):
        chosen = np.lexsort((rng.random(classes), held))[:count]
        deal[site, chosen] = True
        held[chosen] += 1
    return deal
