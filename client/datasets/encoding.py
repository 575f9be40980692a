"""A typed table as sorted leaves, quickly: the whole table becomes one matrix of bytes, sorted by subject, of which
each subject's rows are one slice. `compliance/data/rows.py` says what the bytes are, one at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedseal.compliance.data.content import Content
from fedseal.compliance.data.keys import DataKeys, KeyedHash
from fedseal.compliance.data.rows import Kind, Schema, subject_header, subject_text, text_digest

Bytes: TypeAlias = NDArray[np.uint8]
Series: TypeAlias = "pd.Series[Any]"


@dataclass(frozen=True, slots=True)
class Subjects:
    """Who is in a table: ids as texts, and for each row whose it is."""

    ids: tuple[str, ...]
    owner: NDArray[np.intp]

    @property
    def counts(self) -> NDArray[np.intp]:
        """How many rows each has."""
        return np.bincount(self.owner, minlength=len(self.ids))


def subjects_of(table: pd.DataFrame, columns: Schema) -> Subjects:
    """The subjects of a typed table, in the order of their first rows."""
    owner, found = pd.factorize(table[columns.subject])
    return Subjects(tuple(subject_text(v if isinstance(v, str) else int(v)) for v in found), owner.astype(np.intp))


def content_of(table: pd.DataFrame, columns: Schema, keys: DataKeys, subjects: Subjects | None = None) -> Content:
    """The content of a typed table.

    Args:
        table: as `read_typed` gives it; every row has a subject.
        columns: its schema.
        keys: the site's.
        subjects: the table's subjects, if they are known already.

    Raises:
        DataError: two ids of subjects have the same canonical text.
    """
    who = subjects_of(table, columns) if subjects is None else subjects
    return Content.of(_leaves(row_matrix(table, columns), who, columns, keys))


def _leaves(rows: Bytes, who: Subjects, columns: Schema, keys: DataKeys) -> Iterator[bytes]:
    ordered = rows[np.argsort(who.owner, kind="stable")]
    whole, width, digest = memoryview(ordered.tobytes()), rows.shape[1], columns.digest()
    tags, hashes = KeyedHash(keys.subject), KeyedHash(keys.rows)
    start = 0
    for subject, count in zip(who.ids, who.counts.tolist(), strict=True):
        tag = tags.digest(subject.encode("utf-8"))
        end = start + count * width
        yield tag + hashes.digest(tag, subject_header(digest, count), whole[start:end])
        start = end


def row_matrix(table: pd.DataFrame, columns: Schema) -> Bytes:
    """The canonical bytes of all rows, shape (rows, ``columns.row_width``)."""
    out = np.zeros((len(table), columns.row_width), dtype=np.uint8)
    at = 0
    for column in columns.values:
        values = table[column.name]
        present = values.notna().to_numpy(dtype=bool)
        out[:, at] = present
        out[:, at + 1 : at + 1 + column.kind.width] = _payload(values, column.kind, present) * present[:, None]
        at += 1 + column.kind.width
    return out


def _payload(values: Series, kind: Kind, present: NDArray[np.bool_]) -> Bytes:
    match kind:
        case Kind.BOOLEAN:
            return values.fillna(value=False).to_numpy(dtype=np.uint8)[:, None]
        case Kind.INTEGER:
            return _big_endian(values.fillna(0).to_numpy(dtype=np.int64))
        case Kind.REAL:
            # Adding zero makes the one zero of the two.
            return _big_endian(values.to_numpy(dtype=np.float64) + 0.0)
        case Kind.TEXT:
            return _texts(values)
    moments = values.to_numpy(dtype="datetime64[us]")
    units = moments.astype("datetime64[D]") if kind is Kind.DATE else moments
    return _big_endian(np.where(present, units.astype(np.int64), 0))


def _texts(values: Series) -> Bytes:
    """SHA-256 of every text, each different one hashed once."""
    codes, different = pd.factorize(values)
    hashed = b"".join(text_digest(text) for text in different) + bytes(Kind.TEXT.width)
    return np.frombuffer(hashed, dtype=np.uint8).reshape(-1, Kind.TEXT.width)[codes]


def _big_endian(numbers: NDArray[Any]) -> Bytes:
    swapped = numbers.astype(numbers.dtype.newbyteorder(">"))
    return np.ascontiguousarray(swapped).view(np.uint8).reshape(len(numbers), numbers.dtype.itemsize)
