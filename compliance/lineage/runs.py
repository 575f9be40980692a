"""What the entries of one run mean: who was in which sum, and which model came of it.

The log says which model the sites were sent, and which sum came back. The model that a sum led to is the one that the
next update sent, or that the run finished with. After a crash a run goes back: an update that sends a model which an
earlier one of the same or a later round had sent takes that one's place, and its sums lead nowhere.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import Connection, Table, select

from fedseal.compliance.events.bodies import Aggregated, Contributed, Dropped, RunAccepted, RunCreated, RunFinished
from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.lineage.draft import Draft
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind, Taking
from fedseal.compliance.lineage.tables import ACCEPTED, PARTICIPATION, ROUNDS, RUNS

STATISTICS = (ReleaseName.MOMENTS, ReleaseName.COUNTS, ReleaseName.MEMBERS)


@dataclass(frozen=True, slots=True)
class Created:
    """A row of RUNS."""

    run: str
    node: int
    study: str | None
    model_in: int | None
    planned: int
    plan: str | None
    idx: int


@dataclass(frozen=True, slots=True)
class Used:
    """With which data, labels and code a site took part; by which entry. A row of ACCEPTED without its policy."""

    site: str
    population: str | None
    dataset: str | None
    label_set: str | None
    code: str | None
    idx: int


@dataclass(frozen=True, slots=True)
class Summed:
    """A row of ROUNDS."""

    run: str
    sequence: int
    attempt: int
    release: str
    round: int
    node: int
    aggregate: int
    model_in: int | None
    model_out: int | None
    superseded: bool
    idx: int


@dataclass(frozen=True, slots=True)
class Took:
    """A row of PARTICIPATION."""

    run: str
    sequence: int
    attempt: int
    site: str
    release: str
    round: int
    dataset: str | None
    label_set: str | None
    code: str | None
    status: str
    reason: str | None
    idx: int

    @property
    def key(self) -> tuple[int, int, str]:
        """Its key within the run."""
        return self.sequence, self.attempt, self.site


class RunLineage:
    """One run, as far as the tables and the draft over them know it.

    Args:
        connection: the tables'.
        draft: gets what is new.
        run: the run's id in hex.
        idx: the entry that names it.
    """

    def __init__(self, connection: Connection, draft: Draft, run: str, idx: int) -> None:
        self._draft = draft
        self._run = run
        self._node = draft.node(NodeKind.RUN, run, idx)

        def rows(table: Table) -> list[dict[str, Any]]:
            query = select(table).where(table.c.run == run)
            return [dict(row) for row in connection.execute(query).mappings()]

        self._created = next((Created(**row) for row in rows(RUNS)), None)
        self._summed = {row["sequence"]: Summed(**row) for row in rows(ROUNDS)}
        self._took = {took.key: took for took in (Took(**row) for row in rows(PARTICIPATION))}
        self._accepted: dict[str, Used] = {}
        for row in rows(ACCEPTED):
            del row["run"], row["policy"]
            self._accepted[row["site"]] = Used(**row)

    # What ran

    def created(self, body: RunCreated, idx: int) -> None:
        """Code, environment, configuration, the first model and what guided a choice influence all of a run."""
        draft, run = self._draft, self._node
        first = None if body.model_in is None else draft.node(NodeKind.MODEL, body.model_in, idx)
        draft.edge(draft.node(NodeKind.CONFIG, body.contract, idx, body.study), run, EdgeKind.SETTING, idx)
        draft.edge(draft.node(NodeKind.ENVIRONMENT, body.environment, idx), run, EdgeKind.SETTING, idx)
        if body.code is not None:
            draft.edge(draft.node(NodeKind.CODE, body.code, idx), run, EdgeKind.CODE, idx)
        if first is not None:
            draft.edge(first, run, EdgeKind.START, idx)
        for digest in body.selected_with:
            kind = NodeKind.DATASET if digest.startswith("hmac:") else NodeKind.MODEL
            chosen = draft.known(digest) or draft.node(kind, digest, idx)
            draft.edge(chosen, run, EdgeKind.SELECTED_WITH, idx)
        self._created = Created(self._run, run, body.study, first, body.rounds, body.plan.kind, idx)
        draft.row(RUNS, **asdict(self._created))

    def accepted(self, body: RunAccepted, site: str, idx: int) -> None:
        """A site holds a population, and a dataset of it."""
        draft = self._draft
        population = draft.node(NodeKind.POPULATION, body.population, idx)
        draft.edge(draft.node(NodeKind.SITE, site, idx), population, EdgeKind.HOLDS, idx)
        if body.dataset is not None:
            draft.edge(population, draft.node(NodeKind.DATASET, body.dataset, idx), EdgeKind.HOLDS, idx)
        used = Used(site, body.population, body.dataset, body.label_set, body.code, idx)
        self._accepted[site] = used
        draft.row(ACCEPTED, run=self._run, policy=body.policy, **asdict(used))

    # Who took part

    def contributed(self, body: Contributed, site: str, idx: int) -> None:
        """A site's vector is on its way; where the sum is known already, what it used has influenced it."""
        took = self._taking(body, site, Taking.CONTRIBUTED, idx)
        took = replace(took, dataset=body.dataset, label_set=body.label_set, code=body.code)
        summed = self._summed.get(body.sequence)
        before = self._took.get(took.key)
        if before is not None:
            took = replace(took, reason=before.reason)
        if summed is not None and before is not None and before.status == Taking.UNSIGNED:
            took = replace(took, status=Taking.SUMMED.value)
            self._influence(took, summed.node)
        self._keep(took)

    def dropped(self, body: Dropped, site: str, idx: int) -> None:
        """A site fell out of an attempt."""
        # One whose vector has arrived may still be in the sum: its entry stays, with the reason beside it.
        before = self._took.get((body.sequence, body.attempt, site)) or self._taking(body, site, Taking.DROPPED, idx)
        self._keep(replace(before, reason=f"{body.stage.value}: {body.reason.value}"))

    def aggregated(self, body: Aggregated, sites: tuple[str, ...], idx: int) -> None:
        """A sum: what its sites used, the model they got and the statistics before it have influenced it."""
        draft = self._draft
        key = f"{self._run}:{body.sequence}"
        node = draft.node(NodeKind.ROUND, key, idx, f"{body.release.value} {body.round}")
        aggregate = draft.node(NodeKind.AGGREGATE, key, idx, body.aggregate)
        draft.edge(self._node, node, EdgeKind.ROUND_OF, idx)
        draft.edge(node, aggregate, EdgeKind.SUM, idx)
        for site in sites:
            took = self._took.get((body.sequence, body.attempt, site))
            if took is None or took.status == Taking.DROPPED:
                took = self._unsigned(body, site, idx)
            else:
                took = replace(took, status=Taking.SUMMED.value)
            self._keep(took)
            self._influence(took, node)
        model = None if body.model_in is None else draft.node(NodeKind.MODEL, body.model_in, idx)
        if model is not None:
            draft.edge(model, node, EdgeKind.INPUT, idx)
        if body.release not in STATISTICS:
            for earlier in self._summed.values():
                if earlier.release in STATISTICS:
                    draft.edge(earlier.aggregate, node, EdgeKind.STATISTICS, idx)
        summed = Summed(
            self._run,
            body.sequence,
            body.attempt,
            body.release.value,
            body.round,
            node,
            aggregate,
            model,
            None,
            False,
            idx,
        )
        if body.release is ReleaseName.UPDATE and model is not None:
            self._follows(model, summed)
        self._put(summed)

    def finished(self, body: RunFinished, idx: int) -> None:
        """The model that a run finished with: its last sum's, or an earlier one that was chosen."""
        if body.model is None:
            return
        model = self._draft.node(NodeKind.MODEL, body.model, idx)
        updates = self._updates()
        place = _first_with(updates, model)
        if place is None:
            self._produced(model, updates, idx)
            last = updates[-1].round if updates else 0
        else:
            last = updates[place].round - 1
        planned = 0 if self._created is None else self._created.planned
        if place is not None or body.rounds < planned or not planned:
            # Ended before its last round, or when nobody knows, or went back: figures may have decided that.
            for one in self._evaluations():
                if one.round >= last:
                    self._draft.edge(one.aggregate, model, EdgeKind.SELECTED_WITH, idx)

    # Within

    def _follows(self, model: int, summed: Summed) -> None:
        """An update has sent this model: what led to it, or what it takes back."""
        updates = self._updates()
        place = _first_with(updates, model)
        if place is not None and summed.round <= updates[place].round:
            for late in updates[place:]:
                self._put(replace(late, superseded=True))
                if late.round == summed.round:
                    self._draft.edge(late.node, summed.node, EdgeKind.REPLACED, summed.idx)
            return
        self._produced(model, updates, summed.idx)

    def _produced(self, model: int, updates: list[Summed], idx: int) -> None:
        """The model came of the last of these updates, or was there before all of them."""
        if not updates:
            first = None if self._created is None else self._created.model_in
            if first is not None:
                self._draft.edge(first, model, EdgeKind.PARENT, idx)
            return
        last = updates[-1]
        self._draft.edge(last.aggregate, model, EdgeKind.RESULT, idx)
        if last.model_in is not None:
            self._draft.edge(last.model_in, model, EdgeKind.PARENT, idx)
        self._put(replace(last, model_out=model))
        before = updates[-2].round if len(updates) > 1 else -1
        for one in self._evaluations():
            if before <= one.round < last.round:
                # Figures of an earlier model were known: a learning rate or a stop may have hung on them.
                self._draft.edge(one.aggregate, model, EdgeKind.SELECTED_WITH, idx)

    def _updates(self) -> list[Summed]:
        """The updates that count, first to last."""
        of = (s for s in self._summed.values() if s.release == ReleaseName.UPDATE and not s.superseded)
        return sorted(of, key=lambda s: s.sequence)

    def _evaluations(self) -> list[Summed]:
        return [s for s in self._summed.values() if s.release == ReleaseName.EVALUATION]

    def _put(self, summed: Summed) -> None:
        self._summed[summed.sequence] = summed
        self._draft.row(ROUNDS, **asdict(summed))

    def _keep(self, took: Took) -> None:
        self._took[took.key] = took
        self._draft.row(PARTICIPATION, **asdict(took))

    def _taking(self, body: Contributed | Dropped | Aggregated, site: str, status: Taking, idx: int) -> Took:
        of = (self._run, body.sequence, body.attempt, site, body.release.value, body.round)
        return Took(*of, None, None, None, status.value, None, idx)

    def _unsigned(self, body: Aggregated, site: str, idx: int) -> Took:
        """A site that the server counts in and that has not said so: as it accepted the run."""
        took = self._taking(body, site, Taking.UNSIGNED, idx)
        used = self._accepted.get(site)
        return took if used is None else replace(took, dataset=used.dataset, label_set=used.label_set, code=used.code)

    def _influence(self, took: Took, node: int) -> None:
        """What a site used has influenced a round."""
        draft, idx = self._draft, took.idx
        used = self._accepted.get(took.site)
        if took.dataset is not None:
            draft.edge(draft.node(NodeKind.DATASET, took.dataset, idx), node, EdgeKind.DATA, idx)
        elif used is not None and used.population is not None:
            draft.edge(draft.node(NodeKind.POPULATION, used.population, idx), node, EdgeKind.DATA, idx)
        else:
            draft.edge(draft.node(NodeKind.SITE, took.site, idx), node, EdgeKind.DATA, idx)
        if took.label_set is not None:
            draft.edge(draft.node(NodeKind.LABEL_SET, took.label_set, idx), node, EdgeKind.LABELS, idx)
        if took.code is not None:
            draft.edge(draft.node(NodeKind.CODE, took.code, idx), node, EdgeKind.CODE, idx)


def _first_with(updates: list[Summed], model: int) -> int | None:
    """Which update sent this model first."""
    return next((place for place, one in enumerate(updates) if one.model_in == model), None)
