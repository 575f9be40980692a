"""What a site has put on record about its data and labels, as events: the shared part signed for the federation's log,
the rest in the site's own.

Data and labels write down what happened in the transaction that makes it true; here it becomes events, in the same
order, before the site signs anything else. Each once.
"""

from datetime import date

from sqlalchemy import Connection, inspect

from fedseal.compliance.data.facts import DatasetFacts, SharedDatasetFacts
from fedseal.compliance.data.occurrences import Redacted, Registered, Superseded, Withdrawn, announced
from fedseal.compliance.data.registry import versions
from fedseal.compliance.data.tables import OCCURRENCES
from fedseal.compliance.events.bodies import Shredded
from fedseal.compliance.events.fields import RequestKind, public_name
from fedseal.compliance.events.subjects import (
    Corrections,
    DatasetDetails,
    DatasetRegistered,
    DatasetSuperseded,
    DatasetWithdrawn,
    Guideline,
    LabelSetCorrected,
    LabelSetDetails,
    LabelSetRegistered,
    RequestAssessed,
    RequestReceived,
)
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.labels.facts import shared_facts
from fedseal.compliance.labels.sets import LabelSet, label_sets
from fedseal.compliance.labels.store import LabelStore
from fedseal.compliance.labels.tables import SETS

_DATA, _LABELS = "data", "labels"


def publish(connection: Connection, journal: SiteJournal) -> bool:
    """Turn everything on record that is none yet into events; whether there was anything."""
    return _publish_data(connection, journal) | _publish_labels(connection, journal)


def label_set_of(connection: Connection, dataset: str | None) -> str | None:
    """The commitment of the label set in use."""
    found = labels_in_use(connection, dataset)
    return None if found is None else LabelStore.look(connection).keys.commitment(found.id)


def labels_in_use(connection: Connection, dataset: str | None) -> LabelSet | None:
    """The label set in use: the newest one, of this dataset if one is registered; None where none is on record."""
    if not inspect(connection).has_table(SETS.name):
        return None
    found = [s for s in label_sets(connection) if dataset is None or _dataset_of(connection, s) == dataset]
    return found[-1] if found else None


def _publish_data(connection: Connection, journal: SiteJournal) -> bool:
    if not inspect(connection).has_table(OCCURRENCES.name):
        return False
    fresh = announced(connection, after=journal.published(_DATA))
    for number, occurrence in fresh:
        match occurrence:
            case Registered(facts=facts, shared=shared):
                population = journal.commitment("population", facts.population.encode("utf-8"))
                journal.share(_registered(facts, shared, population))
                journal.record(_details(facts))
            case Superseded(old=old, new=new):
                journal.share(DatasetSuperseded(dataset=_hmac(old), by=_hmac(new)))
            case Withdrawn(dsv_id=name, reason=reason):
                journal.share(DatasetWithdrawn(dataset=_hmac(name), reason=reason))
            case Redacted(commitments=commitments, reason=reason):
                journal.record(Shredded(sealed=tuple(_hmac(c) for c in commitments), reason=reason))
                request = request_of(journal, number)
                gone = tuple(_hmac(o.dsv_id) for _, o in fresh if isinstance(o, Withdrawn))
                journal.share(RequestReceived(request=request, kind=RequestKind.ERASURE))
                journal.share(RequestAssessed(request=request, datasets=gone, models=()))
        journal.put_published(_DATA, number)
    return bool(fresh)


def request_of(journal: SiteJournal, number: int) -> str:
    """What the log calls the request behind an erasure: by its number in the site's store, under the site's key."""
    return journal.commitment("request", f"erasure/{number}".encode())


def _registered(own: DatasetFacts, facts: SharedDatasetFacts, population: str) -> DatasetRegistered:
    # Under the name that charges to its budget have.
    return DatasetRegistered(
        dataset=_hmac(facts.dsv_id),
        population=population,
        unit=own.privacy_unit,
        special_categories=own.special_categories,
        data_schema=_sha(facts.schema_digest),
        preprocessing=_sha(facts.preprocessing_digest),
        legal_basis=facts.legal_basis,
        purpose=facts.purpose,
        retention_until=_day(facts.retention_until),
        parents=tuple(_hmac(p) for p in facts.parents),
    )


