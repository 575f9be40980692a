"""What a study brings: a model, the site's data, a loss per person, and metrics that add up.

One item of every dataset is one person. Batches are tuples of tensors whose first dimension counts persons; all but
the last are the model's inputs, the last one holds the targets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from fedseal.errors import DataError

Batch: TypeAlias = tuple[Tensor, ...]
Persons: TypeAlias = Dataset[tuple[Tensor, ...]]

# Public, and part of what a model is: another number would be another set of frozen layers.
MODEL_SEED = 0x6665_6473_6561_6C31


@dataclass(frozen=True, slots=True)
class SiteData:
    """Where a site keeps its persons: a folder with one CSV or parquet file."""

    name: str
    folder: Path

    def path(self) -> Path:
        """The file with the site's table; DataError if the folder does not hold exactly one."""
        files = sorted(p for p in self.folder.glob("*") if p.suffix in {".csv", ".parquet"})
        if len(files) != 1:
            raise DataError(
                f"{self.folder} holds {len(files)} CSV or parquet files, expected one",
                next_step="Put the site's table there, one row for each record.",
            )
        return files[0]

    def table(self) -> pd.DataFrame:
        """The site's table.

        Raises:
            DataError: the folder does not hold exactly one readable file.
        """
        return read_table(self.path())


def read_table(path: Path) -> pd.DataFrame:
    """A CSV or parquet file; DataError if it is neither. Messages never quote its contents."""
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        raise DataError(f"{path} is no readable table ({type(error).__name__})") from None


def columns(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The named columns; DataError lists those that are missing."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"the table lacks {'column' if len(missing) == 1 else 'columns'} {', '.join(map(repr, missing))}",
            next_step="Compare the table's header with the columns that the study's task.py names.",
        )
    return table[list(names)]


@dataclass(frozen=True, slots=True)
class Split:
    """A site's persons, each in one part. The test part is for the end; nothing is tuned on it.

    ``columns`` are further numbers of the training persons by name, shape (persons,), in their order: nothing is
    trained on them, a release of counts may count them (what two annotators said, a device, a group of age).
    ``test_columns`` are such numbers of the test persons: the evaluation's subgroups.
    """

    train: Persons
    validation: Persons
    test: Persons
    columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    test_columns: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is a sum over persons, so that sealed sums are enough for it.

    ``statistic`` maps the model's outputs and the targets to a tensor of shape (batch, length), one row a person,
    clamped to [low, high]; ``value`` maps the mean row over all persons to the number people read (None where it is
    undefined); ``error`` maps it to a bound on how far that number is from the exact one, for metrics that bin.
    """

    name: str
    low: float
    high: float
    length: int
    statistic: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[NDArray[np.float64]], float | None]
    error: Callable[[NDArray[np.float64]], float] = lambda _: 0.0


class Task(Protocol):
    """The plug-in. `fedseal new` writes one to start from."""

    def model(self) -> nn.Module:
        """A new module. Only parameters that require a gradient are trained and released."""

    def data(self, site: SiteData) -> Split:
        """This site's persons, one item each."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of each person on its own, shape (batch,).

        A person's loss may not depend on who else is in the batch.
        """

    def metrics(self) -> Sequence[Metric]:
        """What to measure besides the loss."""


def build_model(task: Task) -> nn.Module:
    """A new module of the task's, the same at every call, at every site and at the oracle.

    What is frozen is not sent: a layer that ``model()`` draws and nobody trains has to come out alike everywhere.
    torch's own generator is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(MODEL_SEED)
        return task.model()


def size(persons: Persons) -> int:
    """How many persons a dataset holds."""
    return len(persons)  # type: ignore[arg-type]


def batch_of(persons: Persons, indices: NDArray[np.intp]) -> Batch:
    """The persons at ``indices`` as one batch."""
    if isinstance(persons, torch.utils.data.TensorDataset):
        chosen = torch.from_numpy(indices)
        return tuple(t.index_select(0, chosen) for t in persons.tensors)
    return tuple(default_collate([persons[int(i)] for i in indices]))


def outputs_and_targets(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the model says about a batch, and what is true."""
    return model(*batch[:-1]), batch[-1]
