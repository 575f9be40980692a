"""A released sum of counts, with what is known of its noise."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.counts import Real, Table, Tables, Whole
from fedseal.privacy.inference.noise import CountNoise

__all__ = ["CountNoise", "Tally", "quantiles"]

# Of the seed of draws that only measure an interval: they protect nobody, and the same release has the same interval.
_SEED = 20


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

    def drawn(self, draws: int) -> Iterator[tuple[Table, Real, Real]]:
        """Each table with its released counts, and with plausible exact ones, shape (draws, *table.shape)."""
        plausible, start = self.plausible(draws), 0
        for table, released in zip(self.tables.tables, self.split, strict=True):
            samples = plausible[:, start : start + released.size].reshape(-1, *released.shape)
            start += released.size
            yield table, released.astype(np.float64), samples.astype(np.float64)


def quantiles(values: Real, level: float) -> tuple[float, float] | None:
    """The middle interval that holds a share ``level`` of the values; None if too few of them are numbers."""
    known: NDArray[np.float64] = values[np.isfinite(values)]
    if len(known) < 0.9 * len(values):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
