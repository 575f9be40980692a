"""Many sites' values to integers at once: the same arithmetic as `quantize.bound`, on a matrix of sites by coordinates.

Each site's coins come from its own stream in the same order, so what comes out is the sum of the very vectors that
`bound` makes. What takes time is how often a value is read, so a piece of the matrix is finished while the cache
holds it, and nothing is multiplied by one.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.quantize import Layout, RangeError, Rounding
from fedseal.privacy.randomness import Stream
from fedseal.privacy.secagg.masks import RingVector
from fedseal.simulation.engine.ways import Source

Real = NDArray[np.float64]
T = TypeVar("T", bound=np.generic)
# Doubles that are rounded at once: few enough to stay in the cache with the coins and the sum, many enough for a call.
AT_ONCE = 1 << 15
NOWHERE = slice(0, 0)
# So few rows are added one by one.
FEW = 4
# How many coins a byte counts.
BYTE = 255


class Total:
    """A running sum of sites' whole numbers.

    Two parts: what values were rounded down to, and of how many the coin said up. The latter are counted in bytes,
    which takes a tenth of adding truths to doubles.

    Args:
        layout: the release's.
    """

    def __init__(self, layout: Layout) -> None:
        length = layout.length
        # Doubles count exactly up to 2^53, which no sum in 32 bits comes near.
        self.whole: Real | NDArray[np.int64] = (
            np.zeros(length, dtype=np.int64) if layout.ring_bits == 64 else np.zeros(length)
        )
        self.up = np.zeros(length, dtype=np.uint8)
        # Of how many sites the bytes hold coins.
        self.counted = 0

    def room_for(self, sites: int) -> None:
        """Empty the bytes where these sites' coins might not fit."""
        if self.counted + sites > BYTE:
            self.settle()
        self.counted += sites

    def settle(self) -> None:
        """Add what the bytes hold."""
        if self.counted:
            self.whole += self.up
            self.up[:] = 0
            self.counted = 0


class Bounds:
    """A layout's scales and ranges, coordinate by coordinate."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.length = layout.length
        self.places = layout.offsets()
        self._scale, self._low, self._high = (np.empty(self.length) for _ in range(3))
        self._least, self._most = np.empty(self.length), np.empty(self.length)
        for segment in layout.segments:
            place = self.places[segment.name]
            low, high = segment.low, segment.high
            if segment.weighted:
                low, high = min(low, 0.0), max(high, 0.0)
            slack = 1e-9 * max(abs(low), abs(high))
            self._scale[place] = segment.scale
            self._least[place], self._most[place] = low - slack, high + slack
            self._low[place], self._high[place] = segment.integer_range(1)
        self._stochastic = Rounding(layout.rounding) is Rounding.STOCHASTIC
        starts = range(0, self.length, AT_ONCE)
        self._pieces = [slice(start, min(start + AT_ONCE, self.length)) for start in starts]
        self._scales = [_one_or_all(self._scale[piece]) for piece in self._pieces]
        # Room for the largest piece: scaled values, what is below them, coins, and what the coins say.
        room = min(self.length, AT_ONCE) * self.at_once
        self._scaled, self._below, self._coins = (np.empty(room) for _ in range(3))
        self._up = np.empty(room, dtype=np.bool_)

    @property
    def at_once(self) -> int:
        """How many sites' values are given at a time, at most."""
        return max(1, min(BYTE, AT_ONCE // self.length))

    def nothing(self) -> Total:
        """A sum of nobody's, to `add` to."""
        return Total(self.layout)

    def add(self, total: Total, source: Source, streams: Sequence[Stream], inside: slice = NOWHERE) -> None:
        """Round the values of some sites and add them up.

        Args:
            total: what they are added to.
            source: gives their values, already multiplied by the weights, a piece after the other.
            streams: one a site, at most ``at_once``.
            inside: coordinates that are known to be in their ranges, and need not be looked at.

        Raises:
            RangeError: a value is not finite or outside of its segment's range; the sum is then good for nothing.
        """
        total.room_for(len(streams))
        # Of long vectors a piece at a time: a site's coins come in this order.
        for piece, scale in zip(self._pieces, self._scales, strict=True):
            shape = (len(streams), piece.stop - piece.start)
            scaled = _shaped(self._scaled, shape)
            source(piece, scaled)
            clipped = not (inside.start <= piece.start and piece.stop <= inside.stop)
            if clipped:
                self._check(scaled, piece)
            scaled *= scale
            if not self._stochastic:
                np.rint(scaled, out=scaled)
                self._add(total, scaled, piece, clipped=clipped)
                continue
            below = np.floor(scaled, out=_shaped(self._below, shape))
            scaled -= below
            up = _shaped(self._up, shape)
            # Compared, not added, as in `bound`.
            np.less(self._tossed(streams, shape), scaled, out=up)
            if clipped:
                below += up
            else:
                _add_rows(total.up[piece], up.view(np.uint8))
            self._add(total, below, piece, clipped=clipped)

    def in_ring(self, total: Total) -> RingVector:
        """A sum of whole numbers modulo the ring."""
        total.settle()
        exact = total.whole.astype(np.int64, copy=False)
        return exact.astype("<u8") if self.layout.ring_bits == 64 else exact.astype("<u4")

    def _tossed(self, streams: Sequence[Stream], shape: tuple[int, int]) -> Real:
        """Each site's coins, in [0, 1)."""
        coins = _shaped(self._coins, shape)
        for row, stream in zip(coins, streams, strict=True):
            np.multiply(stream.words32(shape[1]), np.float64(2.0**-32), out=row)
        return coins

    def _add(self, total: Total, rounded: Real, piece: slice, *, clipped: bool) -> None:
        if clipped:
            np.maximum(rounded, self._low[piece], out=rounded)
            np.minimum(rounded, self._high[piece], out=rounded)
        # Turning doubles into whole numbers takes as long as everything else here.
        exact = rounded if total.whole.dtype == rounded.dtype else rounded.astype(np.int64)
        _add_rows(total.whole[piece], exact)

    def _check(self, values: Real, piece: slice) -> None:
        # Written so that NaN fails.
        fine = (values.min(axis=0) >= self._least[piece]) & (values.max(axis=0) <= self._most[piece])
        if not fine.all():
            outside = piece.start + int(np.argmin(fine))
            raise RangeError(next(n for n, place in self.places.items() if place.start <= outside < place.stop))


def _one_or_all(scale: Real) -> Real | np.float64:
    """The one scale of a piece, if it has one."""
    first: np.float64 = scale[0]
    return first if (scale == first).all() else scale


def _shaped(room: NDArray[T], shape: tuple[int, int]) -> NDArray[T]:
    return room[: shape[0] * shape[1]].reshape(shape)


def _add_rows(total: NDArray[T], rows: NDArray[T]) -> None:
    """In place, without a sum of numbers that a wider type would hold."""
    for row in rows if len(rows) < FEW else [np.add.reduce(rows, axis=0, dtype=rows.dtype)]:
        np.add(total, row, out=total)
