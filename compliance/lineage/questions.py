"""The questions that people ask of a lineage. Each is answered from the tables alone, and names its entries."""

from collections.abc import Iterable

from sqlalchemy import Connection, select

from fedseal.compliance.lineage import budgets
from fedseal.compliance.lineage import impact as reaching
from fedseal.compliance.lineage.answers import (
    Approvals,
    Difference,
    Epsilon,
    Figure,
    Gate,
    Impact,
    Part,
    Promotion,
    Shown,
    Signed,
    Thing,
    indices,
)
from fedseal.compliance.lineage.graph import LineageGraph, graph_of
from fedseal.compliance.lineage.kinds import NodeKind
from fedseal.compliance.lineage.names import aliases, find
from fedseal.compliance.lineage.parts import models_of, parts_of, runs_of
from fedseal.compliance.lineage.tables import APPROVALS, CORRECTIONS, EVALUATIONS, GATES, PROMOTIONS


class Questions:
    """What can be asked of the tables that a `Projection` has filled.

    Wherever a name is asked for, an id does, the beginning of one, an alias of a model, or a site's name; ConfigError
    if nothing or several things are called so.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def connection(self) -> Connection:
        """Of the tables, for questions of others."""
        return self._connection

    def show(self, model: str) -> Shown:
        """What a model was made of: runs, data, labels, code, environment, and who said yes to it."""
        number, thing = find(self._connection, model, {NodeKind.MODEL})
        runs, unsigned = runs_of(self._connection, number)
        earlier = tuple(other for _, other in models_of(self._connection, number) if other.label)
        query = select(EVALUATIONS).where(EVALUATIONS.c.model == thing.digest)
        figures = tuple(
            Figure(row.name, row.value, row.margin, row.simulated, row.org, row.idx)
            for row in self._connection.execute(query.order_by(EVALUATIONS.c.idx, EVALUATIONS.c.name))
        )
        parts, approved = parts_of(self._connection, number), self._approvals(thing)
        corrected = self._corrected(indices((thing, earlier, runs, parts, figures, approved)))
        return Shown(thing, earlier, runs, parts, figures, approved, unsigned, corrected)

    def impact(self, cause: str, *, bounded: bool = True) -> Impact:
        """Which models a dataset, label set, guideline, code, population, site or model has reached, and how.

        Args:
            cause: which thing.
            bounded: whether to compute what bounds its influence.
        """
        number, thing = find(self._connection, cause, set(reaching.CAUSES))
        return reaching.impact(self._connection, number, thing, bounded=bounded)

    def epsilon(self, site: str) -> Epsilon:
        """What the populations of a site were charged over all runs, counted again by two accountants."""
        number, thing = find(self._connection, site, {NodeKind.SITE})
        return budgets.epsilon(self._connection, number, thing)

    def approvals(self, model: str) -> Approvals:
        """Who signed a model, what it passed, where it went."""
        return self._approvals(find(self._connection, model, {NodeKind.MODEL})[1])

    def diff(self, first: str, second: str) -> Difference:
        """What two models were made of, side by side."""
        one, one_thing = find(self._connection, first, {NodeKind.MODEL})
        two, two_thing = find(self._connection, second, {NodeKind.MODEL})
        parts = [{_key(p): p for p in parts_of(self._connection, number)} for number in (one, two)]
        runs = [runs_of(self._connection, number)[0] for number in (one, two)]
        lineages = [
            {thing.digest: thing for thing in (own, *(other for _, other in models_of(self._connection, number)))}
            for own, number in ((one_thing, one), (two_thing, two))
        ]
        common = [thing for digest, thing in lineages[0].items() if digest in lineages[1]]
        return Difference(
            one_thing,
            two_thing,
            max(common, key=lambda thing: thing.idx, default=None),
            tuple(part for key, part in parts[0].items() if key not in parts[1]),
            tuple(part for key, part in parts[1].items() if key not in parts[0]),
            tuple((part, parts[1][key]) for key, part in parts[0].items() if key in parts[1]),
            tuple(run for run in runs[0] if run.run not in {other.run for other in runs[1]}),
            tuple(run for run in runs[1] if run.run not in {other.run for other in runs[0]}),
        )

    def graph(self, model: str) -> LineageGraph:
        """The lineage of a model, each run as one node."""
        number, thing = find(self._connection, model, {NodeKind.MODEL})
        return graph_of(self._connection, number, thing)

    def _approvals(self, model: Thing) -> Approvals:
        run = self._connection.execute
        of = model.digest
        signatures = tuple(
            Signed(row.alias, row.meaning, row.role, row.actor, row.org, row.time, row.idx)
            for row in run(select(APPROVALS).where(APPROVALS.c.subject == of).order_by(APPROVALS.c.idx))
        )
        gates = tuple(
            Gate(row.alias, row.gate, row.name, row.limit, row.found, row.passed, row.idx)
            for row in run(select(GATES).where(GATES.c.subject == of).order_by(GATES.c.idx))
        )
        known = {one.idx for one in signatures} | {one.idx for one in gates}
        promotions = []
        for row in run(select(PROMOTIONS).where(PROMOTIONS.c.subject == of).order_by(PROMOTIONS.c.idx)):
            named = [tuple(map(int, (text or "").split())) for text in (row.approvals, row.gates)]
            missing = tuple(idx for idx in named[0] + named[1] if idx not in known or idx >= row.idx)
            about = (row.action, row.alias, row.replaces, row.reason)
            promotions.append(Promotion(*about, named[0], named[1], missing, row.time, row.idx))
        pointing = tuple(sorted(alias for alias, to in aliases(self._connection).items() if to == of))
        return Approvals(model, pointing, signatures, gates, tuple(promotions))

    def _corrected(self, named: Iterable[int]) -> tuple[int, ...]:
        """Which of these entries a later one calls wrong."""
        wrong = set(self._connection.execute(select(CORRECTIONS.c.entry)).scalars())
        return tuple(sorted(wrong & set(named)))


def _key(part: Part) -> tuple[str, str]:
    return part.thing.kind, part.thing.digest
