"""Entries of the federation's log, read for the registry: only those types that it needs, in their order."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.journal.tables import TYPES
from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.store import Log
from fedseal.config import Frozen
from fedseal.errors import LocalError
from fedseal.merkle import leaf_hash, verify_inclusion


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its index in the log."""

    index: int
    event: Event


class Entries:
    """The entries of one log in a database."""

    def __init__(self, engine: Engine, origin: str) -> None:
        self._engine = engine
        self.origin = origin

    def of(self, names: Iterable[str]) -> list[Entry]:
        """The entries of some types, in their order.

        By the index that the log's writer keeps; where there is none, as in a mirror, all entries are read.

        Raises:
            LocalError: the index names another entry than is there.
            PeerError: an entry cannot be read.
        """
        wanted = frozenset(names)
        with self._engine.begin() as connection:
            entries = Log(connection, self.origin)
            indices = self._indexed(connection, wanted)
            if indices is None:
                read = (Entry(i, read_event(leaf)) for i, leaf in enumerate(entries.leaves(0, entries.size)))
                return [entry for entry in read if entry.event.kind.name in wanted]
            found = [Entry(index, read_event(entries.leaf(index))) for index in indices]
        if any(entry.event.kind.name not in wanted for entry in found):
            raise LocalError("a log whose index names another entry")
        return found

    def _indexed(self, connection: Connection, wanted: frozenset[str]) -> list[int] | None:
        own = TYPES.c.origin == self.origin
        if connection.execute(select(TYPES.c.idx).where(own).limit(1)).first() is None:
            return None
        query = select(TYPES.c.idx).where(own, TYPES.c.type.in_(sorted(wanted))).order_by(TYPES.c.idx)
        return list(connection.execute(query).scalars())

    def root(self, size: int) -> bytes:
        """The root over the first ``size`` entries; IndexError if there are fewer."""
        with self._engine.begin() as connection:
            return Log(connection, self.origin).root(size)

    def is_final(self, size: int, policy: Policy) -> bool:
        """Whether a quorum has cosigned the checkpoint of ``size``; SignatureError if a known signature is wrong."""
        with self._engine.begin() as connection:
            note = Log(connection, self.origin).checkpoint(size)
        return note is not None and evaluate(policy, note).final

    def included(self, indices: Iterable[int], size: int) -> bool:
        """Whether the entries as they are read now are those of the signed checkpoint of ``size``.

        A final checkpoint was cosigned: an entry that is not under its root is one that no witness has seen.
        """
        with self._engine.begin() as connection:
            entries = Log(connection, self.origin)
            note = entries.checkpoint(size)
            if note is None:
                return False
            root = read_checkpoint(note)[0].root
            return all(
                index < size
                and verify_inclusion(leaf_hash(entries.leaf(index)), index, size, entries.inclusion(index, size), root)
                for index in indices
            )


def names_of(*forms: type[Frozen]) -> tuple[str, ...]:
    """The types of events with these forms of body."""
    return tuple(type_of_form(form).name for form in forms)
