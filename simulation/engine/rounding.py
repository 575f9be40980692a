"""Many sites' values to integers at once: the same arithmetic as `quantize.bound`, on a matrix of sites by coordinates.

Each site's coins come from its own stream in the same order, so what comes out is the sum of the very vectors that
`bound` makes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.quantize import Layout, RangeError, Rounding
from fedseal.privacy.randomness import Stream
from fedseal.privacy.secagg.masks import RingVector

Real = NDArray[np.float64]
Total = NDArray[np.float64] | NDArray[np.int64]
# Doubles that are rounded at once: few enough to stay in the cache.
AT_ONCE = 1 << 13
NOWHERE = slice(0, 0)
# So few rows are added one by one.
FEW = 4


class Bounds:
    """A layout's scales and ranges, coordinate by coordinate."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.places = layout.offsets()
        self._scale, self._low, self._high = (np.empty(layout.length) for _ in range(3))
        self._least, self._most = np.empty(layout.length), np.empty(layout.length)
        for segment in layout.segments:
            place = self.places[segment.name]
            low, high = segment.low, segment.high
            if segment.weighted:
                low, high = min(low, 0.0), max(high, 0.0)
            slack = 1e-9 * max(abs(low), abs(high))
            self._scale[place] = segment.scale
            self._least[place], self._most[place] = low - slack, high + slack
            self._low[place], self._high[place] = segment.integer_range(1)

    @property
    def at_once(self) -> int:
        """How many sites' values are best given at a time."""
        return max(1, AT_ONCE // self.layout.length)

    def nothing(self) -> Total:
        """A sum of nobody's, to `add` to. Doubles count exactly up to 2^53, which no sum in 32 bits comes near."""
        length = self.layout.length
        return np.zeros(length, dtype=np.int64) if self.layout.ring_bits == 64 else np.zeros(length)

    def add(self, total: Total, values: Real, streams: Sequence[Stream], inside: slice = NOWHERE) -> None:
        """Round the values of some sites and add them up.

        Args:
            total: what they are added to, shape (length,).
            values: shape (sites, length), already multiplied by the weights; used up.
            streams: one a site.
            inside: coordinates that are known to be in their ranges, and need not be looked at.

        Raises:
            RangeError: a value is not finite or outside of its segment's range.
        """
        self._check(values, inside)
        # Of long vectors a piece at a time: a site's coins come in this order.
        for start in range(0, self.layout.length, AT_ONCE):
            piece = slice(start, min(start + AT_ONCE, self.layout.length))
            clipped = not (inside.start <= piece.start and piece.stop <= inside.stop)
            rounded = self._rounded(values[:, piece], piece, streams, clipped=clipped)
            # Turning doubles into whole numbers takes as long as everything else here.
            exact = rounded if total.dtype == rounded.dtype else rounded.astype(np.int64)
            for row in exact if len(exact) < FEW else [exact.sum(axis=0)]:
                total[piece] += row

    def in_ring(self, total: Total) -> RingVector:
        """A sum of whole numbers modulo the ring."""
        total = total.astype(np.int64, copy=False)
        return total.astype("<u8") if self.layout.ring_bits == 64 else total.astype("<u4")

    def _rounded(self, values: Real, piece: slice, streams: Sequence[Stream], *, clipped: bool) -> Real:
        values *= self._scale[piece]
        if Rounding(self.layout.rounding) is Rounding.STOCHASTIC:
            coins = np.empty(values.shape)
            for row, stream in zip(coins, streams, strict=True):
                np.multiply(stream.words32(values.shape[1]), np.float64(2.0**-32), out=row)
            below = np.floor(values)
            values -= below
            # Compared, not added, as in `bound`.
            below += coins < values
            values = below
        else:
            np.rint(values, out=values)
        if not clipped:
            return values
        np.maximum(values, self._low[piece], out=values)
        return np.minimum(values, self._high[piece], out=values)

    def _check(self, values: Real, inside: slice) -> None:
        for part in (slice(0, inside.start), slice(inside.stop, self.layout.length)):
            if part.start == part.stop:
                continue
            looked = values[:, part]
            # Written so that NaN fails.
            fine = (looked.min(axis=0) >= self._least[part]) & (looked.max(axis=0) <= self._most[part])
            if not fine.all():
                outside = part.start + int(np.argmin(fine))
                raise RangeError(next(n for n, place in self.places.items() if place.start <= outside < place.stop))
