"""The versions of a site's datasets, in its store: each with its facts, its leaves and where it stands.

A dataset's versions are about the persons of one population, whose ledger they share: a new version brings no new
budget.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date

from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, inspect, select, update

from fedseal.compliance.data.content import Content
from fedseal.compliance.data.facts import DatasetFacts, Status, shared
from fedseal.compliance.data.keys import KEY_LENGTH, DataKeys, data_keys, version_id
from fedseal.compliance.data.occurrences import ErasureReason, Registered, Superseded, Withdrawn, announce
from fedseal.compliance.data.quality import QualityReport
from fedseal.compliance.data.tables import ERASED, METADATA, SECRETS, VERSIONS
from fedseal.errors import ConfigError, DataError, LocalError
from fedseal.privacy.secret import Secret
from fedseal.privacy.transaction import Transaction

_FACTS = TypeAdapter(DatasetFacts)
_COLUMNS = (VERSIONS.c.number, VERSIONS.c.status, VERSIONS.c.epoch, VERSIONS.c.facts)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A registered version.

    ``number`` counts the versions of this site; ``epoch`` names the secret under which its rows were digested.
    """

    number: int
    status: Status
    epoch: bytes
    facts: DatasetFacts

    @property
    def dsv_id(self) -> bytes:
        """Its id in the federation's log, 32 bytes."""
        return bytes.fromhex(self.facts.dsv_id)


def prepare(connection: Connection) -> None:
    """Make the tables and the secrets of a store that has none yet. Randomness is the operating system's."""
    METADATA.create_all(connection)
    known = set(connection.execute(select(SECRETS.c.name)).scalars())
    for name in ("site", "rows"):
        if name not in known:
            connection.execute(insert(SECRETS).values(name=name, value=os.urandom(KEY_LENGTH)))


def in_use(connection: Connection) -> bool:
    """Whether this store has ever had a dataset registered."""
    return inspect(connection).has_table(VERSIONS.name) and _any_version(connection)


def _any_version(connection: Connection) -> bool:
    return connection.execute(select(VERSIONS.c.number).limit(1)).scalar() is not None


def keys_of(connection: Connection) -> DataKeys:
    """The site's keys; LocalError if the store has not been prepared."""
    found = {row.name: Secret(row.value) for row in connection.execute(select(SECRETS))}
    if set(found) != {"site", "rows"}:
        raise LocalError("a store without the secrets of its data")
    return data_keys(found["site"], found["rows"])


def versions(connection: Connection, name: str | None = None) -> list[DatasetVersion]:
    """All versions, or those of one dataset, oldest first."""
    query = select(*_COLUMNS).order_by(VERSIONS.c.number)
    rows = connection.execute(query if name is None else query.where(VERSIONS.c.name == name))
    return [_version(row.number, row.status, row.epoch, row.facts) for row in rows]


def version(connection: Connection, number: int) -> DatasetVersion:
    """One version; ConfigError if there is none of that number."""
    query = select(*_COLUMNS).where(VERSIONS.c.number == number)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise ConfigError(f"there is no version {number}", next_step="See which there are: fedseal data list")
    return _version(row.number, row.status, row.epoch, row.facts)


def latest(connection: Connection, name: str) -> DatasetVersion | None:
    """The newest version of a dataset, in use or not."""
    return next(reversed(versions(connection, name)), None)


def content_of_version(connection: Connection, number: int) -> Content:
    """The leaves of a version."""
    leaves = connection.execute(select(VERSIONS.c.leaves).where(VERSIONS.c.number == number)).scalar_one()
    return Content(leaves)


def report_of(connection: Connection, number: int) -> QualityReport:
    """The quality report of a version."""
    raw = connection.execute(select(VERSIONS.c.report).where(VERSIONS.c.number == number)).scalar_one()
    return QualityReport.model_validate_json(raw)


def _version(number: int, status: str, epoch: bytes, facts: bytes) -> DatasetVersion:
    return DatasetVersion(number, Status(status), epoch, _FACTS.validate_json(facts))


