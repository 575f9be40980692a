"""What each entry of a log says about lineage: one case an event. Entries of other forms say nothing about it."""

from typing import Any

from sqlalchemy import Connection, select

from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.leaf import Event
from fedseal.compliance.lineage.draft import Draft
from fedseal.compliance.lineage.kinds import EdgeKind, NodeKind
from fedseal.compliance.lineage.runs import RunLineage
from fedseal.compliance.lineage.tables import (
    APPROVALS,
    BUDGETS,
    CORRECTIONS,
    DP_LEDGER,
    EVALUATIONS,
    GATES,
    MODELS,
    NOTICES,
    PARTIES,
    PROMOTIONS,
)


class Reading:
    """Entries on their way into a draft.

    Args:
        connection: the tables'.
        draft: what is new.
    """

    def __init__(self, connection: Connection, draft: Draft) -> None:
        self._connection = connection
        self._draft = draft
        self._runs: dict[str, RunLineage] = {}
        self._names: dict[int, str] = {row.site: row.name for row in connection.execute(select(PARTIES))}

    def forget_runs(self) -> None:
        """Hold no run in memory. Only after the draft was written."""
        self._runs.clear()

    def _run(self, event: Event, idx: int) -> RunLineage:
        run = event.run or "none"
        if run not in self._runs:
            self._runs[run] = RunLineage(self._connection, self._draft, run, idx)
        return self._runs[run]

    def _site(self, number: int) -> str:
        return self._names.get(number, f"site {number}")

    def _node(self, kind: NodeKind, digest: str, idx: int, label: str = "") -> int:
        return self._draft.node(kind, digest, idx, label)

    def read(self, event: Event, idx: int) -> None:
        """Add what the entry at index ``idx`` says."""
        match event.body:
            case bodies.RunCreated() as body:
                self._run(event, idx).created(body, idx)
            case bodies.RunAccepted() as body:
                self._run(event, idx).accepted(body, event.org, idx)
            case bodies.Contributed() as body:
                self._run(event, idx).contributed(body, event.org, idx)
            case bodies.Dropped() as body:
                self._run(event, idx).dropped(body, self._site(body.site), idx)
            case bodies.Aggregated() as body:
                self._run(event, idx).aggregated(body, tuple(map(self._site, body.sites)), idx)
            case bodies.RunFinished() as body:
                self._run(event, idx).finished(body, idx)
            case bodies.Charged() | bodies.BudgetSet():
                self._budget(event, idx)
            case (
                subjects.DatasetRegistered()
                | subjects.DatasetSuperseded()
                | subjects.DatasetWithdrawn()
                | subjects.Guideline()
                | subjects.LabelSetRegistered()
                | subjects.LabelSetCorrected()
            ):
                self._data(event, idx)
            case _:
                self._rest(event, idx)

    def _data(self, event: Event, idx: int) -> None:
        """Datasets, guidelines and label sets."""
        draft, node = self._draft, self._node
        match event.body:
            case subjects.DatasetRegistered() as body:
                dataset = node(NodeKind.DATASET, body.dataset, idx)
                population = node(NodeKind.POPULATION, body.population, idx)
                draft.edge(node(NodeKind.SITE, event.org, idx), population, EdgeKind.HOLDS, idx)
                draft.edge(population, dataset, EdgeKind.HOLDS, idx)
                for parent in body.parents:
                    draft.edge(node(NodeKind.DATASET, parent, idx), dataset, EdgeKind.DERIVED, idx)
                if body.preprocessing is not None:
                    code = node(NodeKind.CODE, body.preprocessing, idx, "preprocessing")
                    draft.edge(code, dataset, EdgeKind.PREPROCESSING, idx)
            case subjects.DatasetSuperseded(dataset=old, by=new):
                self._replaced(NodeKind.DATASET, old, new, idx)
                self._notice(idx, old, "superseded", None, new)
            case subjects.DatasetWithdrawn(dataset=dataset_id, reason=reason):
                node(NodeKind.DATASET, dataset_id, idx)
                self._notice(idx, dataset_id, "withdrawn", reason.value, None)
            case subjects.Guideline(guideline=guideline, replaces=old_guideline):
                node(NodeKind.GUIDELINE, guideline, idx)
                if old_guideline is not None:
                    self._replaced(NodeKind.GUIDELINE, old_guideline, guideline, idx)
            case subjects.LabelSetRegistered() as body:
                labels = node(NodeKind.LABEL_SET, body.label_set, idx)
                draft.edge(node(NodeKind.GUIDELINE, body.guideline, idx), labels, EdgeKind.GUIDELINE, idx)
                if body.dataset is not None:
                    draft.edge(node(NodeKind.DATASET, body.dataset, idx), labels, EdgeKind.LABELLED, idx)
                for parent in body.parents:
                    draft.edge(node(NodeKind.LABEL_SET, parent, idx), labels, EdgeKind.DERIVED, idx)
            case subjects.LabelSetCorrected(label_set=old, by=new):
                self._replaced(NodeKind.LABEL_SET, old, new, idx)
                self._notice(idx, old, "corrected", None, new)

    def _replaced(self, kind: NodeKind, old: str, new: str, idx: int) -> None:
        self._draft.edge(self._node(kind, old, idx), self._node(kind, new, idx), EdgeKind.REPLACED, idx)

    def _notice(self, idx: int, subject: str, notice: str, reason: str | None, by: str | None) -> None:
        self._draft.row(NOTICES, idx=idx, subject=subject, notice=notice, reason=reason, by=by)

    def _budget(self, event: Event, idx: int) -> None:
        """What was promised to a population, and what was charged to it."""
        match event.body:
            case bodies.Charged() as body:
                self._draft.row(
                    DP_LEDGER,
                    idx=idx,
                    population=body.population,
                    site=event.org,
                    run=event.run,
                    release=body.release.value,
                    sequence=body.sequence,
                    attempt=body.attempt,
                    mechanism=body.plan.kind,
                    plan=body.plan.encoded,
                    delta=body.delta,
                    alpha=body.alpha,
                )
            case bodies.BudgetSet() as body:
                promise = {"epsilon": body.epsilon, "delta": body.delta, "until": body.until}
                self._draft.row(BUDGETS, idx=idx, population=body.population, site=event.org, **promise)
            case _:
                return
        population = self._node(NodeKind.POPULATION, body.population, idx)
        self._draft.edge(self._node(NodeKind.SITE, event.org, idx), population, EdgeKind.HOLDS, idx)

    def _rest(self, event: Event, idx: int) -> None:
        """Parties, code, models, persons."""
        draft, node = self._draft, self._node
        match event.body:
            case bodies.Joined(site=number):
                self._names[number] = event.org
                node(NodeKind.SITE, event.org, idx)
                draft.row(PARTIES, site=number, name=event.org, idx=idx)
            case bodies.CodeRegistered(code=code, kind=use):
                node(NodeKind.CODE, code, idx, use.value)
            case bodies.EnvironmentRecorded(environment=environment, python=python):
                node(NodeKind.ENVIRONMENT, environment, idx, f"Python {python}")
            case subjects.ModelRegistered() as body:
                model = node(NodeKind.MODEL, body.model, idx)
                if body.parent is not None:
                    draft.edge(node(NodeKind.MODEL, body.parent, idx), model, EdgeKind.PARENT, idx)
                if body.bundle is not None:
                    draft.edge(model, node(NodeKind.BUNDLE, body.bundle, idx), EdgeKind.BUNDLE, idx)
                registered = {"kind": body.kind.value, "round": body.round, "run": event.run, "bundle": body.bundle}
                draft.row(MODELS, idx=idx, model=body.model, **registered)
            case subjects.Evaluated() as body:
                model = node(NodeKind.MODEL, body.model, idx)
                draft.edge(model, node(NodeKind.EVALUATION, str(idx), idx), EdgeKind.EVALUATED, idx)
                about = {"model": body.model, "simulated": body.simulated, "report": body.report, "org": event.org}
                for measure in body.measures:
                    draft.row(EVALUATIONS, idx=idx, **measure.model_dump(), **about)
            case subjects.Signature() as body:
                signed: dict[str, Any] = {"alias": body.alias.value, "meaning": body.meaning.value}
                by = {"actor": event.actor, "org": event.org, "role": body.role.value, "time": event.time}
                draft.row(APPROVALS, idx=idx, subject=body.model, **signed, **by)
            case subjects.GateChecked() as body:
                checked = body.model_dump(mode="json")
                draft.row(GATES, idx=idx, subject=checked.pop("model"), **checked, time=event.time)
            case subjects.Promoted() | subjects.RolledBack() | subjects.ModelStatus():
                self._status(event, idx)
            case bodies.PolicyChanged() | bodies.Genesis():
                pass
            case subjects.Correction(index=entry, by=better, reason=why):
                draft.row(CORRECTIONS, idx=idx, entry=entry, by=better, reason=why.value)

    def _status(self, event: Event, idx: int) -> None:
        """Where a model stands on its way into use and out of it."""
        row: dict[str, Any] = dict.fromkeys(("alias", "replaces", "reason", "approvals", "gates", "final_size"))
        match event.body:
            case subjects.Promoted() as body:
                row |= {"alias": body.alias.value, "replaces": body.replaces, "final_size": body.final_size}
                row |= {"approvals": " ".join(map(str, body.approvals)), "gates": " ".join(map(str, body.gates))}
                model, action = body.model, "promoted"
            case subjects.RolledBack() as body:
                row |= {"alias": body.alias.value, "replaces": body.replaces, "reason": body.reason.value}
                model, action = body.model, "rolled-back"
            case subjects.ModelStatus() as body:
                row |= {"reason": body.reason.value}
                model, action = body.model, event.kind.name.partition("/")[0].partition(".")[2]
            case _:
                return
        about = self._node(NodeKind.MODEL, model, idx)
        if row["alias"] is not None:
            self._draft.edge(about, self._node(NodeKind.ALIAS, row["alias"], idx), EdgeKind.ALIAS, idx)
        self._draft.row(PROMOTIONS, idx=idx, subject=model, action=action, **row, time=event.time)
