"""Predictions written to a new file, which appears when it is whole: never over another one, never half."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as arrow_parquet

from fedseal.errors import ConfigError
from fedseal.storage import on_disk

ROW, PREDICTION, ABSTAINED, REASON = "row", "prediction", "abstained", "reason"


class Sink(Protocol):
    """What takes batches of rows: Arrow's writers of CSV and of parquet."""

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Write some rows."""


@dataclass(frozen=True, slots=True)
class Form:
    """Which columns an output has: ``key`` names the rows, with it ``classes`` get a score each.

    ``key`` is None where rows are numbered, from 1.
    """

    key: str | None
    classes: tuple[str, ...]

    @property
    def schema(self) -> pa.Schema:
        """Arrow's."""
        first = (ROW, pa.int64()) if self.key is None else (self.key, pa.string())
        said = pa.string() if self.classes else pa.float64()
        scores = [(f"score:{name}", pa.float64()) for name in self.classes]
        return pa.schema([first, (PREDICTION, said), *scores, (ABSTAINED, pa.bool_()), (REASON, pa.string())])

    def check(self) -> None:
        """That no two columns have one name; ConfigError if the key is called as another one."""
        names = self.schema.names
        if len(set(names)) != len(names):
            raise ConfigError(f"a column {self.key!r} is also one of the output's", next_step="Rename it in the file.")


@contextmanager
def writing(path: Path, form: Form) -> Iterator[Sink]:
    """A new file for predictions, only its owner's; it is there when the block ends, and not at all if that fails.

    Raises:
        ConfigError: it exists, cannot be made, or its name ends in neither .csv nor .parquet.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{path} is neither CSV nor parquet by its name", next_step="Name it .csv or .parquet.")
    with new_file(path) as partial, partial.open("wb") as file:
        if path.suffix == ".parquet":
            with arrow_parquet.ParquetWriter(file, form.schema) as rows:
                yield rows
        else:
            with arrow_csv.CSVWriter(file, form.schema) as lines:
                yield lines
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write to, that becomes ``path`` at the end of the block.

    Raises:
        ConfigError: ``path`` exists, also if it came into being meanwhile, or cannot be made.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    made = False
    try:
        if os.path.lexists(path):
            raise FileExistsError(17, "it exists already")
        os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        made = True
        yield partial
        # Unlike a rename, a link never replaces what is there.
        os.link(partial, path)
        on_disk(path.parent)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path} cannot be written: {reason}", next_step="Give another file: --out FILE.") from None
    finally:
        if made:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """A small file, new and whole."""
    with new_file(path) as partial, partial.open("wb") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())


def rows_of(form: Form, columns: Sequence[pa.Array]) -> pa.RecordBatch:
    """A batch of an output's columns, in their order."""
    return pa.RecordBatch.from_arrays(list(columns), schema=form.schema)