def _details(facts: DatasetFacts) -> DatasetDetails:
    split = facts.split
    return DatasetDetails(
        dataset=_hmac(facts.dsv_id),
        content_root=_sha(facts.content_root) or "",
        data_schema=_sha(facts.schema_digest) or "",
        data_contract=_sha(facts.contract_digest) or "",
        quality_report=_sha(facts.quality_report_digest) or "",
        rows=facts.rows,
        subjects=facts.subjects,
        split=None if split is None else _hmac(split.seed_commitment),
        assignment=None if split is None else _hmac(split.assignment_digest),
        source=facts.source.system,
        query=_sha(facts.source.query_digest),
        extracted_on=_day(facts.source.extracted_at),
        consent_scope=public_name(facts.consent_scope_version) if facts.consent_scope_version else None,
    )


def _publish_labels(connection: Connection, journal: SiteJournal) -> bool:
    if not inspect(connection).has_table(SETS.name):
        return False
    sets, done = label_sets(connection), journal.published(_LABELS)
    for number, found in enumerate(sets[done:], start=done + 1):
        shared = shared_facts(found.id, found.facts, found.tool, LabelStore.look(connection).keys)
        before = journal.last_said(Guideline)
        if before is None or before.guideline != shared.guideline_version:
            replaced = None if before is None else before.guideline
            journal.share(Guideline(guideline=shared.guideline_version, replaces=replaced))
        journal.share(
            LabelSetRegistered(
                label_set=shared.label_set,
                dataset=_dataset_of(connection, found),
                guideline=shared.guideline_version,
                label_schema=shared.label_schema,
                adjudication=shared.adjudication,
                tool=shared.tool,
                parents=shared.parents,
            )
        )
        for parent in shared.parents:
            journal.share(LabelSetCorrected(label_set=parent, by=shared.label_set))
        journal.record(_label_details(shared.label_set, found))
        journal.put_published(_LABELS, number)
    return len(sets) > done


def _label_details(name: str, found: LabelSet) -> LabelSetDetails:
    facts = found.facts
    agreement, gold, noise = facts.agreement, facts.gold, facts.noise
    return LabelSetDetails(
        label_set=name,
        items=facts.n_items,
        items_with_several=facts.n_multi_annotated,
        annotators=facts.annotators,
        coefficient=None if agreement is None else agreement.coefficient,
        level=None if agreement is None else agreement.level,
        agreement=None if agreement is None else agreement.value,
        agreement_low=None if agreement is None else agreement.ci[0],
        agreement_high=None if agreement is None else agreement.ci[1],
        gold=None if gold is None else gold.digest,
        gold_items=None if gold is None else gold.n,
        gold_accuracy=None if gold is None else gold.accuracy,
        noise_method=None if noise is None else noise.method,
        noise=None if noise is None else noise.estimate,
        corrections=tuple(Corrections(count=c.count, reason=c.reason_code) for c in facts.corrections),
    )


def _dataset_of(connection: Connection, found: LabelSet) -> str | None:
    """The commitment of the registered data that labels say they are of: by its id, or by its name."""
    if not inspect(connection).has_table(OCCURRENCES.name):
        return None
    named = found.facts.dataset_version.removeprefix("hmac:")
    known = [v.facts for v in versions(connection) if named in (v.facts.dsv_id, v.facts.name)]
    return _hmac(known[-1].dsv_id) if known else None


def _hmac(value: str) -> str:
    return "hmac:" + value.removeprefix("hmac:")


def _sha(value: str | None) -> str | None:
    return "sha256:" + value.removeprefix("sha256:") if value else None


def _day(value: date) -> str:
    return value.isoformat()
