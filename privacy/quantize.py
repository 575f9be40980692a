"""From real vectors to integers in a ring and back, by construction without wrap-around.

A release is one flat vector of *segments*. A site's value in a segment lies in [low, high]; it is multiplied by the
segment's scale and rounded to an integer of absolute value at most L = ceil(scale * max(|low|, |high|)). A layout is
legal for n sites in Z_2^w only if n * L <= 2^(w-1) - 1 for each segment, so no sum of honest vectors can wrap,
whatever the data.

Weighted segments hold weight * value with weight in (0, 1]; the receiver divides their sums by the sum of the weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.randomness import Stream
from fedseal.privacy.secagg.masks import RingVector, is_ring, ring_dtype
from fedseal.wire import F64, U8, U32, U64, Bool, Str

Real = NDArray[np.float64]

WEIGHT_PREFIX = "weight:"
CLIPPED = "clipped"
# Under a plan whose clip norm adapts: the noisy count of who was not clipped.
UNCLIPPED = "unclipped"
CHUNK = 1 << 16
# Rounding takes 36 bytes a coordinate of its chunk.
ROUNDED = 1 << 13
# Scaled values are doubles before they are rounded: below 2^52 every integer, and every half of one, is exact.
LARGEST_LEVEL = 1 << 52
# With fewer, one level of slack is most of the range.
FEWEST_LEVELS = 4


class Rounding(IntEnum):
    """How a scaled value becomes an integer.

    NEAREST is deterministic, with an error of at most 1/2 unit. STOCHASTIC rounds up with the probability of the
    fraction: unbiased, with an error below 1 unit.
    """

    NEAREST = 0
    STOCHASTIC = 1

    @property
    def largest_error(self) -> float:
        """In integer units."""
        return 0.5 if self is Rounding.NEAREST else 1.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A named run of coordinates with one public range and scale.

    ``headroom`` is how far noise may lead a sum beyond what the values of honest sites can make, in integer units.
    ``ball``: ``high`` bounds the L2 norm of a site's values here, not only each coordinate.
    """

    name: Str
    length: U32
    low: F64
    high: F64
    scale: F64
    weighted: Bool
    headroom: U64 = 0
    ball: Bool = False

    def __post_init__(self) -> None:
        if not self.name or self.length < 1:
            raise ValueError("a segment needs a name and at least one coordinate")
        if not self.low < self.high or not self.scale > 0:
            raise ValueError("a segment needs low < high and a positive scale")
        if not 1 <= self.scale * max(abs(self.low), abs(self.high)) <= LARGEST_LEVEL:
            raise ValueError("a segment has less than one level, or is finer than doubles can count")

    @property
    def levels(self) -> int:
        """The largest absolute integer an honest site can send in a coordinate."""
        return math.ceil(self.scale * max(abs(self.low), abs(self.high)))

    def integer_range(self, sites: int) -> tuple[int, int]:
        """Between which integers the sum of ``sites`` honest values lies, without noise.

        Weighted segments include 0: a weight may be tiny.
        """
        low, high = (min(self.low, 0.0), max(self.high, 0.0)) if self.weighted else (self.low, self.high)
        return sites * math.floor(low * self.scale), sites * math.ceil(high * self.scale)

    def norm_limit(self, sites: int, rounding: Rounding) -> float:
        """The largest L2 norm, in integer units, of the sum of ``sites`` honest values in a ball, noise included.

        Rounding moves a coordinate by at most ``largest_error`` at each site. The factor absorbs doubles' rounding.
        """
        rounded = rounding.largest_error * math.sqrt(self.length)
        noise = self.headroom * math.sqrt(self.length)
        return (sites * (self.scale * self.high + rounded) + noise) * (1 + 1e-9)


