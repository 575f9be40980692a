"""What Skellam noise costs. dp-accounting has no event for it, so its Rényi bound is computed here.

Agarwal, Kairouz and Liu 2021 (corollary 3.6) prove it for whole orders above 1. Between them (a - 1) times the
divergence is a convex function of a, as the logarithm of a moment, so the chord between the neighbouring whole orders
bounds it; below order 2 the chord begins at 0.
"""

import math
from collections.abc import Sequence

from fedseal.privacy import accounting


def sensitivities(resolution: float, length: int, count_units: int = 0) -> tuple[float, float]:
    """By how much one contribution can move a rounded sum: in L2 and in L1, in integer units.

    A contribution of norm ``resolution`` in a vector of ``length`` coordinates moves the exact sum by at most that.
    Rounding the sum with the same coins moves each coordinate by less than 1 more, so the rounded one by at most
    resolution + sqrt(length) in L2. L1 is at most sqrt(length) times L2, and for whole numbers at most its square.

    This holds for a contribution inside a sum, where conditional rounding of one vector does not.

    A count beside it, in which everyone has plus or minus half of the even ``count_units``, is a further coordinate
    that is whole already. Where nothing is rounded that is the split of noise of Andrew et al. 2021, theorem 1: the
    vector's multiplier is (z^-2 - (2 sigma_b)^-2)^(-1/2) if both together are to have z.
    """
    l2, half = resolution + math.sqrt(length), count_units / 2
    return math.hypot(l2, half), min(math.sqrt(length) * l2, l2 * l2) + half


def skellam_bound(order: float, variance: float, l2: float, l1: float) -> float:
    """Corollary 3.6 of the paper, for whole orders above 1:

    a D2^2 / (2 V) + min(((2 a - 1) D2^2 + 6 D1) / (4 V^2), 3 D1 / (2 V)).
    """
    first = order * l2 * l2 / (2 * variance)
    return first + min(((2 * order - 1) * l2 * l2 + 6 * l1) / (4 * variance * variance), 3 * l1 / (2 * variance))


def skellam_rdp(order: float, variance: float, l2: float, l1: float) -> float:
    """The Rényi divergence of one release at any order above 1.

    Args:
        order: above 1.
        variance: of the noise in each coordinate of the sum, in integer units.
        l2: the sensitivity in L2, in integer units.
        l1: the sensitivity in L1.
    """
    below = math.floor(order)
    if below == order:
        return skellam_bound(order, variance, l2, l1)
    lower = (below - 1) * skellam_bound(below, variance, l2, l1) if below > 1 else 0.0
    upper = below * skellam_bound(below + 1, variance, l2, l1)
    return (lower + (order - below) * (upper - lower)) / (order - 1)


def pure_rdp(order: float, epsilon: float) -> float:
    """The Rényi divergence at ``order`` of a release with pure ``epsilon``: min(epsilon, order epsilon^2 / 2).

    Bun and Steinke 2016, proposition 3.3: epsilon-DP implies epsilon^2 / 2 concentrated DP.
    """
    return min(epsilon, order * epsilon * epsilon / 2)


def smallest_variance(
    attempts: int,
    *,
    resolution: float,
    length: int,
    epsilon: float,
    delta: float,
    share: float = 1.0,
    orders: Sequence[float] = accounting.ORDERS,
    count_units: int = 0,
) -> tuple[int, float] | None:
    """The least even variance, to 0.01 %, with which so many releases take at most a share of a ledger's budget, and
    the order at which they do; None if no variance is enough.

    Args:
        attempts: releases and retries, each charged and rounded up on its own.
        resolution: the norm of one contribution in integer units.
        length: coordinates.
        epsilon: the ledger's.
        delta: the ledger's.
        share: the part of the budget, at the order that suits best, that all attempts may take.
        orders: the orders to choose from.
        count_units: of a count that is released with the vector; 0 if there is none.
    """
    l2, l1 = sensitivities(resolution, length, count_units)
    left = [(a, share * accounting.rdp_budget(epsilon, delta, a) - 1e-9) for a in orders]
    left = [(order, budget) for order, budget in left if budget > 0]

    def slack(variance: float) -> tuple[float, float]:
        unit = accounting.COST_UNIT
        return max((budget - attempts * (skellam_rdp(a, variance, l2, l1) + unit), a) for a, budget in left)

    if not left:
        return None
    first, most = l2 * l2, l2 * l2 * accounting.LARGEST_NOISE**2
    found = accounting.least(lambda variance: slack(variance)[0] >= 0, 1.0, first, growth=4.0, most=most)
    return None if found is None else (2 * math.ceil(found / 2), slack(found)[1])
