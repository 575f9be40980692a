"""What the sites of a simulated federation wrote down, looked at after every round: what they were charged, and what
went wrong.

A simulation may read its sites' stores: the operator owns them all.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.errors import BudgetExceeded, FedsealError, LocalError, PeerError, PolicyRefused, RoundAborted
from fedseal.privacy import accounting
from fedseal.privacy.ledger import cost
from fedseal.privacy.plan import PlanKind, PrivacyPlan
from fedseal.privacy.planning import RunPlans
from fedseal.privacy.releases import Population
from fedseal.privacy.secagg.messages import RefusalCode
from fedseal.privacy.store import SiteStore
from fedseal.simulation.federation import incidents

# Refusals that follow from another one: a site that has left a run refuses every later header of it.
CONSEQUENCES = {RefusalCode.PROTOCOL.name}


@dataclass(frozen=True, slots=True)
class Incident:
    """What one site wrote down about one refusal."""

    site: str
    code: str
    message: str
    next_step: str


class Books:
    """The books of all sites of one training.

    Args:
        stores: the sites' stores by name; what was charged before is not this training's.
        plans: the plans of the run; a run has no others.
        delta: at which epsilon is stated.
    """

    def __init__(self, stores: Mapping[str, Path], plans: RunPlans, delta: float) -> None:
        self._paths = stores
        self._stores = {name: SiteStore.open(path) for name, path in stores.items()}
        self._plans = plans
        self._delta = delta
        # Of the ledgers: a search's are not opened for one of its plans alone.
        self._order = next(self._terms_order(store) for store in self._stores.values())
        self._before = {name: self._charged(store) for name, store in self._stores.items()}
        self._moments = dict.fromkeys(stores, 0)
        self._seen = dict.fromkeys(stores, 0)

    def begin_training(self) -> None:
        """Whatever was charged so far was for the moments."""
        if self._plans.moments is not None:
            self._moments = {name: self._charged(s) - self._before[name] for name, s in self._stores.items()}

    def end_round(self) -> None:
        """A round ended well: whatever went wrong so far is not why a later one fails."""
        self._seen = {name: len(incidents(path)) for name, path in self._paths.items()}

    def epsilon(self) -> float | None:
        """The tight epsilon of everything charged so far, failed attempts too, at the site where it is largest; None
        without privacy.
        """
        plans = self._plans
        if plans.update.kind is PlanKind.NONE:
            return None
        counts = set()
        for name, store in self._stores.items():
            moments = 0 if plans.moments is None else self._moments[name] // cost(plans.moments, self._order)
            trained = self._charged(store) - self._before[name] - self._moments[name]
            updates = trained // cost(plans.update, self._order)
            counts.add((moments, updates))
        found = [epsilon_after(plans, updates, self._delta, moments=moments) for moments, updates in counts]
        return max(e for e in found if e is not None)

    def explain(self, error: RoundAborted) -> FedsealError:
        """Why a round failed: the error with what a site wrote down, of the class of what the site refused with."""
        return explained(error, self._cause())

    def _cause(self) -> Incident | None:
        """Of each site its last incident since the last good round; of those the most frequent kind."""
        books = {name: incidents(path) for name, path in self._paths.items()}
        since = {name: rows[self._seen[name] :] for name, rows in books.items()}
        for candidates, ignored in ((since, CONSEQUENCES), (books, CONSEQUENCES), (books, set[str]())):
            last = [
                next(((name, *row) for row in reversed(rows) if row[0] not in ignored), None)
                for name, rows in candidates.items()
            ]
            found = [row for row in last if row is not None]
            if found:
                kind = Counter(code for _, code, _ in found).most_common(1)[0][0]
                return next(Incident(name, code, *summary(text)) for name, code, text in found if code == kind)
        return None

    @staticmethod
    def _terms_order(store: SiteStore) -> float:
        with store.transaction() as transaction:
            return transaction.terms(Population.TRAIN.value).order

    @staticmethod
    def _charged(store: SiteStore) -> int:
        """What a site's ledger has charged for persons trained on, in the ledger's units."""
        with store.transaction() as transaction:
            # No run has this id: the totals are asked for, not a reservation.
            return transaction.ledger(Population.TRAIN.value, bytes(16), b"").last.charged


def explained(error: RoundAborted, incident: Incident | None) -> FedsealError:
    """A failed round's error with what a site wrote down, of the class of what the site refused with."""
    if incident is None:
        return error
    refusal = f"{incident.site} refused ({incident.code.lower()}): {incident.message}"
    message, advice = f"{error.message}; {refusal}", incident.next_step
    match RefusalCode[incident.code]:
        case RefusalCode.BUDGET:
            return BudgetExceeded(message, next_step=advice)
        case RefusalCode.POLICY:
            return PolicyRefused(message, next_step=advice)
        case RefusalCode.PROTOCOL:
            return PeerError(message, peer="server", next_step=advice)
        case RefusalCode.BAD_PEER:
            return PeerError(message, peer="a site", next_step=advice)
        case RefusalCode.INTERNAL:
            return LocalError(message, next_step=advice)
        case _:
            return RoundAborted(error.message, next_step=f"{refusal}\n{advice}".rstrip())


def epsilon_after(plans: RunPlans, updates: int, delta: float, *, moments: int = 1) -> float | None:
    """The tight epsilon at a site that was charged so often for updates and moments; None without privacy."""
    releases: list[tuple[PrivacyPlan, int]] = [(plans.update, updates)]
    if plans.moments is not None:
        releases.append((plans.moments, moments))
    if any(plan.kind is PlanKind.NONE for plan, _ in releases):
        return None
    return accounting.spent_by(tuple(releases), delta)


def summary(text: str) -> tuple[str, str]:
    """The message and the next step at the end of a traceback that a site kept.

    Of fedseal's own errors the message alone, of others their class too.
    """
    lines = text.strip().splitlines()
    frames = [i for i, line in enumerate(lines) if line.startswith("  File ")]
    rest = lines[frames[-1] + 1 :] if frames else lines
    # The frame's line of code, and carets below it.
    said = [line for line in rest if not line.startswith("    ")] or lines[-1:]
    steps = [line.removeprefix("next: ") for line in said if line.startswith("next: ")]
    message = " ".join(line.strip() for line in said if not line.startswith("next: "))
    named = re.match(r"(?P<module>(?:\w+\.)*)(?P<kind>\w+): ", message)
    if named is None:
        return message, " ".join(steps)
    start = named.end() if named["module"].startswith("fedseal.") else named.start("kind")
    return message[start:], " ".join(steps)
