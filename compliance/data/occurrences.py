"""What happens to a site's data, as frozen facts, and the one place through which they go to its log."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import ClassVar, TypeAlias

from pydantic import TypeAdapter
from sqlalchemy import Connection, insert, select

from fedseal.compliance.data.facts import DatasetFacts, SharedDatasetFacts
from fedseal.compliance.data.tables import OCCURRENCES


class ErasureReason(StrEnum):
    """On which ground of the GDPR a subject was erased."""

    NO_LONGER_NEEDED = "17-1-a"
    CONSENT_WITHDRAWN = "17-1-b"
    OBJECTION = "17-1-c"
    UNLAWFUL = "17-1-d"
    LEGAL_OBLIGATION = "17-1-e"
    CHILD = "17-1-f"


@dataclass(frozen=True, slots=True)
class Registered:
    """A version was registered. ``shared`` is the part for the federation's log."""

    KIND: ClassVar[str] = "dataset.registered"

    facts: DatasetFacts
    shared: SharedDatasetFacts


@dataclass(frozen=True, slots=True)
class Superseded:
    """A version gave way to another one. Both by their dsv_id."""

    KIND: ClassVar[str] = "dataset.superseded"

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A version may not be used any more."""

    KIND: ClassVar[str] = "dataset.withdrawn"

    dsv_id: str
    reason: ErasureReason


@dataclass(frozen=True, slots=True)
class Redacted:
    """Sealed fields were shredded: their commitments stand in the log and will never be opened again.

    For the site's own log: ``commitments`` are HMAC values whose keys are gone.
    """

    KIND: ClassVar[str] = "redaction"

    commitments: tuple[str, ...]
    reason: ErasureReason
    on: date


Occurrence: TypeAlias = Registered | Superseded | Withdrawn | Redacted
_KINDS: dict[str, TypeAdapter[Occurrence]] = {
    kind.KIND: TypeAdapter(kind) for kind in (Registered, Superseded, Withdrawn, Redacted)
}


def announce(connection: Connection, occurrence: Occurrence) -> None:
    """Put an occurrence on record, in the transaction that makes it true.

    This is the one call site for the site's log: whoever writes events takes them from here, in this transaction or
    later by `announced`, in their order.
    """
    body = _KINDS[occurrence.KIND].dump_json(occurrence)
    connection.execute(insert(OCCURRENCES).values(kind=occurrence.KIND, body=body))


def announced(connection: Connection, *, after: int = 0) -> list[tuple[int, Occurrence]]:
    """Occurrences with a number above ``after``, in their order."""
    rows = connection.execute(select(OCCURRENCES).where(OCCURRENCES.c.number > after).order_by(OCCURRENCES.c.number))
    return [(row.number, _KINDS[row.kind].validate_json(row.body)) for row in rows]
