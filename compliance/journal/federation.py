"""The federation's log as its server keeps it: its own events, those that sites have signed, and what sites cosigned.

Entries, checkpoint and where every author's chain stands are one transaction, on disk before anyone is shown the
checkpoint. What sites say is checked and kept in memory until the next commit: a site repeats it until it sees it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, Table, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite

from fedseal.compliance.events.bodies import Genesis, Joined, PolicyChanged
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.events.leaf import SERVER_ORG, TIME_FORMAT, Event, Place, keyid_of, read_event, sign_event
from fedseal.compliance.events.registry import Author, Book, EventType, type_of, type_of_form
from fedseal.compliance.journal.attachment import CONFLICT, OK, UNPROCESSABLE, LogReply, LogRequest
from fedseal.compliance.journal.tables import AUTHORS, TYPES, WITNESSES, create_tables, place_in
from fedseal.compliance.journal.witnesses import behind, policy_of, server_genesis
from fedseal.compliance.log import checkpoint, witness
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.store import Log
from fedseal.config import Frozen
from fedseal.errors import LocalError, PeerError
from fedseal.privacy.membership.documents import FormerKey, KeyKind
from fedseal.privacy.roster import Roster, RosterEntry
from fedseal.privacy.secagg.keys import SigningKey

log = logging.getLogger("fedseal.log")


# How many entries a site is brought up to date by at once.
STRIDE = 1024


@dataclass(frozen=True, slots=True)
class Fact:
    """An event of the server's own that is to be written."""

    body: Frozen
    run: bytes | None = None
    kind: EventType | None = None


