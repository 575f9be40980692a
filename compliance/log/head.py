"""The one row of a log that whoever appends to it holds."""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, select
from sqlalchemy.dialects import postgresql, sqlite

from fedseal.compliance.log.tables import HEADS
from fedseal.compliance.log.tree import EMPTY, EMPTY_ROOT, Frontier
from fedseal.errors import LocalError
from fedseal.merkle import HASH_LENGTH


@dataclass(frozen=True, slots=True)
class Head:
    """A log's number in its database, its state, and where this party last cosigned it."""

    log: int
    frontier: Frontier
    witnessed_size: int
    witnessed_root: bytes

    def with_frontier(self, frontier: Frontier) -> "Head":
        """After an append."""
        return replace(self, frontier=frontier)

    def with_witnessed(self, size: int, root: bytes) -> "Head":
        """After a cosignature."""
        return replace(self, witnessed_size=size, witnessed_root=root)


# A log that nothing was appended to yet has no row, and numbers start at 1.
ABSENT = Head(0, EMPTY, 0, EMPTY_ROOT)


def read_head(connection: Connection, origin: str) -> Head:
    """The head as it stands; ABSENT where the log has none."""
    row = connection.execute(select(HEADS).where(HEADS.c.origin == origin)).one_or_none()
    return ABSENT if row is None else _open(row)


def lock_head(connection: Connection, origin: str) -> Head:
    """The head, made if it is missing, and locked to the end of the transaction."""
    # SQLite has no such lock and needs none: its transactions here are exclusive (fedseal.database).
    query = select(HEADS).where(HEADS.c.origin == origin).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        values = {"origin": origin, "size": 0, "frontier": b"", "witnessed_size": 0, "witnessed_root": EMPTY_ROOT}
        make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
        connection.execute(make(HEADS).values(values).on_conflict_do_nothing())
        row = connection.execute(query).one()
    return _open(row)


def _open(row: Row[Any]) -> Head:
    raw = bytes(row.frontier)
    hashes = tuple(raw[i : i + HASH_LENGTH] for i in range(0, len(raw), HASH_LENGTH))
    try:
        frontier = Frontier(row.size, hashes)
    except ValueError:
        raise LocalError(
            "the head of a log contradicts itself",
            next_step="The database of the log was damaged or changed from outside. Restore it from a mirror.",
        ) from None
    return Head(row.log, frontier, row.witnessed_size, bytes(row.witnessed_root))
