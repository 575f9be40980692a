"""Values that are missing, by the three mechanisms of Rubin 1976."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

# The chance doubles its odds about three times with every deviation: clearly dependent, and still some of each.
SLOPE = 2.0


@dataclass(frozen=True, slots=True)
class Missingness:
    """A chance to be missing that may depend on a value.

    Args:
        rate: the chance where it depends on nothing, and the mean chance of the values it was fitted to.
        offset: of the logistic curve over a value in deviations; None where the chance depends on nothing (MCAR).
    """

    rate: float
    offset: float | None = None

    @classmethod
    def fitted(cls, rate: float, z: NDArray[np.float64]) -> "Missingness":
        """A chance that grows with a value, ``rate`` on average over the values ``z``, given in deviations.

        With the value itself it is MNAR, with another feature's MAR.
        """
        if rate >= 1.0:
            return cls(1.0)
        return cls(rate, float(brentq(lambda a: float(expit(a + SLOPE * z).mean()) - rate, -200.0, 200.0)))

    def drawn(self, z: NDArray[np.float64], degree: float, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Which values are missing.

        Args:
            z: what the chance depends on, in deviations, shape (rows,); where that is itself missing, 0.
            degree: a factor on the chance, from 0 to 1.
            rng: draws.
        """
        chance = self.rate if self.offset is None else expit(self.offset + SLOPE * z)
        return np.asarray(rng.random(len(z)) < degree * chance)
