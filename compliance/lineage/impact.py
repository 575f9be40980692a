"""What something has reached: which models, how, since when, and what bounds it."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    parents: tuple[int, ...] = ()


# Built once: SQLAlchemy then compiles them once.
_MODELS = (
    select(
        NODES.c.id,
        NODES.c.digest,
        NODES.c.first_idx,
        REACHED.c.chosen,
        ROUNDS.c.run,
        ROUNDS.c.sequence,
        EDGES.c.src,
    )
    .select_from(REACHED.join(NODES, NODES.c.id == REACHED.c.node))
    .outerjoin(ROUNDS, ROUNDS.c.model_out == NODES.c.id)
    .outerjoin(EDGES, (EDGES.c.dst == NODES.c.id) & (EDGES.c.kind == int(EdgeKind.PARENT)))
    .where(NODES.c.kind == NodeKind.MODEL.value)
)
_DIRECT = (
    select(ROUNDS.c.run, ROUNDS.c.sequence)
    .select_from(TOWARDS.join(ROUNDS, ROUNDS.c.node == TOWARDS.c.node))
    .where(
        ROUNDS.c.release.not_in([ReleaseName.EVALUATION.value, ReleaseName.DRIFT.value]), ROUNDS.c.superseded.is_(False)
    )
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
    found = _models(connection, start, thing, named)
    direct: dict[str, list[int]] = {}
    # Sorted here: asked for an order, SQLite reads the whole table of rounds in it.
    for run, sequence in sorted(map(tuple, rows(connection, _DIRECT, start))):
        direct.setdefault(run, []).append(sequence)
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


def _models(connection: Connection, start: int, thing: Thing, named: Mapping[str, str]) -> dict[int, _Reached]:
    """The models that were reached, by the entry that named them first."""
    found: dict[int, _Reached] = {}
    for number, digest, first, chosen, run, sequence, parent in rows(connection, _MODELS, start):
        one = found.get(number)
        if one is None:
            kind = NodeKind.MODEL.value
            one = found[number] = _Reached(Thing(kind, digest, named.get(digest, ""), first), bool(chosen))
        one.chosen = one.chosen and bool(chosen)
        if run is not None and (one.made is None or (run, sequence) < one.made):
            one.made = (run, sequence)
        if parent is not None and parent not in one.parents:
            one.parents += (parent,)
    found.pop(start, None)
    if thing.kind == NodeKind.MODEL:
        # What is older than a model is clean of it.
        itself = select(EDGES.c.src).where(EDGES.c.dst == start, EDGES.c.kind == int(EdgeKind.PARENT))
        older = tuple(connection.execute(itself).scalars())
        for one in found.values():
            if start in one.parents:
                one.parents += older
    return dict(sorted(found.items(), key=lambda pair: (pair[1].thing.idx, pair[0])))


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
        if digest not in self.ever:
            return ()
        return tuple(sorted(alias for alias in set(self.ever.get(digest, ())) if self.now[alias] == digest))

    def before(self, digest: str) -> tuple[str, ...]:
        """Aliases that pointed to a model, and do no more."""
        if digest not in self.ever:
            return ()
        return tuple(sorted(set(self.ever.get(digest, ())) - set(self.current(digest))))


def _clean_ancestors(
    connection: Connection, reached: Mapping[int, _Reached], start: int, named: Mapping[str, str]
) -> dict[int, Thing]:
    """For each model the newest that it descends from and that was not reached; none where there is none.

    Whatever descends from a model that was reached was reached too, so that the ancestors of a clean model are clean,
    and older: looking stops at the first on each way.
    """
    outside = set[int]().union(*(one.parents for one in reached.values())) - reached.keys() - {start}
    things: dict[int, Thing] = {}
    for number in sorted(outside):
        row: Any = connection.execute(select(NODES).where(NODES.c.id == number)).one()
        things[number] = Thing(row.kind, row.digest, named.get(row.digest, ""), row.first_idx)
    known = {number: (one.idx, number) for number, one in things.items()}
    newest: dict[int, tuple[int, int]] = {}
    changed = unordered = True
    # In the order of the log parents come before children: then once is enough.
    while changed and unordered:
        changed = unordered = False
        seen: set[int] = set()
        for number, one in reached.items():
            seen.add(number)
            best = newest.get(number)
            for parent in one.parents:
                other = known.get(parent) or newest.get(parent)
                if other is not None and (best is None or other > best):
                    best, changed = other, True
                unordered = unordered or (parent in reached and parent not in seen)
            if best is not None:
                newest[number] = best
    return {number: things[best] for number, (_, best) in newest.items()}
