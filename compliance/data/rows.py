"""The canonical bytes of a table's rows: the same whether a file was CSV or parquet, whatever the order of its columns
and of the persons in it.

Every cell of a column has the same number of bytes, so that a fast reader builds a whole table as one matrix of bytes
(`client/datasets/encoding.py`); this is the slow twin that says what the bytes are:

    cell    = 0x00 followed by zeros                      the value is missing
            | 0x01 followed by
              boolean    1 byte, 0 or 1
              integer    8 bytes, two's complement, big-endian
              real       8 bytes, IEEE 754 binary64, big-endian; -0.0 is written as 0.0, NaN is missing
              text       32 bytes, SHA-256 of its UTF-8 in Unicode normal form C
              date       8 bytes, days since 1970-01-01, two's complement, big-endian
              timestamp  8 bytes, microseconds since 1970-01-01T00:00Z, two's complement, big-endian
    row     = its cells, columns in the order of their names' UTF-8 bytes, without the column of subjects
    subject = schema digest (32 bytes), number of rows (8 bytes, big-endian), rows in the order of the table
    schema digest = SHA-256("fedseal/data/schema/1", 0x00, then for each column in the same order, that of subjects
                    included: length of its name (4 bytes, big-endian), name, type (1 byte), 1 if of subjects, else 0)

A number is what it is: the integer 1 and the real 1.0 are different, because the column's declared type is part of the
schema. The order of one person's rows counts, as a model may depend on it; that of persons does not.
"""

import hashlib
import math
import struct
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import IntEnum
from typing import TypeAlias

from fedseal.errors import LocalError

Value: TypeAlias = bool | int | float | str | date | datetime | None
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SCHEMA = b"fedseal/data/schema/1\x00"


class Kind(IntEnum):
    """The type of a column, as it is declared and as it counts in the schema's digest."""

    BOOLEAN = 1
    INTEGER = 2
    REAL = 3
    TEXT = 4
    DATE = 5
    TIMESTAMP = 6

    @property
    def width(self) -> int:
        """Bytes of a value, without the flag before it."""
        return {Kind.BOOLEAN: 1, Kind.TEXT: 32}.get(self, 8)


@dataclass(frozen=True, slots=True, order=True)
class Column:
    """One column: its name in normal form C, and its type."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Schema:
    """The columns of a table, in their canonical order, and which of them names the subject."""

    columns: tuple[Column, ...]
    subject: str

    @property
    def values(self) -> tuple[Column, ...]:
        """The columns that make up a row: all but the subject's."""
        return tuple(c for c in self.columns if c.name != self.subject)

    @property
    def row_width(self) -> int:
        """Bytes of one row."""
        return sum(1 + c.kind.width for c in self.values)

    def digest(self) -> bytes:
        """SHA-256 over names and types, as above."""
        out = hashlib.sha256(_SCHEMA)
        for column in self.columns:
            name = column.name.encode("utf-8")
            out.update(len(name).to_bytes(4, "big") + name)
            out.update(bytes((int(column.kind), int(column.name == self.subject))))
        return out.digest()


def schema(columns: Sequence[Column], subject: str) -> Schema:
    """The schema of these columns, in whatever order they are given.

    Raises:
        LocalError: a name occurs twice, or no column names the subject by an integer or a text.
    """
    ordered = sorted((Column(normal(c.name), c.kind) for c in columns), key=lambda c: c.name.encode("utf-8"))
    kinds = {c.name: c.kind for c in ordered}
    subject = normal(subject)
    if len(kinds) != len(ordered) or kinds.get(subject) not in (Kind.INTEGER, Kind.TEXT):
        raise LocalError("columns with different names, one of which names the subject, were expected")
    return Schema(tuple(ordered), subject)


def normal(text: str) -> str:
    """Unicode normal form C, so that one word has one spelling."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def text_digest(text: str) -> bytes:
    """What stands for a text in a cell."""
    return hashlib.sha256(normal(text).encode("utf-8")).digest()


def cell(kind: Kind, value: Value) -> bytes:
    """The bytes of one value.

    Raises:
        LocalError: the value is not of that type, or does not fit.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return bytes(1 + kind.width)
    match kind, value:
        case Kind.BOOLEAN, bool():
            return b"\x01" + bytes((int(value),))
        case Kind.INTEGER, int() if not isinstance(value, bool) and -(1 << 63) <= value < 1 << 63:
            return b"\x01" + struct.pack(">q", value)
        case Kind.REAL, float():
            return b"\x01" + struct.pack(">d", value if value != 0.0 else 0.0)
        case Kind.TEXT, str():
            return b"\x01" + text_digest(value)
        case Kind.TIMESTAMP, datetime():
            moment = value if value.tzinfo is not None else value.replace(tzinfo=UTC)
            return b"\x01" + struct.pack(">q", (moment - EPOCH) // timedelta(microseconds=1))
        case Kind.DATE, date() if not isinstance(value, datetime):
            return b"\x01" + struct.pack(">q", (value - EPOCH.date()).days)
    raise LocalError(f"a value that is no {kind.name.lower()}")


def row(columns: Schema, values: Sequence[Value]) -> bytes:
    """The bytes of one row; ``values`` in the order of ``columns.values``."""
    return b"".join(cell(c.kind, v) for c, v in zip(columns.values, values, strict=True))


def subject_header(schema_digest: bytes, rows: int) -> bytes:
    """What stands before a subject's rows."""
    return schema_digest + rows.to_bytes(8, "big")


def subject_text(value: int | str) -> str:
    """A subject's id as text: the digits of an integer, a text in normal form C."""
    return str(value) if isinstance(value, int) else normal(value)
