"""What was charged to whom, by the federation's log: per site and population, against what was promised.

A site's ledger stays at the site. What stands here is what it signed for the log: a charge before each release, with
its plan. Epsilon is computed again from the plans, not taken from anyone's word.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, select

from fedseal.compliance.lineage.budgets import two_epsilons
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.tables import BUDGETS, DP_LEDGER, EDGES, NODES
from fedseal.privacy.accounting import HasEvent, epsilon_rdp, spent_by
from fedseal.privacy.plan import decode_plan

# A curve of what was spent has at most so many points: each is an accounting of its own.
CURVE = 16


@dataclass(frozen=True, slots=True)
class Charge:
    """One plan that a population was charged for: its kind, and how often, of how many runs."""

    kind: str
    count: int
    runs: int


@dataclass(frozen=True, slots=True)
class Population:
    """What a population was charged. ``epsilon`` and ``second`` by two accountants, at ``delta``; ``second`` is None
    where the first is that already. ``promised`` and its entry are None where the log has no promise.
    ``curve``: epsilon by Renyi accounting after so many releases;
    ``planned``: how many releases and retries the plans of its runs are for, and epsilon after all of them, None where
    a run changes its plan as it goes. ``idx``: the newest charge's entry.
    """

    site: str
    name: str
    delta: float
    epsilon: float
    second: float | None
    releases: int
    charges: tuple[Charge, ...]
    promised: float | None
    promise_idx: int | None
    until: str | None
    idx: int | None
    curve: tuple[tuple[int, float], ...]
    planned: tuple[int, float] | None

    @property
    def share(self) -> float | None:
        """Which part of the promise is spent; None where there is none."""
        return None if not self.promised else self.epsilon / self.promised

    @property
    def mark(self) -> str:
        """How that is marked: see the macro ``badge``."""
        if math.isinf(self.epsilon):
            return "bad"
        if self.share is None:
            return "idle"
        return "bad" if self.share > 1 else "warn" if self.share > 0.8 else "good"

    @property
    def words(self) -> str:
        """The same, said."""
        if math.isinf(self.epsilon):
            return "released without protection"
        if self.share is None:
            return "no promise in the log" if self.epsilon else "nothing charged"
        return "over the promise" if self.share > 1 else "nearly spent" if self.share > 0.8 else "within the promise"


def read_spending(connection: Connection) -> tuple[Population, ...]:
    """All populations that something was charged or promised to, by site.

    Args:
        connection: of the lineage's tables, brought up to the log.
    """
    site, population = NODES.alias("site"), NODES.alias("population")
    query = (
        select(site.c.digest, population.c.digest)
        .select_from(EDGES)
        .join(site, EDGES.c.src == site.c.id)
        .join(population, EDGES.c.dst == population.c.id)
        .where(EDGES.c.kind == EdgeKind.HOLDS, site.c.kind == NodeKind.SITE)
        .where(population.c.kind == NodeKind.POPULATION)
        .order_by(site.c.digest, EDGES.c.idx)
    )
    found = (_population(connection, holder, name) for holder, name in connection.execute(query).all())
    return tuple(one for one in found if one is not None)


def _population(connection: Connection, site: str, name: str) -> Population | None:
    ledger = select(DP_LEDGER).where(DP_LEDGER.c.population == name).order_by(DP_LEDGER.c.idx)
    rows = connection.execute(ledger).all()
    budget = select(BUDGETS).where(BUDGETS.c.population == name).order_by(BUDGETS.c.idx.desc()).limit(1)
    promise = connection.execute(budget).one_or_none()
    if not rows and promise is None:
        return None
    delta = float(promise.delta) if promise is not None else min(float(row.delta) for row in rows)
    plans = tuple(row.plan for row in rows)
    shown, second = _epsilons(_counted(plans), delta)
    kinds = Counter(_kind(row.plan) for row in rows)
    runs = {kind: len({row.run for row in rows if _kind(row.plan) == kind}) for kind in kinds}
    steps = sorted({max(1, round(len(plans) * part / CURVE)) for part in range(1, CURVE + 1)}) if plans else []
    curve = tuple((count, _renyi(_counted(plans[:count]), delta)) for count in steps)
    return Population(
        site,
        name,
        delta,
        shown,
        second,
        len(rows),
        tuple(Charge(kind, count, runs[kind]) for kind, count in sorted(kinds.items())),
        None if promise is None else float(promise.epsilon),
        None if promise is None else promise.idx,
        None if promise is None else promise.until,
        rows[-1].idx if rows else None,
        curve,
        _planned(rows, delta),
    )


def _planned(rows: Sequence[Row[Any]], delta: float) -> tuple[int, float] | None:
    """What the plans of all runs come to, if each is used up."""
    plans = {(row.run, _kind(row.plan)): row.plan for row in rows}
    if not plans or len({(row.run, row.plan) for row in rows}) != len(plans):
        return None
    counts: Counter[str] = Counter()
    for plan in plans.values():
        counts[plan] += decode_plan(bytes.fromhex(plan)).attempts
    return sum(counts.values()), _renyi(tuple(sorted(counts.items())), delta)


def _counted(plans: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(Counter(plans).items()))


@lru_cache(maxsize=4096)
def _epsilons(charged: tuple[tuple[str, int], ...], delta: float) -> tuple[float, float | None]:
    # Sites that took part in the same runs were charged the same: one accounting does for all of them.
    return two_epsilons(dict(charged), delta)


@lru_cache(maxsize=4096)
def _renyi(charged: tuple[tuple[str, int], ...], delta: float) -> float:
    """The same by Renyi accounting alone, which takes milliseconds where the other takes seconds."""
    import dp_accounting

    ran = tuple((decode_plan(bytes.fromhex(encoded)), count) for encoded, count in charged)
    events = [plan.event(count) for plan, count in ran if isinstance(plan, HasEvent)]
    return (
        epsilon_rdp(dp_accounting.ComposedDpEvent(events), delta) if len(events) == len(ran) else spent_by(ran, delta)
    )


@lru_cache(maxsize=1024)
def _kind(plan: str) -> str:
    return decode_plan(bytes.fromhex(plan)).kind.name.lower()
