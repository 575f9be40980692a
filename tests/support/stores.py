"""Sites' stores as tests look at them, put them back, and how far a round has come."""

import sqlite3
from pathlib import Path

from support.flower import Federation, Nodes

from fedseal.privacy.secagg import server


def known(federation: Federation, site: int) -> dict[int, int]:
    """What a site remembers of the others and of itself."""
    with federation.site(site).transaction() as transaction:
        return transaction.known_counters()


def advance(running: Nodes, step: server.Step, times: int) -> server.Step:
    """The next exchanges of a round."""
    for _ in range(times):
        step = server.close(running.exchange(step, {}))
    return step


def backup_of(path: Path) -> bytes:
    """A store as it stands, in one file."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return path.read_bytes()


def put_back(path: Path, backup: bytes) -> None:
    """A store as it stood."""
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    path.write_bytes(backup)
