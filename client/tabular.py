"""A task for tables of numbers: logistic regression or one hidden layer, missing values filled by the public centre.

A study names it in three lines of its task.py::

    from fedseal.client.tabular import Tabular

    task = Tabular(("age", "pressure"), classes=2, centre=(54.0, 130.0), scale=(9.0, 18.0))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy, auc
from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.errors import DataError

LABEL, PART = "fedseal_label", "fedseal_part"
TRAIN, VALIDATION, TEST = 0, 1, 2
# Beyond so many scales a value is a mistake of a unit or a sensor; it may not blow up a step.
WIDEST = 10.0


@dataclass(frozen=True, slots=True)
class Tabular:
    """Classification of rows of numbers.

    A site's table has a column for each feature, ``fedseal_label`` with the class from 0, and ``fedseal_part`` with 0
    for persons trained on, 1 for validation and 2 for test.

    ``centre`` and ``scale`` are public, one for each feature, as a data dictionary states them: a value becomes
    (value - centre) / scale, at most 10 away from 0, and a missing one becomes 0. ``hidden`` is the number of units of
    the hidden layer; with 0 there is none.
    """

    features: tuple[str, ...]
    classes: int
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    hidden: int = 0

    def model(self) -> nn.Module:
        """Logits, one for each class."""
        if not self.hidden:
            return nn.Linear(len(self.features), self.classes)
        return nn.Sequential(
            nn.Linear(len(self.features), self.hidden), nn.ReLU(), nn.Linear(self.hidden, self.classes)
        )

    def scaled(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        """What the model sees of values of shape (n, features), NaN where one is missing."""
        places = (values - np.array(self.centre)) / np.array(self.scale)
        filled = np.clip(np.nan_to_num(places, nan=0.0, posinf=0.0, neginf=0.0), -WIDEST, WIDEST)
        inputs: NDArray[np.float32] = filled.astype(np.float32)
        return inputs

    def data(self, site: SiteData) -> Split:
        """The site's persons by their part."""
        table = columns(site.table(), [*self.features, LABEL, PART])
        inputs = torch.from_numpy(self.scaled(table[list(self.features)].to_numpy(dtype=np.float64)))
        labels = torch.from_numpy(table[LABEL].to_numpy(dtype=np.int64, copy=True))
        if len(labels) and not bool(((labels >= 0) & (labels < self.classes)).all()):
            raise DataError(f"column {LABEL!r} has to be a class from 0 to {self.classes - 1}")
        parts = [torch.from_numpy(np.flatnonzero(table[PART].to_numpy() == p)) for p in (TRAIN, VALIDATION, TEST)]
        train, validation, test = (TensorDataset(inputs[part], labels[part]) for part in parts)
        return Split(train, validation, test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each person."""
        inputs, labels = batch
        return nn.functional.cross_entropy(model(inputs), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        """Accuracy, and AUC where there are two classes."""
        return [accuracy(), auc(bins=100)] if self.classes == 2 else [accuracy()]
