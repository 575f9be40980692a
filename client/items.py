"""From a table to tensors: columns scaled by public ranges, dates as numbers, and several records of a person grouped
into one item. The privacy promise is made to persons, so one item has to be one person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedseal.client.split import person_text
from fedseal.client.task import columns
from fedseal.errors import DataError

Real: TypeAlias = NDArray[np.float64]
Ranges: TypeAlias = Mapping[str, tuple[float, float]]

# Where a record has no value, after scaling: the middle of the public range.
MIDDLE = 0.0


def numbers(table: pd.DataFrame, names: Sequence[str]) -> Real:
    """Columns as numbers, shape (rows, columns); a missing value is NaN.

    Raises:
        DataError: a column is missing or holds something that is no number. Its values are not quoted.
    """
    found = columns(table, names)
    parts = []
    for name in names:
        try:
            parts.append(pd.to_numeric(found[name]).to_numpy(dtype=np.float64, na_value=np.nan))
        except (ValueError, TypeError):
            raise DataError(
                f"column {name!r} holds something that is no number",
                next_step="Make numbers of it in data(): days() for dates, .map({...}) for words.",
            ) from None
    return np.column_stack(parts) if parts else np.zeros((len(table), 0))


def scaled(table: pd.DataFrame, ranges: Ranges, *, fill_missing: bool = False) -> Real:
    """Columns mapped from their public ranges to [-1, 1]; what lies outside a range counts as its end.

    Args:
        table: one row a record.
        ranges: lowest and highest sensible value of each column, known before anyone looked at the data.
        fill_missing: a missing value becomes the middle of its range; otherwise it is refused.

    Raises:
        DataError: a column is missing, is not numeric, or has missing values.
        ValueError: a range is not a finite one, low below high.
    """
    if not all(np.isfinite([low, high]).all() and low < high for low, high in ranges.values()):
        raise ValueError("each column needs a finite range, low below high")
    values = numbers(table, list(ranges))
    if not fill_missing:
        _refuse_missing(values, list(ranges))
    low, high = np.array(list(ranges.values()), dtype=np.float64).reshape(-1, 2).T
    return np.asarray(np.nan_to_num(2 * (np.clip(values, low, high) - low) / (high - low) - 1, nan=MIDDLE))


def days(table: pd.DataFrame, name: str, *, since: str) -> Real:
    """A column of dates as days since a public date, shape (rows,); a missing date is NaN.

    Raises:
        DataError: the column is missing, or a date is not written as year-month-day. Its values are not quoted.
    """
    dates = _dates(columns(table, [name])[name], name)
    return np.asarray((dates - pd.Timestamp(since)) / pd.Timedelta(days=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class PersonItems:
    """Records grouped by person, one item each, in the order of the ids' texts.

    Attributes:
        ids: one a person, for `by_hash`.
        records: shape (persons, most_records, features), float32; the oldest kept record first, zeros after the last.
        mask: shape (persons, most_records), float32: 1 where there is a record, 0 where there is none.
        owner: for each row of the table, which person it belongs to.
    """

    ids: NDArray[np.str_]
    records: Tensor
    mask: Tensor
    owner: NDArray[np.intp]

    @property
    def lengths(self) -> Tensor:
        """How many records of each person were kept, shape (persons,), at least 1."""
        return self.mask.sum(dim=1).long()

    def values(self, table: pd.DataFrame, name: str) -> Real:
        """What a column says of each person, shape (persons,): it has to say the same in all of a person's records.

        Raises:
            DataError: the column is missing or not numeric, has missing values, or differs within a person.
        """
        found = numbers(table, [name])[:, 0]
        if np.isnan(found).any():
            raise DataError(
                f"column {name!r} has missing values",
                next_step="What it says of a person is not known, so there is nothing to learn: leave such rows out "
                f"first, table.dropna(subset=[{name!r}]), and make the items of what is left.",
            )
        _refuse_missing(found[:, None], [name])
        first = np.zeros(len(self.ids))
        # Backwards, so that the first of a person's rows is the one that stays.
        first[self.owner[::-1]] = found[::-1]
        if not np.array_equal(first[self.owner], found):
            raise DataError(
                f"column {name!r} differs between the records of a person",
                next_step="Make one value a person of it, for example with "
                f"table.groupby(...)[{name!r}].transform('last').",
            )
        return first


def person_items(
    table: pd.DataFrame,
    *,
    person: str,
    features: Ranges | Sequence[str],
    most_records: int,
    newest_by: str | None = None,
    fill_missing: bool = False,
) -> PersonItems:
    """Group a table's records by person, one item each.

    Args:
        table: one row a record, in any order.
        person: the column of ids; 7, 7.0 and "7" are one person.
        features: public ranges by column, to which records are scaled; or columns that are taken as they are.
        most_records: how many records of one person are kept at most: a public number, the same at all sites.
        newest_by: a column of numbers or dates (year-month-day); the newest records are kept, oldest first, and among
            equally new ones their features decide, so that the order of the rows does not matter. None keeps the
            first records of the table, in its order.
        fill_missing: a missing feature becomes the middle of its range (0 without ranges); otherwise it is refused.

    Raises:
        DataError: a column is missing or is not what it should be; nobody's values are quoted.
        ValueError: most_records is below 1, or a range is none.
    """
    if most_records < 1:
        raise ValueError("expected most_records of at least 1")
    names = list(features)
    if isinstance(features, Mapping):
        values = scaled(table, features, fill_missing=fill_missing)
    else:
        values = numbers(table, names)
        if not fill_missing:
            _refuse_missing(values, names)
        values = np.nan_to_num(values, nan=MIDDLE)
    ids, owner = _owners(table, person)
    keys = [owner] if newest_by is None else [*values.T[::-1], _times(table, newest_by), owner]
    order = np.lexsort(keys)
    counts = np.bincount(owner, minlength=len(ids))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    if newest_by is not None:
        place -= np.repeat(np.maximum(counts - most_records, 0), counts)
    kept = (place >= 0) & (place < most_records)
    whose, where = owner[order][kept], place[kept]
    records = np.zeros((len(ids), most_records, len(names)), dtype=np.float32)
    mask = np.zeros((len(ids), most_records), dtype=np.float32)
    records[whose, where], mask[whose, where] = values[order][kept], 1.0
    return PersonItems(ids, torch.from_numpy(records), torch.from_numpy(mask), owner)


def _owners(table: pd.DataFrame, person: str) -> tuple[NDArray[np.str_], NDArray[np.intp]]:
    """The persons in the order of their ids' texts, and which of them each row belongs to."""
    column = columns(table, [person])[person]
    if column.isna().any():
        raise DataError(f"column {person!r} has missing values", next_step="Every record needs its person's id.")
    ids, owner = np.unique(np.array([person_text(value) for value in column], dtype=np.str_), return_inverse=True)
    return ids, owner.astype(np.intp)


