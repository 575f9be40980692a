"""What a party keeps beside its logs: a site's events on their way, where authors stand, what proves a forked log."""

from sqlalchemy import Column, Connection, Index, Integer, LargeBinary, MetaData, String, Table, select

from fedseal.compliance.events.leaf import Place
from fedseal.compliance.log.store import Log

METADATA = MetaData()
# A site's events for the federation's log. ``logged`` is the index at which the site has seen it there.
OUTBOX = Table(
    "log_outbox",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary),
    Column("leaf_hash", LargeBinary, index=True),
    Column("type", String),
    Column("run", String),
    Column("logged", Integer, index=True),
    Index("log_outbox_of_a_run", "run", "type"),
)
# Two signed checkpoints that cannot both be true, or one that is behind: what a site shows when it stops.
EVIDENCE = Table(
    "log_evidence",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("kind", String),
    Column("known", String),
    Column("offered", LargeBinary),
    Column("time", String),
    Column("settled", String),
)
# Where each author's chain stands in a log that this party writes.
AUTHORS = Table(
    "log_authors",
    METADATA,
    Column("origin", String, primary_key=True),
    Column("keyid", String, primary_key=True),
    Column("seq", Integer),
    Column("prev", String),
)
# Which entry of a written log is of which type and run.
TYPES = Table(
    "log_types",
    METADATA,
    Column("origin", String, primary_key=True),
    Column("idx", Integer, primary_key=True, autoincrement=False),
    Column("type", String),
    Column("run", String),
    Index("log_types_of_a_run", "origin", "type", "run"),
)
# What each witness of the federation's log has cosigned at most, as far as its server knows.
WITNESSES = Table(
    "log_witnesses",
    METADATA,
    Column("site", Integer, primary_key=True, autoincrement=False),
    Column("size", Integer),
)


# How much of what a site has put on record elsewhere has become events.
PUBLISHED = Table(
    "log_published", METADATA, Column("what", String, primary_key=True), Column("number", Integer, nullable=False)
)


def create_tables(connection: Connection) -> None:
    """Make these tables and those of logs where they are missing: a store of an earlier version has none."""
    # Asked at every message: by name, not by SQLAlchemy's inspection of each table.
    if connection.dialect.name == "sqlite":
        known = connection.exec_driver_sql(f"SELECT 1 FROM sqlite_master WHERE name = '{PUBLISHED.name}'").first()  # noqa: S608
        if known is not None:
            return
    Log.create_tables(connection)
    METADATA.create_all(connection)


def place_in(connection: Connection, origin: str, keyid: str) -> Place:
    """Where the chain of an author stands in a log that this party writes."""
    row = connection.execute(select(AUTHORS).where(AUTHORS.c.origin == origin, AUTHORS.c.keyid == keyid)).one_or_none()
    return Place() if row is None else Place(row.seq, row.prev)
