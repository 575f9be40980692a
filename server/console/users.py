"""The console's own file: who may sign in, and who did what.

Beside the server's store, readable by its owner only. A user's secret is drawn by us, printed once and kept as a scrypt
hash (RFC 7914), so that a copy of the file lets nobody in.
"""

import hashlib
import json
import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import (
    Column,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError

from fedseal.database import engine_for
from fedseal.errors import ConfigError
from fedseal.privacy.secret import Secret
from fedseal.server.console.permissions import TIME_BOXED, Role

FORMAT = 1
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
# 32 MB and about 0.1 s a try. The secret has 160 bits, so this only has to hold if one is ever chosen otherwise.
COST, BLOCK, LANES = 1 << 15, 8, 1
SECRET_BYTES = 20
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LONGEST_SECRET = 100
KEPT_EVENTS = 100_000

_metadata = MetaData()
_meta = Table("meta", _metadata, Column("key", String, primary_key=True), Column("value", String))
_users = Table(
    "users",
    _metadata,
    Column("name", String, primary_key=True),
    Column("roles", String, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("cost", Integer, nullable=False),
    # Another number with every secret: whoever signed in with an earlier one is signed out.
    Column("credential", String, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float),
)
_events = Table(
    "access",
    _metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("time", Float, nullable=False),
    Column("user", String, nullable=False),
    Column("what", String, nullable=False),
    Column("where", String, nullable=False),
    Column("outcome", String, nullable=False),
    sqlite_autoincrement=True,
)


@dataclass(frozen=True, slots=True)
class User:
    """Who may sign in. Times are seconds since 1970; ``expires`` is None where the account has no end."""

    name: str
    roles: frozenset[Role]
    credential: str
    created: float
    expires: float | None

    def valid(self, now: float) -> bool:
        """Whether the account has not ended."""
        return self.expires is None or now < self.expires


@dataclass(frozen=True, slots=True)
class Access:
    """One entry of the access log. ``user`` is empty where nobody known was there."""

    id: int
    time: float
    user: str
    what: str
    where: str
    outcome: str


class UserFile:
    """The open file.

    Args:
        engine: its database.
        clock: seconds since 1970.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._clock = clock

    @classmethod
    def open(cls, path: Path, *, create: bool = False, clock: Callable[[], float] = time.time) -> "UserFile":
        """Open the file.

        Raises:
            ConfigError: there is none and it is not to be made, others may read it, or it is something else.
        """
        if create and not path.exists():
            if not path.parent.is_dir():
                raise ConfigError(f"{path.parent} does not exist")
            path.touch(mode=0o600, exist_ok=False)
        if not path.is_file():
            raise ConfigError(
                f"no users at {path}", next_step="fedseal console user add NAME --role ROLE --config FILE"
            )
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"others may read {path}", next_step=f"chmod 600 {path}")
        engine = engine_for(path)
        try:
            with engine.begin() as connection:
                if create:
                    _metadata.create_all(connection)
                    if connection.execute(select(_meta)).first() is None:
                        connection.execute(insert(_meta).values(key="format", value=str(FORMAT)))
                found = connection.execute(select(_meta.c.value).where(_meta.c.key == "format")).scalar()
        except DatabaseError:
            raise ConfigError(f"{path} is no file of a console's users") from None
        if found != str(FORMAT):
            raise ConfigError(f"{path} has another format than {FORMAT}", next_step="Use the fedseal that made it.")
        return cls(engine, clock)

    def add(self, name: str, roles: Sequence[Role], expires: float | None = None) -> str:
        """Add a user; the secret, which is kept nowhere.

        Raises:
            ConfigError: the name is taken or none, there is no role, or a role that asks for an end has none.
        """
        if NAME.fullmatch(name) is None:
            raise ConfigError(
                f"{name!r} is no name for a user", next_step="Small letters, digits, dots and dashes; 64 at most."
            )
        if not roles:
            raise ConfigError("a user needs a role", next_step=f"One of: {', '.join(Role)}.")
        boxed = sorted(set(roles) & TIME_BOXED)
        if boxed and expires is None:
            raise ConfigError(f"the role {boxed[0]} needs a last day", next_step="--until 2027-03-31")
        if expires is not None and expires <= self._clock():
            raise ConfigError("that account would have ended already")
        secret, stored = _new_secret()
        row = {"name": name, "roles": json.dumps(sorted(set(roles))), "created": self._clock(), "expires": expires}
        with self._engine.begin() as connection:
            if connection.execute(select(_users.c.name).where(_users.c.name == name)).first() is not None:
                raise ConfigError(f"there is a user {name} already", next_step="fedseal console user reset NAME")
            connection.execute(insert(_users).values(**row, **stored))
        self.record(name, "user added", ", ".join(sorted(set(roles))), "done")
        return secret

    def reset(self, name: str) -> str:
        """Give a user another secret, and end their sessions; the secret. ConfigError if there is no such user."""
        secret, stored = _new_secret()
        with self._engine.begin() as connection:
            changed = connection.execute(update(_users).where(_users.c.name == name).values(**stored))
        if not changed.rowcount:
            raise ConfigError(f"there is no user {name!r}")
        self.record(name, "secret reset", "", "done")
        return secret

    def remove(self, name: str) -> None:
        """Take a user away, and end their sessions; ConfigError if there is no such user."""
        with self._engine.begin() as connection:
            changed = connection.execute(delete(_users).where(_users.c.name == name))
        if not changed.rowcount:
            raise ConfigError(f"there is no user {name!r}")
        self.record(name, "user removed", "", "done")

    def all(self) -> list[User]:
        """All users, by name."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(_users).order_by(_users.c.name)).all()
        return [_user(row.name, row.roles, row.credential, row.created, row.expires) for row in rows]

    def find(self, name: str) -> User | None:
        """A user as the file has them now."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_users).where(_users.c.name == name)).one_or_none()
        return None if row is None else _user(row.name, row.roles, row.credential, row.created, row.expires)

    def check(self, name: str, secret: Secret) -> User | None:
        """The user with this name and secret; None, after the same work, if there is none or the account has ended."""
        with self._engine.begin() as connection:
            row = connection.execute(select(_users).where(_users.c.name == name)).one_or_none()
        # A user who does not exist costs as much as one whose secret is wrong.
        salt, cost, stored = (bytes(16), COST, bytes(32)) if row is None else (row.salt, row.cost, row.hash)
        holds = _hash(secret, salt, cost) == Secret(stored)
        if row is None or not holds:
            return None
        user = _user(row.name, row.roles, row.credential, row.created, row.expires)
        return user if user.valid(self._clock()) else None

    # The access log

    def record(self, user: str, what: str, where: str, outcome: str) -> None:
        """Add an entry to the access log; the oldest ones go once there are `KEPT_EVENTS`."""
        values = {"user": user, "what": what, "where": where[:300], "outcome": outcome}
        with self._engine.begin() as connection:
            made = connection.execute(insert(_events).values(time=self._clock(), **values)).inserted_primary_key
            if made is not None and made[0] % 1000 == 0:
                connection.execute(delete(_events).where(_events.c.id <= made[0] - KEPT_EVENTS))

    def accesses(self, before: int | None = None, count: int = 100) -> list[Access]:
        """Entries of the access log, the newest first; those older than the entry ``before`` if it is given."""
        query = select(_events).order_by(_events.c.id.desc()).limit(count)
        if before is not None:
            query = query.where(_events.c.id < before)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [Access(row.id, row.time, row.user, row.what, row.where, row.outcome) for row in rows]


def _user(name: str, roles: str, credential: str, created: float, expires: float | None) -> User:
    known = {role.value: role for role in Role}
    return User(name, frozenset(known[r] for r in json.loads(roles) if r in known), credential, created, expires)


def _new_secret() -> tuple[str, dict[str, object]]:
    """A secret as people read and type it, and what is kept of it."""
    number = int.from_bytes(secrets.token_bytes(SECRET_BYTES))
    digits = "".join(ALPHABET[number >> shift & 31] for shift in range(0, SECRET_BYTES * 8, 5))
    secret = "-".join(digits[start : start + 4] for start in range(0, len(digits), 4))
    salt = secrets.token_bytes(16)
    hashed = _hash(typed(secret), salt, COST).reveal()
    return secret, {"salt": salt, "hash": hashed, "cost": COST, "credential": secrets.token_hex(16)}


def typed(text: str) -> Secret:
    """A secret as somebody has typed it: case, spaces and dashes do not matter."""
    return Secret("".join(text.lower().replace("-", " ").split()).encode("utf-8", "replace")[:LONGEST_SECRET])


def _hash(secret: Secret, salt: bytes, cost: int) -> Secret:
    # RFC 7914, section 2: it takes 128 bytes times cost and block; OpenSSL asks for room beside that.
    memory = 256 * cost * BLOCK
    return Secret(hashlib.scrypt(secret.reveal(), salt=salt, n=cost, r=BLOCK, p=LANES, maxmem=memory, dklen=32))
