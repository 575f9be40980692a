"""What a generator of labelled rows is."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.float64]
Labels = NDArray[np.intp]
Concepts = NDArray[np.float64]


class DataStream(Protocol):
    """Rows whose labels follow a concept, which is a number from 0.

    ``concepts`` is how many there are, None if every whole number is one. ``between`` says whether a number between two
    is a concept between them, so that one can turn into the other by degrees.
    """

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their codes."""

    @property
    def concepts(self) -> int | None:
        """How many concepts there are."""

    @property
    def between(self) -> bool:
        """Whether there are concepts between whole numbers."""

    def at(self, site: int) -> "DataStream":
        """The stream as one site sees it: itself, unless sites differ."""

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """One row for each entry of ``concept``: features, shape (rows, features), and classes, shape (rows,)."""


def numbered(count: int) -> tuple[str, ...]:
    """Names for features that have none: x1, x2, ..."""
    return tuple(f"x{i + 1}" for i in range(count))


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names for classes that have none: their codes."""
    return tuple(str(i) for i in range(count))


def interpolated(place: Callable[[int], Features], concept: float) -> Features:
    """Where a concept is: its own place, or on the straight line between those of its two neighbours."""
    low = int(concept)
    here = place(low)
    return here if low == concept else here + (concept - low) * (place(low + 1) - here)
