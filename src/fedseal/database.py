"""How sites and servers connect to their SQLite files: on disk at the end of each transaction, exclusive across
processes.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool, QueuePool

from fedseal.errors import ConfigError

# Milliseconds that one program waits for another one's transaction. All of ours are short: nothing is computed in one.
PATIENCE = 30_000


@lru_cache(maxsize=256)
def engine_for(path: Path) -> Engine:
    """How to connect. Holds no connection (NullPool), only statements that were compiled before."""
    return connect(path)


def connect(path: Path, *, reading: bool = False, keep: bool = False) -> Engine:
    """An engine of its own for the file at ``path``, which is made if it is missing.

    With ``reading`` a transaction sees the file as it stood when it began, can write nothing, and is in nobody's way.
    With ``keep`` its connections stay open between transactions, until it is disposed of.
    """
    # SQLAlchemy quotes the parameters of a failed statement in its exception: here they are secrets.
    pool = QueuePool if keep else NullPool
    engine = create_engine(f"sqlite+pysqlite:///{path}", poolclass=pool, hide_parameters=True)

    def prepare(connection: sqlite3.Connection, _: Any) -> None:
        # SQLAlchemy, not the driver, begins transactions: only so can they be IMMEDIATE.
        connection.isolation_level = None
        if reading:
            # Another mode than WAL would have to be written. Closing may still copy the log into the file, for others.
            connection.execute("PRAGMA query_only=ON")
            connection.execute(f"PRAGMA busy_timeout={PATIENCE}")
            return
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute(f"PRAGMA busy_timeout={PATIENCE}")

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", begin)
    return engine


@contextmanager
def free_to_use(path: Path) -> Iterator[None]:
    """ConfigError if the block cannot use the file at ``path`` because another program does not let go of it."""
    try:
        yield
    except OperationalError as error:
        # The low byte is the primary code: https://sqlite.org/rescode.html#primary_result_codes_versus_extended
        if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        raise ConfigError(
            f"another program is using {path} and has not let go of it for {PATIENCE / 1000:g} seconds",
            next_step="Look for a hanging process, a backup or an open database browser; end it, and try again.",
        ) from None
