"""What a disk says when it cannot go on: full, over quota, failing. A run waits for that to pass; it does not fail."""

import errno
import os
import sqlite3
from pathlib import Path

from sqlalchemy.exc import OperationalError

from fedseal.errors import ConfigError

_SYSTEM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk fails",
    errno.EROFS: "the file system is read-only",
}
_DATABASE = {
    sqlite3.SQLITE_FULL: "the disk is full",
    # What SQLite makes of a full disk where it has to make a file.
    sqlite3.SQLITE_CANTOPEN: "the disk is full, or the store's folder cannot be written",
    sqlite3.SQLITE_IOERR: "the disk is full, or fails",
    sqlite3.SQLITE_READONLY: "the store cannot be written",
    sqlite3.SQLITE_BUSY: "another program holds the store",
}


def storage_fault(error: BaseException) -> str | None:
    """What is the matter with the disk, for people; None if the error is of another kind."""
    if isinstance(error, StorageError):
        return "the store cannot be opened for lack of room"
    if isinstance(error, OperationalError):
        # The low byte is the primary code: https://sqlite.org/rescode.html#primary_result_codes_versus_extended
        return _DATABASE.get(getattr(error.orig, "sqlite_errorcode", 0) & 0xFF)
    return _SYSTEM.get(error.errno or 0) if isinstance(error, OSError) else None


class StorageError(ConfigError):
    """The disk does not let a store be used now. The store itself is as it was."""


def unusable(path: Path, error: BaseException) -> StorageError | None:
    """The error to raise where a store cannot even be opened because of the disk; None if that is not why.

    Args:
        path: the store's.
        error: what opening it raised.
    """
    fault = storage_fault(error)
    if fault is None:
        return None
    return StorageError(f"{path} cannot be used now: {fault}", next_step="Make room; nothing in the store has changed.")


def on_disk(path: Path) -> None:
    """Wait until a file or a folder's list of names is on disk: a rename is there when its folder is."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
