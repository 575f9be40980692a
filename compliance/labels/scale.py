"""What labels may be, how far apart two of them are, and who gave which: the input of every statistic here."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from fedseal.config import Frozen, parse_toml, validate
from fedseal.errors import DataError

MOST_LABELS = 100
MISSING = -1

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


class Level(StrEnum):
    """The level of measurement (Stevens 1946): what may be said of the difference between two labels."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"
    RATIO = "ratio"


@dataclass(frozen=True, slots=True)
class Scale:
    """The labels there are. ``values`` (labels,) are their numbers at levels interval and ratio, their ranks below."""

    level: Level
    values: tuple[float, ...]

    def __len__(self) -> int:
        return len(self.values)


class LabelSchema(Frozen):
    """The file that says what a label may be: the level, and all labels in their order.

    Declared, never collected from the data: which labels occur at a site is nobody else's business.
    """

    version: Literal[1] = 1
    level: Level
    labels: tuple[str, ...] = Field(min_length=2, max_length=MOST_LABELS)

    @model_validator(mode="after")
    def _labels_make_sense(self) -> "LabelSchema":
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("the same label twice")
        if any(label != label.strip() or not 0 < len(label) <= 256 or not label.isprintable() for label in self.labels):
            raise ValueError("a label has 1 to 256 printable characters, none of them a space at its ends")
        if self.level in (Level.INTERVAL, Level.RATIO):
            try:
                values = [float(label) for label in self.labels]
            except ValueError:
                raise ValueError(f"at level {self.level} every label is a number") from None
            if not np.all(np.isfinite(values)) or sorted(set(values)) != values:
                raise ValueError("labels that are numbers are finite and stand in ascending order")
            if self.level is Level.RATIO and values[0] < 0:
                raise ValueError("at level ratio no label is below zero")
        return self

    @property
    def scale(self) -> Scale:
        """The labels as a scale."""
        numeric = self.level in (Level.INTERVAL, Level.RATIO)
        values = [float(label) if numeric else float(rank) for rank, label in enumerate(self.labels)]
        return Scale(self.level, tuple(values))

    def text(self) -> str:
        """The one canonical text of this schema: what the digest is over and what a store keeps."""
        return canonical(self.model_dump(mode="json"))

    def digest(self) -> str:
        """``sha256:`` and 64 hexadecimal digits. Whoever has the schema can recognise it: it is a public document."""
        return "sha256:" + hashlib.sha256(self.text().encode()).hexdigest()


def read_schema(text: str, source: str) -> LabelSchema:
    """Parse a schema file; ConfigError says what is wrong with it."""
    return validate(LabelSchema, parse_toml(text, source), text=text, source=source)


def canonical(value: object) -> str:
    """JSON with sorted keys and no spaces: without floats that is RFC 8785."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Ratings:
    """Annotations as numbers, one entry each: ``items[i]`` was given label ``codes[i]`` by ``raters[i]``.

    Args:
        items: shape (annotations,), from 0 to ``n_items`` - 1.
        raters: shape (annotations,), from 0 to ``n_raters`` - 1.
        codes: shape (annotations,), places in ``scale``.
        n_items: how many items there are, also those that nobody labelled.
        n_raters: how many annotators there are.
        scale: what the codes mean.
    """

    items: Codes
    raters: Codes
    codes: Codes
    n_items: int
    n_raters: int
    scale: Scale

    @classmethod
    def from_matrix(cls, matrix: Sequence[Sequence[int]] | Codes, scale: Scale) -> "Ratings":
        """From codes of shape (items, raters), -1 where an annotator gave no label.

        Raises:
            DataError: a code that the scale does not have.
        """
        codes = np.asarray(matrix, dtype=np.int64)
        if codes.ndim != 2 or np.any(codes < MISSING) or np.any(codes >= len(scale)):
            raise DataError("expected a table items x annotators of places in the scale, -1 where there is none")
        items, raters = np.nonzero(codes != MISSING)
        return cls(items, raters, codes[items, raters], codes.shape[0], codes.shape[1], scale)

    def counts(self) -> Codes:
        """How often each item was given each label: shape (items, labels)."""
        cells = np.bincount(self.items * len(self.scale) + self.codes, minlength=self.n_items * len(self.scale))
        return cells.reshape(self.n_items, len(self.scale)).astype(np.int64, copy=False)

    def multiple(self) -> int:
        """How many items have at least two annotations."""
        return int(np.sum(np.bincount(self.items, minlength=self.n_items) >= 2))

    def groups(self, kinds: Codes) -> tuple["Ratings", Codes, Codes]:
        """Items that were labelled alike, together: statistics of items need each kind once, and how many there are.

        Args:
            kinds: shape (items,): items of different kinds do not go together.

        Returns:
            Ratings in which each group is one item; how many items each group has; and the kind of each group.
        """
        order = np.lexsort((self.codes, self.raters, self.items))
        cells = (self.raters * len(self.scale) + self.codes)[order]
        ends = np.cumsum(np.bincount(self.items, minlength=self.n_items))
        number: dict[tuple[int, bytes], int] = {}
        firsts: list[int] = []
        counts: list[int] = []
        for item, (start, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
            group = number.setdefault((int(kinds[item]), cells[start:end].tobytes()), len(number))
            if group == len(counts):
                firsts.append(item)
                counts.append(0)
            counts[group] += 1
        place = np.full(self.n_items, MISSING, dtype=np.int64)
        place[firsts] = np.arange(len(firsts))
        kept = place[self.items] != MISSING
        grouped = Ratings(
            place[self.items[kept]], self.raters[kept], self.codes[kept], len(firsts), self.n_raters, self.scale
        )
        return grouped, np.array(counts, dtype=np.int64), kinds[firsts]