@dataclass(frozen=True, slots=True)
class Layout:
    """The segments of a release, in order, and the ring they are summed in."""

    TAG: ClassVar[int] = 3

    ring_bits: U8
    rounding: U8
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        if not is_ring(self.ring_bits) or self.rounding not in (0, 1) or not self.segments:
            raise ValueError("a layout needs a ring of 12 to 32, or of 64 bits, a known rounding and a segment")
        if len({s.name for s in self.segments}) != len(self.segments):
            raise ValueError("two segments share a name")

    @property
    def length(self) -> int:
        """The number of coordinates of the whole vector."""
        return sum(s.length for s in self.segments)

    def capacity(self) -> int:
        """For how many sites no sum can wrap."""
        return min(((1 << self.ring_bits - 1) - 1 - s.headroom) // s.levels for s in self.segments)

    def segment(self, name: str) -> Segment:
        """The segment called ``name``; LocalError if there is none."""
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise LocalError(f"the layout has no segment {name!r}")

    @property
    def weight(self) -> Segment:
        """The segment of the weights; LocalError if there is none."""
        for segment in self.segments:
            if segment.name.startswith(WEIGHT_PREFIX):
                return segment
        raise LocalError("the layout has no weights")

    def offsets(self) -> dict[str, slice]:
        """Where each segment lies in the flat vector."""
        places, start = {}, 0
        for segment in self.segments:
            places[segment.name] = slice(start, start + segment.length)
            start += segment.length
        return places


def levels_for(sites: int, ring_bits: int) -> int:
    """The largest L with sites * L <= 2^(ring_bits-1) - 1, and no more than a double counts exactly."""
    return min(((1 << ring_bits - 1) - 1) // sites, LARGEST_LEVEL)


def ranged_segment(
    name: str, length: int, low: float, high: float, *, sites: int, ring_bits: int, weighted: bool
) -> Segment:
    """A segment as fine as the ring allows for ``sites`` sites.

    Raises:
        ConfigError: the range is empty or not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError(f"the range of {name!r} has to be finite, with its low end below its high end")
    levels = levels_for(sites, ring_bits)
    if levels < FEWEST_LEVELS:
        raise ConfigError(
            f"{ring_bits} bits leave each of {sites} sites {levels} levels",
            next_step="Use a larger ring_bits.",
        )
    # One level of slack absorbs the ceil in Segment.levels when scale * bound is not an integer.
    scale = (levels - 1) / max(abs(low), abs(high))
    if not math.isfinite(scale):
        raise ConfigError(f"the range of {name!r} is too narrow")
    return Segment(name, length, float(low), float(high), scale, weighted)


def weight_segment(key: str, largest: int, *, sites: int, ring_bits: int) -> Segment:
    """The segment of the weights, in examples: whole numbers up to ``largest``, so that their sum is exact.

    ``key`` is the name under which a task reports its number of examples.

    Raises:
        ConfigError: ``largest`` is below 1, or too large for the ring.
    """
    if not 1 <= largest <= levels_for(sites, ring_bits):
        raise ConfigError(
            f"{largest} examples a site do not fit {ring_bits} bits for {sites} sites",
            next_step="Give a largest number of examples of at least 1, or use a larger ring_bits.",
        )
    scale = levels_for(sites, ring_bits) // largest
    return Segment(WEIGHT_PREFIX + key, 1, 0.0, float(largest), float(scale), False)


@dataclass(frozen=True, slots=True)
class BoundedUpdate:
    """A site's vector in the ring.

    Made by `bound` only, so every coordinate is in its range; masks are added in place.
    """

    layout: Layout
    vector: RingVector


def bound(values: Mapping[str, Real], layout: Layout, stream: Stream) -> BoundedUpdate:
    """Quantise one site's values.

    Args:
        values: per segment a float vector of its length, already multiplied by the weight where the segment is
            weighted.
        layout: the release's layout.
        stream: where the coins of stochastic rounding come from.

    Raises:
        LocalError: a segment is missing or has another length.
        RangeError: a value is not finite or lies outside its segment's range; nothing is quantised.
    """
    vector = np.zeros(layout.length, dtype=ring_dtype(layout.ring_bits))
    add_bound(values, layout, stream, vector)
    return BoundedUpdate(layout, vector)


def add_bound(values: Mapping[str, Real], layout: Layout, stream: Stream, total: RingVector) -> None:
    """Quantise one site's values, as `bound` does, and add them to a sum in the ring.

    Args:
        values, layout, stream: as for `bound`.
        total: residues, shape (layout.length,).

    Raises:
        LocalError, RangeError: as for `bound`; nothing is added.
    """
    if set(values) != {s.name for s in layout.segments}:
        raise LocalError("expected exactly one vector for each segment of the layout")
    for segment in layout.segments:
        _check_range(segment, values[segment.name])
    for name, place in layout.offsets().items():
        _add_rounded(total[place], values[name], layout.segment(name), Rounding(layout.rounding), stream)


class RangeError(LocalError):
    """A value lies outside the range that the release declares for it. Says which segment, never the value."""

    def __init__(self, segment: str) -> None:
        super().__init__(
            f"a value of {segment!r} is outside the range that the release declares",
            next_step="Widen the declared range on the server, or bound the value in the task.",
        )
        self.segment = segment


def _check_range(segment: Segment, values: Real) -> None:
    if values.shape != (segment.length,):
        raise LocalError(f"expected {segment.length} values for {segment.name!r}, got shape {values.shape}")
    low, high = (min(segment.low, 0.0), max(segment.high, 0.0)) if segment.weighted else (segment.low, segment.high)
    # Written so that NaN fails; the slack of 1e-9 absorbs the rounding of weight * value in floating point.
    slack = 1e-9 * max(abs(low), abs(high))
    if not (values.min() >= low - slack and values.max() <= high + slack):
        raise RangeError(segment.name)


def _add_rounded(out: RingVector, values: Real, segment: Segment, rounding: Rounding, stream: Stream) -> None:
    """Chunk by chunk, so that the temporaries stay small beside the vector."""
    low, high = segment.integer_range(1)
    summed: NDArray[Any] = out.view(np.dtype("<i4") if out.dtype.itemsize == 4 else np.dtype("<i8"))
    # Rounding is monotonous: where the ends of the values stay inside, so does everything between.
    inside = low <= float(values.min()) * segment.scale - 1 and float(values.max()) * segment.scale + 1 <= high
    length = min(ROUNDED, len(values))
    doubles, integers = np.empty(length), np.empty(length, summed.dtype)
    for start in range(0, len(values), ROUNDED):
        part = summed[start : start + ROUNDED]
        scaled, whole = doubles[: len(part)], integers[: len(part)]
        np.multiply(values[start : start + ROUNDED], segment.scale, out=scaled)
        if rounding is Rounding.STOCHASTIC:
            # Compared, not added: a sum of doubles would round by itself, and a whole number must stay one.
            below = np.floor(scaled)
            scaled = below + (stream.uniform32(len(scaled)) < scaled - below)
        else:
            np.rint(scaled, out=scaled)
        if not inside:
            np.clip(scaled, low, high, out=scaled)
        # Whole numbers in doubles, so that nothing is lost; two's complement wraps around as the ring does.
        np.copyto(whole, scaled, casting="unsafe")
        part += whole


@dataclass(frozen=True, slots=True)
class IntegerSum:
    """An unmasked sum over ``sites`` sites, checked against what honest sites can make.

    ``vector`` is in two's complement of its words' width, also in a ring of fewer bits.
    """

    layout: Layout
    sites: int
    vector: RingVector

    def real(self, name: str) -> Real:
        """The sum of a segment in its own units, float64, shape (length,)."""
        segment = self.layout.segment(name)
        values = signed(self.vector[self.layout.offsets()[name]]).astype(np.float64)
        values /= segment.scale
        return values

    @property
    def weight(self) -> float:
        """The sum of the weights, in examples; exact while it stays below 2^53."""
        segment = self.layout.weight
        return int(signed(self.vector[self.layout.offsets()[segment.name]])[0]) / int(segment.scale)


class SumRangeError(LocalError):
    """A sum that no cohort of honest sites can make: at least one site sent what its range forbids."""


def check_sum(layout: Layout, sites: int, vector: RingVector) -> IntegerSum:
    """Refuse a sum outside what ``sites`` honest sites can make.

    Raises:
        SumRangeError: a coordinate is outside, or a segment's norm where honest values lie in a ball; says in which
            segment.
    """
    places = layout.offsets()
    for segment in layout.segments:
        part = signed(vector[places[segment.name]])
        low, high = segment.integer_range(sites)
        low, high = low - segment.headroom, high + segment.headroom
        outside = int(part.min()) < low or int(part.max()) > high
        if outside or (segment.ball and _norm(part) > segment.norm_limit(sites, Rounding(layout.rounding))):
            raise SumRangeError(
                f"the sum of {segment.name!r} is outside what {sites} honest sites can make",
                next_step="The round is discarded. Retry with fewer sites to find the one that sends what it must not.",
            )
    return IntegerSum(layout, sites, vector)


def _norm(part: NDArray[np.int32] | NDArray[np.int64]) -> float:
    """The L2 norm, chunk by chunk in doubles."""
    squares = 0.0
    for start in range(0, len(part), CHUNK):
        chunk = part[start : start + CHUNK].astype(np.float64)
        # Not by BLAS, which would wake threads for it.
        squares += float(np.einsum("i,i->", chunk, chunk))
    return math.sqrt(squares)


def mean_error(segment: Segment, rounding: Rounding, sites: int, weight_fraction: float) -> float:
    """How far a coordinate of the decoded weighted mean can be from the clear weighted mean, in the segment's units.

    Each site errs by at most ``largest_error`` units of 1/scale and the weights are exact, so the mean errs by at most
    sites * largest_error / (scale * sum of weights), the weights taken as fractions of the largest one.

    Args:
        segment: a weighted segment.
        rounding: the layout's rounding.
        sites: how many sites the sum is over.
        weight_fraction: the sum of weight / largest weight over those sites.
    """
    return sites * rounding.largest_error / (segment.scale * weight_fraction)


def signed(vector: RingVector) -> NDArray[np.int32] | NDArray[np.int64]:
    """The ring's residues as numbers in [-2^(w-1), 2^(w-1))."""
    return vector.view(np.dtype("<i4")) if vector.dtype.itemsize == 4 else vector.view(np.dtype("<i8"))
