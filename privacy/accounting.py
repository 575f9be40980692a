"""From what ran to what it cost, by Google's dp-accounting; no arithmetic of our own but one conversion.

Two numbers, two uses. The *privacy loss distribution* (PLD) gives the tight epsilon of a plan that was fixed before
the run: it is the number shown. The ledger has to stay valid when later plans are chosen in the light of earlier
results; there a *Rényi filter* at one order, fixed when the ledger is opened, is what is enforced (Feldman and Zrnic
2021; Lécuyer 2021). It costs some 10 % more.

dp-accounting brings scipy and takes longer to import than all the rest of a site's protocol. It is imported in the
functions that count, for Flower may start a process for every message, and most messages count nothing.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from fedseal.errors import ConfigError

if TYPE_CHECKING:
    import dp_accounting


@runtime_checkable
class Pure(Protocol):
    """A plan whose one release keeps a pure epsilon."""

    @property
    def epsilon(self) -> float:
        """Of one release, at delta 0."""


class Charged(Protocol):
    """What a plan says of its cost."""

    def divergence(self, order: float) -> float:
        """A bound on the Rényi divergence of one release at ``order``."""


@runtime_checkable
class HasEvent(Protocol):
    """A plan that dp-accounting knows."""

    def event(self, releases: int) -> "dp_accounting.DpEvent":
        """What so many releases are."""


# Orders a ledger may be opened at: dense where plans for epsilon 0.5 to 10 have their optimum.
ORDERS: tuple[float, ...] = tuple(
    [1 + x / 20 for x in range(2, 100)]
    + [6 + x / 10 for x in range(40)]
    + [10 + x / 4 for x in range(41)]
    + [20.0 + x for x in range(1, 45)]
    + [128.0, 256.0]
)

# Ledgers count Rényi divergence in whole units of this.
COST_UNIT = 1e-12

# No plan is given more noise than this.
LARGEST_NOISE = 2.0**20


@contextmanager
def _quietly() -> Iterator[None]:
    """dp-accounting warns of every low order whose series does not converge; it leaves them out, which is all we
    need.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def rdp_at(event: "dp_accounting.DpEvent", order: float) -> float:
    """The Rényi divergence bound of ``event`` at one order; infinite for a release without protection, and for one
    whose bound cannot be computed.
    """
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant([order])
    try:
        with _quietly():
            accountant.compose(event)
    except (ArithmeticError, ValueError):
        return math.inf
    return float(accountant.rdp[0])


def conversion(order: float, delta: float) -> float:
    """What is added to a Rényi bound at ``order`` to make it an epsilon at ``delta``: the epsilon of an empty ledger.

    Canonne, Kamath and Steinke 2020, proposition 12, which dp-accounting uses too: eps = rdp + ln(1 - 1/a) - ln(delta
    * a) / (a - 1).
    """
    return math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


def rdp_budget(epsilon: float, delta: float, order: float) -> float:
    """How much Rényi divergence at ``order`` an (epsilon, delta) promise leaves; zero or less means the order cannot
    carry it.
    """
    return epsilon - conversion(order, delta)


def epsilon_rdp(event: "dp_accounting.DpEvent", delta: float) -> float:
    """The epsilon of ``event`` by Rényi accounting at its best order."""
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant()
    with _quietly():
        accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def epsilon_pld(event: "dp_accounting.DpEvent", delta: float) -> float:
    """The epsilon of ``event`` by its privacy loss distribution, adding or removing one person; infinite without
    protection.
    """
    from dp_accounting import pld

    accountant = pld.PLDAccountant()
    accountant.compose(event)
    return float(accountant.get_epsilon(delta))


def best_order(event: "dp_accounting.DpEvent", delta: float) -> tuple[float, float]:
    """The order of `ORDERS` at which ``event`` has the smallest epsilon at ``delta``, and that epsilon."""
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant(list(ORDERS))
    with _quietly():
        accountant.compose(event)
    epsilon, order = accountant.get_epsilon_and_optimal_order(delta)
    return float(order), float(epsilon)


