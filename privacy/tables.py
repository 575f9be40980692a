"""The tables of a site's store, and how a process connects to them."""

import sqlite3
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    event,
)
from sqlalchemy.pool import NullPool

METADATA = MetaData()
META = Table("meta", METADATA, Column("key", String, primary_key=True), Column("value", LargeBinary))
TERMS = Table("terms", METADATA, Column("population", String, primary_key=True), Column("terms", LargeBinary))
ENTRIES = Table(
    "entries",
    METADATA,
    Column("population", String, primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("run", LargeBinary),
    Column("plan", LargeBinary),
    Column("session", LargeBinary),
    Column("kind", Integer, index=True),
    Column("entry", LargeBinary),
    Index("entries_of_a_plan", "population", "run", "plan", "counter"),
    Index("entries_of_a_session", "population", "session", "kind"),
)
RUNS = Table(
    "runs",
    METADATA,
    Column("run", LargeBinary, primary_key=True),
    Column("release_seq", Integer),
    Column("attempt", Integer),
    Column("closed", Boolean),
)
PINS = Table(
    "pins",
    METADATA,
    Column("run", LargeBinary, primary_key=True),
    Column("release", String, primary_key=True),
    Column("terms", LargeBinary),
)
SESSIONS = Table(
    "sessions",
    METADATA,
    Column("session", LargeBinary, primary_key=True),
    Column("run", LargeBinary),
    Column("state", LargeBinary),
)
REPLIES = Table(
    "replies",
    METADATA,
    Column("session", LargeBinary, primary_key=True),
    Column("stage", Integer, primary_key=True),
    Column("request", LargeBinary),
    Column("control", LargeBinary),
    Column("ring_bits", Integer),
    Column("vector", LargeBinary),
)
PEERS = Table("peers", METADATA, Column("site", Integer, primary_key=True), Column("counter", Integer))
INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("code", String),
    Column("text", String),
)


@lru_cache(maxsize=256)
def engine_for(path: Path) -> Engine:
    """How to connect. Holds no connection (NullPool), only statements that were compiled before."""
    return connect(path)


def connect(path: Path) -> Engine:
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
