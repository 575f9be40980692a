"""The tables of a site's store."""

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

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
# What an app keeps from round to round: what holds, and what holds once the server counted that round's vector.
MEMORIES = Table(
    "memories",
    METADATA,
    Column("run", LargeBinary, primary_key=True),
    Column("name", String, primary_key=True),
    Column("settled", LargeBinary),
    Column("pending", LargeBinary),
    Column("pending_round", Integer),
)
INCIDENTS = Table(
    "incidents",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("code", String),
    Column("text", String),
    # Seconds since 1970, by the site's clock; as in all of these tables. Unknown of what is older than format 2.
    Column("at", Integer),
)
# When this site was charged, by its own clock: a budget may be for a period. The ledger's entries carry no time.
DATES = Table(
    "dates",
    METADATA,
    Column("population", String, primary_key=True),
    Column("counter", Integer, primary_key=True),
    Column("at", Integer),
)
# Releases that wait for a person, and what the person said. ``key`` is a digest of what is asked, whichever attempt
# asks; ``asked`` says it in words. What was asked, never what was computed: that is computed once it may leave.
HELD = Table(
    "held",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("key", LargeBinary, unique=True),
    Column("run", LargeBinary),
    Column("asked", LargeBinary),
    Column("first_at", Integer),
    Column("last_at", Integer),
    Column("decision", String, index=True),
    Column("decided_at", Integer),
    Column("actor", String),
)
# What a person has decided of everything that a run asks for.
STANDING = Table(
    "standing",
    METADATA,
    Column("run", LargeBinary, primary_key=True),
    Column("decision", String),
    Column("decided_at", Integer),
    Column("actor", String),
)
