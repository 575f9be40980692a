"""What modelled sites are charged: the arithmetic of `privacy.ledger`, without a ledger for each site.

All sites of a simulated federation promise the same, so a ledger's state is how often each plan was charged.
"""

from collections import Counter
from dataclasses import dataclass, field

from fedseal.privacy.ledger import Ledger, Terms, cost, epsilon_enforced, epsilon_shown, open_ledger
from fedseal.privacy.plan import PlanKind, PrivacyPlan, decode_plan, encode_plan
from fedseal.privacy.planning import RunPlans
from fedseal.privacy.releases import Population
from fedseal.simulation.books import epsilon_after
from fedseal.simulation.federation import SitePrivacy


@dataclass(slots=True)
class Charges:
    """The charges of all sites of one run.

    Args:
        terms: of each population's ledger.
    """

    terms: dict[str, Terms]
    _counts: dict[tuple[str, bytes], Counter[int]] = field(default_factory=dict, init=False)
    _ledgers: dict[str, Ledger] = field(default_factory=dict, init=False)

    def reserve(self, population: Population, run: bytes, plan: PrivacyPlan, encoded: bytes) -> None:
        """Set aside a plan's cost at every site, once a run.

        Raises:
            BudgetExceeded: it does not fit.
        """
        name = population.value
        if (name, encoded) in self._counts:
            return
        ledger = self._ledgers.get(name) or open_ledger(self.terms[name])[0]
        self._ledgers[name], _ = ledger.reserve(run, plan)
        self._counts[name, encoded] = Counter()

    def affordable(self, population: Population, site: int, plan: PrivacyPlan, encoded: bytes) -> bool:
        """Whether a site's reservation for a plan has an attempt left."""
        return self._counts[population.value, encoded][site] < plan.attempts

    def charge(self, population: Population, sites: list[int], encoded: bytes) -> None:
        """Charge one attempt to some sites."""
        self._counts[population.value, encoded].update(sites)

    def epsilon(self, plans: RunPlans, sites: int, delta: float) -> float | None:
        """The tight epsilon of all that was charged for training persons so far, at the site where it is largest."""
        if plans.update.kind is PlanKind.NONE:
            return None
        train = Population.TRAIN.value
        first = Counter[int]() if plans.moments is None else self._counts[train, encode_plan(plans.moments)]
        later = self._counts[train, encode_plan(plans.update)]
        pairs = {(first[site], later[site]) for site in range(1, sites + 1)}
        found = [epsilon_after(plans, count, delta, moments=m) for m, count in pairs]
        return max(e for e in found if e is not None)

    def privacy(self, population: Population, names: tuple[str, ...]) -> dict[str, SitePrivacy]:
        """What each site's ledger of a population would say at the end."""
        terms, name = self.terms[population.value], population.value
        plans = {e: decode_plan(e) for p, e in sorted(self._counts) if p == name}
        said: dict[tuple[int, ...], SitePrivacy] = {}
        found = {}
        for number, site in enumerate(names, start=1):
            counts = tuple(self._counts[name, e][number] for e in plans)
            if counts not in said:
                charged = tuple((plan, n) for plan, n in zip(plans.values(), counts, strict=True) if n)
                said[counts] = _privacy(terms, charged)
            found[site] = said[counts]
        return found


def _privacy(terms: Terms, charged: tuple[tuple[PrivacyPlan, int], ...]) -> SitePrivacy:
    return SitePrivacy(
        plan=min((plan.kind for plan, _ in charged), default=PlanKind.LOCAL).label,
        epsilon=epsilon_shown(charged, terms.delta),
        epsilon_enforced=epsilon_enforced(terms, sum(n * cost(plan, terms.order) for plan, n in charged)),
        epsilon_budget=terms.epsilon,
        delta=terms.delta,
        releases=sum(n for _, n in charged),
    )
