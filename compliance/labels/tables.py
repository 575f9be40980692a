"""The tables of a site's labels, in the site's own store. Rows are added, never changed.

What corrects another row names it in ``supersedes``, which one row can do only once: so every annotation has one chain
of versions, and its end is what holds. A correction without a label withdraws.
"""

from sqlalchemy import (
    DDL,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    event,
)

METADATA = MetaData()
SECRET = Table(
    "labels_secret",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)
GUIDELINES = Table(
    "labels_guidelines",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("version", String, nullable=False, unique=True),
    Column("digest", String, nullable=False),
    Column("schema", String, nullable=False),
)
# The one place where an annotator's name stands; a name can be taken out when it need not be kept any longer.
DIRECTORY = Table(
    "labels_directory",
    METADATA,
    Column("pseudonym", String, primary_key=True),
    Column("name", String, nullable=False),
)
BATCHES = Table(
    "labels_batches",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("dataset", String, nullable=False),
    Column("format", String, nullable=False),
    Column("guideline", String, nullable=False),
    Column("file", String, nullable=False),
    Column("imported", String, nullable=False),
)
ANNOTATIONS = Table(
    "labels_annotations",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("batch", Integer, ForeignKey(BATCHES.c.number)),
    Column("dataset", String, nullable=False),
    Column("item", String, nullable=False),
    Column("annotator", String, nullable=False),
    Column("label", String),
    Column("time", String),
    Column("guideline", String, nullable=False),
    Column("supersedes", Integer, ForeignKey("labels_annotations.number"), unique=True),
    Column("reason", String),
    Index("labels_annotations_of_an_item", "dataset", "item", "annotator"),
)
# A reviewer's decisions and the gold labels: the newest row of an item holds.
DECISIONS = Table(
    "labels_decisions",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("dataset", String, nullable=False),
    Column("item", String, nullable=False),
    Column("label", String, nullable=False),
    Column("reviewer", String, nullable=False),
)
GOLD = Table(
    "labels_gold",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("dataset", String, nullable=False),
    Column("item", String, nullable=False),
    Column("label", String, nullable=False),
)
SETS = Table(
    "labels_sets",
    METADATA,
    Column("number", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("content_root", String, nullable=False),
    Column("dataset", String, nullable=False),
    Column("guideline", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("facts", String, nullable=False),
    # The newest annotation and decision it saw: with them it can be computed again.
    Column("annotations", Integer, nullable=False),
    Column("decisions", Integer, nullable=False),
    Column("registered", String, nullable=False),
)

# A guard rail against our own mistakes, not against whoever owns the file.
for _table in (GUIDELINES, BATCHES, ANNOTATIONS, DECISIONS, GOLD, SETS):
    event.listen(
        _table,
        "after_create",
        DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER {_table.name}_never_change BEFORE UPDATE ON {_table.name} "
            "BEGIN SELECT RAISE(ABORT, 'rows of labels are added, never changed'); END"
        ),
    )
