"""Annotations as files bring them in: one record of who gave which label to what, when, under which guideline.

Files come from outside and may be huge or hostile: sizes are bounded before anything is held, and every error names
the place and what is wrong with it, never what stands there. A label under a wrong name could be a diagnosis.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from fedseal.errors import ConfigError, DataError

MOST_BYTES = 1 << 30
# A JSON document is in memory as a whole, some ten times as large as in its file.
MOST_JSON_BYTES = 1 << 28
# What is stored in one transaction, for which everything else that uses the store waits.
MOST_ANNOTATIONS = 1_000_000
LONGEST_NAME = 256
LONGEST_LINE = 1 << 24


class Format(StrEnum):
    """The layouts that `fedseal labels import` reads, which also say with which tool labels were made."""

    CSV_WIDE = "csv-wide"
    CSV_LONG = "csv-long"
    LABEL_STUDIO = "label-studio"
    DOCCANO = "doccano"

    @property
    def unit(self) -> str:
        """What its places are called."""
        return {"label-studio": "task"}.get(self.value, "line")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One label given by one annotator to one item.

    ``time`` is in UTC, None if the file has none; ``guideline`` the version's name, empty if the file has none;
    ``place`` where it stands: a line, or a task, from 1.
    """

    item: str
    annotator: str
    label: str
    time: datetime | None
    guideline: str
    place: int


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read, and how.

    Args:
        path: the file.
        format: its layout.
        annotator: whose labels they are, where the file does not say (one of doccano's layouts).
        item_key: which entry of a task's ``data`` (Label Studio) or of a line (doccano) names the item; their own
            ``id`` if empty.
        control: which control's results count, in Label Studio, if a task has several.
    """

    path: Path
    format: Format
    annotator: str = ""
    item_key: str = ""
    control: str = ""

    def where(self, place: int) -> str:
        """A place in the file, for messages."""
        return f"{self.path.name}: {self.format.unit} {place}"

    def wrong(self, place: int, what: str, *, next_step: str = "") -> DataError:
        """The error for a place."""
        return DataError(f"{self.where(place)}: {what}", next_step=next_step)


def check_size(path: Path, most: int) -> None:
    """That the file is there and no larger; ConfigError or DataError if not."""
    if not path.is_file():
        raise ConfigError(f"{path} is not a file")
    if path.stat().st_size > most:
        raise DataError(f"{path.name} is larger than {most >> 20} MiB", next_step="Split it, and import the parts.")


def name_at(source: Source, place: int, what: str, value: object) -> str:
    """An item's, annotator's or label's name: 1 to 256 printable characters, spaces at its ends taken off.

    Integers are names too: tools number their tasks and users.
    """
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return str(value)
    if not isinstance(value, str):
        raise source.wrong(place, f"the {what} is missing, or is no text")
    name = value.strip()
    if not name:
        raise source.wrong(place, f"the {what} is empty")
    if len(name) > LONGEST_NAME or not name.isprintable():
        raise source.wrong(place, f"the {what} has more than {LONGEST_NAME} characters, or unprintable ones")
    return name


def time_at(source: Source, place: int, value: object) -> datetime | None:
    """A time in ISO 8601 with its zone, in UTC; None for an empty one."""
    if value is None or value == "":
        return None
    try:
        time = datetime.fromisoformat(value.strip()) if isinstance(value, str) and len(value) <= 64 else None
        aware = time.astimezone(UTC) if time is not None and time.tzinfo is not None else None
    except (ValueError, OverflowError):
        aware = None
    if aware is None:
        raise source.wrong(place, "the time is not ISO 8601 with a time zone", next_step="Like 2026-03-01T12:00:00Z.")
    return aware


def counted(source: Source, annotations: Iterator[Annotation]) -> list[Annotation]:
    """All of them, if they are not too many."""
    held = []
    for annotation in annotations:
        held.append(annotation)
        if len(held) > MOST_ANNOTATIONS:
            raise DataError(f"{source.path.name} has more than {MOST_ANNOTATIONS} annotations")
    if not held:
        raise DataError(f"{source.path.name} has no annotation")
    return held


def read_csv(source: Source) -> list[Annotation]:
    """A comma-separated table in UTF-8, its first row the names of its columns.

    Long: columns item, annotator, label and, if wanted, time and guideline, in any order. Wide: the column item and
    one column an annotator; an empty cell is no annotation.

    Raises:
        DataError: the place and what is wrong there.
    """
    check_size(source.path, MOST_BYTES)
    read = _long if source.format is Format.CSV_LONG else _wide
    try:
        with source.path.open(encoding="utf-8-sig", newline="") as file:
            return counted(source, read(source, _rows(source, csv.reader(_lines(source, file), strict=True))))
    except UnicodeDecodeError:
        raise DataError(f"{source.path.name} is not in UTF-8", next_step="Save it as CSV in UTF-8.") from None


def read_labels(path: Path) -> dict[str, str]:
    """One label an item, from a CSV file with the columns item and label: gold labels, or a reviewer's decisions.

    Raises:
        DataError: the place and what is wrong there.
    """
    source = Source(path, Format.CSV_LONG)
    check_size(path, MOST_BYTES)
    labels: dict[str, str] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = _rows(source, csv.reader(_lines(source, file), strict=True))
            header = _header(source, rows)
            if sorted(header) != ["item", "label"]:
                raise source.wrong(1, "the columns are not item and label")
            items = header.index("item")
            for place, row in rows:
                cells = _cells(source, place, row, 2)
                item = name_at(source, place, "item", cells[items])
                if item in labels:
                    raise source.wrong(place, "the item stands on an earlier line too")
                labels[item] = name_at(source, place, "label", cells[1 - items])
                if len(labels) > MOST_ANNOTATIONS:
                    raise DataError(f"{path.name} has more than {MOST_ANNOTATIONS} items")
    except UnicodeDecodeError:
        raise DataError(f"{path.name} is not in UTF-8", next_step="Save it as CSV in UTF-8.") from None
    if not labels:
        raise DataError(f"{path.name} has no label")
    return labels


def _lines(source: Source, file: TextIO) -> Iterator[str]:
    """The lines of a file, each bounded before it is held."""
    place = 0
    while line := file.readline(LONGEST_LINE + 1):
        place += 1
        if len(line) > LONGEST_LINE:
            raise source.wrong(place, f"longer than {LONGEST_LINE >> 20} Mi characters")
        yield line


def _rows(source: Source, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with their numbers: of rows, which are lines unless a cell holds a line break."""
    place = 0
    while True:
        place += 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise source.wrong(place, "not a row of a CSV file", next_step="Look for a stray quote.") from None
        if any(cell.strip() for cell in row):
            yield place, row


def _header(source: Source, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, header = next(rows, (1, []))
    header = [cell.strip() for cell in header]
    seen: set[str] = set()
    for column, name in enumerate(header, start=1):
        if name and name in seen:
            raise source.wrong(1, f"column {column} has the name of an earlier one")
        seen.add(name)
    if "item" not in header:
        raise source.wrong(1, "there is no column 'item'", next_step="The first row names the columns.")
    return header


def _cells(source: Source, place: int, row: list[str], columns: int) -> list[str]:
    if len(row) != columns:
        raise source.wrong(place, f"{len(row)} cells where the first row has {columns}")
    return row


def _long(source: Source, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Annotation]:
    header = _header(source, rows)
    needed, allowed = ("item", "annotator", "label"), ("item", "annotator", "label", "time", "guideline")
    missing = [name for name in needed if name not in header]
    unknown = [i for i, name in enumerate(header, start=1) if name not in allowed]
    if missing or unknown:
        what = f"there is no column {missing[0]!r}" if missing else f"column {unknown[0]} is none of {list(allowed)}"
        raise source.wrong(1, what, next_step="For one column an annotator say --format csv-wide.")
    column = {name: header.index(name) for name in header}
    for place, row in rows:
        cells = _cells(source, place, row, len(header))
        guideline = cells[column["guideline"]].strip() if "guideline" in column else ""
        yield Annotation(
            name_at(source, place, "item", cells[column["item"]]),
            name_at(source, place, "annotator", cells[column["annotator"]]),
            name_at(source, place, "label", cells[column["label"]]),
            time_at(source, place, cells[column["time"]].strip()) if "time" in column else None,
            name_at(source, place, "guideline", guideline) if guideline else "",
            place,
        )


def _wide(source: Source, rows: Iterator[tuple[int, list[str]]]) -> Iterator[Annotation]:
    header = _header(source, rows)
    items = header.index("item")
    annotators = {i: name_at(source, 1, f"name of column {i + 1}", n) for i, n in enumerate(header) if i != items}
    if {"annotator", "label"} <= set(header):
        raise source.wrong(1, "columns 'annotator' and 'label'", next_step="That is --format csv-long.")
    for place, row in rows:
        cells = _cells(source, place, row, len(header))
        item = name_at(source, place, "item", cells[items])
        for i, annotator in annotators.items():
            if cells[i].strip():
                yield Annotation(item, annotator, name_at(source, place, "label", cells[i]), None, "", place)
