"""What `fedseal labels` does. Files are read and statistics computed outside of the store's exclusive transactions."""

import csv
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from fedseal.cli.label_tables import (
    agreement_lines,
    annotators_table,
    batches_table,
    facts_table,
    guidelines_table,
    sets_table,
    shared_table,
)
from fedseal.cli.on_record import put_on_record
from fedseal.cli.site import opened, whose
from fedseal.compliance.labels.agreement import Agreement, agreement
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication, Consensus
from fedseal.compliance.labels.facts import Reason, decimal, shared_facts
from fedseal.compliance.labels.formats import LONGEST_NAME, MOST_BYTES, Source, check_size, read_labels
from fedseal.compliance.labels.holdings import Snapshot
from fedseal.compliance.labels.platforms import read_annotations
from fedseal.compliance.labels.quality import Share, annotators_on_gold
from fedseal.compliance.labels.records import record
from fedseal.compliance.labels.scale import MISSING, read_schema
from fedseal.compliance.labels.sets import (
    LabelSet,
    decide,
    find_label_set,
    generator,
    label_sets,
    make_label_set,
    register_label_set,
)
from fedseal.compliance.labels.store import LabelStore
from fedseal.compliance.labels.tables import ANNOTATIONS, DECISIONS
from fedseal.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which label set is to be made."""

    dataset: str
    guideline: str | None
    method: str
    coefficient: str
    decisions: Path | None
    reviewer: str
    out: Path | None
    register: bool


def add_guideline(path: Path, version: str, document: Path, schema: Path, *, as_json: bool) -> None:
    """Register a guideline version."""
    check_size(document, MOST_BYTES)
    check_size(schema, 1 << 20)
    try:
        text = schema.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{schema} cannot be read as text") from None
    read = read_schema(text, schema.name)
    with opened(path) as (site, transaction):
        store = LabelStore.open(transaction.connection, site.identity.randomness())
        made = store.add_guideline(version, document.read_bytes(), read)
    told = {"version": made.version, "digest": made.digest, "label_schema": made.schema.digest()}
    _say(told, as_json, f"Guideline {version} is {made.digest}, its label schema {made.schema.digest()}.")


def import_file(path: Path, source: Source, guideline: str, dataset: str, *, as_json: bool) -> None:
    """Store the annotations of a file."""
    _check_dataset(dataset)
    annotations = read_annotations(source)
    with source.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    with opened(path) as (site, transaction):
        store = LabelStore.open(transaction.connection, site.identity.randomness())
        done = store.add_batch(dataset, guideline, source, digest, annotations, datetime.now(UTC))
    told = {"batch": done.batch, "added": done.added, "corrected": done.corrected, "known": done.known}
    _say(told, as_json, f"{done.added} annotations added, {done.corrected} corrected, {done.known} known before.")


def add_gold(path: Path, file: Path, guideline: str, dataset: str, *, as_json: bool) -> None:
    """Store known labels."""
    _check_dataset(dataset)
    known = read_labels(file)
    with opened(path) as (_, transaction):
        LabelStore.look(transaction.connection).add_gold(guideline, dataset, known)
    _say({"gold": len(known)}, as_json, f"{len(known)} gold labels are known.")


def correct_annotation(path: Path, dataset: str, item: str, annotator: str, label: str | None, reason: str) -> None:
    """Correct one annotation."""
    with opened(path) as (_, transaction):
        store = LabelStore.look(transaction.connection)
        store.correct(dataset, item, annotator, label, Reason(reason), datetime.now(UTC))
    _console().print("Corrected; the earlier label stays on record. Sets registered before do not change.")


def list_all(path: Path, *, as_json: bool) -> None:
    """Guideline versions, files and sets."""
    with opened(path, reading=True) as (site, transaction):
        store = LabelStore.look(transaction.connection)
        guidelines, batches, sets = store.guidelines(), store.batches(), label_sets(transaction.connection)
    if as_json:
        told = {
            "guidelines": [
                {"version": g.version, "digest": g.digest, "label_schema": g.schema.digest()} for g in guidelines
            ],
            "batches": [
                {
                    "number": b.number,
                    "dataset": b.dataset,
                    "format": b.format,
                    "guideline": b.guideline,
                    "file": b.file,
                    "imported": b.imported,
                    "annotations": b.annotations,
                }
                for b in batches
            ],
            "label_sets": [_set_record(s) for s in sets],
        }
        print(json.dumps(told, indent=2))
        return
    console = _console()
    console.print(whose(site), markup=False)
    console.print(guidelines_table(guidelines), batches_table(batches), sets_table(sets))


def show_set(path: Path, beginning: str, *, as_json: bool) -> None:
    """One registered set."""
    with opened(path, reading=True) as (_, transaction):
        store = LabelStore.look(transaction.connection)
        found = find_label_set(transaction.connection, beginning)
        shared = shared_facts(found.id, found.facts, found.tool, store.keys)
    if as_json:
        print(json.dumps({**_set_record(found), "shared": record(shared)}, indent=2))
        return
    _console().print(facts_table(found), shared_table(shared))


def show_agreement(
    path: Path,
    dataset: str,
    guideline: str | None,
    coefficient: str,
    annotators: tuple[str, ...],
    *,
    names: bool,
    as_json: bool,
) -> None:
    """How well annotators agree."""
    with opened(path, reading=True) as (_, transaction):
        store = LabelStore.look(transaction.connection)
        snapshot = store.snapshot(dataset, guideline, annotators)
        gold, directory = snapshot.codes(store.gold(dataset)), store.names() if names else {}
        # The same data, the same interval.
        seed = hashlib.sha256(dataset.encode() + str(store.newest(ANNOTATIONS)).encode()).digest()
    found = agreement(snapshot.ratings, Coefficient(coefficient), generator(seed, "agreement"))
    shown = [directory.get(pseudonym, pseudonym) for pseudonym in snapshot.annotators]
    scores = annotators_on_gold(snapshot.ratings, gold)
    if as_json:
        people = [{"annotator": n, **_share(s)} for n, s in zip(shown, scores, strict=True)]
        print(json.dumps({**_agreement_record(found), "annotators": people}, indent=2))
        return
    console = _console()
    for line in agreement_lines(found):
        console.print(line, markup=False)
    console.print(annotators_table(snapshot.ratings, shown, scores))


def decide_labels(path: Path, wanted: Wanted, *, as_json: bool) -> None:
    """Decide labels, write them if asked to, and register them if asked to."""
    if wanted.decisions is not None:
        _store_decisions(path, wanted)
    with opened(path, reading=True) as (_, transaction):
        store = LabelStore.look(transaction.connection)
        snapshot = store.snapshot(wanted.dataset, wanted.guideline)
        consensus = decide(store, snapshot, Adjudication(wanted.method))
        made = make_label_set(store, snapshot, consensus, Coefficient(wanted.coefficient))
        shared = shared_facts(made.id, made.facts, made.tool, store.keys)
    if wanted.out is not None:
        _write(wanted.out, snapshot, consensus)
    new = wanted.register and _register(path, made)
    tied = int(consensus.tied.sum())
    if as_json:
        told = {**_set_record(made), "undecided": tied, "registered": new, "shared": record(shared)}
        print(json.dumps(told, indent=2))
        return
    console = _console()
    console.print(facts_table(made), shared_table(shared))
    if tied:
        console.print(f"{tied} items are undecided and not in the set. A reviewer can decide them.")
    if wanted.register:
        console.print("Registered." if new else "The same set is registered already; nothing has changed.")
    else:
        console.print("Not registered: that takes --register.")


def _store_decisions(path: Path, wanted: Wanted) -> None:
    if wanted.decisions is None:
        return
    found = read_labels(wanted.decisions)
    with opened(path) as (_, transaction):
        store = LabelStore.look(transaction.connection)
        snapshot = store.snapshot(wanted.dataset, wanted.guideline)
        strange = len(set(found) - set(snapshot.items))
        if strange:
            raise ConfigError(f"{strange} decisions on items that have no annotation; nothing was stored")
        store.add_decisions(snapshot.guideline.version, wanted.dataset, found, wanted.reviewer)


def _register(path: Path, made: LabelSet) -> bool:
    with opened(path) as (site_store, transaction):
        store = LabelStore.look(transaction.connection)
        if any(known.id == made.id for known in label_sets(transaction.connection)):
            return False
        if (store.newest(ANNOTATIONS), store.newest(DECISIONS)) != (made.annotations, made.decisions):
            raise ConfigError("labels changed while the set was computed", next_step="Try again.")
        new = register_label_set(transaction, made, datetime.now(UTC))
        put_on_record(site_store, transaction)
        return new


def _write(path: Path, snapshot: Snapshot, consensus: Consensus) -> None:
    """The decided labels as item, label; whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    labels = snapshot.guideline.schema.labels
    try:
        with partial.open("x", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("item", "label"))
            decided = zip(snapshot.items, consensus.labels, strict=True)
            rows.writerows((item, labels[code]) for item, code in decided if code != MISSING)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _set_record(found: LabelSet) -> dict[str, Any]:
    return {"id": found.id, "guideline": found.guideline, "tool": found.tool, **record(found.facts)}


def _agreement_record(found: Agreement) -> dict[str, Any]:
    return {
        "coefficient": found.coefficient,
        "level": found.level,
        "value": decimal(found.value),
        "ci": [decimal(found.low), decimal(found.high)],
        "items": found.items,
        "verdict": found.verdict,
        "settled": found.settled,
    }


def _share(share: Share) -> dict[str, Any]:
    known = share.n > 0
    return {"accuracy": decimal(share.value) if known else None, "gold_annotations": share.n}


def _check_dataset(dataset: str) -> None:
    if not 0 < len(dataset) <= LONGEST_NAME or not dataset.isprintable() or " " in dataset:
        raise ConfigError(f"a dataset version is named by 1 to {LONGEST_NAME} characters without spaces")


def _say(told: dict[str, Any], as_json: bool, sentence: str) -> None:
    if as_json:
        print(json.dumps(told))
    else:
        _console().print(sentence, markup=False)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)
