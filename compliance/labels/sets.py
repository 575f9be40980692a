"""Label set versions: what holds now, decided, judged, named by a digest, and registered."""

import json
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from sqlalchemy import Connection, insert, select

from fedseal.compliance.labels.agreement import Undefined, agreement
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication, Consensus, by_model, majority, reviewer, single
from fedseal.compliance.labels.content import ItemLabels, content_root, label_set_id
from fedseal.compliance.labels.dawid_skene import fit_dawid_skene
from fedseal.compliance.labels.facts import (
    AgreementFact,
    GoldFact,
    LabelSetFacts,
    NoiseFact,
    Tool,
    agreement_fact,
    decimal,
    noise_fact,
    tool_of,
)
from fedseal.compliance.labels.holdings import Snapshot
from fedseal.compliance.labels.quality import Noise, noise_from_gold, noise_from_model, set_on_gold
from fedseal.compliance.labels.records import facts_from_record, record
from fedseal.compliance.labels.scale import MISSING, canonical
from fedseal.compliance.labels.store import LabelStore, stamp
from fedseal.compliance.labels.tables import ANNOTATIONS, DECISIONS, SETS
from fedseal.errors import ConfigError
from fedseal.privacy.transaction import Transaction


@dataclass(frozen=True, slots=True)
class LabelSet:
    """A label set version.

    Args:
        id: its digest; the same data give the same.
        content_root: the Merkle root of its items, 32 bytes.
        guideline: the guideline version's name.
        tool: with what its annotations were made.
        facts: what the site's log says of it.
        annotations: number of the newest annotation it saw.
        decisions: number of the newest reviewer's decision it saw.
    """

    id: str
    content_root: bytes
    guideline: str
    tool: Tool
    facts: LabelSetFacts
    annotations: int
    decisions: int


def decide(store: LabelStore, snapshot: Snapshot, method: Adjudication) -> Consensus:
    """One label an item, by a method.

    Raises:
        DataError: the method does not fit the annotations.
    """
    match method:
        case Adjudication.SINGLE:
            return single(snapshot.ratings)
        case Adjudication.MAJORITY:
            return majority(snapshot.ratings)
        case Adjudication.DAWID_SKENE:
            return by_model(fit_dawid_skene(snapshot.ratings), snapshot.ratings)
        case Adjudication.REVIEWER:
            codes = snapshot.codes(store.decisions(snapshot.dataset))
            return reviewer(snapshot.ratings, {int(i): int(codes[i]) for i in np.flatnonzero(codes != MISSING)})


def make_label_set(store: LabelStore, snapshot: Snapshot, consensus: Consensus, coefficient: Coefficient) -> LabelSet:
    """A version of what holds now, or the one on record if the same is registered. Computes and stores nothing.

    The intervals' generator is seeded by the content, so that the same data give the same facts.

    Raises:
        DataError: the coefficient does not fit the annotations.
    """
    schema, guideline = snapshot.guideline.schema, snapshot.guideline
    root = content_root(store.keys, _items(snapshot, consensus))
    name = label_set_id(snapshot.dataset, guideline.digest, schema.digest(), consensus.method, root)
    registered = label_sets(store.connection)
    if known := [s for s in registered if s.id == name]:
        return known[0]
    earlier = [s for s in registered if s.facts.dataset_version == snapshot.dataset]
    parent = earlier[-1] if earlier else None
    facts = LabelSetFacts(
        dataset_version=snapshot.dataset,
        guideline_version=guideline.digest,
        label_schema=schema.digest(),
        n_items=consensus.decided,
        n_multi_annotated=snapshot.ratings.multiple(),
        annotators=len(snapshot.annotators),
        adjudication=consensus.method,
        agreement=_agreement(snapshot, coefficient, root),
        gold=_gold(store, snapshot, consensus),
        noise=_noise(store, snapshot, consensus, root),
        corrections=store.corrections(snapshot.dataset, guideline.version, parent.annotations if parent else 0),
        parents=(parent.id,) if parent else (),
    )
    return LabelSet(
        id=name,
        content_root=root,
        guideline=guideline.version,
        tool=tool_of(store.formats(snapshot.dataset)),
        facts=facts,
        annotations=store.newest(ANNOTATIONS),
        decisions=store.newest(DECISIONS),
    )


