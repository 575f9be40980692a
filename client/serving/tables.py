"""A CSV or parquet file read piece by piece, so that a large one needs no more memory than a small one.

Messages name columns that the model asks for, and rows by their number; they never quote what is in the file. Also not
its header: of a file without one that is a person.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from fedseal.errors import ConfigError, DataError

# A row of a CSV file is at most this long, with its quotes.
BLOCK = 4 << 20
MOST_COLUMNS = 10_000
LONGEST_HEADER = 1 << 20
ROWS = 65_536
# How Arrow's message begins. Behind it the row is quoted.
_WIDTH = re.compile(r"CSV parse error: Row #([0-9]+): Expected [0-9]+ columns, got ([0-9]+)")
_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True, slots=True)
class TableFile:
    """A file whose header was read. ``columns`` are its columns by name, in their order."""

    path: Path
    columns: tuple[str, ...]

    @property
    def is_parquet(self) -> bool:
        """Whether it is parquet; CSV otherwise."""
        return self.path.suffix == ".parquet"

    def pieces(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns, piece by piece; of a CSV file all values are text.

        Raises:
            DataError: the file cannot be read to its end.
        """
        with _readable(self.path):
            yield from _parquet(self.path, names) if self.is_parquet else _csv(self.path, names, len(self.columns))


def open_table(path: Path) -> TableFile:
    """Read a file's header.

    Raises:
        ConfigError: the file's name ends in neither .csv nor .parquet, or there is none.
        DataError: it has no header that can be read, or two columns of one name.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{path} is neither CSV nor parquet by its name", next_step="Name it .csv or .parquet.")
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    with _readable(path):
        if path.suffix == ".parquet":
            with arrow_parquet.ParquetFile(path) as file:
                columns = tuple(file.schema_arrow.names)
        else:
            columns = _header(path)
    if len(columns) > MOST_COLUMNS:
        raise DataError(f"{path} has more than {MOST_COLUMNS} columns")
    if len(set(columns)) != len(columns):
        twice = next(place for place, name in enumerate(columns) if name in columns[:place])
        raise DataError(f"{path} has two columns of one name: the second is column {twice + 1}")
    return TableFile(path, columns)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What Arrow says of a file may quote it: only the kind of error is told."""
    try:
        yield
    except _UNREADABLE as error:
        raise DataError(
            f"{path} cannot be read as a table ({type(error).__name__})",
            next_step="CSV has to be UTF-8 with one header, and no row may be longer than 4 MiB: look for a quote that "
            "is not closed. Parquet files have to be whole.",
        ) from None


def _header(path: Path) -> tuple[str, ...]:
    with path.open("rb") as file:
        line = file.readline(LONGEST_HEADER + 1)
    if len(line) > LONGEST_HEADER:
        raise DataError(f"{path}: its first line is longer than {LONGEST_HEADER} bytes: that is no header")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8", next_step="Save it as UTF-8.") from None
    if "\0" in text:
        raise DataError(f"{path}: its header holds a zero byte")
    if text.count('"') % 2:
        raise DataError(f"{path}: a quote in its header is not closed")
    try:
        columns = next(csv.reader([text]), [])
    except csv.Error:
        raise DataError(f"{path}: its header cannot be read") from None
    if not any(columns):
        raise DataError(f"{path} has no header")
    return tuple(columns)


def _csv(path: Path, names: Sequence[str], width: int) -> Iterator[pa.RecordBatch]:
    try:
        with arrow_csv.open_csv(
            path,
            read_options=arrow_csv.ReadOptions(block_size=BLOCK, use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=list(names), column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        ) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        found = _WIDTH.match(str(error))
        if found is None:
            raise
        raise DataError(f"{path}: row {found[1]}, the header being 1, has {found[2]} values and not {width}") from None


def _parquet(path: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    with arrow_parquet.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(batch_size=ROWS, columns=list(names), use_threads=False)
