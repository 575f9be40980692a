"""The tables of logs, in a site's store or a server's database. Any number of logs stand beside each other."""

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, String, Table, Text

# SQLite keeps a table in the order of a key of this very type, and in no other.
_KEY = BigInteger().with_variant(Integer, "sqlite")

# How many leaves a log may have: a leaf's position is its log's number times this, plus its index.
SPAN = 1 << 40

METADATA = MetaData()
# One row a log: the state to append to, and where this party last cosigned it.
HEADS = Table(
    "log_heads",
    METADATA,
    Column("log", Integer, primary_key=True, autoincrement=True),
    Column("origin", String, unique=True, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("witnessed_size", BigInteger, nullable=False),
    Column("witnessed_root", LargeBinary, nullable=False),
)
LEAVES = Table(
    "log_leaves",
    METADATA,
    Column("position", _KEY, primary_key=True, autoincrement=False),
    Column("leaf", LargeBinary, nullable=False),
)
TILES = Table(
    "log_tiles",
    METADATA,
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("tile", BigInteger, primary_key=True, autoincrement=False),
    Column("hashes", LargeBinary, nullable=False),
)
# ``note``: as the log has signed it, without cosignatures.
CHECKPOINTS = Table(
    "log_checkpoints",
    METADATA,
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
)
COSIGNATURES = Table(
    "log_cosignatures",
    METADATA,
    Column("log", Integer, primary_key=True, autoincrement=False),
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String, primary_key=True),
    Column("identifier", LargeBinary(4), primary_key=True),
    Column("line", Text, nullable=False),
)
