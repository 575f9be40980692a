"""Labels that are recorded wrongly."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from fedseal.privacy.randomness import Stream

Labels = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Confusion:
    """Which class a row would be taken for, by its features: one projection for each true class.

    Args:
        projections: shape (classes, features, classes), of independent standard normal variates.
    """

    projections: NDArray[np.float64]

    @classmethod
    def drawn(cls, features: int, classes: int, stream: Stream) -> "Confusion":
        """One that all sites share."""
        return cls(stream.normal(classes * features * classes).reshape(classes, features, classes))


def symmetric(labels: Labels, classes: int, rate: float, rng: np.random.Generator) -> Labels:
    """With probability ``rate`` any of the other classes, all equally likely."""
    other = (labels + 1 + rng.integers(0, classes - 1, len(labels))) % classes
    return np.where(rng.random(len(labels)) < rate, other, labels)


def pair(labels: Labels, classes: int, rate: float, rng: np.random.Generator) -> Labels:
    """With probability ``rate`` the next class; the last one's next is the first."""
    return np.where(rng.random(len(labels)) < rate, (labels + 1) % classes, labels)


def instance(
    labels: Labels, z: NDArray[np.float64], confusion: Confusion, rate: float, rng: np.random.Generator
) -> Labels:
    """Wrong labels that depend on the features: Xia et al. 2020, algorithm 2 (part-dependent noise, as in their data).

    Each row has its own rate, normal about ``rate`` with deviation 0.1 and cut to [0, 1]; which other class it gets is
    drawn by the softmax of the features' projections.

    Args:
        labels: true classes, shape (rows,).
        z: features in deviations from their mean, shape (rows, features), without missing values.
        confusion: the projections.
        rate: mean share of wrong labels, before the cut.
        rng: draws.
    """
    rows = len(labels)
    rates = _truncated(rate, rng.random(rows))
    logits = np.einsum("nf,nfc->nc", z, confusion.projections[labels])
    logits[np.arange(rows), labels] = -np.inf
    # The largest of logit + Gumbel noise is a draw from the softmax.
    taken = np.argmax(logits - np.log(-np.log(rng.uniform(1e-300, 1.0, logits.shape))), axis=1)
    return np.where(rng.random(rows) < rates, taken, labels)


def flipped(
    kind: Literal["symmetric", "pair", "instance"],
    labels: Labels,
    z: NDArray[np.float64],
    confusion: Confusion,
    rate: float,
    rng: np.random.Generator,
) -> Labels:
    """Labels as recorded, by the kind's rule; the arguments are those of `instance`."""
    classes = len(confusion.projections)
    if kind == "symmetric":
        return symmetric(labels, classes, rate, rng)
    if kind == "pair":
        return pair(labels, classes, rate, rng)
    return instance(labels, z, confusion, rate, rng)


def _truncated(mean: float, uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal variates with deviation 0.1, given that they are in [0, 1]: by the inverse distribution function."""
    low, high = ndtr((0.0 - mean) / 0.1), ndtr((1.0 - mean) / 0.1)
    return np.clip(mean + 0.1 * np.asarray(ndtri(low + uniform * (high - low))), 0.0, 1.0)