def register_label_set(transaction: Transaction, label_set: LabelSet, now: datetime) -> bool:
    """Store a label set's facts; False if the same set is registered already, and nothing changes then.

    The one place where a label set becomes a fact. A signed event for the site's log, and one with `shared_facts` for
    the federation's, belong here, in the same transaction.
    """
    if any(known.id == label_set.id for known in label_sets(transaction.connection)):
        return False
    transaction.connection.execute(
        insert(SETS).values(
            id=label_set.id,
            content_root=label_set.content_root.hex(),
            dataset=label_set.facts.dataset_version,
            guideline=label_set.guideline,
            tool=label_set.tool,
            facts=canonical(record(label_set.facts)),
            annotations=label_set.annotations,
            decisions=label_set.decisions,
            registered=stamp(now),
        )
    )
    return True


def label_sets(connection: Connection) -> list[LabelSet]:
    """All registered sets, oldest first."""
    return [
        LabelSet(
            id=row.id,
            content_root=bytes.fromhex(row.content_root),
            guideline=row.guideline,
            tool=Tool(row.tool),
            facts=facts_from_record(json.loads(row.facts)),
            annotations=row.annotations,
            decisions=row.decisions,
        )
        for row in connection.execute(select(SETS).order_by(SETS.c.number))
    ]


def find_label_set(connection: Connection, beginning: str) -> LabelSet:
    """The registered set whose id begins so; ConfigError if there is none, or several."""
    digits = beginning.removeprefix("sha256:")
    found = [s for s in label_sets(connection) if digits and s.id.removeprefix("sha256:").startswith(digits)]
    if len(found) != 1:
        how_many = "no label set begins" if not found else f"{len(found)} label sets begin"
        raise ConfigError(f"{how_many} with these digits", next_step="See: fedseal labels list")
    return found[0]


def _items(snapshot: Snapshot, consensus: Consensus) -> list[ItemLabels]:
    given: list[list[tuple[str, str]]] = [[] for _ in snapshot.items]
    labels, ratings = snapshot.guideline.schema.labels, snapshot.ratings
    for item, rater, code in zip(ratings.items, ratings.raters, ratings.codes, strict=True):
        given[item].append((snapshot.annotators[rater], labels[code]))
    decided = [None if code == MISSING else labels[code] for code in consensus.labels]
    return [ItemLabels(*entry) for entry in zip(snapshot.items, decided, map(tuple, given), strict=True)]


def _agreement(snapshot: Snapshot, coefficient: Coefficient, root: bytes) -> AgreementFact | None:
    if not snapshot.ratings.multiple():
        return None
    try:
        return agreement_fact(agreement(snapshot.ratings, coefficient, generator(root, "agreement")))
    except Undefined:
        # Where everybody always says the same there is a set all the same; it just has no coefficient.
        return None


def _gold(store: LabelStore, snapshot: Snapshot, consensus: Consensus) -> GoldFact | None:
    gold = store.gold(snapshot.dataset)
    found = set_on_gold(consensus, snapshot.codes(gold))
    if not found.n:
        return None
    root = content_root(store.keys, [ItemLabels(item, label, ()) for item, label in gold.items()])
    return GoldFact("sha256:" + root.hex(), decimal(found.value), found.n)


def _noise(store: LabelStore, snapshot: Snapshot, consensus: Consensus, root: bytes) -> NoiseFact | None:
    found = noise_estimate(store, snapshot, consensus, root)
    return None if found is None else noise_fact(found)


def noise_estimate(store: LabelStore, snapshot: Snapshot, consensus: Consensus, root: bytes) -> Noise | None:
    """From gold items if there are any, else from Dawid and Skene's model; None where neither is possible."""
    gold = snapshot.codes(store.gold(snapshot.dataset))
    if set_on_gold(consensus, gold).n:
        return noise_from_gold(consensus, gold)
    if not snapshot.ratings.multiple() or not consensus.decided:
        return None
    return noise_from_model(snapshot.ratings, consensus, generator(root, "noise"))


def generator(root: bytes, purpose: str) -> np.random.Generator:
    """A generator for resampling: the same for the same content and purpose."""
    return np.random.default_rng([*root, *purpose.encode()])