def add_version(
    transaction: Transaction, facts: DatasetFacts, content: Content, report: QualityReport
) -> DatasetVersion:
    """Register a version; the one that was current gives way to it.

    The store has been prepared, and ``facts.parents`` names the version before, if there is one.

    Raises:
        ConfigError: the site has no ledger for the population, or the dataset or a subject of it belongs to another
            one.
        DataError: a subject that was erased is in it.
        LocalError: the facts contradict the content, the report or the store.
    """
    connection = transaction.connection
    before, keys = latest(connection, facts.name), keys_of(connection)
    _check_facts(facts, content, report, before, keys)
    transaction.terms(facts.population)
    _check_population(connection, facts, content)
    _check_erased(connection, content)
    if before is not None and before.status is Status.CURRENT:
        _set_status(connection, before.number, Status.SUPERSEDED)
    values = {
        "name": facts.name,
        "status": Status.CURRENT.value,
        "dsv_id": bytes.fromhex(facts.dsv_id),
        "epoch": keys.epoch,
        "facts": _FACTS.dump_json(facts),
        "report": report.model_dump_json().encode("utf-8"),
        "leaves": content.leaves,
    }
    key = connection.execute(insert(VERSIONS).values(**values)).inserted_primary_key
    if key is None:
        raise LocalError("a version without a number")
    announce(connection, Registered(facts, shared(facts, keys)))
    if before is not None and before.facts.dsv_id != facts.dsv_id:
        announce(connection, Superseded(before.facts.dsv_id, facts.dsv_id))
    return DatasetVersion(key[0], Status.CURRENT, keys.epoch, facts)


def withdraw(connection: Connection, found: DatasetVersion, reason: ErasureReason) -> None:
    """Take a version out of use for good."""
    _set_status(connection, found.number, Status.WITHDRAWN)
    announce(connection, Withdrawn(found.facts.dsv_id, reason))


def record_erased(connection: Connection, tags: Sequence[bytes], reason: ErasureReason, on: date) -> None:
    """Remember by their tags who was erased."""
    known = set(connection.execute(select(ERASED.c.tag)).scalars())
    for tag in sorted(set(tags) - known):
        connection.execute(insert(ERASED).values(tag=tag, erased_at=on.isoformat(), reason=reason.value))


def erased(connection: Connection) -> set[bytes]:
    """The tags of subjects that were erased."""
    return set(connection.execute(select(ERASED.c.tag)).scalars())


def _set_status(connection: Connection, number: int, status: Status) -> None:
    connection.execute(update(VERSIONS).where(VERSIONS.c.number == number).values(status=status.value))


def _check_facts(
    facts: DatasetFacts, content: Content, report: QualityReport, before: DatasetVersion | None, keys: DataKeys
) -> None:
    expected = (
        content.root.hex(),
        version_id(keys.commit, content.root).hex(),
        report.digest().hex(),
        len(content),
        report.rows,
    )
    stated = (facts.content_root, facts.dsv_id, facts.quality_report_digest, facts.subjects, facts.rows)
    if stated != expected or report.failures:
        raise LocalError("facts that are not those of this content and this report")
    if before is not None and before.facts.dsv_id not in (facts.dsv_id, *facts.parents):
        raise LocalError("a new version that does not name the one before")


def _check_population(connection: Connection, facts: DatasetFacts, content: Content) -> None:
    """That nobody gets a second budget by being registered under another population."""
    tags = set(content.tags)
    for known in versions(connection):
        if known.facts.population == facts.population:
            continue
        same_name = known.facts.name == facts.name
        if same_name or not tags.isdisjoint(content_of_version(connection, known.number).tags):
            raise ConfigError(
                f"{'this dataset' if same_name else 'a subject of it'} was registered under population "
                f"{known.facts.population!r} (version {known.number}); another population would be another budget for "
                "the same persons",
                next_step="Set dataset.population in the contract as it was.",
            )


def _check_erased(connection: Connection, content: Content) -> None:
    back = erased(connection) & set(content.tags)
    if back:
        raise DataError(
            f"the table holds {len(back)} {'subject' if len(back) == 1 else 'subjects'} that this site has erased",
            next_step="Take their rows out of the table (`fedseal erase plan` with the file of ids finds them), and "
            "register it again.",
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two versions differ. ``changed`` is None where rows were digested under another secret, after an erasure.

    ``facts`` names those that differ, of all but the digests and counts that follow from the content.
    """

    added: int
    removed: int
    changed: int | None
    facts: tuple[str, ...]


def compare(connection: Connection, old: int, new: int) -> Comparison:
    """Compare two versions; ConfigError if there is none of a number."""
    before, after = version(connection, old), version(connection, new)
    one, other = content_of_version(connection, old), content_of_version(connection, new)
    gone, come = set(one.tags) - set(other.tags), set(other.tags) - set(one.tags)
    same_epoch = before.epoch == after.epoch
    changed = len(one) - len(gone) - len(set(one.whole) & set(other.whole)) if same_epoch else None
    derived = {"dsv_id", "content_root", "rows", "subjects", "quality_report_digest", "parents"}
    names = [f.name for f in fields(DatasetFacts) if f.name not in derived]
    differing = tuple(n for n in names if getattr(before.facts, n) != getattr(after.facts, n))
    return Comparison(len(come), len(gone), changed, differing)
