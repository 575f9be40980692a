"""How much of a population's budget may be spent in a stretch of days, by the dates of this site's own clock.

The promise to the persons is the ledger's, over everything that will ever be charged; this spreads it over time. It is
counted as the ledger counts: Rényi divergence at one order, fixed by the rule itself, so that the sum is valid also
where later plans are chosen in the light of earlier results.
"""

import math
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import Field

from fedseal.compliance.events.fields import RefusedRule
from fedseal.compliance.site_rules.refused import Refused
from fedseal.config import Frozen
from fedseal.privacy.accounting import rdp_budget
from fedseal.privacy.ledger import UNITS, cost
from fedseal.privacy.plan import PlanKind, PrivacyPlan

# As for ledgers: beyond it nothing is gained, and divergences take long to compute.
LARGEST_ORDER = 256


class PeriodRule(Frozen):
    """At most so much epsilon, at the ledger's own delta, in any ``days`` days."""

    epsilon: float = Field(ge=0.01, le=1000)
    days: int = Field(ge=1, le=3660)

    def begins(self, now: datetime) -> int:
        """From when on a charge counts, in seconds since 1970."""
        return int((now - timedelta(days=self.days)).timestamp())

    def order(self, delta: float) -> float:
        """The whole order at which noise that is spread like a Gaussian's leaves most of this epsilon.

        rho * a + ln(1/delta) / (a - 1) is least, and equal to epsilon, at a = 1 + sqrt(ln(1/delta) / rho) with
        sqrt(rho) = sqrt(ln(1/delta) + epsilon) - sqrt(ln(1/delta)) (Bun and Steinke 2016, proposition 1.3). At most
        `LARGEST_ORDER`.
        """
        unlikely = math.log(1 / delta)
        root = math.sqrt(unlikely + self.epsilon) - math.sqrt(unlikely)
        return float(min(max(2, round(1 + math.sqrt(unlikely) / root)), LARGEST_ORDER))

    def spent(self, charges: Iterable[tuple[PrivacyPlan, int]], delta: float) -> int:
        """What so many releases of each plan cost, in units of 10^-12 at the rule's order."""
        return sum(count * cost(plan, self.order(delta)) for plan, count in charges)

    def budget(self, delta: float) -> int:
        """What may be spent in the period, in the same units, rounded down; 0 if the epsilon is too small for any."""
        return max(0, math.floor(rdp_budget(self.epsilon, delta, self.order(delta)) * UNITS))


def check_period(
    rule: PeriodRule | None, population: str, delta: float, past: Iterable[tuple[PrivacyPlan, int]], plan: PrivacyPlan
) -> None:
    """Whether one more release fits into the period.

    Args:
        rule: the population's, if it has one.
        population: whose.
        delta: that of the population's ledger.
        past: the plans that were charged in the period, and how often.
        plan: the new release's.

    Raises:
        Refused: it does not; a release without privacy never does.
    """
    if rule is None:
        return
    before = tuple(past)
    charges = (*before, (plan, 1))
    unbounded = any(each.kind is PlanKind.NONE for each, _ in charges)
    if not unbounded and rule.spent(charges, delta) <= rule.budget(delta):
        return
    count = sum(number for _, number in before)
    what = "a release without privacy, in this period or now" if unbounded else f"{count} releases in the period"
    raise Refused(
        RefusedRule.PERIOD,
        f"one more release of population {population!r} after {what}; this site allows epsilon {rule.epsilon:g} in "
        f"{rule.days} days",
        next_step=f"Wait until earlier charges are {rule.days} days old, or let the data owner raise "
        f"periods.{population} in the site's policy.",
    )
