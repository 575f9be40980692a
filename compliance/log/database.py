"""Databases for logs: an SQLite file, or PostgreSQL by URL. A transaction is on disk when it ends, and exclusive."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, func, make_url, select
from sqlalchemy.exc import ArgumentError, DatabaseError

from fedseal.compliance.log.store import Log
from fedseal.database import connect
from fedseal.errors import ConfigError

_FORMS = "Give the path of an SQLite file, or a URL such as postgresql+psycopg://user@host/database."

# The environment variable that names where a real federation's server keeps the log besides its store, if anywhere.
# Not in a run's configuration: sites get to see that, and a URL may have a password.
LOG_VARIABLE = "FEDSEAL_LOG"

# Any number that nobody else locks in this database.
_MAKING_TABLES = int.from_bytes(b"fedseal", "big")

# Where the store of a server stands below a run's folder, a federation's, or its own, in the order of the search.
_STORES = ("federation/server/server.sqlite", "server/server.sqlite", "server.sqlite")


def store_at(path: Path) -> Path | None:
    """The store that is meant: the file itself, or the server's in a folder; None if there is none."""
    if path.is_file():
        return path
    return next((path / name for name in _STORES if (path / name).is_file()), None)


def open_database(url: str | Path, *, reading: bool = False) -> Engine:
    """An engine for a file or URL, with the tables of logs made. Keeps its connections: dispose of it at the end.

    With ``reading`` nothing is made, and nothing can be written.

    Raises:
        ConfigError: the URL is none that is known, the database cannot be reached, or it does not wait for its disk.
    """
    engine = _engine(url, reading=reading)
    try:
        with engine.begin() as connection:
            if not reading:
                if engine.dialect.name == "postgresql":
                    # Two programs that start at once would both find the tables missing.
                    connection.execute(select(func.pg_advisory_xact_lock(_MAKING_TABLES)))
                Log.create_tables(connection)
            _ = Log(connection, "fedseal/none").size
    except DatabaseError as error:
        engine.dispose()
        # What the driver says may quote the URL, and with it a password; its code does not.
        code = getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or "no code"
        raise ConfigError(f"the log's database cannot be opened, or holds no log ({code})", next_step=_FORMS) from None
    except ConfigError:
        engine.dispose()
        raise
    return engine


@contextmanager
def transaction(engine: Engine, origin: str) -> Iterator[Log]:
    """A log whose head is locked: all or nothing, exclusive, on disk at the end of the block."""
    with engine.begin() as connection:
        log = Log(connection, origin)
        log.lock()
        yield log


def _engine(url: str | Path, *, reading: bool) -> Engine:
    if isinstance(url, Path) or "://" not in url:
        return _file(Path(url), reading=reading)
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError("the URL of the log's database cannot be read", next_step=_FORMS) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return _file(Path(parsed.database), reading=reading)
    if parsed.get_backend_name() != "postgresql":
        raise ConfigError("logs are kept in SQLite or PostgreSQL", next_step=_FORMS)
    try:
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            execution_options={"postgresql_readonly": reading},
        )
    except ImportError:
        raise ConfigError(
            "PostgreSQL needs the driver psycopg", next_step="Install it: pip install 'fedseal[postgres]'."
        ) from None
    event.listen(engine, "connect", _insist_on_disk)
    return engine


def _file(path: Path, *, reading: bool) -> Engine:
    if reading and not path.is_file():
        raise ConfigError(f"no log at {path}", next_step=_FORMS)
    return connect(path, reading=reading, keep=True)


def _insist_on_disk(connection: Any, _: Any) -> None:
    """A commit that PostgreSQL has not written may be lost, with a checkpoint that was published: a fork of our own."""
    cursor = connection.cursor()
    try:
        cursor.execute("SELECT current_setting('fsync'), current_setting('synchronous_commit')")
        fsync, commit = cursor.fetchone()
        if fsync != "on":
            raise ConfigError(
                "this PostgreSQL server does not wait for its disk", next_step="Set fsync = on in postgresql.conf."
            )
        if commit in ("off", "local"):
            cursor.execute("SET SESSION synchronous_commit = on")
        connection.commit()
    finally:
        cursor.close()
