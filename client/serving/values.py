"""The values of a table's columns as numbers, and what is wrong with those that are none.

Of a wrong value only its kind, its column and how often are told.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from fedseal.compliance.registry.recipe import Column
from fedseal.errors import DataError

Real = NDArray[np.float64]
Codes = NDArray[np.int8]
# What stands for a value that is not there, beside an empty cell and a null of parquet.
MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "null", "NULL")
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,4})?$"
_INFINITE = r"^[+-]?(?i:inf|infinity)$"
_YES, _NO = ("1", "true", "True", "TRUE"), ("0", "false", "False", "FALSE")


class Problem(IntEnum):
    """Why a row's value cannot be used; the first of a row counts."""

    NONE = 0
    MISSING = 1
    WRONG_TYPE = 2
    NOT_FINITE = 3
    OUT_OF_RANGE = 4
    UNKNOWN_CATEGORY = 5

    @property
    def word(self) -> str:
        """As outputs and receipts have it."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class Values:
    """A column's values, shape (rows,), NaN where there is none, and a `Problem` for each. ``outside`` says which are
    beyond the column's range, also where that is no problem.
    """

    numbers: Real
    problems: Codes
    outside: NDArray[np.bool_]


def values_of(column: Column, array: pa.Array, *, clipped: bool) -> Values:
    """Read a column as its schema says.

    Args:
        column: the schema's.
        array: of a file; text, numbers, booleans, or a dictionary of these.
        clipped: whether the recipe brings values into the range: none is then a problem for being beyond it.

    Raises:
        DataError: the file has values of another kind altogether, such as lists.
    """
    array = _plain(column, array)
    problems = np.zeros(len(array), dtype=np.int8)
    if pa.types.is_string(array.type):
        numbers = _of_text(column, pc.utf8_trim_whitespace(array), problems)
    else:
        numbers = _of_numbers(column, array, problems)
    infinite = np.isinf(numbers)
    problems[infinite & (problems == Problem.NONE)] = Problem.NOT_FINITE
    if column.type == "integer":
        whole = np.isnan(numbers) | infinite | (np.floor(numbers) == numbers)
        problems[~whole] = Problem.WRONG_TYPE
    if column.type == "boolean":
        problems[~np.isnan(numbers) & (numbers != 0) & (numbers != 1)] = Problem.WRONG_TYPE
    outside = np.zeros(len(numbers), dtype=np.bool_)
    if column.type != "category":
        outside |= False if column.low is None else numbers < column.low
        outside |= False if column.high is None else numbers > column.high
    outside &= problems == Problem.NONE
    if not clipped:
        problems[outside] = Problem.OUT_OF_RANGE
    numbers = np.where(np.isin(problems, (Problem.NONE, Problem.OUT_OF_RANGE)), numbers, np.nan)
    return Values(numbers, problems, outside)


def _plain(column: Column, array: pa.Array) -> pa.Array:
    """Text or numbers, without dictionaries and other widths of text."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        array = array.dictionary_decode()
        kind = array.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return array.cast(pa.string())
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        return array.cast(pa.float64()) if pa.types.is_null(kind) else array.cast(pa.uint8()).cast(pa.float64())
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64(), safe=False)
    raise DataError(f"column {column.name!r} holds {kind}, and the model reads a {column.type} there")


def _of_numbers(column: Column, array: pa.Array, problems: Codes) -> Real:
    if column.type == "category":
        # Codes that a file has as numbers are compared as they are written.
        return _of_text(column, array.cast(pa.string()), problems)
    numbers = np.array(pc.cast(array, pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    problems[np.isnan(numbers)] = Problem.MISSING
    return numbers


def _of_text(column: Column, text: pa.Array, problems: Codes) -> Real:
    absent = _flags(pc.is_in(pc.fill_null(text, ""), pa.array(MISSING_WORDS)))
    if column.type == "category":
        places = pc.index_in(text, pa.array(column.categories, pa.string()))
        known = ~_flags(pc.is_null(places))
        # A category may be called NA.
        problems[~known] = Problem.UNKNOWN_CATEGORY
        problems[absent & ~known] = Problem.MISSING
        return np.where(known, np.array(pc.fill_null(places, 0).to_numpy(zero_copy_only=False)), np.nan)
    problems[absent] = Problem.MISSING
    if column.type == "boolean":
        yes, no = (_flags(pc.is_in(text, pa.array(words))) for words in (_YES, _NO))
        problems[~(absent | yes | no)] = Problem.WRONG_TYPE
        return np.where(yes, 1.0, np.where(no, 0.0, np.nan))
    written = _flags(pc.fill_null(pc.match_substring_regex(text, _NUMBER), False))
    infinite = _flags(pc.fill_null(pc.match_substring_regex(text, _INFINITE), False))
    problems[~(absent | written | infinite)] = Problem.WRONG_TYPE
    problems[infinite] = Problem.NOT_FINITE
    return _parsed(pc.if_else(pa.array(written), text, None))


def _parsed(text: pa.Array) -> Real:
    """Numbers that are written out; NaN for null."""
    try:
        found = pc.cast(pc.replace_substring_regex(text, r"^\+", ""), pa.float64())
        return np.array(found.to_numpy(zero_copy_only=False), dtype=np.float64)
    except pa.ArrowInvalid:
        # Arrow does not take what is larger than any double, or has very many digits.
        return np.array([np.nan if word is None else float(word) for word in text.to_pylist()], dtype=np.float64)


def _flags(found: pa.Array) -> NDArray[np.bool_]:
    return np.array(found.to_numpy(zero_copy_only=False), dtype=np.bool_)
