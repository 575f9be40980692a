"""The quality report of a version: counts, and which rules the data breaks. It stays at the site; no value of the table
is in it.
"""

import hashlib
from datetime import date
from typing import Literal

from fedseal.config import Frozen

Rule = Literal[
    "type",
    "missing column",
    "unknown column",
    "nullable",
    "most_missing",
    "unique",
    "range",
    "allowed",
    "newest_at_most_days",
    "future",
    "rows.least",
    "rows.most",
    "rows.most_of_a_subject",
    "rows.repeated",
    "balance",
]


class ColumnQuality(Frozen):
    """One column in numbers."""

    name: str
    type: str
    missing: int
    distinct: int


class Failure(Frozen):
    """A rule that the data breaks: the column (empty for the table as a whole) and in how many rows, where rows do."""

    column: str
    rule: Rule
    rows: int | None


class QualityReport(Frozen):
    """What was found on a day. ``contract_digest`` says against which rules."""

    version: Literal[1] = 1
    as_of: date
    contract_digest: str
    rows: int
    subjects: int
    repeated_rows: int
    columns: tuple[ColumnQuality, ...]
    failures: tuple[Failure, ...]

    def digest(self) -> bytes:
        """SHA-256 of the report's JSON."""
        return hashlib.sha256(b"fedseal/data/quality/1\x00" + self.model_dump_json().encode("utf-8")).digest()


def in_words(failures: tuple[Failure, ...]) -> str:
    """Broken rules by column, without counts and values: ``column 'age': range; rows.repeated``."""
    found = dict.fromkeys(f"column {f.column!r}: {f.rule}" if f.column else f.rule for f in failures)
    return "; ".join(found)
