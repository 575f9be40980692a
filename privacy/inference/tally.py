"""A released sum of counts, with what is known of its noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.counts import Real, Tables, Whole

# Of the seed of draws that only measure an interval: they protect nobody, and the same release has the same interval.
_SEED = 20


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

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Whole:
        """Noise as in a release, from floating point: for intervals, never for a release."""
        size, success = self.shares / self.honest, -math.expm1(-self.decay)
        first, second = (rng.negative_binomial(size, success, shape).astype(np.int64) for _ in range(2))
        found: Whole = first - second
        return found


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts over all persons of some sites, as they were released.

    ``counts`` are whole, flat, and with noise may be negative; ``noise`` is None under plan none. ``sites`` took part.
    """

    tables: Tables
    counts: Whole
    sites: int
    noise: CountNoise | None

    @property
    def split(self) -> tuple[Whole, ...]:
        """The tables, each of its shape."""
        return self.tables.split(self.counts)

    def plausible(self, draws: int) -> Whole:
        """Exact counts that may be behind the released ones: these minus noise drawn anew, shape (draws, cells)."""
        if self.noise is None:
            return self.counts[None, :]
        drawn = self.noise.draw(np.random.default_rng(_SEED), (draws, len(self.counts)))
        found: Whole = self.counts[None, :] - drawn
        return found


def quantiles(values: Real, level: float) -> tuple[float, float] | None:
    """The middle interval that holds a share ``level`` of the values; None if too few of them are numbers."""
    known: NDArray[np.float64] = values[np.isfinite(values)]
    if len(known) < 0.9 * len(values):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
