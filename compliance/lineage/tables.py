"""The tables of a lineage: what a log says, arranged for questions. Every row names the entry that says it (``idx``).

They hold nothing that does not follow from the log, and may be dropped at any time.
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

VERSION = 1

METADATA = MetaData()


def _table(name: str, *columns: Column[object] | Index) -> Table:
    return Table(f"lineage_{name}", METADATA, *columns, sqlite_with_rowid=False)


def _key(name: str, kind: type[BigInteger] | type[String] | type[Integer] = BigInteger) -> Column[object]:
    return Column(name, kind(), primary_key=True, autoincrement=False)


# What the projection has read: up to which size of which log, its root there, and the hashes which give that root.
STATE = _table(
    "state",
    _key("version", Integer),
    Column("origin", String),
    Column("size", BigInteger),
    Column("root", String),
    Column("frontier", Text),
)
NODES = _table(
    "node",
    _key("id"),
    Column("kind", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("label", String, nullable=False),
    Column("first_idx", BigInteger, nullable=False),
    Index("lineage_node_kind", "kind", "digest", unique=True),
)
# ``src`` influenced ``dst``; of several entries that say so, the first.
EDGES = _table(
    "edge",
    _key("src"),
    _key("dst"),
    _key("kind", Integer),
    Column("idx", BigInteger, nullable=False),
    Index("lineage_edge_back", "dst", "src", "kind", "idx"),
)
PARTIES = _table("party", _key("site", Integer), Column("name", String), Column("idx", BigInteger))
RUNS = _table(
    "run",
    _key("run", String),
    Column("node", BigInteger),
    Column("study", String),
    Column("model_in", BigInteger),
    Column("planned", BigInteger),
    Column("plan", String),
    Column("idx", BigInteger),
)
ACCEPTED = _table(
    "accepted",
    _key("run", String),
    _key("site", String),
    Column("population", String),
    Column("policy", String),
    Column("dataset", String),
    Column("label_set", String),
    Column("code", String),
    Column("idx", BigInteger),
)
# A sum that was unmasked. ``model_out``: the model it led to, once an entry names it; ``superseded``: the run went back
# to before it.
ROUNDS = _table(
    "round",
    _key("run", String),
    _key("sequence"),
    Column("attempt", BigInteger),
    Column("release", String),
    Column("round", BigInteger),
    Column("node", BigInteger),
    Column("aggregate", BigInteger),
    Column("model_in", BigInteger),
    Column("model_out", BigInteger),
    Column("superseded", Boolean, nullable=False),
    Column("idx", BigInteger),
    Index("lineage_round_node", "node"),
    Index("lineage_round_out", "model_out"),
)
PARTICIPATION = _table(
    "participation",
    _key("run", String),
    _key("sequence"),
    _key("attempt"),
    _key("site", String),
    Column("release", String),
    Column("round", BigInteger),
    Column("dataset", String),
    Column("label_set", String),
    Column("code", String),
    Column("status", String, nullable=False),
    Column("reason", String),
    Column("idx", BigInteger),
)
DP_LEDGER = _table(
    "dp_ledger",
    _key("idx"),
    Column("population", String),
    Column("site", String),
    Column("run", String),
    Column("release", String),
    Column("sequence", BigInteger),
    Column("attempt", BigInteger),
    Column("mechanism", String),
    Column("plan", String),
    Column("delta", String),
    Column("alpha", String),
    Index("lineage_dp_ledger_population", "population", "run", "sequence"),
)
BUDGETS = _table(
    "budget",
    _key("idx"),
    Column("population", String),
    Column("site", String),
    Column("epsilon", String),
    Column("delta", String),
    Column("until", String),
)
MODELS = _table(
    "model",
    _key("idx"),
    Column("model", String),
    Column("kind", String),
    Column("round", BigInteger),
    Column("run", String),
    Column("bundle", String),
)
APPROVALS = _table(
    "approval",
    _key("idx"),
    Column("subject", String, index=True),
    Column("alias", String),
    Column("meaning", String),
    Column("role", String),
    Column("actor", String),
    Column("org", String),
    Column("time", String),
)
GATES = _table(
    "gate",
    _key("idx"),
    Column("subject", String, index=True),
    Column("alias", String),
    Column("gate", String),
    Column("name", String),
    Column("limit", String),
    Column("found", String),
    Column("passed", Boolean),
    Column("time", String),
)
# ``action``: promoted, rolled-back, suspended, retired. ``approvals`` and ``gates``: indices, separated by spaces.
PROMOTIONS = _table(
    "promotion",
    _key("idx"),
    Column("subject", String, index=True),
    Column("action", String),
    Column("alias", String),
    Column("replaces", String),
    Column("reason", String),
    Column("approvals", Text),
    Column("gates", Text),
    Column("final_size", BigInteger),
    Column("time", String),
)
EVALUATIONS = _table(
    "evaluation",
    _key("idx"),
    _key("name", String),
    Column("model", String, index=True),
    Column("value", String),
    Column("margin", String),
    Column("simulated", Boolean),
    Column("report", String),
    Column("org", String),
)
# What is said of a dataset or label set beyond its edges: withdrawn, superseded, corrected.
NOTICES = _table(
    "notice",
    _key("idx"),
    Column("subject", String, index=True),
    Column("notice", String),
    Column("reason", String),
    Column("by", String),
)
# An entry that another one says is wrong. It still counts: nobody can correct an influence away.
CORRECTIONS = _table(
    "correction", _key("idx"), Column("entry", BigInteger), Column("by", BigInteger), Column("reason", String)
)
