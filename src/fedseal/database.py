"""How sites and servers connect to their SQLite files: on disk at the end of each transaction, exclusive across
processes.
"""

import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool


@lru_cache(maxsize=256)
def engine_for(path: Path) -> Engine:
    """How to connect. Holds no connection (NullPool), only statements that were compiled before."""
    return connect(path)


def connect(path: Path) -> Engine:
    """An engine of its own for the file at ``path``, which is made if it is missing."""
    # SQLAlchemy quotes the parameters of a failed statement in its exception: here they are secrets.
    engine = create_engine(f"sqlite+pysqlite:///{path}", poolclass=NullPool, hide_parameters=True)

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
