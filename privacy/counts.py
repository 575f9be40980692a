"""What may be counted: tables over public cells, of which one person is in at most one each.

A release of counts is a tuple of tables, asked for in public terms that stand in what a site computes on and so in the
signed header. A table has axes from a closed list of sources, cut by public edges; its cells are the product. One
person more or less changes at most one cell of each table, and that by one: the sensitivity in L1 is the number of
tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import PeerError
from fedseal.privacy.plan import PrivacyPlan, SharedGeometric
from fedseal.wire import F64, U8, U32, Bool, DecodeError, Str, decode, encode

Real = NDArray[np.float64]
Whole = NDArray[np.int64]
# Counts a table has besides the cells between its edges, where an axis counts what is outside: below, above, missing.
OUTSIDE = 3
# All tables of a release together.
MOST_CELLS = 1 << 20


class Source(IntEnum):
    """Where a number of a person comes from: the closed list.

    LABEL is the person's target, FEATURE an input by its place, COLUMN a number that the task hands out by name. The
    others need the model that came with the request: SCORE is its probability of class 1, RIGHT whether the class it
    says is the label (1 or 0), LOSS the task's loss.
    """

    LABEL = 0
    FEATURE = 1
    COLUMN = 2
    SCORE = 3
    RIGHT = 4
    LOSS = 5

    @property
    def needs_model(self) -> bool:
        """Whether a model has to be asked."""
        return self in (Source.SCORE, Source.RIGHT, Source.LOSS)


@dataclass(frozen=True, slots=True)
class Axis:
    """One source cut by public edges: cell i holds edges[i] <= x < edges[i + 1], the last one its upper end too.

    Args:
        source: one of `Source`.
        edges: at least two, rising.
        outside: count what is below, above and missing in three more cells, in this order; otherwise numbers outside
            count in the nearest cell, and who has none is in no cell of the table.
        number: which feature, from 0.
        name: which column.
    """

    source: U8
    edges: tuple[F64, ...]
    outside: Bool = False
    number: U32 = 0
    name: Str = ""

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.edges, self.edges[1:], strict=False))
        if len(self.edges) < 2 or not rising or not all(math.isfinite(e) for e in self.edges):
            raise ValueError("an axis needs at least two finite edges, each above the one before")
        if self.source not in tuple(Source):
            raise ValueError("an axis needs a source of the closed list")
        if (self.number and self.source != Source.FEATURE) or bool(self.name) != (self.source == Source.COLUMN):
            raise ValueError("a number goes with a feature, and a name with a column")

    @property
    def cells(self) -> int:
        """How many cells it has."""
        return len(self.edges) - 1 + OUTSIDE * self.outside

    def places(self, values: Real) -> Whole:
        """In which cell each number is, -1 for none; shape (persons,)."""
        inside = len(self.edges) - 1
        found = np.searchsorted(np.asarray(self.edges), values, side="right").astype(np.int64) - 1
        # Of NaN that is the last place, too.
        missing, below = np.isnan(values), values < self.edges[0]
        above = values > self.edges[-1]
        found = np.clip(found, 0, inside - 1)
        if not self.outside:
            return np.where(missing, -1, found)
        return np.select([below, above, missing], [inside, inside + 1, inside + 2], found)


@dataclass(frozen=True, slots=True)
class Table:
    """Counts by one or several axes, the last one varying fastest."""

    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not self.axes or math.prod(self.shape) > MOST_CELLS:
            raise ValueError("a table needs an axis, and not more than 2^20 cells")

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells by axis."""
        return tuple(axis.cells for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Tables:
    """What one release counts."""

    TAG: ClassVar[int] = 55

    tables: tuple[Table, ...]

    def __post_init__(self) -> None:
        if not self.tables or self.length > MOST_CELLS:
            raise ValueError("expected at least one table, and not more than 2^20 cells together")

    @property
    def length(self) -> int:
        """Cells of all tables."""
        return sum(math.prod(table.shape) for table in self.tables)

    @property
    def needs_model(self) -> bool:
        """Whether anything of it is about a model."""
        return any(Source(axis.source).needs_model for table in self.tables for axis in table.axes)

    def split(self, flat: Whole) -> tuple[Whole, ...]:
        """A release's vector as the tables, each of its shape."""
        parts, start = [], 0
        for table in self.tables:
            size = math.prod(table.shape)
            parts.append(flat[start : start + size].reshape(table.shape))
            start += size
        return tuple(parts)


def counted(tables: Tables, numbers: Callable[[Axis], Real]) -> Whole:
    """The counts of some persons, flat, shape (tables.length,).

    Args:
        tables: what is counted.
        numbers: the persons' numbers for an axis, one a person, shape (persons,); NaN where there is none.
    """
    parts = []
    for table in tables.tables:
        places = [axis.places(numbers(axis)) for axis in table.axes]
        inside = np.all([place >= 0 for place in places], axis=0)
        cells = np.ravel_multi_index([np.where(inside, place, 0) for place in places], table.shape)
        parts.append(np.bincount(cells[inside], minlength=math.prod(table.shape)))
    return np.concatenate(parts).astype(np.int64)


def read_tables(raw: object) -> Tables:
    """The tables in a request; PeerError if there are none of the closed list."""
    try:
        return decode(raw if isinstance(raw, bytes) else b"", Tables)
    except DecodeError as error:
        raise PeerError(f"counts of something that is not in the closed list: {error.message}", peer="server") from None


def check_tables(tables: Tables, length: int, plan: PrivacyPlan) -> None:
    """That a round counts what its plan is charged for.

    Args:
        tables: what the sites are asked to count.
        length: of the vector in the header's layout.
        plan: the header's.

    Raises:
        PeerError: one person would be in more cells than the noise covers, or the vector has another length.
    """
    if tables.length != length:
        raise PeerError("tables of another length than the round's vector", peer="server")
    if isinstance(plan, SharedGeometric) and len(tables.tables) > plan.cells:
        raise PeerError("a person would count in more cells than the plan is charged for", peer="server")


def encode_tables(tables: Tables) -> bytes:
    """The canonical bytes that requests carry."""
    return encode(tables)


def labels(classes: int, *, outside: bool = False) -> Axis:
    """The axis of class labels 0 to ``classes`` - 1."""
    return codes(Source.LABEL, classes, outside=outside)


def codes(source: Source, count: int, *, name: str = "", number: int = 0, outside: bool = False) -> Axis:
    """The axis of whole numbers 0 to ``count`` - 1."""
    return Axis(int(source), tuple(i - 0.5 for i in range(count + 1)), outside, number, name)


def agreement(first: str, second: str, classes: int) -> Table:
    """What two columns of codes say about the same items: a table of ``classes`` x ``classes``.

    From it follow agreement, Cohen's kappa and whatever else is made of such a table. An item that one of them did not
    judge (NaN) is in no cell.
    """
    return Table((codes(Source.COLUMN, classes, name=first), codes(Source.COLUMN, classes, name=second)))
