"""What can be read and written inside one transaction of a site's store."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, insert, literal_column, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.adaptive import AcceptedClip
from fedseal.privacy.chain import check_chain
from fedseal.privacy.key_history import ONE_KEY, KeyHistory
from fedseal.privacy.ledger import DAMAGED, Entry, EntryKind, Ledger, Reservation, SignedEntry, Terms, sign_entry
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.secagg.client_states import STORED_STATES, StoredState
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.masks import RingVector, vector_from_bytes
from fedseal.privacy.tables import ENTRIES, INCIDENTS, MEMORIES, META, PEERS, PINS, REPLIES, RUNS, SESSIONS, TERMS
from fedseal.wire import DecodeError, decode, encode

MOST_INCIDENTS = 200
LONGEST_INCIDENT = 8000
# Beside the pins of a run's releases, whose names have no colon.
CLIP_PIN = "update:clip"
# What an app keeps under a name that begins like this is the site's own, and outlives the run.
PERSONAL = "personal/"
# There fedseal's own app keeps a site's own model, or its part of one: the bytes of a safetensors file.
PERSONAL_MODEL = PERSONAL + "model"
REFERENCE_PIN = "drift:reference"


@dataclass(frozen=True, slots=True)
class StoredReply:
    """An answer as it left the site. ``request`` is the digest of what it answered."""

    request: bytes
    control: bytes
    vector: RingVector | None


class Transaction:
    """What can be read and written inside one transaction."""

    def __init__(self, connection: Connection, key: SigningKey, history: KeyHistory = ONE_KEY) -> None:
        self._connection = connection
        self._key = key
        self._history = history

    @property
    def connection(self) -> Connection:
        """The open connection, for tables of higher layers."""
        return self._connection

    def put_policy(self, text: str) -> None:
        """Replace the text of the site's policy; whoever opens the store from now on finds it."""
        self._connection.execute(update(META).where(META.c.key == "policy").values(value=text.encode("utf-8")))

    def populations(self) -> list[str]:
        """The populations that have a ledger."""
        return sorted(self._connection.execute(select(TERMS.c.population)).scalars())

    def terms(self, population: str) -> Terms:
        """The terms of a population's ledger; ConfigError if it has none."""
        raw = self._connection.execute(select(TERMS.c.terms).where(TERMS.c.population == population)).scalar()
        if raw is None:
            raise ConfigError(
                f"this site has no ledger for population {population!r}",
                next_step="The data owner opens one when the site is enrolled.",
            )
        return decode(raw, Terms)

    def entries(self, population: str) -> list[Entry]:
        """All entries, first to last, each checked against the site's signature."""
        query = select(ENTRIES).where(ENTRIES.c.population == population).order_by(ENTRIES.c.counter)
        return [self._open(row) for row in self._connection.execute(query)]

    def ledger(self, population: str, run: bytes, plan: bytes) -> Ledger:
        """Where a population's ledger stands, with what a run has set aside for one plan.

        Reads two entries, however long the ledger: the newest, and the newest of that run and plan, each of which
        states its totals. `verify_ledgers` reads them all, at the start of a run.
        """
        terms = self.terms(population)
        own = select(ENTRIES).where(ENTRIES.c.population == population).order_by(ENTRIES.c.counter.desc()).limit(1)
        newest = self._connection.execute(own).one_or_none()
        if newest is None:
            raise LocalError("a ledger without its opening entry", next_step=DAMAGED)
        last = self._open(newest)
        if last.terms != terms.digest():
            raise LocalError("a ledger entry of another population", next_step=DAMAGED)
        row = self._connection.execute(own.where(ENTRIES.c.run == run, ENTRIES.c.plan == plan)).one_or_none()
        held: dict[Reservation, int] = {}
        if row is not None and (entry := self._open(row)).kind in (EntryKind.RESERVE, EntryKind.CHARGE):
            held[(run, plan)] = entry.left
        return Ledger(terms, last, held)

    def _open(self, row: Row[Any]) -> Entry:
        """The entry in a row, if the site signed it and the row's other columns repeat it."""
        try:
            signer = self._history.signer(row.population, row.counter, self._key.public)
            entry = decode(row.entry, SignedEntry).open(signer)
        except DecodeError as error:
            raise LocalError(f"a ledger row cannot be read: {error.message}", next_step=DAMAGED) from None
        stated = (entry.counter, entry.run, entry.plan, entry.session, entry.kind)
        if (row.counter, row.run, row.plan, row.session, row.kind) != stated:
            raise LocalError("a ledger row contradicts its own entry", next_step=DAMAGED)
        return entry

    def append(self, population: str, entry: Entry) -> None:
        """Sign and store the next entry of a ledger."""
        insert_entry(self._connection, population, entry, self._key)

    def counters(self) -> dict[str, int]:
        """How many entries each population's ledger has."""
        query = select(ENTRIES.c.population, func.max(ENTRIES.c.counter)).group_by(ENTRIES.c.population)
        return {row[0]: row[1] for row in self._connection.execute(query)}

    def charges(self) -> int:
        """How often this site was charged, over all its ledgers: what it advertises, and what a restored backup falls
        behind.
        """
        query = select(func.count()).select_from(ENTRIES).where(ENTRIES.c.kind == int(EntryKind.CHARGE))
        return self._connection.execute(query).scalar_one()

    def verify_ledgers(self) -> None:
        """Check every entry of every ledger; LocalError if one was changed from outside."""
        populations = self.populations()
        for population in populations:
            check_chain(self.terms(population), self.entries(population))
        strays = select(func.count()).select_from(ENTRIES).where(ENTRIES.c.population.not_in(populations))
        if self._connection.execute(strays).scalar_one():
            raise LocalError("ledger entries of a population that has no ledger", next_step=DAMAGED)

    def receipt(self, population: str, session: bytes) -> Receipt | None:
        """The receipt for a session that was charged already, or None."""
        own = (ENTRIES.c.population == population, ENTRIES.c.session == session)
        query = select(ENTRIES).where(*own, ENTRIES.c.kind == int(EntryKind.CHARGE))
        row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        entry = self._open(row)
        return Receipt(session, entry.plan, entry.counter)

    def close_run(self, run: bytes) -> None:
        """End a run at this site: give back what it had reserved and not spent, and never answer for it again.

        What an app kept for later rounds is deleted, but for a site's personal model.
        """
        record = self.run(run)
        if record.closed:
            return
        for population in self.populations():
            own = (ENTRIES.c.population == population, ENTRIES.c.run == run)
            for plan in self._connection.execute(select(ENTRIES.c.plan).where(*own).distinct()).scalars().all():
                ledger = self.ledger(population, run, plan)
                if ledger.reservations:
                    _, entry = ledger.release(run, decode_plan(plan))
                    self.append(population, entry)
        passing = MEMORIES.c.name.not_like(PERSONAL + "%")
        self._connection.execute(delete(MEMORIES).where(MEMORIES.c.run == run, passing))
        self.put_run(replace(record, closed=True))

    def remember(self, run: bytes, name: str, value: bytes, fl_round: int) -> None:
        """Keep what an app wants to know in later rounds of a run, pending until it is known how the round ended.

        What was pending before and not settled by `recall` belongs to an attempt that this one replaces.
        """
        self._put(MEMORIES, run=run, name=name, pending=value, pending_round=fl_round)

    def recall(self, run: bytes, name: str, *, counted: int) -> bytes | None:
        """What an app kept in the last round whose sum this site was in; None if there is none.

        Settles what is pending: it holds from now on if it is of that very round, and is forgotten otherwise.

        Args:
            run: the run.
            name: the app's name for it.
            counted: the number of the last round whose sum this site's vector was in; 0 if there was none, or none that
                still counts: then whatever was kept is forgotten.
        """
        query = select(MEMORIES).where(MEMORIES.c.run == run, MEMORIES.c.name == name)
        row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        settled: bytes | None = row.pending if row.pending_round == counted else row.settled
        if not counted:
            settled = None
        self._put(MEMORIES, run=run, name=name, settled=settled, pending=None, pending_round=None)
        return settled

    def kept(self, run: bytes, name: str) -> bytes | None:
        """What an app kept last, whether or not its round is known to have counted; None if there is nothing.

        For what the site itself uses after a run, as its personal model. Settles nothing.
        """
        query = select(MEMORIES).where(MEMORIES.c.run == run, MEMORIES.c.name == name)
        row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        newest: bytes | None = row.settled if row.pending is None else row.pending
        return newest

    def pin_terms(self, run: bytes, release: str, terms: bytes) -> bool:
        """Remember a release's terms at its first header in a run; whether these are the remembered ones."""
        query = select(PINS.c.terms).where(PINS.c.run == run, PINS.c.release == release)
        pinned = self._connection.execute(query).scalar()
        if pinned is None:
            self._put(PINS, run=run, release=release, terms=terms)
        return pinned is None or pinned == terms

    def accepted_clip(self, run: bytes) -> AcceptedClip | None:
        """The clip norm that was accepted last in a run where it adapts; None before the first."""
        query = select(PINS.c.terms).where(PINS.c.run == run, PINS.c.release == CLIP_PIN)
        raw = self._connection.execute(query).scalar()
        return None if raw is None else decode(raw, AcceptedClip)

    def accept_clip(self, run: bytes, clip: AcceptedClip) -> None:
        """Remember the clip norm of a header that is answered."""
        self._put(PINS, run=run, release=CLIP_PIN, terms=encode(clip))

    def reference(self, key: bytes) -> bytes | None:
        """What this site compares windows with, kept under the digest of a model and a watch; None if nothing is.

        Args:
            key: 32 bytes.
        """
        query = select(PINS.c.terms).where(PINS.c.run == key, PINS.c.release == REFERENCE_PIN)
        raw: bytes | None = self._connection.execute(query).scalar()
        return raw

    def keep_reference(self, key: bytes, reference: bytes) -> None:
        """Keep what windows are compared with, beyond the end of any run."""
        self._put(PINS, run=key, release=REFERENCE_PIN, terms=reference)

    def run(self, run: bytes) -> RunRecord:
        """Where a run stands; a new one if it was never seen."""
        row = self._connection.execute(select(RUNS).where(RUNS.c.run == run)).one_or_none()
        return RunRecord(run) if row is None else RunRecord(row.run, row.release_seq, row.attempt, row.closed)

    def runs(self) -> list[RunRecord]:
        """All runs that this site has answered for, oldest first."""
        rows = self._connection.execute(select(RUNS).order_by(literal_column("rowid")))
        return [RunRecord(row.run, row.release_seq, row.attempt, row.closed) for row in rows]

    def put_run(self, record: RunRecord) -> None:
        """Store where a run stands, and forget the answers of its earlier releases: their headers are refused from
        now on.
        """
        self._put(RUNS, run=record.run, release_seq=record.release_seq, attempt=record.attempt, closed=record.closed)
        former = select(SESSIONS.c.session).where(SESSIONS.c.run == record.run)
        self._connection.execute(delete(REPLIES).where(REPLIES.c.session.in_(former)))
        self._connection.execute(delete(SESSIONS).where(SESSIONS.c.run == record.run))

    def state(self, session: bytes) -> StoredState | None:
        """The protocol state of a session (named by its header's hash), if there is one."""
        raw = self._connection.execute(select(SESSIONS.c.state).where(SESSIONS.c.session == session)).scalar()
        return None if raw is None else decode(raw, *STORED_STATES)

    def put_state(self, session: bytes, run: bytes, state: StoredState) -> None:
        """Replace the protocol state of a session."""
        self._put(SESSIONS, session=session, run=run, state=encode(state))

    def reply(self, session: bytes, stage: int) -> StoredReply | None:
        """What was answered at a stage, if anything was."""
        query = select(REPLIES).where(REPLIES.c.session == session, REPLIES.c.stage == stage)
        row = self._connection.execute(query).one_or_none()
        if row is None:
            return None
        vector = None if row.vector is None else vector_from_bytes(row.vector, row.ring_bits)
        return StoredReply(row.request, row.control, vector)

    def put_reply(self, session: bytes, stage: int, reply: StoredReply) -> None:
        """Store an answer, once: a second one for the same stage is a bug."""
        if self.reply(session, stage) is not None:
            raise LocalError("this stage was answered already")
        values: dict[str, object] = {"request": reply.request, "control": reply.control}
        if reply.vector is not None:
            # The words as they are, packed ones included; handed over without a copy.
            values |= {"ring_bits": 8 * reply.vector.dtype.itemsize, "vector": reply.vector.data.cast("B")}
        self._connection.execute(insert(REPLIES).values(session=session, stage=stage, **values))

    def known_counters(self) -> dict[int, int]:
        """The highest ledger counter seen of each peer."""
        return {row.site: row.counter for row in self._connection.execute(select(PEERS))}

    def put_counters(self, counters: Mapping[int, int]) -> None:
        """Remember higher counters of peers."""
        known = self.known_counters()
        for site, counter in counters.items():
            if counter > known.get(site, -1):
                self._put(PEERS, site=site, counter=counter)

    def record_incident(self, code: str, text: str) -> None:
        """Keep the text of an error at the site, where it may be read; only its code leaves.

        The last `MOST_INCIDENTS` are kept, each cut short at its beginning: whoever causes errors must not fill the
        disk.
        """
        kept = text[-LONGEST_INCIDENT:].encode("utf-8", "backslashreplace").decode("utf-8")[-LONGEST_INCIDENT:]
        values = {"code": code, "text": kept, "at": int(time.time())}
        number = self._connection.execute(insert(INCIDENTS).values(values)).inserted_primary_key
        if number is not None:
            self._connection.execute(delete(INCIDENTS).where(INCIDENTS.c.number <= number[0] - MOST_INCIDENTS))

    def incidents(self) -> list[tuple[str, str]]:
        """Codes and texts of errors, oldest first."""
        rows = self._connection.execute(select(INCIDENTS.c.code, INCIDENTS.c.text).order_by(INCIDENTS.c.number))
        return [(row.code, row.text) for row in rows]

    def last_incident(self) -> tuple[int | None, str, str] | None:
        """When the newest error was, in seconds since 1970 where that is known, its code and its text; None if there
        is none.
        """
        row = self._connection.execute(select(INCIDENTS).order_by(INCIDENTS.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else (row.at, row.code, row.text)

    def _put(self, table: Table, **values: object) -> None:
        keys = [column.name for column in table.primary_key]
        changed = {name: value for name, value in values.items() if name not in keys}
        statement = upsert(table).values(**values).on_conflict_do_update(index_elements=keys, set_=changed)
        self._connection.execute(statement)


def insert_entry(connection: Connection, population: str, entry: Entry, key: SigningKey) -> None:
    connection.execute(
        insert(ENTRIES).values(
            population=population,
            counter=entry.counter,
            run=entry.run,
            plan=entry.plan,
            session=entry.session,
            kind=entry.kind,
            entry=encode(sign_entry(entry, key)),
        )
    )


def request_digest(raw: bytes) -> bytes:
    """The name under which an answered request is remembered."""
    return hashlib.sha256(raw).digest()