def _times(table: pd.DataFrame, name: str) -> Real:
    """A column that says how new a record is, as numbers."""
    column = columns(table, [name])[name]
    numeric = pd.api.types.is_numeric_dtype(column)
    times = numbers(table, [name])[:, 0] if numeric else days(table, name, since="1970-01-01")
    _refuse_missing(times[:, None], [name])
    return times


def _dates(column: "pd.Series[pd.Timestamp]", name: str) -> "pd.Series[pd.Timestamp]":
    try:
        dates = pd.to_datetime(column, format=None if pd.api.types.is_datetime64_any_dtype(column) else "ISO8601")
        return dates if dates.dt.tz is None else dates.dt.tz_convert(None)
    except (ValueError, TypeError, AttributeError, OverflowError):
        raise DataError(
            f"column {name!r} holds something that is no date written as year-month-day",
            next_step="Write dates like 2024-03-31: 03/04/2024 is April in one country and March in another.",
        ) from None


def _refuse_missing(values: Real, names: Sequence[str]) -> None:
    found = [name for name, column in zip(names, values.T, strict=True) if not np.isfinite(column).all()]
    if found:
        raise DataError(
            f"{'column' if len(found) == 1 else 'columns'} {', '.join(map(repr, found))} "
            f"{'has' if len(found) == 1 else 'have'} missing values",
            next_step="Fill them in data() by a public value (fill_missing=True takes the middle of the range).",
        )
