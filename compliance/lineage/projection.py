"""The tables of a lineage, made from a log leaf by leaf: never a second truth, and the same from every copy of it."""

import hashlib
import json

from sqlalchemy import Connection, delete, insert, inspect, select

from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.lineage.draft import Draft
from fedseal.compliance.lineage.rules import Reading
from fedseal.compliance.lineage.tables import METADATA, STATE, VERSION
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.log.tree import EMPTY, Frontier
from fedseal.errors import DataError
from fedseal.merkle import HASH_LENGTH, leaf_hash

STRIDE = 4096


class Projection:
    """The tables of one log's lineage, in a transaction of their database.

    Makes the tables where they are missing. Tables of another version, of another log, or of a log that has another
    history than it had when they were made are emptied before they are filled: `update` never mixes two histories.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        if not inspect(connection).has_table(STATE.name):
            METADATA.create_all(connection)

    @property
    def size(self) -> int:
        """How many entries were read."""
        return int(self._connection.execute(select(STATE.c.size)).scalar() or 0)

    def update(self, source: ReadableLog, *, stride: int = STRIDE) -> int:
        """Read what the log has gained, all of it if these are not its tables; how many entries that were.

        Raises:
            PeerError: an entry cannot be read. Nothing of this call is left.
            DataError: the entries are not those of the log's root. Nothing of this call is left.
        """
        frontier = self._continued(source)
        if frontier is None:
            self._empty()
            frontier = EMPTY
        start, size = frontier.size, source.size
        draft = Draft(self._connection)
        reading = Reading(self._connection, draft)
        for first in range(start, size, stride):
            leaves = source.leaves(first, min(first + stride, size))
            frontier, _ = frontier.extend([leaf_hash(leaf) for leaf in leaves])
            for idx, leaf in enumerate(leaves, start=first):
                reading.read(read_event(leaf, source.origin), idx)
            draft.flush()
            reading.forget_runs()
        if frontier.size != size or frontier.root != source.root(size):
            raise DataError(
                "the log's entries are not those of its root: it was damaged, or changed from outside",
                next_step="Restore the log from a mirror, or ask another copy.",
            )
        self._connection.execute(delete(STATE))
        state = {"version": VERSION, "origin": source.origin, "size": size, "root": frontier.root.hex()}
        self._connection.execute(insert(STATE).values(**state, frontier=b"".join(frontier.hashes).hex()))
        return size - start

    def rebuild(self, source: ReadableLog) -> int:
        """Drop the tables, and make them from the log's first entry; how many entries there are."""
        METADATA.drop_all(self._connection)
        METADATA.create_all(self._connection)
        return self.update(source)

    def digest(self) -> str:
        """SHA-256 over the sorted contents of all tables: equal where lineages are."""
        found = hashlib.sha256()
        for table in METADATA.sorted_tables:
            # Sorted here: databases sort text each in its own way.
            rows = sorted((list(row) for row in self._connection.execute(select(table))), key=_sortable)
            found.update(table.name.encode("ascii"))
            for values in rows:
                found.update(json.dumps(values, separators=(",", ":")).encode("ascii"))
        return "sha256:" + found.hexdigest()

    def _continued(self, source: ReadableLog) -> Frontier | None:
        """From where on these tables can be continued; None where they have to be made anew."""
        row = self._connection.execute(select(STATE)).one_or_none()
        if row is None or row.version != VERSION or row.origin != source.origin or row.size > source.size:
            return None
        if source.root(row.size).hex() != row.root:
            return None
        raw = bytes.fromhex(row.frontier)
        hashes = tuple(raw[i : i + HASH_LENGTH] for i in range(0, len(raw), HASH_LENGTH))
        return Frontier(row.size, hashes)

    def _empty(self) -> None:
        for table in METADATA.sorted_tables:
            self._connection.execute(delete(table))


def _sortable(row: list[object]) -> list[tuple[bool, object]]:
    """None before everything else."""
    return [(value is not None, value) for value in row]
