"""The server's memory: one SQLite file with its key, the roster, and for every run where it stands and its last
checkpoint.

A checkpoint is one transaction: the model, the strategy's memory and the round's number are on disk together or not
at all. The survivor set of a round is on disk before anyone is asked to unmask it. A run that stopped goes on after
its last checkpoint; a round that was under way is repeated as a new attempt with fresh noise, never finished by
halves.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    insert,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DatabaseError

from fedseal.database import connect, engine_for
from fedseal.errors import ConfigError, LocalError
from fedseal.migration import Format, upgrade
from fedseal.privacy.membership.documents import Bundle, Epoch, FormerKey, moves
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret
from fedseal.privacy.store import BUNDLE, adopted
from fedseal.storage import unusable
from fedseal.wire import decode, encode

SERVER_STORE = Format("server's store")
FORMAT = SERVER_STORE.newest

_metadata = MetaData()
_meta = Table("meta", _metadata, Column("key", String, primary_key=True), Column("value", LargeBinary))
_runs = Table(
    "runs",
    _metadata,
    Column("run", LargeBinary, primary_key=True),
    Column("status", String),
    Column("next_seq", Integer),
)
_attempts = Table(
    "attempts",
    _metadata,
    Column("run", LargeBinary, primary_key=True),
    Column("seq", Integer, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("release", String),
    Column("fl_round", Integer),
    Column("status", String),
    Column("survivors", String),
)
_checkpoints = Table(
    "checkpoints",
    _metadata,
    Column("run", LargeBinary, primary_key=True),
    Column("fl_round", Integer),
    Column("model", LargeBinary),
    Column("strategy", String),
    Column("memory", LargeBinary),
    Column("settings", String),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is needed to go on after ``fl_round``. ``memory`` is None where the strategy cannot be resumed."""

    fl_round: int
    model: dict[str, NDArray[Any]]
    strategy: str
    memory: dict[str, NDArray[Any]] | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ServerIdentity:
    """The server's key, the roster that names it, and what it has adopted of its federation."""

    key: SigningKey
    roster: Roster
    epoch: Epoch | None = None

    @property
    def former(self) -> tuple[FormerKey, ...]:
        """The keys that counted in the federation once; their signatures in its log still do."""
        return () if self.epoch is None else self.epoch.membership.former


