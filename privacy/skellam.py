"""Skellam noise: the difference of two independent Poisson variables, of which any sum is Skellam again.

So sites that each add a share of the variance add up to exactly the noise that one trusted server would have added
(Agarwal, Kairouz and Liu 2021). Every draw comes from uniform bits of a given stream; none goes through a sampler
whose output is only approximately Poisson.

A small mean is drawn from a table. A large one by rejection from a staircase of blocks: the block is drawn by integer
weights, the place in it by bits, and the decision whether to keep it compares a uniform number with a probability
that doubles give to within `SLACK`. Where the two are closer than that (once in some 10^10 draws), the decision is
taken again with 256 bits. What is left of error is the tail beyond 14 standard deviations: the total variation
distance to a Poisson variable is at most 2^-110 a draw.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.randomness import Stream
from fedseal.privacy.tabulated import WORKING_BITS, Integers, Table, tabulate

# From this mean on blocks; their bounds below assume no less.
BLOCK_MEAN = 1 << 12
# Doubles count whole numbers up to here, with room for 14 deviations.
LARGEST_MEAN = 1 << 50
# More than the error of an acceptance probability computed in doubles, which is below 2^-38.
SLACK = 2.0**-36
REACH = 14
CHUNK = 1 << 16

Real = NDArray[np.float64]


def skellam(variance: int, stream: Stream, count: int) -> Integers:
    """``count`` independent Skellam variables of mean 0, int64.

    Args:
        variance: an even whole number from 2 to 2^51: each Poisson variable has half of it.
        stream: where the bits come from.
        count: how many.

    Raises:
        LocalError: the variance is odd or out of range.
    """
    if variance % 2 or not 2 <= variance <= 2 * LARGEST_MEAN:
        raise LocalError("expected an even variance from 2 to 2^51")
    return poisson(variance // 2, stream, count) - poisson(variance // 2, stream, count)


def poisson(mean: int, stream: Stream, count: int) -> Integers:
    """``count`` independent Poisson variables, int64; ``mean`` a whole number from 1 to 2^50."""
    if mean < BLOCK_MEAN:
        return poisson_table(mean).sample(stream, count)
    drawn = np.empty(count, dtype=np.int64)
    blocks = poisson_blocks(mean)
    for start in range(0, count, CHUNK):
        part = drawn[start : start + CHUNK]
        filled = 0
        while filled < len(part):
            kept = blocks.propose(stream, len(part) - filled)
            part[filled : filled + len(kept)] = kept
            filled += len(kept)
    return drawn


@lru_cache(maxsize=16)
def poisson_table(mean: int) -> Table:
    """The whole distribution up to where the tail is lighter than 2^-128."""
    from mpmath import mp

    # Chernoff: P(X >= mean + x) <= exp(-x^2 / (2 (mean + x / 3))), below 2^-128 for this x.
    last = mean + math.ceil(30 + 60 + 14 * math.sqrt(mean))
    with mp.workprec(WORKING_BITS):
        mass, masses = mp.exp(-mp.mpf(mean)), []
        for k in range(last + 1):
            masses.append(mass)
            mass = mass * mean / (k + 1)
        return tabulate(masses, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """A staircase above a Poisson distribution.

    Block j holds the 2^``bits`` whole numbers from ``first`` + j 2^``bits`` on. A uniform 60-bit number falls into
    block j with probability ``weights[j]`` / 2^60, or into none. The number k of a block is kept with probability
    ``scale`` g(k) / ``weights[j]`` <= 1, where g(k) = P(k) / P(mean): whatever the weights, what is kept is Poisson.
    """

    mean: int
    first: int
    bits: int
    scale: float
    weights: Integers
    ends: Integers

    def propose(self, stream: Stream, count: int) -> Integers:
        """Draw ``count`` proposals and return those that are kept, in order."""
        blocks = np.searchsorted(self.ends, (stream.words64(count) >> np.uint64(4)).astype(np.int64), side="right")
        words = stream.words64(count)
        offsets = (stream.words64(count) >> np.uint64(64 - self.bits)).astype(np.int64)
        inside = np.flatnonzero(blocks < len(self.ends))
        blocks, words, offsets = blocks[inside], words[inside], offsets[inside]
        # From the mean: a difference of at most 2^30 stays exact in doubles.
        away = self.first - self.mean + (blocks << self.bits) + offsets
        chance = np.exp(log_ratio(away, self.mean)) * (self.scale / self.weights[blocks])
        margin = chance - words * 2.0**-64
        kept = margin > 0
        for place in np.flatnonzero(np.abs(margin) <= SLACK):
            kept[place] = self._settled(int(away[place]), int(blocks[place]), int(words[place]), stream.raw(24))
        return away[kept] + self.mean

    def _settled(self, away: int, block: int, word: int, further: bytes) -> bool:
        """Whether a number is kept, with 256 bits of the uniform number and as many of the probability."""
        from mpmath import mp

        with mp.workprec(448):
            mean, k = mp.mpf(self.mean), mp.mpf(self.mean + away)
            ratio = mp.exp(away * mp.log(mean) - mp.loggamma(k + 1) + mp.loggamma(mean + 1))
            chance = ratio * mp.mpf(self.scale) / int(self.weights[block])
            uniform = mp.ldexp(mp.mpf(word << 192 | int.from_bytes(further, "big")), -256)
            return bool(uniform < chance)


@lru_cache(maxsize=16)
def poisson_blocks(mean: int) -> Blocks:
    """The staircase for a mean of at least `BLOCK_MEAN`; LocalError outside.

    P(|X - mean| >= 14 sqrt(mean)) is below 2^-128: the exponents of Bennett's bound are at least 98 (1 - 14 / (3 *
    64)) above and 98 below.
    """
    if not BLOCK_MEAN <= mean <= LARGEST_MEAN:
        raise LocalError("expected a mean from 2^12 to 2^50")
    deviation = math.sqrt(mean)
    bits = int(math.log2(deviation / 32))
    width, reach = 1 << bits, math.ceil(REACH * deviation)
    number = 2 * (reach // width + 1)
    start = np.arange(-number // 2, number // 2, dtype=np.int64) * width
    # The largest probability of a block is at the end nearer to the mean.
    nearest = np.where(start < 0, start + width - 1, start)
    # P(mean - 1) = P(mean): for a block below the mean its last number is the most probable one too.
    heights = np.exp(log_ratio(nearest, mean)) * (1 + 2.0**-30)
    scale = (2.0**60 - 2.0**20) / float(heights.sum()) * (1 - 2.0**-40)
    weights = np.ceil(heights * scale).astype(np.int64)
    ends = np.cumsum(weights)
    if int(ends[-1]) > 1 << 60:
        raise LocalError("the staircase is wider than its 60 bits")
    return Blocks(mean, mean + int(start[0]), bits, scale, weights, ends)


def log_ratio(away: Integers, mean: int) -> Real:
    """ln(P(mean + away) / P(mean)) of a Poisson distribution to within 2^-39, for |away| up to 14 deviations.

    Loader 2000: with y = away / mean, minus mean ((1 + y) ln(1 + y) - y), minus ln(1 + y) / 2, minus the difference
    of Stirling's remainders. The first is written as its series, mean (y^2 / 2 - y^3 / 6 + y^4 / 12 - ...), which
    loses nothing where y is small; its terms are taken until they are below 2^-56 of the first.
    """
    y = away / np.float64(mean)
    largest = max(REACH + 1, 15) / math.sqrt(mean)
    terms = 4 + math.ceil(56 / -math.log2(largest))
    series = np.zeros_like(y)
    for j in range(terms + 1, 1, -1):
        series = series * y + (1 if j % 2 == 0 else -1) / (j * (j - 1))
    k = away + np.float64(mean)
    remainder = _stirling(k) - _stirling(np.float64(mean))
    result: Real = -mean * (y * (y * series)) - 0.5 * np.log1p(y) - remainder
    return result


def _stirling(k: Real | np.float64) -> Real | np.float64:
    """ln k! minus k ln k - k + ln(2 pi k) / 2, to within 1 / (1680 k^7)."""
    inverse = 1 / k
    square = inverse * inverse
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))
