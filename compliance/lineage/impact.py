"""What something has reached: which models, how, since when, and what bounds it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.lineage import budgets
from fedseal.compliance.lineage.answers import Bound, Impact, Influenced, Thing
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.names import aliases, registered
from fedseal.compliance.lineage.parts import notices_of
from fedseal.compliance.lineage.reach import REACHED, TOWARDS, rows
from fedseal.compliance.lineage.tables import EDGES, NODES, PROMOTIONS, ROUNDS

# What has an impact that somebody may ask for.
CAUSES = (
    NodeKind.DATASET,
    NodeKind.LABEL_SET,
    NodeKind.GUIDELINE,
    NodeKind.CODE,
    NodeKind.ENVIRONMENT,
    NodeKind.CONFIG,
    NodeKind.POPULATION,
    NodeKind.SITE,
    NodeKind.MODEL,
)


@dataclass(slots=True)
class _Reached:
    """A model that was reached, while it is being looked at."""

    thing: Thing
    chosen: bool
    made: tuple[str, int] | None = None
    parents: set[int] = field(default_factory=set)


# Built once: SQLAlchemy then compiles them once.
_MODELS = (
    select(NODES.c.id, NODES.c.digest, NODES.c.label, NODES.c.first_idx, REACHED.c.chosen)
    .select_from(REACHED.join(NODES, NODES.c.id == REACHED.c.node))
    .where(NODES.c.kind == NodeKind.MODEL.value)
    .order_by(NODES.c.first_idx, NODES.c.id)
)
_MADE = select(ROUNDS.c.model_out, ROUNDS.c.run, ROUNDS.c.sequence).select_from(
    REACHED.join(ROUNDS, ROUNDS.c.model_out == REACHED.c.node)
)
_PARENTS = (
    select(EDGES.c.dst, EDGES.c.src)
    .select_from(REACHED.join(EDGES, EDGES.c.dst == REACHED.c.node))
    .where(EDGES.c.kind == int(EdgeKind.PARENT))
)
_DIRECT = (
    select(ROUNDS.c.run, ROUNDS.c.sequence)
    .select_from(TOWARDS.join(ROUNDS, ROUNDS.c.node == TOWARDS.c.node))
    .where(ROUNDS.c.release != ReleaseName.EVALUATION.value, ROUNDS.c.superseded.is_(False))
    .order_by(ROUNDS.c.run, ROUNDS.c.sequence)
)


def impact(connection: Connection, start: int, thing: Thing, *, bounded: bool = True) -> Impact:
    """The models that a thing has reached.

    Args:
        connection: the tables'.
        start: the thing's node.
        thing: the same.
        bounded: whether to compute what bounds the influence on models that are registered or in use. Accounting
            takes far longer than all the rest.
    """
    pointing = _Pointing.read(connection)
    named = pointing.registered
    found = {
        row.id: _Reached(
            Thing(NodeKind.MODEL.value, row.digest, named.get(row.digest, ""), row.first_idx), bool(row.chosen)
        )
        for row in rows(connection, _MODELS, start)
        if row.id != start
    }
    for made in rows(connection, _MADE, start):
        if made.model_out in found:
            found[made.model_out].made = (made.run, made.sequence)
    for edge in rows(connection, _PARENTS, start):
        if edge.dst in found:
            found[edge.dst].parents.add(edge.src)
    if thing.kind == NodeKind.MODEL:
        # What is older than a model is clean of it.
        itself = select(EDGES.c.src).where(EDGES.c.dst == start, EDGES.c.kind == int(EdgeKind.PARENT))
        for one in found.values():
            if start in one.parents:
                one.parents |= set(connection.execute(itself).scalars())
    direct: dict[str, list[int]] = {}
    for one in rows(connection, _DIRECT, start):
        direct.setdefault(one.run, []).append(one.sequence)
    clean = _clean_ancestors(connection, found, start, named)
    populations = budgets.populations_of(connection, start)

    def influenced(number: int, reached: _Reached) -> Influenced:
        digest = reached.thing.digest
        run, sequence = reached.made or (None, None)
        rounds = 0 if run is None or sequence is None else bisect_right(direct.get(run, []), sequence)
        current, before = pointing.current(digest), pointing.before(digest)
        asked = bounded and populations and (reached.thing.label or current or before)
        limits: tuple[Bound, ...] = budgets.bounds(connection, number, populations) if asked else ()
        return Influenced(
            reached.thing,
            reached.thing.label or None,
            current,
            before,
            run,
            sequence,
            rounds,
            rounds == 0,
            reached.chosen,
            clean.get(number),
            limits,
        )

    models = tuple(influenced(number, reached) for number, reached in found.items())
    return Impact(thing, populations, notices_of(connection, thing.digest), models)


@dataclass(frozen=True, slots=True)
class _Pointing:
    """What models are registered as, and which aliases point to them or did."""

    registered: Mapping[str, str]
    now: Mapping[str, str]
    ever: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, connection: Connection) -> "_Pointing":
        ever: dict[str, list[str]] = {}
        for row in connection.execute(select(PROMOTIONS).where(PROMOTIONS.c.alias.is_not(None))):
            ever.setdefault(row.subject, []).append(row.alias)
        return cls(registered(connection), aliases(connection), ever)

    def current(self, digest: str) -> tuple[str, ...]:
        """Aliases that point to a model now."""
        return tuple(sorted(alias for alias in set(self.ever.get(digest, ())) if self.now[alias] == digest))

    def before(self, digest: str) -> tuple[str, ...]:
        """Aliases that pointed to a model, and do no more."""
        return tuple(sorted(set(self.ever.get(digest, ())) - set(self.current(digest))))


def _clean_ancestors(
    connection: Connection, reached: Mapping[int, _Reached], start: int, named: Mapping[str, str]
) -> dict[int, Thing]:
    """For each model the newest that it descends from and that was not reached; none where there is none.

    Whatever descends from a model that was reached was reached too, so that the ancestors of a clean model are clean,
    and older: looking stops at the first on each way.
    """
    outside = {p for one in reached.values() for p in one.parents if p not in reached and p != start}
    things: dict[int, Thing] = {}
    for number in sorted(outside):
        row: Any = connection.execute(select(NODES).where(NODES.c.id == number)).one()
        things[number] = Thing(row.kind, row.digest, named.get(row.digest, ""), row.first_idx)
    newest: dict[int, tuple[int, int]] = {}
    moved = True
    while moved:
        moved = False
        # In the order of the log: nearly always once is enough.
        for number, one in reached.items():
            choices = [(things[p].idx, p) for p in one.parents if p in things]
            choices += [newest[p] for p in one.parents if p in newest]
            best = max(choices, default=None)
            if best is not None and newest.get(number) != best:
                newest[number] = best
                moved = True
    return {number: things[best] for number, (_, best) in newest.items()}
