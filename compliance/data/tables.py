"""The tables in which a site's store keeps what it knows about its data. Made at the first registration.

What erasure destroys is in rows that are deleted, never in columns that are emptied: SQLite's secure_delete overwrites
deleted rows, and `erasure` empties the write-ahead log after them.
"""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table

METADATA = MetaData()
# The site's secret ("site") and that of the epoch ("rows"), from which all keys are derived.
SECRETS = Table("data_secrets", METADATA, Column("name", String, primary_key=True), Column("value", LargeBinary))
VERSIONS = Table(
    "data_versions",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String, index=True),
    Column("status", String),
    Column("dsv_id", LargeBinary, index=True),
    # Names, without giving away, the secret under which rows were digested: another one after every erasure.
    Column("epoch", LargeBinary),
    Column("facts", LargeBinary),
    Column("report", LargeBinary),
    Column("leaves", LargeBinary),
    # A number, once used, never names another version.
    sqlite_autoincrement=True,
)
# Which version a folder holds, and what its files looked like.
PLACES = Table("data_places", METADATA, Column("folder", String, primary_key=True), Column("version", Integer))
FILES = Table(
    "data_files",
    METADATA,
    Column("folder", String, primary_key=True),
    Column("path", String, primary_key=True),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("ctime_ns", BigInteger),
    Column("inode", LargeBinary),
    Column("sha256", LargeBinary),
    Column("hashed_ns", BigInteger),
)
# Tags of subjects that were erased: none of them may come back in a later version.
ERASED = Table(
    "data_erased",
    METADATA,
    Column("tag", LargeBinary, primary_key=True),
    Column("erased_at", String),
    Column("reason", String),
)
# Sealed fields. A scope is a tag of a subject or an id of a version; its key is wrapped by the site's.
SCOPES = Table("data_scopes", METADATA, Column("scope", LargeBinary, primary_key=True), Column("wrapped", LargeBinary))
SEALED = Table(
    "data_sealed",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("scope", LargeBinary, index=True),
    Column("commitment", LargeBinary),
    Column("ciphertext", LargeBinary),
    sqlite_autoincrement=True,
)
# What has happened and is not yet in the site's log, oldest first.
OCCURRENCES = Table(
    "data_occurrences",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("kind", String),
    Column("body", LargeBinary),
    sqlite_autoincrement=True,
)
