"""The one row of a log that whoever appends to it holds."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from fedseal.compliance.log.queries import ADD_HEAD, HEAD, HEAD_LOCKED
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


# A log that nothing was appended to yet has no row, and numbers start at 1.
ABSENT = Head(0, EMPTY, 0, EMPTY_ROOT)


def read_head(connection: Connection, origin: str) -> Head:
    """The head as it stands; ABSENT where the log has none."""
    row = connection.execute(HEAD, {"of_origin": origin}).one_or_none()
    return ABSENT if row is None else _open(row)


def lock_head(connection: Connection, origin: str) -> Head:
    """The head, made if it is missing, and locked to the end of the transaction."""
    row = connection.execute(HEAD_LOCKED, {"of_origin": origin}).one_or_none()
    if row is None:
        start = {"size": 0, "frontier": b"", "witnessed_size": 0, "witnessed_root": EMPTY_ROOT}
        connection.execute(ADD_HEAD[connection.dialect.name], {"origin": origin, **start})
        row = connection.execute(HEAD_LOCKED, {"of_origin": origin}).one()
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
