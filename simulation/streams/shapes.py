"""Streams whose concepts are places that can move: hyperplanes, radial basis functions, Gaussian classes.

A concept's place is drawn once from a stream that its number keys; between two concepts places lie on the straight line
from one to the other.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import generator
from fedseal.simulation.streams.stream import (
    Concepts,
    DataStream,
    Features,
    Labels,
    interpolated,
    numbered,
    numbered_classes,
)

Place = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Hyperplane:
    """Rows uniform on the unit cube, positive on one side of a plane through its middle (Hulten, Spencer and
    Domingos 2001). Taken by degrees from one concept to the next, the plane rotates.
    """

    dimensions: int
    randomness: KeyedRandomness
    classes: tuple[str, ...] = ("below", "above")
    concepts: int | None = None
    between: bool = True

    @property
    def features(self) -> tuple[str, ...]:
        """x1, x2, ..."""
        return numbered(self.dimensions)

    def at(self, site: int) -> DataStream:
        """All sites see the same."""
        return self

    def weights(self, concept: float) -> Place:
        """The plane's weights, each in (0, 1], shape (dimensions,)."""
        return interpolated(lambda n: self.randomness.stream("hyperplane", n).uniform53(self.dimensions), concept)

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Features first, then each row's side of the plane of its concept."""
        x = rng.random((len(concept), self.dimensions))
        y = np.zeros(len(x), dtype=np.intp)
        for number in np.unique(concept):
            rows = concept == number
            y[rows] = hyperplane_labels(x[rows], self.weights(float(number)))
        return x, y


def hyperplane_labels(x: Features, weights: Place) -> Labels:
    """Whether w . x reaches half of the sum of w, which divides the cube into two equal parts."""
    return np.asarray(x @ weights >= 0.5 * weights.sum(), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Centroids:
    """Where rows are: shape (centroids, dimensions), with class, width and weight of each centroid."""

    centres: Place
    labels: Labels
    widths: NDArray[np.float64]
    weights: NDArray[np.float64]


def radial(rng: np.random.Generator, centroids: Centroids, rows: int) -> tuple[Features, Labels]:
    """Rows about centroids that are drawn by their weights: in a random direction, at a normal distance."""
    chosen = rng.choice(len(centroids.weights), rows, p=centroids.weights / centroids.weights.sum())
    direction = rng.uniform(-1.0, 1.0, (rows, centroids.centres.shape[1]))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    distance = rng.standard_normal(rows) * centroids.widths[chosen]
    return centroids.centres[chosen] + direction * distance[:, None], centroids.labels[chosen]


@dataclass(frozen=True, slots=True)
class RandomRbf:
    """Rows about centroids of different classes, widths and weights in the unit cube (Kirkby 2007; Bifet, Holmes,
    Kirkby and Pfahringer 2010). A concept is a set of centres: the same centroids elsewhere.
    """

    dimensions: int
    class_count: int
    centroid_count: int
    randomness: KeyedRandomness
    concepts: int | None = None
    between: bool = True

    @property
    def features(self) -> tuple[str, ...]:
        """x1, x2, ..."""
        return numbered(self.dimensions)

    @property
    def classes(self) -> tuple[str, ...]:
        """0, 1, ..."""
        return numbered_classes(self.class_count)

    def at(self, site: int) -> DataStream:
        """All sites see the same."""
        return self

    def centroids(self, concept: float) -> Centroids:
        """Those of a concept."""
        rng = generator(self.randomness.stream("rbf", "centroids"))
        # Every class has one centroid at least where there are enough.
        labels = (rng.permutation(self.centroid_count) % self.class_count).astype(np.intp)
        widths, weights = rng.random(self.centroid_count), rng.random(self.centroid_count)
        return Centroids(interpolated(self._centres, concept), labels, widths, weights)

    def _centres(self, concept: int) -> Place:
        words = self.randomness.stream("rbf", "centres", concept).uniform53(self.centroid_count * self.dimensions)
        return words.reshape(self.centroid_count, self.dimensions)

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Each row about a centroid of its concept."""
        x = np.empty((len(concept), self.dimensions))
        y = np.empty(len(concept), dtype=np.intp)
        for number in np.unique(concept):
            rows = concept == number
            x[rows], y[rows] = radial(rng, self.centroids(float(number)), int(rows.sum()))
        return x, y


@dataclass(frozen=True, slots=True)
class Gaussians:
    """One spherical Gaussian of deviation 1 a class, all equally likely; a concept is a set of means.

    Means stand at right angles to one another where there are no more classes than dimensions, so that every two are
    ``separation`` apart and the best classifier of two is right with probability Phi(separation / 2).
    """

    dimensions: int
    class_count: int
    separation: float
    randomness: KeyedRandomness
    concepts: int | None = None
    between: bool = True

    @property
    def features(self) -> tuple[str, ...]:
        """x1, x2, ..."""
        return numbered(self.dimensions)

    @property
    def classes(self) -> tuple[str, ...]:
        """0, 1, ..."""
        return numbered_classes(self.class_count)

    def at(self, site: int) -> DataStream:
        """All sites see the same."""
        return self

    def means(self, concept: float) -> Place:
        """The means of a concept, shape (classes, dimensions)."""
        return interpolated(self._means, concept)

    def _means(self, concept: int) -> Place:
        normal = self.randomness.stream("gaussians", concept).normal(self.class_count * self.dimensions)
        directions = normal.reshape(self.class_count, self.dimensions)
        if self.class_count <= self.dimensions:
            directions = orthonormal(directions)
        else:
            directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        return np.asarray(directions * self.separation / np.sqrt(2.0))

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Classes first, then each row about its class's mean."""
        y = rng.integers(0, self.class_count, len(concept)).astype(np.intp)
        x = rng.standard_normal((len(concept), self.dimensions))
        for number in np.unique(concept):
            rows = concept == number
            x[rows] += self.means(float(number))[y[rows]]
        return x, y


def orthonormal(rows: Place) -> Place:
    """Gram and Schmidt: rows at right angles, of length 1. Without LAPACK, whose last bits differ between machines."""
    made = np.empty_like(rows)
    for i, row in enumerate(rows):
        left = row - sum((float((row * other).sum()) * other for other in made[:i]), np.zeros_like(row))
        made[i] = left / np.sqrt(float((left * left).sum()))
    return made
