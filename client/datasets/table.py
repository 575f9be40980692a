"""A site's table with the types its contract declares: the same values whether the file is CSV or parquet.

A CSV is read as text and then by the declared types, so that 007 stays a text where it is declared as one, and numbers
are rounded once and correctly. What counts as missing in a CSV is what pandas takes for it (an empty cell, NA, NaN,
null, ...).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from fedseal.client.task import SiteData
from fedseal.compliance.data.contract import ColumnRules, DataContract
from fedseal.compliance.data.rows import normal
from fedseal.errors import DataError

Series: TypeAlias = "pd.Series[Any]"
_LARGEST_EXACT = float(1 << 53)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
# All that pandas and its parsers raise at a value that does not fit; their texts quote it.
_MISFITS = (ValueError, TypeError, OverflowError, AttributeError, pa.ArrowException)


def read_typed(folder: Path, contract: DataContract) -> pd.DataFrame:
    """The folder's one table, its columns in canonical order and of the declared types; names in normal form C.

    Types: boolean -> ``boolean``, integer -> ``Int64``, real -> float64, text -> str, date and timestamp ->
    datetime64[us] without a zone, in UTC.

    Raises:
        DataError: there is not one readable table, its columns are not those of the contract, or a column holds
            something of another type. Columns and rules are named, values never.
    """
    raw = _read(SiteData("", folder).path())
    raw.columns = pd.Index([normal(str(name)) for name in raw.columns])
    rules = {normal(name): r for name, r in contract.columns.items()}
    _check_columns(list(raw.columns), list(rules))
    names = [c.name for c in contract.schema_of_rows.columns]
    return pd.DataFrame({name: _typed(raw[name], name, rules[name]) for name in names})


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    except (*_MISFITS, OSError) as error:
        raise DataError(f"{path} is no readable table ({type(error).__name__})") from None


def _check_columns(found: list[str], declared: list[str]) -> None:
    repeated = sorted({name for name in found if found.count(name) > 1})
    missing, unknown = sorted(set(declared) - set(found)), sorted(set(found) - set(declared))
    for what, names in (("has more than one", repeated), ("lacks", missing), ("has an undeclared", unknown)):
        if names:
            raise DataError(
                f"the table {what} {'column' if len(names) == 1 else 'columns'} {', '.join(map(repr, names))}",
                next_step="Declare every column of the table in the contract, [columns.NAME], and no other: what is "
                "not declared is not checked and not hashed.",
            )


def _typed(column: Series, name: str, rules: ColumnRules) -> Series:
    convert: dict[str, Callable[[Series], Series]] = {
        "boolean": _booleans,
        "integer": _integers,
        "real": _reals,
        "text": _texts,
        "date": _dates,
        "timestamp": _timestamps,
    }
    try:
        return convert[rules.type](column).reset_index(drop=True)
    except _MISFITS:
        raise DataError(
            f"column {name!r} holds something that is no {rules.type}",
            next_step=f"Correct the table, or the type of [columns.{name}] in the contract.",
        ) from None


def _is_text(column: Series) -> bool:
    return bool(pd.api.types.is_string_dtype(column.dtype) or pd.api.types.is_object_dtype(column.dtype))


def _booleans(column: Series) -> Series:
    if _is_text(column):
        present = column.dropna()
        known = present.map(lambda v: v if isinstance(v, bool) else _TRUTH.get(str(v).lower()))
        if known.isna().any():
            raise ValueError
        column = known.astype("boolean").reindex(column.index)
    return column.astype("boolean")


def _integers(column: Series) -> Series:
    if pd.api.types.is_bool_dtype(column.dtype):
        raise ValueError
    present = column.dropna()
    numbers = pd.to_numeric(present)
    if pd.api.types.is_float_dtype(numbers.dtype):
        # A column of integers with gaps is often written as 1.0; beyond 2^53 it would be somebody else's number.
        if not ((numbers % 1 == 0) & (numbers.abs() < _LARGEST_EXACT)).all():
            raise ValueError
        numbers = numbers.astype(np.int64)
    return numbers.astype("Int64").reindex(column.index)


def _reals(column: Series) -> Series:
    if pd.api.types.is_bool_dtype(column.dtype):
        raise ValueError
    if _is_text(column):
        # To the nearest double, which pandas' own parser may miss by the last bit.
        present = column.dropna()
        return pd.Series(_nearest_doubles(present), index=present.index).reindex(column.index)
    return column.astype("Float64").astype(np.float64) if column.dtype != np.float64 else column


def _nearest_doubles(texts: Series) -> NDArray[np.float64]:
    """Arrow's parser is the fast one; numpy's, Python's own, also reads +1 and blanks around a number."""
    try:
        parsed = pa.array(texts, type=pa.string()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        parsed = texts.to_numpy(dtype=str).astype(np.float64)
    return np.asarray(parsed, dtype=np.float64)


def _texts(column: Series) -> Series:
    present = column.dropna()
    if not _is_text(column) or not all(isinstance(v, str) for v in present):
        # A number written as text would be read in more than one way: 7, 7.0, 07.
        if isinstance(column.dtype, pd.CategoricalDtype):
            return _texts(column.astype(column.cat.categories.dtype))
        raise TypeError
    return column.astype("str")


def _timestamps(column: Series) -> Series:
    if pd.api.types.is_numeric_dtype(column.dtype):
        raise TypeError
    given = pd.api.types.is_datetime64_any_dtype(column.dtype)
    moments = pd.to_datetime(column, format=None if given else "ISO8601", utc=True).dt.tz_localize(None)
    rounded = moments.astype("datetime64[us]")
    if not (rounded.astype(moments.dtype)[moments.notna()] == moments[moments.notna()]).all():
        raise ValueError
    return rounded


def _dates(column: Series) -> Series:
    moments = _timestamps(column)
    present = moments.dropna()
    if not (present == present.dt.normalize()).all():
        raise ValueError
    return moments
