"""synthetic(alpha, beta): sites whose models and features differ (Li, Sahu, Zaheer, Sanjabi, Talwalkar and Smith 2020,
"Federated optimization in heterogeneous networks", section 5.1 and appendix C.1).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.streams.stream import (
    Concepts,
    DataStream,
    Features,
    Labels,
    interpolated,
    numbered,
    numbered_classes,
)


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Site k has y = argmax(W_k x + b_k), W_k and b_k ~ N(u_k, 1), u_k ~ N(0, alpha); x ~ N(v_k, diag(j^-1.2)),
    v_k ~ N(B_k, 1), B_k ~ N(0, beta). ``alpha`` and ``beta`` are deviations.

    The paper has 60 dimensions and 10 classes. A concept other than 0 has another W_k and b_k about the same u_k.
    """

    dimensions: int
    class_count: int
    alpha: float
    beta: float
    randomness: KeyedRandomness
    site: int = 0
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
        """A site's own model and features."""
        return Synthetic(self.dimensions, self.class_count, self.alpha, self.beta, self.randomness, site)

    def centre(self) -> NDArray[np.float64]:
        """v_k, shape (dimensions,)."""
        normal = self.randomness.stream("synthetic", "features", self.site).normal(1 + self.dimensions)
        return np.asarray(self.beta * normal[0] + normal[1:])

    def model(self, concept: float) -> NDArray[np.float64]:
        """W_k with b_k as its last column, shape (classes, dimensions + 1)."""
        return interpolated(self._model, concept)

    def _model(self, concept: int) -> NDArray[np.float64]:
        mean = self.alpha * self.randomness.stream("synthetic", "mean", self.site).normal(1)[0]
        normal = self.randomness.stream("synthetic", "model", self.site, concept)
        return np.asarray(mean + normal.normal(self.class_count * (self.dimensions + 1)).reshape(self.class_count, -1))

    def draw(self, rng: np.random.Generator, concept: Concepts) -> tuple[Features, Labels]:
        """Features first, then each row's label by the model of its concept."""
        deviations = np.arange(1, self.dimensions + 1) ** -0.6
        x = self.centre() + rng.standard_normal((len(concept), self.dimensions)) * deviations
        y = np.zeros(len(x), dtype=np.intp)
        for number in np.unique(concept):
            rows = concept == number
            model = self.model(float(number))
            y[rows] = np.argmax(x[rows] @ model[:, :-1].T + model[:, -1], axis=1)
        return x, y
