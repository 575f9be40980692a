"""Two-sided geometric noise in shares: each of h sites adds the difference of two negative binomials of shape 1/h.

The sum of h of them is the two-sided geometric distribution, P(x) proportional to exp(-a |x|), the discrete Laplace
mechanism (Ghosh, Roughgarden and Sundararajan 2009): with a = epsilon / k it protects counts of which one person
changes at most k, each by one. A share follows the Polya distribution (Goryczka and Xiong 2017), which floating point
can only approximate as a gamma mixture of Poissons; here it is inverted from a table.
"""

from functools import lru_cache

from fedseal.errors import LocalError
from fedseal.privacy.randomness import Stream
from fedseal.privacy.tabulated import WORKING_BITS, Integers, Table, tabulate

# Below this decay a table has more than 100,000 entries.
SMALLEST_DECAY = 2.0**-10
# ln 2^128, and a little: beyond this many decays a geometric tail is lighter than 2^-128.
_TAIL = 89.0


@lru_cache(maxsize=16)
def polya_table(shares: int, decay: float) -> Table:
    """The negative binomial of shape 1 / ``shares`` and ratio exp(-``decay``); total variation at most 2^-110.

    P(k) = (1 - q)^r (r)_k / k! q^k with q = exp(-decay) and r = 1 / shares. As r <= 1, P(k + 1) < q P(k), so what
    lies beyond the table is lighter than q^K <= 2^-128; K <= 2^17 thresholds are each rounded by less than 2^-128.

    Raises:
        LocalError: ``shares`` below 1 or ``decay`` not from 2^-10 to 64.
    """
    from mpmath import mp

    if shares < 1 or not SMALLEST_DECAY <= decay <= 64:
        raise LocalError("expected at least one share and a decay from 2^-10 to 64")
    with mp.workprec(WORKING_BITS):
        ratio, shape = mp.exp(-mp.mpf(decay)), mp.mpf(1) / shares
        mass, masses = (1 - ratio) ** shape, []
        for k in range(int(_TAIL / decay) + 2):
            masses.append(mass)
            mass = mass * ratio * (shape + k) / (k + 1)
        return tabulate(masses, 0)


def polya(shares: int, decay: float, stream: Stream, count: int) -> Integers:
    """``count`` shares, int64, each the difference of two draws: ``shares`` of them add up to two-sided geometric
    noise of variance 2 q / (1 - q)^2, q = exp(-``decay``).
    """
    table = polya_table(shares, decay)
    return table.sample(stream, count) - table.sample(stream, count)
