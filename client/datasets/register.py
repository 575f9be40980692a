"""A data folder becomes a version: read, checked against its contract, hashed, and put on record."""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from fedseal.client.datasets.checks import quality_report
from fedseal.client.datasets.encoding import Subjects, content_of, subjects_of
from fedseal.client.datasets.files import States, differences, file_states
from fedseal.client.datasets.recheck import bind
from fedseal.client.datasets.table import read_typed
from fedseal.client.split import by_hash
from fedseal.compliance.data.content import Content, subject_tag
from fedseal.compliance.data.contract import DataContract, SplitRules
from fedseal.compliance.data.facts import DatasetFacts, Source, SplitFacts, Status
from fedseal.compliance.data.keys import DataKeys, version_id
from fedseal.compliance.data.quality import QualityReport, in_words
from fedseal.compliance.data.registry import DatasetVersion, add_version, keys_of, latest, prepare
from fedseal.compliance.data.sealed import seal
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.secret import Secret
from fedseal.privacy.store import SiteStore


@dataclass(frozen=True, slots=True)
class Measured:
    """A folder, read once: its files, what is in them, and how good that is."""

    files: States
    content: Content
    report: QualityReport
    split: SplitFacts | None


@dataclass(frozen=True, slots=True)
class Registration:
    """What registering came to. ``new`` is False where the content was registered already under the same contract."""

    version: DatasetVersion
    report: QualityReport
    new: bool


def register(
    store: SiteStore, folder: Path, contract: DataContract, *, preprocessing: bytes, as_of: date
) -> Registration:
    """Register what a folder holds as the next version of its dataset.

    Args:
        store: the site's.
        folder: its data folder.
        contract: what the data has to keep, and its facts.
        preprocessing: the digest of the code that reads it (`compliance.data.code.code_digest` of the study's folder).
        as_of: today.

    Raises:
        DataError: the folder cannot be read, changes meanwhile, breaks its contract, or holds an erased subject.
        ConfigError: the contract does not go with the store, or its time is over.
    """
    if contract.dataset.retention_until < as_of:
        raise ConfigError(
            "dataset.retention_until is over: this data may not be kept, less used",
            next_step="Delete the data, or state the date until which it may be kept.",
        )
    with store.transaction() as transaction:
        transaction.terms(contract.dataset.population.value)
        prepare(transaction.connection)
        keys = keys_of(transaction.connection)
    measured = measure(folder, contract, keys, as_of)
    if measured.report.failures:
        raise DataError(
            f"the data breaks its contract: {in_words(measured.report.failures)}",
            next_step="`fedseal data check` counts the rows. Correct the table, or what the contract says of it.",
        )
    with store.transaction() as transaction:
        connection = transaction.connection
        if keys_of(connection) != keys:
            raise ConfigError("subjects were erased while this version was read", next_step="Register it again.")
        before = latest(connection, contract.dataset.name)
        facts = _facts(contract, measured, keys, preprocessing, before)
        if before is not None and before.status is Status.CURRENT and _same(before.facts, facts):
            bind(connection, folder.resolve(), before.number, measured.files)
            return Registration(before, measured.report, new=False)
        added = add_version(transaction, facts, measured.content, measured.report)
        query = contract.dataset.source.query
        if query:
            seal(connection, keys, added.dsv_id, {"query": query})
        bind(connection, folder.resolve(), added.number, measured.files)
    return Registration(added, measured.report, new=True)


def measure(folder: Path, contract: DataContract, keys: DataKeys, as_of: date) -> Measured:
    """Read a folder, check and hash it.

    Raises:
        DataError: it cannot be read, its columns or types are not the contract's, or it changes meanwhile.
    """
    files = file_states(folder)
    table = read_typed(folder, contract)
    columns = contract.schema_of_rows
    if table[columns.subject].isna().any():
        raise DataError(f"column {columns.subject!r}: a row has no subject", next_step="Every row is about somebody.")
    who = subjects_of(table, columns)
    report = quality_report(table, who, contract, as_of)
    content = content_of(table, columns, keys, who)
    if differences(files, file_states(folder)):
        raise DataError("the folder changed while it was read", next_step="Try again when nobody writes into it.")
    rules = contract.dataset.split
    return Measured(files, content, report, None if rules is None else _split(rules, who, keys))


def _split(rules: SplitRules, who: Subjects, keys: DataKeys) -> SplitFacts:
    """How the study's own split divides these subjects, as digests that say nothing without the key."""
    parts = by_hash(pd.Series(who.ids), study=rules.study, validation=rules.validation, test=rules.test)
    part_of = {int(i): part for part, members in enumerate(parts) for i in members}
    assigned = sorted(subject_tag(keys.subject, subject) + bytes((part_of[i],)) for i, subject in enumerate(who.ids))
    seed = f"{rules.study}\x00{rules.validation!r}\x00{rules.test!r}".encode()
    return SplitFacts(
        name="by-hash",
        seed_commitment=_keyed(keys.split, b"seed\x00" + seed),
        assignment_digest=_keyed(keys.split, b"assignment\x00" + b"".join(assigned)),
    )


def _keyed(key: Secret, message: bytes) -> str:
    return hmac.digest(key.reveal(), message, "sha256").hex()


def _facts(
    contract: DataContract, measured: Measured, keys: DataKeys, preprocessing: bytes, before: DatasetVersion | None
) -> DatasetFacts:
    stated, root = contract.dataset, measured.content.root
    dsv_id = version_id(keys.commit, root).hex()
    query = stated.source.query
    return DatasetFacts(
        name=stated.name,
        dsv_id=dsv_id,
        content_root=root.hex(),
        schema_digest=contract.schema_of_rows.digest().hex(),
        shared_schema=stated.shared_schema,
        contract_digest=contract.digest().hex(),
        quality_report_digest=measured.report.digest().hex(),
        preprocessing_digest=preprocessing.hex(),
        rows=measured.report.rows,
        subjects=measured.report.subjects,
        population=stated.population.value,
        privacy_unit=stated.privacy_unit,
        split=measured.split,
        source=Source(
            stated.source.system,
            hashlib.sha256(query.encode("utf-8")).hexdigest() if query else "",
            stated.source.extracted_at,
        ),
        legal_basis=stated.legal_basis,
        special_categories=stated.special_categories,
        consent_scope_version=stated.consent_scope_version,
        purpose=stated.purpose,
        retention_until=stated.retention_until,
        parents=_parents(dsv_id, before),
    )


def _parents(dsv_id: str, before: DatasetVersion | None) -> tuple[str, ...]:
    """The version before; where only the contract is another, the content's own parents."""
    if before is None:
        return ()
    return before.facts.parents if before.facts.dsv_id == dsv_id else (before.facts.dsv_id,)


def _same(one: DatasetFacts, other: DatasetFacts) -> bool:
    keys = ("content_root", "contract_digest", "preprocessing_digest")
    return all(getattr(one, key) == getattr(other, key) for key in keys)
