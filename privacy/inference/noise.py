"""The public noise of a released table of counts."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CountNoise:
    """The noise in every cell: ``shares`` sites each added a share of which ``honest`` make two-sided geometric noise.

    The sum of all is the difference of two negative binomials of shape shares / honest and ratio exp(-``decay``). It
    is public: plan and survivors are.
    """

    decay: float
    shares: int
    honest: int

    @property
    def variance(self) -> float:
        """Of the noise in one cell: shares / honest * 2 q / (1 - q)^2, q = exp(-decay)."""
        q = math.exp(-self.decay)
        return self.shares / self.honest * 2 * q / (1 - q) ** 2

    @property
    def excess_kurtosis(self) -> float:
        """Fourth cumulant over squared variance: (1 + 4 q + q^2) / (2 q) for one share, 3 for the finest of counts."""
        q = math.exp(-self.decay)
        return self.honest / self.shares * (1 + 4 * q + q**2) / (2 * q)

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Noise as in a release, from floating point: for intervals, never for a release."""
        size, success = self.shares / self.honest, -math.expm1(-self.decay)
        first, second = (rng.negative_binomial(size, success, shape).astype(np.int64) for _ in range(2))
        found: NDArray[np.int64] = first - second
        return found
