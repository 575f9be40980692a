"""How a SQLite file of an earlier fedseal becomes one of today's.

A file says its format, a number, under the key ``format`` of its table ``meta``. A step is a function of an open
connection that turns one format into the next; all the steps that a file needs and the new number are one exclusive
transaction, so a file is of one format or of another and never between two. Before the first change the file is
copied to ``NAME.format-N`` beside it, for whoever has to go back to the fedseal that made it.
"""

import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DatabaseError

from fedseal.database import free_to_use
from fedseal.errors import ConfigError

Step = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file. ``steps[0]`` turns format 1 into format 2, and so on; ``what`` names the file in messages."""

    what: str
    steps: tuple[Step, ...] = ()

    @property
    def newest(self) -> int:
        """The format of files that are made today."""
        return len(self.steps) + 1

    def check(self, path: Path, found: bytes | None) -> bool:
        """Whether the file has today's format; False if it is of an earlier one, which `upgrade` changes.

        Args:
            path: the file.
            found: what stands under ``format`` in its table ``meta``; None if nothing does.

        Raises:
            ConfigError: it is of a later format, or of none.
        """
        number = int(found) if found is not None and found.isdigit() and len(found) <= len("999") else 0
        if not 1 <= number <= self.newest:
            raise ConfigError(
                f"{path} has another format than {self.newest}", next_step="Use the fedseal that made it."
            )
        return number == self.newest


def upgrade(path: Path, engine: Engine, kind: Format) -> Path | None:
    """Bring a file to today's format.

    Args:
        path: the file.
        engine: how to write in it, as `fedseal.database.connect` makes it.
        kind: what it is.

    Returns:
        Where the file is as it was before; None if there was nothing to do, as after another program has done it.

    Raises:
        ConfigError: the file is of a later format or of none, is in use or damaged, or there is no room for a copy. It
            is as it was.
    """
    try:
        with free_to_use(path), engine.begin() as connection:
            return _upgrade(path, connection, kind)
    except DatabaseError as error:
        raise ConfigError(
            f"this {kind.what} cannot be brought to format {kind.newest}: {path}: {error.orig}",
            next_step="Nothing has changed. Make room if the disk is full; otherwise the file is damaged: restore it.",
        ) from None


def _upgrade(path: Path, connection: Connection, kind: Format) -> Path | None:
    found = _format(connection)
    if kind.check(path, found):
        return None
    number = int(found or b"")
    kept = keep_copy(path, path.with_name(f"{path.name}.format-{number}"))
    for step in kind.steps[number - 1 :]:
        step(connection)
    newest = str(kind.newest).encode("ascii")
    connection.exec_driver_sql("UPDATE meta SET value = ? WHERE key = 'format'", (newest,))
    return kept


def keep_copy(path: Path, target: Path) -> Path:
    """Copy a database as it stands on disk at the end of its last transaction, readable by its owner only.

    An earlier copy of that name is replaced, at once and whole: it is of an attempt that came to nothing, or of a file
    that was put back since.

    Returns:
        ``target``.

    Raises:
        ConfigError: it cannot be written.
    """
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        partial.touch(mode=0o600, exist_ok=False)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(partial)) as copy:
            source.backup(copy)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(target)
    except (OSError, sqlite3.OperationalError) as error:
        raise ConfigError(
            f"{path} is of an earlier format, and no copy of it could be kept at {target}: {error}",
            next_step="Make room there, or give this account the right to write there. Nothing has changed.",
        ) from None
    finally:
        for leftover in (partial, Path(f"{partial}-wal"), Path(f"{partial}-shm"), Path(f"{partial}-journal")):
            leftover.unlink(missing_ok=True)
    return target


def _format(connection: Connection) -> bytes | None:
    raw = connection.exec_driver_sql("SELECT value FROM meta WHERE key = 'format'").scalar()
    return raw if isinstance(raw, bytes) else None
