"""How a population is spread over sites. Index arrays in, index arrays out; every draw from a keyed stream."""

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import Stream

Indices = NDArray[np.intp]
ATTEMPTS = 1000


def generator(stream: Stream) -> np.random.Generator:
    """A numpy generator seeded from a keyed stream: Philox, so that draws are reproducible across platforms."""
    key = np.frombuffer(stream.raw(16), dtype="<u8")
    return np.random.Generator(np.random.Philox(key=key))


def skewed(
    labels: NDArray[np.intp],
    *,
    sites: int,
    label_skew: float,
    quantity_skew: float,
    smallest: int,
    stream: Stream,
) -> list[Indices]:
    """Quantity skew and label skew together, both by Dirichlet distributions.

    Expected site sizes are r ~ Dirichlet(quantity_skew, ...); the persons of each class are spread by
    Dirichlet(label_skew * sites * r), whose mean is r. With equal sizes this is the usual Dirichlet(label_skew) label
    skew (Hsu, Qi and Brown 2019).

    Args:
        labels: the class of each person, shape (persons,).
        sites: how many sites.
        label_skew: concentration; below 1 most sites hold mostly one class.
        quantity_skew: concentration; small is very unequal.
        smallest: no site gets fewer persons; draws are repeated until this holds.
        stream: where the randomness comes from.

    Returns:
        Per site the indices of its persons, in increasing order; disjoint, and together all of them.

    Raises:
        ConfigError: there are too few persons, or no draw in a thousand gives every site its minimum.
    """
    if len(labels) < sites * smallest:
        raise ConfigError(
            f"{len(labels)} persons cannot fill {sites} sites with at least {smallest} each",
            next_step="Use fewer sites or a smaller smallest_site.",
        )
    rng = generator(stream)
    classes = np.unique(labels)
    for _ in range(ATTEMPTS):
        sizes = rng.dirichlet(np.full(sites, quantity_skew))
        shares = [_spread(rng, np.flatnonzero(labels == c), sizes, label_skew * sites) for c in classes]
        parts = [np.sort(np.concatenate([share[i] for share in shares])) for i in range(sites)]
        if min(len(p) for p in parts) >= smallest:
            return parts
    raise ConfigError(
        f"no draw in {ATTEMPTS} gave each of {sites} sites {smallest} persons",
        next_step="Use fewer sites, a smaller smallest_site, or larger label_skew and quantity_skew (less skew).",
    )


def _spread(
    rng: np.random.Generator, persons: Indices, sizes: NDArray[np.float64], concentration: float
) -> list[Indices]:
    """The persons of one class, cut at the cumulative shares of one Dirichlet draw."""
    shares = rng.dirichlet(np.maximum(concentration * sizes, 1e-6))
    cuts = np.rint(np.cumsum(shares)[:-1] * len(persons)).astype(np.intp)
    return np.split(rng.permutation(persons), cuts)


def class_table(labels: NDArray[np.intp], parts: list[Indices]) -> NDArray[np.intp]:
    """Persons by site and class, shape (sites, classes)."""
    classes = np.unique(labels)
    return np.array([[int((labels[p] == c).sum()) for c in classes] for p in parts], dtype=np.intp)
