"""Rows of a table as the model's input: columns checked, read, and made into numbers as the bundle's recipe says."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fedseal.client.serving.tables import TableFile
from fedseal.client.serving.values import Codes, Problem, Real, Values, values_of
from fedseal.compliance.registry.inputs import Input
from fedseal.compliance.registry.recipe import Column
from fedseal.errors import DataError

Single = NDArray[np.float32]
_FUNCTIONS: dict[str, Callable[[Real], Real]] = {"identity": np.asarray, "log": np.log, "sqrt": np.sqrt}


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows: ``features`` of shape (rows, inputs), for each row what is wrong with it, and in which column.

    ``features`` of a row with a problem are 0; ``columns`` are places in the order of `Reader.columns`, -1 for none.
    """

    features: Single
    problems: Codes
    columns: NDArray[np.int64]


@dataclass(slots=True)
class Reader:
    """Makes a bundle's inputs of a file's columns, and counts what is wrong.

    ``counts`` is by column and kind, a row once for each column with a problem; ``clipped`` how many values of a column
    were beyond its range and brought into it.
    """

    inputs: Sequence[Input]
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    clipped: Counter[str] = field(default_factory=Counter)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is read, each column once, in the order of the inputs."""
        return tuple({one.column.name: one.column for one in self.inputs}.values())

    def check(self, table: TableFile) -> int:
        """How many columns a file has beside those that are read; DataError if it lacks one of these."""
        lacking = [column.name for column in self.columns if column.name not in table.columns]
        if lacking:
            raise DataError(
                f"{table.path} lacks {len(lacking)} of {len(self.columns)} columns that the model reads: "
                + ", ".join(map(repr, lacking[:20])),
                next_step="The bundle's schema.json says what the model reads. Names are compared to the letter.",
            )
        return len(table.columns) - len(self.columns)

    def read(self, batch: pa.RecordBatch) -> Rows:
        """Rows of a file as the model's input."""
        found = {column.name: self._values(column, batch) for column in self.columns}
        rows = batch.num_rows
        problems, places = np.zeros(rows, dtype=np.int8), np.full(rows, -1)
        for place, column in enumerate(self.columns):
            new = found[column.name].problems
            if not self._needs(column):
                # Every number that is made of it says what a missing value becomes.
                new = np.where(new == Problem.MISSING, Problem.NONE, new)
            for kind, count in zip(*np.unique(new[new != 0], return_counts=True), strict=True):
                self.counts[column.name, Problem(kind).word] += int(count)
            first = (problems == 0) & (new != 0)
            problems[first], places[first] = new[first], place
        return self._finished(found, problems, places)

    def _finished(self, found: Mapping[str, Values], problems: Codes, places: NDArray[np.int64]) -> Rows:
        usable = problems == 0
        features = np.stack([_number(one, found[one.column.name].numbers) for one in self.inputs], axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            single = features.astype(np.float32)
        overflown = usable & ~np.isfinite(single).all(axis=1)
        if overflown.any():
            names = [column.name for column in self.columns]
            for row in np.flatnonzero(overflown):
                name = self.inputs[int(np.flatnonzero(~np.isfinite(single[row]))[0])].column.name
                problems[row], places[row] = Problem.NOT_FINITE, names.index(name)
                self.counts[name, Problem.NOT_FINITE.word] += 1
        single[problems != 0] = 0.0
        return Rows(single, problems, places)

    def _values(self, column: Column, batch: pa.RecordBatch) -> Values:
        clipped = all(one.feature.clip for one in self.inputs if one.column.name == column.name)
        values = values_of(column, batch.column(column.name), clipped=clipped)
        beyond = int(values.outside.sum())
        if clipped and beyond:
            self.clipped[column.name] += beyond
        return values

    def _needs(self, column: Column) -> bool:
        return any(one.feature.missing is None for one in self.inputs if one.column.name == column.name)


def _number(one: Input, values: Real) -> Real:
    """One input of every row, NaN where it cannot be had."""
    feature, column = one.feature, one.column
    if feature.category is not None:
        values = np.where(np.isnan(values), np.nan, values == column.categories.index(feature.category))
    if feature.clip:
        values = np.clip(values, column.low, column.high)
    with np.errstate(all="ignore"):
        found = (_FUNCTIONS[feature.function](values) - feature.centre) / feature.scale
    if feature.missing is not None:
        found = np.where(np.isnan(values), feature.missing, found)
    if feature.furthest is not None:
        found = np.clip(found, -feature.furthest, feature.furthest)
    return np.asarray(found, dtype=np.float64)