class FederationJournal:
    """The federation's log, open.

    Args:
        engine: its database.
        key: the server's.
        roster: the federation's; the log's policy follows from it.
        faulty: how many witnesses may be faulty, at least. What the log began with stays if it is more.
        now: the time, in UTC.
        former: the keys that counted in the federation once, for what they have signed.

    Raises:
        ConfigError: so many faulty sites leave no quorum.
    """

    def __init__(
        self,
        engine: Engine,
        key: SigningKey,
        roster: Roster,
        *,
        faulty: int,
        now: Callable[[], datetime],
        former: Sequence[FormerKey] = (),
    ) -> None:
        self._engine = engine
        self._key = key
        self.roster = roster
        self.former = tuple(former)
        self._now = now
        self.origin = checkpoint.server_origin(roster.federation)
        self._heard: list[Event] = []
        self._cosigned: list[tuple[int, str]] = []
        self._places: dict[str, Place] | None = None
        self._requests: dict[int, LogRequest] = {}
        self._notes: dict[int, str] = {}
        with engine.begin() as connection:
            create_tables(connection)
        with self._transaction() as (connection, entries):
            faulty = self._opened(connection, entries, faulty)
            self._sizes = {row.site: row.size for row in connection.execute(select(WITNESSES))}
            self.size = entries.size
        self.policy = policy_of(roster, faulty, self.former)

    def _opened(self, connection: Connection, entries: Log, faulty: int) -> int:
        """Begin the log, or write down that roster or quorum are others than before. How many may be faulty."""
        if not entries.size:
            policy_of(self.roster, faulty)
            self._write(connection, entries, [Fact(server_genesis(self.roster, faulty))])
            return faulty
        self._indexed(connection, entries)
        names = [type_of_form(form).name for form in (Genesis, PolicyChanged)]
        query = select(TYPES.c.idx).where(TYPES.c.origin == self.origin, TYPES.c.type.in_(names))
        index = connection.execute(query.order_by(TYPES.c.idx.desc()).limit(1)).scalar_one()
        before = read_event(entries.leaf(index)).body
        if not isinstance(before, Genesis | PolicyChanged):
            raise LocalError("a log whose index names another entry")
        faulty = max(faulty, before.faulty)
        policy_of(self.roster, faulty)
        asked = server_genesis(self.roster, faulty)
        if (asked.roster, asked.faulty, asked.quorum) != (before.roster, before.faulty, before.quorum):
            changed = PolicyChanged(roster=asked.roster, faulty=asked.faulty, quorum=asked.quorum)
            self._write(connection, entries, [Fact(changed)])
        return faulty

    def _indexed(self, connection: Connection, entries: Log) -> None:
        """Types, runs and authors follow from the leaves: made anew where entries came in by recovery."""
        rows = select(func.count()).select_from(TYPES).where(TYPES.c.origin == self.origin)
        if connection.execute(rows).scalar_one() == entries.size:
            return
        for table in (TYPES, AUTHORS):
            connection.execute(delete(table).where(table.c.origin == self.origin))
        places: dict[str, Place] = {}
        for start in range(0, entries.size, STRIDE):
            events = [read_event(leaf) for leaf in entries.leaves(start, start + STRIDE)]
            self._index(connection, range(start, start + len(events)), [(e.kind.name, e.run) for e in events])
            places |= {e.keyid: e.place_after for e in events}
        if places:
            self._move_all(connection, places)

    @contextmanager
    def _transaction(self) -> Iterator[tuple[Connection, Log]]:
        with self._engine.begin() as connection:
            entries = Log(connection, self.origin)
            entries.lock()
            yield connection, entries

    # Writing

    def commit(self, facts: Sequence[Fact] = ()) -> int:
        """Write what sites have said since the last commit, then these facts; sign a checkpoint. The log's size."""
        if not (facts or self._heard or self._cosigned):
            return self.size
        with self._transaction() as (connection, entries):
            for size, line in self._cosigned:
                entries.add_cosignature(size, line)
            for site, size in self._sizes.items():
                _put(connection, WITNESSES, {"site": site}, {"size": size})
            self._write(connection, entries, facts)
            self.size = entries.size
        self._heard.clear()
        self._cosigned.clear()
        self._places = None
        self._requests.clear()
        return self.size

    def _write(self, connection: Connection, entries: Log, facts: Sequence[Fact]) -> None:
        leaves: list[bytes] = []
        kinds: list[tuple[str, str | None]] = []
        places = self._all_places(connection)
        for event in self._heard:
            if places.get(event.keyid, Place()) == Place(event.seq, event.prev):
                leaves.append(event.leaf)
                kinds.append((event.kind.name, event.run))
                places[event.keyid] = event.place_after
        own = keyid_of(self._key.public)
        place = places.get(own, Place())
        for fact in facts:
            leaf = sign_event(
                fact.body,
                self._key,
                place,
                org=SERVER_ORG,
                time=self._now().strftime(TIME_FORMAT),
                run=None if fact.run is None else fact.run.hex(),
                kind=fact.kind,
            )
            leaves.append(leaf)
            kinds.append(((fact.kind or type_of(fact.body)).name, None if fact.run is None else fact.run.hex()))
            place = place.after(leaf)
        if facts:
            places[own] = place
        if leaves:
            self._index(connection, entries.append(leaves), kinds)
            self._move_all(connection, places)
            entries.sign_checkpoint(self._key)

    def append_signed(self, leaf: bytes, public_key: bytes) -> int:
        """Append an event that somebody else has signed, such as a person's approval; its index.

        Raises:
            PeerError: the signature does not hold, or it is not the next of its author.
        """
        event = read_event(leaf)
        if not event.signed_by(public_key):
            raise PeerError("an event whose signature does not hold", peer=event.org)
        with self._transaction() as (connection, entries):
            if self._place(connection, event.keyid) != Place(event.seq, event.prev):
                raise PeerError("an event that is not the next of its author", peer=event.org)
            self._move_all(connection, {event.keyid: event.place_after})
            indices = entries.append([leaf])
            self._index(connection, indices, [(event.kind.name, event.run)])
            entries.sign_checkpoint(self._key)
            self.size = entries.size
        self._requests.clear()
        return indices[0]

    def place_of(self, public_key: bytes) -> Place:
        """Where an author's chain stands: what its next event has to follow."""
        with self._transaction() as (connection, _):
            return self._place(connection, keyid_of(public_key))

    def _place(self, connection: Connection, keyid: str) -> Place:
        return place_in(connection, self.origin, keyid)

    def _all_places(self, connection: Connection) -> dict[str, Place]:
        rows = connection.execute(select(AUTHORS).where(AUTHORS.c.origin == self.origin))
        return {row.keyid: Place(row.seq, row.prev) for row in rows}

    def _move_all(self, connection: Connection, places: Mapping[str, Place]) -> None:
        rows = [{"origin": self.origin, "keyid": k, "seq": p.seq, "prev": p.prev} for k, p in places.items()]
        connection.execute(delete(AUTHORS).where(AUTHORS.c.origin == self.origin, AUTHORS.c.keyid.in_(list(places))))
        connection.execute(insert(AUTHORS), rows)

    def _index(self, connection: Connection, indices: range, kinds: Sequence[tuple[str, str | None]]) -> None:
        """Note the type and run of new entries."""
        rows = [
            {"origin": self.origin, "idx": index, "type": kind, "run": run}
            for index, (kind, run) in zip(indices, kinds, strict=True)
        ]
        connection.execute(insert(TYPES), rows)

    def has(self, kind: str, run: bytes) -> bool:
        """Whether the log has an event of a type about a run."""
        query = select(TYPES.c.idx).where(TYPES.c.origin == self.origin, TYPES.c.type == kind, TYPES.c.run == run.hex())
        with self._transaction() as (connection, _):
            return connection.execute(query.limit(1)).first() is not None

    # Witnesses

    def request_for(self, site: int) -> LogRequest:
        """What a site is shown next: a checkpoint, the proof that it extends the one cosigned last, the new entries."""
        return self.request_from(self._sizes.get(site, 0))

    def request_from(self, old: int) -> LogRequest:
        """What whoever has cosigned ``old`` entries is shown next."""
        if old not in self._requests:
            with self._transaction() as (_, entries):
                size = entries.next_checkpoint(old, STRIDE) or entries.size
                note = entries.checkpoint(size)
                if note is None:
                    raise LocalError("a log without a checkpoint")
                body = witness.encode_request(old, entries.consistency(old, size), note)
                self._requests[old] = LogRequest(body, tuple(entries.leaves(old, size)))
        return self._requests[old]

    def take(self, site: int, reply: LogReply) -> None:
        """Keep what a site says: its cosignature, the size it has seen, its events.

        Raises:
            LocalError: this log is behind what the site has cosigned: it was restored from a backup or cut.
            PeerError: the site says that the log contradicts what it was shown before, or its events are none.
        """
        entry = self.roster.entry(site)
        if entry is None:
            raise PeerError("a log reply of a site that is not in the roster", peer=f"site {site}")
        if reply.size > self.size:
            # Another program may have appended meanwhile: a promotion, a person's approval.
            with self._transaction() as (_, entries):
                self.size = entries.size
        if reply.size > self.size:
            raise behind(site, reply.size, self.size)
        if reply.status == UNPROCESSABLE:
            raise PeerError(
                "says that the log contradicts what it had cosigned, and has stopped",
                peer=f"site {site}",
                next_step="Compare both checkpoints: the site writes them out with `fedseal audit evidence`.",
            )
        for leaf in reply.events:
            self._hear(site, self._signing_keys(entry), public_name(entry.name), leaf)
        if reply.status in (OK, CONFLICT):
            self._witnessed(site, entry, reply)

    def _signing_keys(self, entry: RosterEntry) -> dict[str, bytes]:
        """A site's key and those it had before, by how events name them: what it signed may still be on its way."""
        before = [f.public for f in self.former if f.kind == KeyKind.SIGNING and f.site == entry.site]
        return {keyid_of(public): public for public in (*before, entry.signing_key)}

    def _hear(self, site: int, keys: Mapping[str, bytes], org: str, leaf: bytes) -> None:
        """Keep a site's event for the next commit, if it is the next of its chain and not known yet."""
        event = read_event(leaf, f"site {site}")
        places = self._known_places()
        place = places.get(event.keyid, Place())
        if event.seq < place.seq:
            return
        if Place(event.seq, event.prev) != place:
            raise PeerError("an event that is not the next of its author", peer=f"site {site}")
        public_key = keys.get(event.keyid)
        if public_key is None or not event.signed_by(public_key) or event.org != org:
            raise PeerError("an event that the site has not signed", peer=f"site {site}")
        if Author.SITE not in event.kind.authors or Book.FEDERATION not in event.kind.books:
            raise PeerError(f"an event {event.kind.name}, which no site may add", peer=f"site {site}")
        if isinstance(event.body, Joined) and (event.body.name, event.body.key) != (org, public_key.hex()):
            raise PeerError("joins under another name or key than its own", peer=f"site {site}")
        self._heard.append(event)
        places[event.keyid] = event.place_after

    def _known_places(self) -> dict[str, Place]:
        """Where authors stand, with what was heard since the last commit."""
        if self._places is None:
            with self._transaction() as (connection, _):
                self._places = self._all_places(connection)
        return self._places

    def _witnessed(self, site: int, entry: RosterEntry, reply: LogReply) -> None:
        """Remember how much a site has seen; its cosignature is written with the next commit, if it holds.

        Raises:
            PeerError: it does not.
        """
        if reply.status == OK:
            name = checkpoint.site_origin(self.roster.federation, entry.name)
            note = self._note(reply.size)
            response = witness.Response(witness.Outcome.COSIGNED, reply.cosignature)
            try:
                (signature,) = witness.cosignatures(response, note, [checkpoint.witness_key(name, entry.signing_key)])
            except (MalformedError, SignatureError, ValueError):
                raise PeerError("a cosignature that does not hold", peer=f"site {site}") from None
            self._cosigned.append((reply.size, signature.line))
        self._sizes[site] = reply.size

    def _note(self, size: int) -> str:
        if self._notes.get(size) is None:
            with self._transaction() as (_, entries):
                note = entries.checkpoint(size)
            if note is None:
                raise PeerError("a cosignature on a checkpoint that this log has not signed", peer="a site")
            self._notes = {size: note}
        return self._notes[size]

    def final_size(self) -> int:
        """The largest size that a quorum has cosigned; 0 if there is none."""
        with self._transaction() as (_, entries):
            return entries.latest_final(self.policy) or 0

    def greeting(self) -> LogRequest:
        """What a node is shown whose site is not known yet: the newest checkpoint, and nothing to go on to it from."""
        with self._transaction() as (_, entries):
            note = entries.checkpoint()
        if note is None:
            raise LocalError("a log without a checkpoint")
        return LogRequest(witness.encode_request(self.size, (), note), ())


def _put(connection: Connection, table: Table, keys: Mapping[str, object], values: Mapping[str, object]) -> None:
    """Insert a row or change the one with these keys, in either database."""
    put = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = put(table).values(**keys, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=dict(values)))
