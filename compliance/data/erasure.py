"""Erasing subjects (GDPR, Article 17): where they are, what is destroyed, and the proof that they are gone.

Executing destroys the subjects' sealed fields with their keys, and the secret under which rows were digested: no row of
anyone in an earlier version can be compared with its leaf any more, while roots and proofs stay valid. Versions in use
that hold a subject are withdrawn, so that the site computes on them no more; the next version, registered without the
subjects, proves that they are not in it. The rows themselves stand in the site's own files, which are the site's to
change; models that were trained on them are found through the federation's log.
"""

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, delete, insert

from fedseal.compliance.data.content import (
    Membership,
    NonMembership,
    subject_tag,
    verify_membership,
    verify_non_membership,
)
from fedseal.compliance.data.facts import Status
from fedseal.compliance.data.keys import KEY_LENGTH
from fedseal.compliance.data.occurrences import ErasureReason, Redacted, announce
from fedseal.compliance.data.registry import (
    DatasetVersion,
    content_of_version,
    in_use,
    keys_of,
    record_erased,
    version,
    versions,
    withdraw,
)
from fedseal.compliance.data.sealed import commitments_of, shred
from fedseal.compliance.data.tables import SECRETS
from fedseal.database import PATIENCE
from fedseal.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Found:
    """A version that holds some of the subjects."""

    version: DatasetVersion
    subjects: int


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What erasing would touch.

    Attributes:
        tags: of the subjects, in the order they were given.
        found: the versions that hold one of them, oldest first.
        known: the tags of those who are in a version or have a sealed record.
        sealed: how many sealed records would be shredded.
    """

    tags: tuple[bytes, ...]
    found: tuple[Found, ...]
    known: tuple[bytes, ...]
    sealed: int

    @property
    def unknown(self) -> int:
        """How many of the subjects this site knows nothing of: perhaps their ids are misspelt."""
        return len(self.tags) - len(self.known)

    @property
    def withdrawn(self) -> tuple[DatasetVersion, ...]:
        """The versions in use that would be withdrawn."""
        return tuple(f.version for f in self.found if f.version.status is Status.CURRENT)


def plan(connection: Connection, subjects: Sequence[str]) -> ErasurePlan:
    """Where subjects are; changes nothing.

    Raises:
        ConfigError: this site has registered no data, or no subject is named.
    """
    if not in_use(connection):
        raise ConfigError("this site has registered no data", next_step="See fedseal data register.")
    if not subjects:
        raise ConfigError("no subject is named", next_step="One id a line, as the table has them.")
    key = keys_of(connection).subject
    tags = tuple(dict.fromkeys(subject_tag(key, subject) for subject in subjects))
    found, seen = [], set[bytes]()
    for one in versions(connection):
        content = content_of_version(connection, one.number)
        here = {tag for tag in tags if tag in content}
        seen |= here
        if here:
            found.append(Found(one, len(here)))
    sealed = {tag: len(commitments_of(connection, tag)) for tag in tags}
    known = tuple(tag for tag in tags if tag in seen or sealed[tag])
    return ErasurePlan(tags, tuple(found), known, sum(sealed.values()))


def execute(connection: Connection, planned: ErasurePlan, reason: ErasureReason, on: date) -> None:
    """Shred, withdraw, and put on record; `overwrite` has to follow once this transaction is on disk.

    Doing it again does no harm: what is gone stays gone.
    """
    lost = [commitment for tag in planned.tags for commitment in shred(connection, tag)]
    new_epoch(connection)
    record_erased(connection, planned.known, reason, on)
    for found in planned.withdrawn:
        withdraw(connection, found, reason)
    announce(connection, Redacted(tuple(c.hex() for c in lost), reason, on))


def new_epoch(connection: Connection) -> None:
    """Destroy the secret under which rows were digested, and begin with another."""
    connection.execute(delete(SECRETS).where(SECRETS.c.name == "rows"))
    connection.execute(insert(SECRETS).values(name="rows", value=os.urandom(KEY_LENGTH)))


def overwrite(path: Path) -> None:
    """Write a store's file anew without what was deleted, and empty its write-ahead log.

    secure_delete overwrites what is deleted, not what SQLite left behind when it moved something within a page; VACUUM
    leaves neither.

    Raises:
        ConfigError: another program holds the store; nothing is lost, and it has to be done again.
    """
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE / 1000, isolation_level=None)) as connection:
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("VACUUM")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        busy = 1
    if busy:
        raise ConfigError(
            f"another program is using {path}: what was erased may still stand in its files",
            next_step="Stop the site's node, and execute the erasure again.",
        )


def prove(connection: Connection, number: int, tag: bytes) -> Membership | NonMembership:
    """Whether a subject is in a version, with its proof, checked before it is handed out.

    Raises:
        ConfigError: there is no such version, or its leaves are not those of its root.
    """
    root = bytes.fromhex(version(connection, number).facts.content_root)
    proof = content_of_version(connection, number).prove(tag)
    if not verified(proof, root, tag):
        raise ConfigError(
            f"the leaves of version {number} are not those of its content root",
            next_step="The store was changed from outside, or is damaged. Restore it from a backup.",
        )
    return proof


def verified(proof: Membership | NonMembership, root: bytes, tag: bytes) -> bool:
    """Whether a proof shows what it says of the subject with this tag."""
    match proof:
        case Membership():
            return verify_membership(proof, root, tag)
        case NonMembership():
            return verify_non_membership(proof, root, tag)
