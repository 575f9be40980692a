"""Opening a log to read it, and the tables of its lineage beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import StaticPool

from fedseal.compliance.lineage.projection import Projection
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.log.database import open_database, store_at
from fedseal.compliance.log.exported import CHECKPOINT, FOLDER, ExportedLog
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import HEADS
from fedseal.errors import ConfigError

_SERVERS = "/server"
_LOGS = "Give a server's or a site's store, a PostgreSQL URL, an exported log's folder, or a run's folder."


@contextmanager
def opened(
    where: str, tables: str | None = None, *, rebuild: bool = False
) -> Iterator[tuple[ReadableLog, Questions, str]]:
    """A federation's log, the questions to ask of its lineage, and the digest of the tables where they were rebuilt.

    The tables are brought up to the log first. They are kept beside the log's file or folder (``.lineage`` is appended
    to its name), in the log's own database on PostgreSQL, or in memory where nothing can be written there.

    Args:
        where: the log.
        tables: where the tables are kept instead: a path or a URL.
        rebuild: whether to drop them first.

    Raises:
        ConfigError: there is no log, or the tables cannot be opened.
        PeerError: an entry of the log cannot be read.
    """
    with source_at(where) as (source, beside):
        engine = _tables(tables, beside)
        try:
            with engine.begin() as connection:
                projection = Projection(connection)
                if rebuild:
                    projection.rebuild(source)
                else:
                    projection.update(source)
                yield source, Questions(connection), projection.digest() if rebuild else ""
        except DatabaseError:
            raise ConfigError(
                "the log, or the tables of its lineage, cannot be read or written",
                next_step="If it is the tables, name another place for them: --tables FILE.",
            ) from None
        finally:
            engine.dispose()


@contextmanager
def source_at(where: str) -> Iterator[tuple[ReadableLog, str]]:
    """The log, and where its lineage is kept unless somebody says otherwise; ConfigError if there is none."""
    if "://" in where:
        with _database(where) as log:
            yield log, where
        return
    path = Path(where)
    if path.is_dir():
        found = store_at(path)
        exported = (path, path / FOLDER) if found is None else (path,)
        for folder in exported:
            if (folder / CHECKPOINT).is_file():
                yield ExportedLog(folder), f"{folder.resolve()}.lineage"
                return
        if found is None:
            raise ConfigError(f"no log in the folder {path}", next_step=_LOGS)
        path = found
    if not path.is_file():
        raise ConfigError(f"no log at {path}", next_step=_LOGS)
    with _database(path) as log:
        yield log, f"{path.resolve()}.lineage"


@contextmanager
def _database(where: str | Path) -> Iterator[Log]:
    """The federation's log in a database: a server's own, or a site's mirror."""
    try:
        engine = open_database(where, reading=True)
        with engine.connect() as connection:
            origins = connection.execute(select(HEADS.c.origin).order_by(HEADS.c.origin)).scalars().all()
    except DatabaseError:
        raise ConfigError("that database holds no log", next_step=_LOGS) from None
    try:
        servers = [origin for origin in origins if origin.endswith(_SERVERS)]
        if len(servers) != 1:
            said = "no federation's log in that database" if not servers else "logs of several federations there"
            raise ConfigError(said, next_step=_LOGS)
        with engine.connect() as connection:
            yield Log(connection, servers[0])
    finally:
        engine.dispose()


def _tables(chosen: str | None, beside: str) -> Engine:
    if chosen is None and "://" not in beside:
        try:
            Path(beside).touch(mode=0o600)
        except OSError:
            # A read-only copy of a log can be asked all the same.
            return create_engine("sqlite://", poolclass=StaticPool)
    place = chosen or beside
    try:
        return open_database(place if "://" in place else Path(place))
    except DatabaseError:
        raise ConfigError(
            "the tables of the lineage cannot be opened", next_step="Name another place: --tables FILE."
        ) from None
