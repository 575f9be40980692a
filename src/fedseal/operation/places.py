"""What any program that keeps a store has to watch: room on its disk, and what expires when."""

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from fedseal.operation.listener import Check

# Bytes that have to be free: below, SQLite and a round's model soon have no room.
LEAST_FREE = 256 << 20
# Seconds that a look at whether a store can be written waits for another program's transaction.
BUSY = 2.0


@dataclass(frozen=True, slots=True)
class Expiry:
    """Something that is worth nothing after a time, in seconds since 1970: ``what`` is one of a few fixed words."""

    what: str
    at: float


def certificate_expiry(what: str, path: Path) -> Expiry | None:
    """When the first certificate of a PEM file that expires does so; None where there is none that can be read."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return None
    return Expiry(what, min(c.not_valid_after_utc.timestamp() for c in found)) if found else None


def store_bytes(path: Path) -> int:
    """What an SQLite file takes on its disk, with its write-ahead log."""
    return sum(p.stat().st_size for p in (path, path.with_name(f"{path.name}-wal")) if p.is_file())


def free_bytes(path: Path) -> int:
    """What is free on a file's or folder's disk."""
    return shutil.disk_usage(path if path.is_dir() else path.parent).free


def store_check(path: Path) -> Check:
    """Whether a store can be written: a transaction is begun and given up, and there is room."""
    name = "store"
    if not os.access(path, os.W_OK):
        return Check(name, "its file is missing or may not be written")
    try:
        with closing(sqlite3.connect(path, timeout=BUSY, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        return Check(name, f"cannot be written: {getattr(error, 'sqlite_errorname', 'SQLITE_ERROR')}")
    except sqlite3.DatabaseError:
        return Check(name, "is damaged")
    free = free_bytes(path)
    return Check(name, f"only {free >> 20} MiB are free on its disk" if free < LEAST_FREE else "")