@dataclass(frozen=True, slots=True)
class Calibration:
    """A noise multiplier and the order at which its cost was counted."""

    noise_multiplier: float
    order: float


def calibrate(
    event_of: Callable[[float], "dp_accounting.DpEvent"],
    *,
    epsilon: float,
    delta: float,
    charges: int,
    share: float = 1.0,
) -> Calibration:
    """The smallest noise multiplier, to 0.01 %, whose event takes at most a share of a ledger of (epsilon, delta).

    Args:
        event_of: the event for a noise multiplier; more noise has to cost less.
        epsilon: the ledger's.
        delta: the ledger's.
        charges: into how many charges the event is split; the ledger rounds each up.
        share: the part of the budget, at the order that suits the event best, that the event may take.

    Raises:
        ConfigError: epsilon or delta out of range, or no noise below 2^20 is enough.
    """
    from dp_accounting import rdp

    if not (epsilon > 0 and 0 < delta < 1 and 0 < share <= 1):
        raise ConfigError("expected epsilon > 0, 0 < delta < 1 and 0 < share <= 1")
    orders = [order for order in ORDERS if rdp_budget(epsilon, delta, order) > 0]
    impossible = ConfigError(
        f"no noise makes this plan fit epsilon {epsilon:g} at delta {delta:g}",
        next_step="Raise epsilon, or plan fewer rounds or local steps.",
    )
    if not orders:
        raise impossible
    margin = charges * COST_UNIT + 1e-9

    def slack(noise: float) -> tuple[float, float]:
        """How much of the share is left over at the best order, and that order."""
        accountant = rdp.RdpAccountant(orders)
        with _quietly():
            accountant.compose(event_of(noise))
        left = [share * rdp_budget(epsilon, delta, a) - r - margin for a, r in zip(orders, accountant.rdp, strict=True)]
        best = max(range(len(orders)), key=left.__getitem__)
        return left[best], orders[best]

    found = least(lambda noise: slack(noise)[0] >= 0, 1e-2, 1.0, growth=2.0, most=LARGEST_NOISE)
    if found is None:
        raise impossible
    return Calibration(found, slack(found)[1])


def least(enough: Callable[[float], bool], low: float, high: float, *, growth: float, most: float) -> float | None:
    """The smallest number above ``low``, to 0.01 %, that is enough; None if ``most`` is not.

    Args:
        enough: whether a number is; whatever is larger than one that is has to be too.
        low: above 0.
        high: tried first.
        growth: by what it is multiplied until it is enough.
        most: no larger number is tried.
    """
    while not enough(high):
        low, high = high, high * growth
        if high > most:
            return None
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=1024)
def spent(events: tuple["dp_accounting.DpEvent", ...], delta: float) -> float:
    """The tight epsilon of several events together."""
    import dp_accounting

    return epsilon_pld(dp_accounting.ComposedDpEvent(list(events)), delta) if events else 0.0


@lru_cache(maxsize=1024)
def spent_by(releases: tuple[tuple[Charged, int], ...], delta: float) -> float:
    """The epsilon to show for plans that ran so many times each.

    By their privacy loss distributions if all of them have one; else by Rényi accounting at the order of `ORDERS`
    that suits them best. Pure epsilons may also simply be added to what the others come to, if that is less.
    """
    ran = [(plan, count) for plan, count in releases if count]
    events = [plan.event(count) for plan, count in ran if isinstance(plan, HasEvent)]
    if len(events) == len(ran):
        return spent(tuple(events), delta)
    whole = (sum(count * plan.divergence(a) for plan, count in ran) + conversion(a, delta) for a in ORDERS)
    found = max(min(whole), 0.0)
    others = tuple((plan, count) for plan, count in ran if not isinstance(plan, Pure))
    if len(others) == len(ran):
        return found
    pure = sum(count * plan.epsilon for plan, count in ran if isinstance(plan, Pure))
    return min(found, pure + spent_by(others, delta))
