"""Tails of the hypergeometric distribution, decided exactly where it matters.

The degree of the sparse graph follows from comparing such tails with bounds near 2^-90, and every site has to come to
the same degree. So a comparison is made in double precision first, with an error of less than 1e-8 of the tail, and
repeated with exact integers where the two sides are closer than 1e-6: its outcome is that of exact arithmetic, on
every machine.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]

# Far above the error of the doubles (tests/privacy/test_graph_degree.py measures it), far below what matters.
TIE = 1e-6


@dataclass(frozen=True, slots=True)
class Urn:
    """``draws`` of ``population`` are taken at random, ``marked`` of which are marked; X is how many of those drawn
    are.
    """

    population: int
    marked: int
    draws: int

    def at_least(self) -> Real:
        """Pr[X >= x] for x = 0 to draws + 1, float64, shape (draws + 2,)."""
        return np.append(np.cumsum(self._masses()[::-1])[::-1], 0.0)

    def below(self) -> Real:
        """Pr[X < x] for x = 0 to draws + 1, float64, shape (draws + 2,)."""
        return np.append(0.0, np.cumsum(self._masses()))

    def exactly_at_least(self, x: int) -> Fraction:
        """Pr[X >= x] without any rounding."""
        ways = sum(self._ways(i) for i in range(max(x, 0), self.draws + 1))
        return Fraction(ways, math.comb(self.population, self.draws))

    def exactly_below(self, x: int) -> Fraction:
        """Pr[X < x] without any rounding."""
        ways = sum(self._ways(i) for i in range(min(x, self.draws + 1)))
        return Fraction(ways, math.comb(self.population, self.draws))

    def _ways(self, i: int) -> int:
        return math.comb(self.marked, i) * math.comb(self.population - self.marked, self.draws - i)

    def _masses(self) -> Real:
        """Pr[X = x] for x = 0 to draws."""
        logs, plain = _log_factorials(self.population), self.population - self.marked
        first, last = max(0, self.draws - plain), min(self.marked, self.draws)
        x = np.arange(first, last + 1)
        chosen = logs[self.marked] - logs[x] - logs[self.marked - x]
        others = logs[plain] - logs[self.draws - x] - logs[plain - self.draws + x]
        every = logs[self.population] - logs[self.draws] - logs[self.population - self.draws]
        masses = np.zeros(self.draws + 1)
        masses[first : last + 1] = np.exp(chosen + others - every)
        return masses


@lru_cache(maxsize=4)
def _log_factorials(n: int) -> Real:
    """log(i!) for i = 0 to n."""
    # Loaded by who chooses a sparse graph: to everyone else it is a long import.
    from scipy.special import gammaln

    logs: Real = gammaln(np.arange(1.0, n + 2.0))
    return logs


def smallest_rare(urn: Urn, limit: Fraction) -> int:
    """The smallest x with Pr[X >= x] <= limit; at most draws + 1."""
    tails, bound = urn.at_least(), float(limit)
    x = int(np.argmax(tails <= bound))
    while x > 0 and _close(tails[x - 1], bound) and urn.exactly_at_least(x - 1) <= limit:
        x -= 1
    while _close(tails[x], bound) and urn.exactly_at_least(x) > limit:
        x += 1
    return x


def largest_rare_below(urn: Urn, limit: Fraction) -> int:
    """The largest x with Pr[X < x] < limit; at least 0, at most draws + 1."""
    tails, bound = urn.below(), float(limit)
    x = int(np.count_nonzero(tails < bound)) - 1
    while x + 1 < len(tails) and _close(tails[x + 1], bound) and urn.exactly_below(x + 1) < limit:
        x += 1
    while x > 0 and _close(tails[x], bound) and urn.exactly_below(x) >= limit:
        x -= 1
    return x


def all_marked_below(population: int, marked: int, draws: int, limit: Fraction) -> bool:
    """Whether Pr[all draws are marked] < limit."""
    if draws > marked:
        return True
    logs = _log_factorials(population)
    exponent = logs[marked] - logs[marked - draws] + logs[population - draws] - logs[population]
    chance, bound = float(np.exp(exponent)), float(limit)
    if _close(chance, bound):
        return Fraction(math.comb(marked, draws), math.comb(population, draws)) < limit
    return chance < bound


def _close(tail: float, bound: float) -> bool:
    return abs(tail - bound) <= TIE * bound
