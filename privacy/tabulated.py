"""Sampling whole numbers by inversion of a table of 128-bit thresholds.

A uniform 128-bit number falls between two thresholds of the cumulative distribution. Its high 64 bits decide in all
but one of 2^64 / K draws; only then the low ones are drawn and compared. With K thresholds, each rounded down to a
multiple of 2^-128, and a tail of mass t beyond the table, the total variation distance between what is drawn and what
was asked for is at most K 2^-128 + t.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.randomness import Stream

BITS = 128
# Masses are computed with this many bits, so that a sum of millions of them is exact to far below 2^-128.
WORKING_BITS = 192
# Up to here a table is reached at once by every draw; beyond, memory and the time to make it grow without need.
LARGEST_TABLE = 1 << 20

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Thresholds c_0 <= c_1 <= ... in units of 2^-128: a uniform number u gives ``start`` plus how many of them are
    at most u.
    """

    start: int
    high: NDArray[np.uint64]
    low: tuple[int, ...]

    def sample(self, stream: Stream, count: int) -> Integers:
        """``count`` independent numbers, int64."""
        words = stream.words64(count)
        drawn = np.searchsorted(self.high, words, side="left")
        inside = np.minimum(drawn, len(self.high) - 1)
        for place in np.flatnonzero((self.high[inside] == words) & (drawn < len(self.high))):
            drawn[place] = self._settled(int(drawn[place]), int(words[place]), int(stream.words64(1)[0]))
        return drawn.astype(np.int64) + self.start

    def _settled(self, first: int, word: int, further: int) -> int:
        """How many thresholds are at most a number whose high word some threshold shares."""
        place = first
        while place < len(self.low) and int(self.high[place]) == word and self.low[place] <= further:
            place += 1
        return place

    def masses(self) -> list[int]:
        """What each value's probability really is, in units of 2^-128; they add up to 2^128."""
        thresholds = [int(h) << 64 | low for h, low in zip(self.high, self.low, strict=True)]
        ends = [0, *thresholds, 1 << BITS]
        return [b - a for a, b in pairwise(ends)]


def tabulate(masses: Iterable[Any], start: int) -> Table:
    """The table of a distribution on ``start``, ``start`` + 1, ...

    Args:
        masses: the probabilities as mpmath numbers of `WORKING_BITS`, the last of them before a tail that is left out;
            the last value takes what is missing to 1.
        start: the smallest value.

    Raises:
        LocalError: there are more than `LARGEST_TABLE`.
    """
    from mpmath import mp

    high, low = [], []
    with mp.workprec(WORKING_BITS):
        total = mp.mpf(0)
        for mass in masses:
            total += mass
            threshold = min(int(mp.floor(mp.ldexp(total, BITS))), (1 << BITS) - 1)
            high.append(threshold >> 64)
            low.append(threshold & ((1 << 64) - 1))
            if len(high) > LARGEST_TABLE:
                raise LocalError("a distribution too wide for a table")
    # The last threshold would be 1: whatever is above the one before is the last value.
    return Table(start, np.array(high[:-1], dtype=np.uint64), tuple(low[:-1]))
