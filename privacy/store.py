"""A site's memory: one SQLite file with its identity, policy, ledgers, run counters, and the answers it has given.

The only I/O of this layer. Every change that lets something leave the site is one transaction, on disk (WAL,
synchronous FULL) before the answer is returned: the charge, the new state and the answer itself. So after a crash at
any point either nothing had left and nothing was charged, or the very same bytes are sent again. Transactions are
exclusive across processes (BEGIN IMMEDIATE).

The file holds secrets: it is made with mode 0600 and SQLite's secure_delete. A store marked as simulated carries a
seed; no other store does.
"""

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import NullPool

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.ledger import (
    DAMAGED,
    Entry,
    EntryKind,
    Ledger,
    SignedEntry,
    Terms,
    check_chain,
    open_ledger,
    reservations,
    sign_entry,
)
from fedseal.privacy.randomness import KeyedRandomness, Randomness, SystemRandomness
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.secagg.client_states import STORED_STATES, StoredState
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.masks import RingVector, vector_from_bytes
from fedseal.privacy.secret import Secret
from fedseal.wire import DecodeError, decode, encode

FORMAT = 1

_metadata = MetaData()
_meta = Table("meta", _metadata, Column("key", String, primary_key=True), Column("value", LargeBinary))
_terms = Table("terms", _metadata, Column("population", String, primary_key=True), Column("terms", LargeBinary))
_entries = Table(
    "entries",
    _metadata,
    Column("population", String, primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("run", LargeBinary, index=True),
    Column("kind", Integer, index=True),
    Column("entry", LargeBinary),
)
_runs = Table(
    "runs",
    _metadata,
    Column("run", LargeBinary, primary_key=True),
    Column("release_seq", Integer),
    Column("attempt", Integer),
    Column("closed", Boolean),
)
_sessions = Table(
    "sessions",
    _metadata,
    Column("session", LargeBinary, primary_key=True),
    Column("run", LargeBinary),
    Column("state", LargeBinary),
)
_replies = Table(
    "replies",
    _metadata,
    Column("session", LargeBinary, primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("request", LargeBinary),
    Column("control", LargeBinary),
    Column("ring_bits", Integer),
    Column("vector", LargeBinary),
)
_peers = Table("peers", _metadata, Column("site", Integer, primary_key=True), Column("counter", Integer))
_incidents = Table(
    "incidents",
    _metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("code", String),
    Column("text", String),
)


@dataclass(frozen=True, slots=True)
class StoredReply:
    """An answer as it left the site. ``request`` is the digest of what it answered."""

    request: bytes
    control: bytes
    vector: RingVector | None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the site is, and what it has pinned. ``seed`` is set in a simulation and nowhere else."""

    number: int
    name: str
    key: SigningKey
    roster: Roster
    policy: str
    seed: int | None

    @property
    def simulated(self) -> bool:
        """Whether this site is part of a simulation."""
        return self.roster.simulated

    def randomness(self) -> Randomness:
        """The operating system's, or in a simulation that of the seed."""
        return SystemRandomness() if self.seed is None else KeyedRandomness(self.seed, "site", self.number)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a new store is made from.

    ``policy`` is the text of the site's policy file, ``terms`` one ledger per population.
    """

    number: int
    key: SigningKey
    roster: SignedRoster
    pinned: bytes
    policy: str
    terms: tuple[Terms, ...]
    seed: int | None = None


class SiteStore:
    """An open store. Cheap to open; every Flower message opens it anew."""

    def __init__(self, path: Path, engine: Engine, identity: Identity) -> None:
        self.path = path
        self.identity = identity
        self._engine = engine

    @classmethod
    def create(cls, path: Path, enrolment: Enrolment) -> "SiteStore":
        """Make a store for a newly enrolled site.

        Raises:
            ConfigError: the file exists, the roster is not the pinned one or lacks the site, or a seed is given
                outside a simulation.
        """
        roster = open_roster(enrolment.roster, pinned=enrolment.pinned)
        entry = roster.entry(enrolment.number)
        if entry is None or entry.signing_key != enrolment.key.public:
            raise ConfigError("the roster does not list this site with this key")
        if roster.simulated != (enrolment.seed is not None):
            raise ConfigError(
                "a seed belongs to a simulated federation, and to no other",
                next_step="Outside a simulation, randomness comes from the operating system only.",
            )
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            raise ConfigError(f"{path} exists already", next_step="A site's store is made once.") from None
        engine = _engine(path)
        with engine.begin() as connection:
            _metadata.create_all(connection)
            connection.execute(
                insert(_meta),
                [
                    {"key": "format", "value": str(FORMAT).encode()},
                    {"key": "number", "value": str(enrolment.number).encode()},
                    {"key": "key", "value": enrolment.key.seed.reveal()},
                    {"key": "roster", "value": encode(enrolment.roster)},
                    {"key": "pinned", "value": enrolment.pinned},
                    {"key": "policy", "value": enrolment.policy.encode("utf-8")},
                    {"key": "seed", "value": None if enrolment.seed is None else str(enrolment.seed).encode()},
                ],
            )
            for terms in enrolment.terms:
                connection.execute(insert(_terms).values(population=terms.population, terms=encode(terms)))
                _insert_entry(connection, terms.population, open_ledger(terms)[1], enrolment.key)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "SiteStore":
        """Open a store.

        Raises:
            ConfigError: there is none at ``path``, or it has another format.
        """
        if not path.is_file():
            raise ConfigError(
                f"no site store at {path}",
                next_step="Give the path of this site's store as `fedseal-store` in node_config.",
            )
        engine = _engine(path)
        try:
            with engine.begin() as connection:
                meta = {row.key: row.value for row in connection.execute(select(_meta))}
        except DatabaseError:
            raise ConfigError(f"{path} is not a site store") from None
        if meta.get("format") != str(FORMAT).encode():
            raise ConfigError(f"{path} has another format than {FORMAT}", next_step="Use the fedseal that made it.")
        number = int(meta["number"])
        roster = open_roster(decode(meta["roster"], SignedRoster), pinned=meta["pinned"])
        entry = roster.entry(number)
        key = SigningKey(Secret(meta["key"]))
        seeded = meta["seed"] is not None
        if entry is None or entry.signing_key != key.public or roster.simulated != seeded:
            raise ConfigError(f"{path} contradicts its own roster")
        identity = Identity(
            number=number,
            name=entry.name,
            key=key,
            roster=roster,
            policy=meta["policy"].decode("utf-8"),
            seed=None if meta["seed"] is None else int(meta["seed"]),
        )
        return cls(path, engine, identity)

    @contextmanager
    def transaction(self) -> Iterator["Transaction"]:
        """All or nothing, exclusive, on disk at the end of the block. An exception inside undoes everything."""
        with self._engine.begin() as connection:
            yield Transaction(connection, self.identity)

    def verify_ledgers(self) -> None:
        """Check every entry of every ledger: signatures, hashes and totals.

        Raises:
            LocalError: a ledger was changed from outside.
        """
        with self.transaction() as transaction:
            for population in transaction.populations():
                check_chain(transaction.terms(population), transaction.entries(population))


class Transaction:
    """What can be read and written inside one transaction."""

    def __init__(self, connection: Connection, identity: Identity) -> None:
        self._connection = connection
        self._identity = identity

    def populations(self) -> list[str]:
        """The populations that have a ledger."""
        return sorted(self._connection.execute(select(_terms.c.population)).scalars())

    def terms(self, population: str) -> Terms:
        """The terms of a population's ledger; ConfigError if it has none."""
        raw = self._connection.execute(select(_terms.c.terms).where(_terms.c.population == population)).scalar()
        if raw is None:
            raise ConfigError(
                f"this site has no ledger for population {population!r}",
                next_step="The data owner opens one when the site is enrolled.",
            )
        return decode(raw, Terms)

    def entries(self, population: str) -> list[Entry]:
        """All entries, first to last, each checked against the site's signature."""
        query = select(_entries).where(_entries.c.population == population).order_by(_entries.c.counter)
        return [self._open(row) for row in self._connection.execute(query)]

    def ledger(self, population: str, run: bytes) -> Ledger:
        """Where a population's ledger stands, with the reservations of one run.

        Reads the last entry and those of the run; `SiteStore.verify_ledgers` reads them all, at the start of a run.
        """
        own = _entries.c.population == population
        newest = select(func.max(_entries.c.counter)).where(own).scalar_subquery()
        query = select(_entries).where(own, (_entries.c.run == run) | (_entries.c.counter == newest))
        entries = [self._open(row) for row in self._connection.execute(query.order_by(_entries.c.counter))]
        return Ledger(self.terms(population), entries[-1], reservations([e for e in entries if e.run == run]))

    def _open(self, row: Row[Any]) -> Entry:
        """The entry in a row, if the site signed it and the row's other columns repeat it."""
        try:
            entry = decode(row.entry, SignedEntry).open(self._identity.key.public)
        except DecodeError as error:
            raise LocalError(f"a ledger row cannot be read: {error.message}", next_step=DAMAGED) from None
        if (row.counter, row.run, row.kind) != (entry.counter, entry.run, entry.kind):
            raise LocalError("a ledger row contradicts its own entry", next_step=DAMAGED)
        return entry

    def append(self, population: str, entry: Entry) -> None:
        """Sign and store the next entry of a ledger."""
        _insert_entry(self._connection, population, entry, self._identity.key)

    def charges(self) -> int:
        """How often this site was charged, over all its ledgers: what it advertises, and what a restored backup falls
        behind.
        """
        query = select(func.count()).select_from(_entries).where(_entries.c.kind == int(EntryKind.CHARGE))
        return self._connection.execute(query).scalar_one()

    def run(self, run: bytes) -> RunRecord:
        """Where a run stands; a new one if it was never seen."""
        row = self._connection.execute(select(_runs).where(_runs.c.run == run)).one_or_none()
        return RunRecord(run) if row is None else RunRecord(row.run, row.release_seq, row.attempt, row.closed)

    def put_run(self, record: RunRecord) -> None:
        """Store where a run stands, and forget the answers of its earlier releases: their headers are refused from
        now on.
        """
        self._put(_runs, run=record.run, release_seq=record.release_seq, attempt=record.attempt, closed=record.closed)
        former = select(_sessions.c.session).where(_sessions.c.run == record.run)
        self._connection.execute(delete(_replies).where(_replies.c.session.in_(former)))
        self._connection.execute(delete(_sessions).where(_sessions.c.run == record.run))

    def state(self, session: bytes) -> StoredState | None:
        """The protocol state of a session (named by its header's hash), if there is one."""
        raw = self._connection.execute(select(_sessions.c.state).where(_sessions.c.session == session)).scalar()
        return None if raw is None else decode(raw, *STORED_STATES)

    def put_state(self, session: bytes, run: bytes, state: StoredState) -> None:
        """Replace the protocol state of a session."""
        self._put(_sessions, session=session, run=run, state=encode(state))

    def reply(self, session: bytes, stage: int) -> StoredReply | None:
        """What was answered at a stage, if anything was."""
        query = select(_replies).where(_replies.c.session == session, _replies.c.stage == stage)
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
            values |= {"ring_bits": 8 * reply.vector.dtype.itemsize, "vector": reply.vector.tobytes()}
        self._connection.execute(insert(_replies).values(session=session, stage=stage, **values))

    def known_counters(self) -> dict[int, int]:
        """The highest ledger counter seen of each peer."""
        return {row.site: row.counter for row in self._connection.execute(select(_peers))}

    def put_counters(self, counters: Mapping[int, int]) -> None:
        """Remember higher counters of peers."""
        known = self.known_counters()
        for site, counter in counters.items():
            if counter > known.get(site, -1):
                self._put(_peers, site=site, counter=counter)

    def record_incident(self, code: str, text: str) -> None:
        """Keep the text of an error at the site, where it may be read; only its code leaves."""
        self._connection.execute(insert(_incidents).values(code=code, text=text))

    def incidents(self) -> list[tuple[str, str]]:
        """Codes and texts of errors, oldest first."""
        rows = self._connection.execute(select(_incidents.c.code, _incidents.c.text).order_by(_incidents.c.number))
        return [(row.code, row.text) for row in rows]

    def _put(self, table: Table, **values: object) -> None:
        keys = [column.name for column in table.primary_key]
        changed = {name: value for name, value in values.items() if name not in keys}
        statement = upsert(table).values(**values).on_conflict_do_update(index_elements=keys, set_=changed)
        self._connection.execute(statement)


def _insert_entry(connection: Connection, population: str, entry: Entry, key: SigningKey) -> None:
    signed = encode(sign_entry(entry, key))
    row = {"population": population, "counter": entry.counter, "run": entry.run, "kind": entry.kind, "entry": signed}
    connection.execute(insert(_entries).values(row))


def request_digest(raw: bytes) -> bytes:
    """The name under which an answered request is remembered."""
    return hashlib.sha256(raw).digest()


@lru_cache(maxsize=256)
def _engine(path: Path) -> Engine:
    """How to connect. Holds no connection (NullPool), only statements that were compiled before."""
    engine = create_engine(f"sqlite+pysqlite:///{path}", poolclass=NullPool)

    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        # SQLAlchemy, not the driver, begins transactions: only so can they be IMMEDIATE.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA busy_timeout=30000")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine
