"""Many sites' values to integers at once: the same arithmetic as `quantize.bound`, on a matrix of sites by coordinates.

Each site's coins come from its own stream in the same order, so what comes out is the sum of the very vectors that
`bound` makes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.quantize import Layout, RangeError, Rounding
from fedseal.privacy.randomness import Stream
from fedseal.privacy.secagg.masks import RingVector, ring_dtype

Real = NDArray[np.float64]
# Doubles that are rounded at once: few enough to stay in the cache.
AT_ONCE = 1 << 15


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

    def summed(self, values: Real, streams: Sequence[Stream]) -> RingVector:
        """The sum in the ring of the sites' rounded values.

        Args:
            values: shape (sites, length), already multiplied by the weights; used up.
            streams: one a site.

        Raises:
            RangeError: a value is not finite or outside of its segment's range.
        """
        self._check(values)
        total = np.zeros(self.layout.length, dtype=np.int64)
        together = max(1, AT_ONCE // self.layout.length)
        for start in range(0, len(values), together):
            part = values[start : start + together]
            total += self._rounded(part, streams[start : start + together]).astype(np.int64).sum(axis=0)
        return total.astype(ring_dtype(self.layout.ring_bits))

    def _rounded(self, values: Real, streams: Sequence[Stream]) -> Real:
        values *= self._scale
        if Rounding(self.layout.rounding) is Rounding.STOCHASTIC:
            words = np.stack([stream.words32(self.layout.length) for stream in streams])
            below = np.floor(values)
            values -= below
            # Compared, not added, as in `bound`.
            below += (words * np.float64(2.0**-32)) < values
            values = below
        else:
            np.rint(values, out=values)
        return np.clip(values, self._low, self._high, out=values)

    def _check(self, values: Real) -> None:
        # Written so that NaN fails.
        inside = (values.min(axis=0) >= self._least) & (values.max(axis=0) <= self._most)
        if inside.all():
            return
        outside = int(np.argmin(inside))
        raise RangeError(next(name for name, place in self.places.items() if place.start <= outside < place.stop))