class ServerStore:
    """An open server store. One process writes to it at a time."""

    def __init__(self, engine: Engine, identity: ServerIdentity) -> None:
        self._engine = engine
        self.identity = identity

    @property
    def engine(self) -> Engine:
        """Its database, for tables of other parts of the server."""
        return self._engine

    @classmethod
    def create(
        cls, path: Path, *, key: SigningKey, roster: SignedRoster, pinned: bytes, bundle: Bundle | None = None
    ) -> "ServerStore":
        """Make a store for a new server; ConfigError if the file exists or the roster names another server."""
        if open_roster(roster, pinned=pinned).server_key != key.public:
            raise ConfigError("the roster names another server key")
        try:
            path.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            raise ConfigError(f"{path} exists already") from None
        engine = engine_for(path.absolute())
        with engine.begin() as connection:
            _metadata.create_all(connection)
            rows = [
                {"key": "format", "value": str(FORMAT).encode()},
                {"key": "key", "value": key.seed.reveal()},
                {"key": "roster", "value": encode(roster)},
                {"key": "pinned", "value": pinned},
            ]
            if bundle is not None:
                rows.append({"key": BUNDLE, "value": encode(bundle)})
            connection.execute(insert(_meta), rows)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> "ServerStore":
        """Open a store; one of an earlier format is brought to today's, after a copy of it is kept beside it.

        Raises:
            ConfigError: there is none at ``path``, or it has a later format.
            StorageError: the disk does not let it be opened.
        """
        if not path.is_file():
            raise ConfigError(f"no server store at {path}")
        engine = engine_for(path.absolute())
        try:
            with engine.begin() as connection:
                meta = {row.key: row.value for row in connection.execute(select(_meta))}
        except DatabaseError as error:
            raise unusable(path, error) or ConfigError(f"{path} is not a server store") from None
        if not SERVER_STORE.check(path, meta.get("format")):
            upgrade(path, engine, SERVER_STORE)
        roster = open_roster(decode(meta["roster"], SignedRoster), pinned=meta["pinned"])
        epoch = adopted(meta.get(BUNDLE), roster, path)
        return cls(engine, ServerIdentity(SigningKey(Secret(meta["key"])), roster, epoch))

    def adopt(self, epoch: Epoch, key: SigningKey | None = None) -> bool:
        """Move to a later epoch of the federation; whoever holds the store sees it once it is opened again.

        Args:
            epoch: the one to move to.
            key: the server's signing key from then on, where it is another one; None if it stays.

        Returns:
            Whether anything has changed; the epoch that the store is at changes nothing.

        Raises:
            ConfigError: it is older, of another federation or root, or names another server.
        """
        identity, own = self.identity, key or self.identity.key
        if identity.epoch is None and identity.roster.root_key != epoch.roster.root_key:
            raise ConfigError("the bundle is signed by another root key than this server's roster")
        if identity.epoch is not None and not moves(identity.epoch, epoch):
            return False
        if epoch.roster.server_key != own.public:
            raise ConfigError(
                f"epoch {epoch.number} names another server key than this store's",
                next_step="Adopt it where its request was made.",
            )
        changed = {"roster": encode(epoch.signed), "pinned": epoch.roster.digest(), BUNDLE: encode(epoch.bundle)}
        if key is not None:
            changed["key"] = key.seed.reveal()
        with self._engine.begin() as connection:
            for name, value in changed.items():
                put = upsert(_meta).values(key=name, value=value)
                connection.execute(put.on_conflict_do_update(index_elements=["key"], set_={"value": value}))
        return True

    def open_run(self, run: bytes) -> None:
        """Write down that a run exists; nothing if it does already and is not closed. ConfigError if it is closed."""
        with self._engine.begin() as connection:
            status = connection.execute(select(_runs.c.status).where(_runs.c.run == run)).scalar()
            if status == "closed":
                raise ConfigError("this run is closed", next_step="Start a new run; a closed one never reopens.")
            if status is None:
                connection.execute(insert(_runs).values(run=run, status="open", next_seq=1))

    def close_run(self, run: bytes) -> None:
        """Write down that a run is over."""
        with self._engine.begin() as connection:
            connection.execute(update(_runs).where(_runs.c.run == run).values(status="closed"))

    def next_sequence(self, run: bytes) -> int:
        """Take the next release number of a run: on disk before it is used, so that it is never used twice."""
        with self._engine.begin() as connection:
            number = connection.execute(select(_runs.c.next_seq).where(_runs.c.run == run)).scalar()
            if number is None:
                raise LocalError("a release of a run that was not opened")
            connection.execute(update(_runs).where(_runs.c.run == run).values(next_seq=number + 1))
        return int(number)

    def record_attempt(
        self,
        run: bytes,
        seq: int,
        attempt: int,
        *,
        release: str,
        fl_round: int,
        status: str,
        survivors: Sequence[int] = (),
    ) -> None:
        """Write down where an attempt at a release stands."""
        changed = {
            "release": release,
            "fl_round": fl_round,
            "status": status,
            "survivors": json.dumps(list(survivors)),
        }
        statement = upsert(_attempts).values(run=run, seq=seq, attempt=attempt, **changed)
        keys = ["run", "seq", "attempt"]
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=changed))

    def attempts(self, run: bytes) -> list[tuple[int, int, str, list[int]]]:
        """Sequence, attempt, status and survivors of all attempts of a run, in order."""
        query = select(_attempts).where(_attempts.c.run == run).order_by(_attempts.c.seq, _attempts.c.attempt)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [(row.seq, row.attempt, row.status, json.loads(row.survivors)) for row in rows]

    def save(self, run: bytes, checkpoint: Checkpoint) -> None:
        """Replace a run's checkpoint."""
        memory = None if checkpoint.memory is None else safetensors.numpy.save(dict(checkpoint.memory))
        changed = {
            "fl_round": checkpoint.fl_round,
            "model": safetensors.numpy.save(dict(checkpoint.model)),
            "strategy": checkpoint.strategy,
            "memory": memory,
            "settings": json.dumps(checkpoint.settings),
        }
        statement = upsert(_checkpoints).values(run=run, **changed)
        with self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["run"], set_=changed))

    def load(self, run: bytes) -> Checkpoint | None:
        """A run's checkpoint, or None."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_checkpoints).where(_checkpoints.c.run == run)).one_or_none()
        if row is None:
            return None
        try:
            model = safetensors.numpy.load(row.model)
            memory = None if row.memory is None else safetensors.numpy.load(row.memory)
        except SafetensorError:
            raise ConfigError(
                "the checkpoint is damaged", next_step="Restore the server's store from a backup."
            ) from None
        return Checkpoint(row.fl_round, model, row.strategy, memory, json.loads(row.settings))


def roster_at(path: Path) -> Roster:
    """The roster of a server's store; see `known_at`."""
    return known_at(path)[0]


def known_at(path: Path) -> tuple[Roster, Epoch | None]:
    """The roster and epoch of a server's store, for whoever only looks.

    Nothing is written, and the server's key is not read.

    Raises:
        ConfigError: there is no server's store of this format at ``path``.
    """
    if not path.is_file():
        raise ConfigError(f"no server store at {path}")
    engine = connect(path, reading=True)
    try:
        with engine.begin() as connection:
            query = select(_meta).where(_meta.c.key.in_(("format", "roster", "pinned", BUNDLE)))
            meta = {row.key: row.value for row in connection.execute(query)}
    except DatabaseError:
        raise ConfigError(f"{path} is not a server store") from None
    if meta.get("format") != str(FORMAT).encode():
        raise ConfigError(f"{path} has another format than {FORMAT}", next_step="Use the fedseal that made it.")
    roster = open_roster(decode(meta["roster"], SignedRoster), pinned=meta["pinned"])
    return roster, adopted(meta.get(BUNDLE), roster, path)


def read_model(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a safetensors file; ConfigError if it is none."""
    try:
        return dict(safetensors.numpy.load_file(path))
    except (SafetensorError, OSError):
        raise ConfigError(f"{path} is no safetensors file that can be read") from None
