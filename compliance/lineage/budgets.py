"""What was charged, counted again from the plans that the log holds."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select

from fedseal.compliance.lineage.answers import Bound, Epsilon, Spent, Thing
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.reach import ANCESTORS, CARRIED, TOWARDS, rows
from fedseal.compliance.lineage.tables import BUDGETS, DP_LEDGER, EDGES, NODES, ROUNDS
from fedseal.privacy.accounting import HasEvent, epsilon_rdp, spent_by
from fedseal.privacy.plan import decode_plan


def two_epsilons(charged: Mapping[str, int], delta: float) -> tuple[float, float | None]:
    """The epsilon of so many releases of each plan, by privacy loss distributions and by Renyi accounting.

    The second is a bound from above that shares nothing with the first but the plans; None where a plan has no
    distribution that is known (Skellam's), and the first is by Renyi accounting itself.

    Args:
        charged: how often, by the plan's bytes in hex.
        delta: of both.
    """
    if not charged:
        return 0.0, 0.0
    # Takes long to import, and most questions count nothing.
    import dp_accounting

    ran = tuple((decode_plan(bytes.fromhex(encoded)), count) for encoded, count in sorted(charged.items()))
    shown = spent_by(ran, delta)
    events = [plan.event(count) for plan, count in ran if isinstance(plan, HasEvent)]
    second = epsilon_rdp(dp_accounting.ComposedDpEvent(events), delta) if len(events) == len(ran) else None
    return shown, second


def populations_of(connection: Connection, start: int) -> tuple[str, ...]:
    """The populations whose persons' data a thing is or holds; none for code and settings."""
    carried = select(CARRIED.c.node)
    holds = (EdgeKind.HOLDS, EdgeKind.LABELLED)
    query = (
        select(NODES.c.digest)
        .select_from(CARRIED.join(NODES, NODES.c.id == CARRIED.c.node))
        .where(NODES.c.kind == NodeKind.POPULATION)
    )
    found = {row.digest for row in rows(connection, query, start)}
    # A label set's population is its dataset's, a dataset's the one that holds it.
    inner, outer = EDGES.alias("inner_edge"), EDGES.alias("outer_edge")
    near = select(inner.c.src).where(inner.c.dst.in_(carried), inner.c.kind.in_(holds))
    far = select(outer.c.src).where(outer.c.dst.in_(near), outer.c.kind == EdgeKind.HOLDS)
    held = select(NODES.c.digest).where(NODES.c.kind == NodeKind.POPULATION, NODES.c.id.in_(near.union(far)))
    return tuple(sorted(found | {row.digest for row in rows(connection, held, start)}))


def bounds(connection: Connection, model: int, populations: Iterable[str]) -> tuple[Bound, ...]:
    """What bounds the influence of populations' persons on a model.

    Counts what was charged for releases that the model descends from, every attempt. A charge for a release that no
    sum came of counts in `epsilon`, and not here.

    Args:
        connection: the tables'.
        model: its node.
        populations: commitments.
    """
    joined = ANCESTORS.join(ROUNDS, ROUNDS.c.node == ANCESTORS.c.node)
    of_round = (DP_LEDGER.c.run == ROUNDS.c.run) & (DP_LEDGER.c.sequence == ROUNDS.c.sequence)
    before = {(row.run, row.sequence) for row in rows(connection, select(ROUNDS).select_from(joined), model)}
    charges = rows(connection, select(DP_LEDGER).select_from(joined.join(DP_LEDGER, of_round)), model)
    return tuple(_bound(connection, population, before, charges) for population in sorted(set(populations)))


def _bound(connection: Connection, population: str, before: set[tuple[str, int]], charges: Sequence[Row[Any]]) -> Bound:
    own = [row for row in charges if row.population == population]
    # Test persons are a population of their own: a round that some population of the site paid for is paid.
    sites = _holders(connection, population)
    paid = {(row.run, row.sequence) for row in charges if row.site in sites}
    uncharged = len(_rounds_with(connection, population) & before - paid)
    delta = _delta(connection, population, [row.delta for row in own])
    shown, second = (math.inf, None) if uncharged else two_epsilons(Counter(row.plan for row in own), delta)
    return Bound(population, delta, shown, second, len(own), uncharged)


def _rounds_with(connection: Connection, population: str) -> set[tuple[str, int]]:
    """The releases that computed with a population's data, by run and sequence."""
    node = select(NODES.c.id).where(NODES.c.kind == NodeKind.POPULATION, NODES.c.digest == population)
    number = connection.execute(node).scalar_one()
    query = select(ROUNDS.c.run, ROUNDS.c.sequence).select_from(TOWARDS.join(ROUNDS, ROUNDS.c.node == TOWARDS.c.node))
    return {(row.run, row.sequence) for row in rows(connection, query, number)}


def _holders(connection: Connection, population: str) -> set[str]:
    """The sites that hold a population: one, unless somebody lies."""
    site, held = NODES.alias("site"), NODES.alias("held")
    query = (
        select(site.c.digest)
        .select_from(EDGES.join(held, held.c.id == EDGES.c.dst).join(site, site.c.id == EDGES.c.src))
        .where(held.c.kind == NodeKind.POPULATION, held.c.digest == population, site.c.kind == NodeKind.SITE)
    )
    return set(connection.execute(query).scalars())


def epsilon(connection: Connection, number: int, site: Thing) -> Epsilon:
    """What each population of a site was charged, over all runs.

    Args:
        connection: the tables'.
        number: the site's node.
        site: the same.
    """
    held = select(EDGES.c.dst).where(EDGES.c.src == number, EDGES.c.kind == EdgeKind.HOLDS)
    names = connection.execute(select(NODES.c.digest).where(NODES.c.id.in_(held)).order_by(NODES.c.digest)).scalars()
    spent = (_spent(connection, population) for population in names)
    return Epsilon(site, tuple(one for one in spent if one is not None))


def _spent(connection: Connection, population: str) -> Spent | None:
    query = select(DP_LEDGER).where(DP_LEDGER.c.population == population).order_by(DP_LEDGER.c.idx)
    charges = connection.execute(query).all()
    promise = _promise(connection, population)
    if not charges and promise is None:
        return None
    delta = _delta(connection, population, [row.delta for row in charges])
    shown, second = two_epsilons(Counter(row.plan for row in charges), delta)
    return Spent(
        population,
        delta,
        shown,
        second,
        len(charges),
        len({row.run for row in charges}),
        None if promise is None else float(promise.epsilon),
        None if promise is None else promise.idx,
        charges[-1].idx if charges else None,
    )


def _promise(connection: Connection, population: str) -> Row[Any] | None:
    query = select(BUDGETS).where(BUDGETS.c.population == population).order_by(BUDGETS.c.idx.desc()).limit(1)
    return connection.execute(query).one_or_none()


def _delta(connection: Connection, population: str, charged: list[str]) -> float:
    """The promise's, or the smallest that anything was charged at."""
    promise = _promise(connection, population)
    return float(promise.delta) if promise is not None else min(map(float, charged), default=1.0)
