"""Normalisation by public ranges or by federated moments.

Features are first mapped to u in [-1, 1] by a public range each; the release `moments` is the mean of (u, u^2) over
all persons of all sites. What the model sees is (x - mean) / deviation with the federation's mean and deviation, the
same at every site and at prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fedseal.client.task import Persons, batch_of, size
from fedseal.errors import ConfigError

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The federation's mean and deviation of each feature."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, persons: Persons) -> Persons:
        """The same persons with normalised features.

        Raises:
            ConfigError: the features are not one row of numbers of the right length.
        """
        batch = batch_of(persons, np.arange(size(persons)))
        features = batch[0]
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise ConfigError(
                f"normalisation is for {len(self.mean)} features, the data has shape {tuple(features.shape[1:])}",
                next_step="Give one range for each column of the first tensor that data() returns.",
            )
        mean = torch.tensor(self.mean, dtype=features.dtype)
        deviation = torch.tensor(self.deviation, dtype=features.dtype)
        return torch.utils.data.TensorDataset((features - mean) / deviation, *batch[1:])


def moment_rows(persons: Persons, low: Sequence[float], high: Sequence[float]) -> Real:
    """Per person (u, u^2), shape (persons, 2 * features), every entry in [-1, 1]; a person without a number counts as
    0.

    Raises:
        ConfigError: the ranges do not fit the features, or are no ranges: the server sends them, so they are checked
            here, before any data is touched.
    """
    lowest, highest = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if lowest.shape != highest.shape or not (np.isfinite(highest - lowest).all() and (lowest < highest).all()):
        raise ConfigError("each feature needs a finite range with its low end below its high end")
    features = batch_of(persons, np.arange(size(persons)))[0].double().numpy()
    if features.ndim != 2 or features.shape[1] != len(lowest):
        raise ConfigError("the ranges of [normalisation] do not fit the features")
    scaled = np.clip(2 * ((features - lowest) / (highest - lowest)) - 1, -1.0, 1.0)
    rows = np.concatenate([scaled, scaled**2], axis=1)
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    return rows
