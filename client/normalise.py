"""Normalisation by public ranges or by federated moments.

Features are first mapped to u in [-1, 1] by a public range each; the release `moments` is the mean of (u, u^2) over
all persons of all sites. What the model sees is (x - mean) / deviation with the federation's mean and deviation, the
same at every site and at prediction.

Of a person with several records the row is the mean over these records, so that one person is one row however many
records there are: adding or removing a person changes the sum of rows by one row, which the release clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedseal.client.task import Batch, Persons, batch_of, size
from fedseal.errors import ConfigError

Real = NDArray[np.float64]

_LAYOUTS = (
    "Give low and high a number for each column of the first tensor that data() returns: shape (persons, features), or "
    "(persons, records, features) and as the second tensor their mask, shape (persons, records), as person_items() "
    "makes both."
)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """The federation's mean and deviation of each feature."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def apply(self, persons: Persons) -> Persons:
        """The same persons with normalised features; of records, what is padding becomes zero.

        Raises:
            ConfigError: the features are not of a layout that can be normalised, or not so many.
        """
        batch = batch_of(persons, np.arange(size(persons)))
        features = batch[0]
        present = records_present(batch, len(self.mean))
        mean = torch.tensor(self.mean, dtype=features.dtype)
        deviation = torch.tensor(self.deviation, dtype=features.dtype)
        normalised = (features - mean) / deviation
        if present is not None:
            normalised = torch.where(present.unsqueeze(2), normalised, torch.zeros_like(normalised))
        return torch.utils.data.TensorDataset(normalised, *batch[1:])


def records_present(batch: Batch, features: int) -> Tensor | None:
    """Which records of each person there are, shape (persons, records); None where a person is one row of features.

    Args:
        batch: inputs and, last, the targets; of grouped records the mask is the second input.
        features: how many features there have to be.

    Raises:
        ConfigError: the tensors have other shapes. Nothing here depends on what is in them: a refusal may not be a
            fact about a person.
    """
    first = batch[0]
    if first.ndim not in (2, 3) or first.shape[-1] != features:
        raise ConfigError(
            f"normalisation is for {features} features, the data has shape {tuple(first.shape[1:])}",
            next_step=_LAYOUTS,
        )
    if first.ndim == 2:
        return None
    # The last tensor holds the targets, and so is no mask.
    if len(batch) < 3 or batch[1].shape != first.shape[:2]:
        raise ConfigError(
            "normalisation of several records a person needs the mask that says which of them there are",
            next_step=_LAYOUTS,
        )
    return batch[1] != 0


def unlike_records(persons: Persons, features: int) -> int:
    """How many persons of grouped records have a mask that is none: other numbers than 0 and 1, or a record where it
    says that there is none.

    For a simulation, before anything is trained. At a site such a person is taken as the mask says.
    """
    batch = batch_of(persons, np.arange(size(persons)))
    present = records_present(batch, features)
    if present is None:
        return 0
    other = ((batch[1] != 0) & (batch[1] != 1)).any(dim=1)
    hidden = ((batch[0] != 0).any(dim=2) & ~present).any(dim=1)
    return int((other | hidden).sum())


def normalised(persons: Persons, normalisation: Normalisation | None) -> Persons:
    """The persons as the model gets them: normalised as the federation agreed, if it agreed on anything."""
    return persons if normalisation is None else normalisation.apply(persons)


def moment_rows(persons: Persons, low: Sequence[float], high: Sequence[float]) -> Real:
    """Per person (u, u^2), shape (persons, 2 * features), every entry in [-1, 1]; of several records their mean.

    A person without a number somewhere, or without any record, counts as 0.

    Raises:
        ConfigError: the ranges do not fit the features, or are no ranges: the server sends them, so they are checked
            here, before any data is touched.
    """
    lowest, highest = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    if lowest.shape != highest.shape or not (np.isfinite(highest - lowest).all() and (lowest < highest).all()):
        raise ConfigError("each feature needs a finite range with its low end below its high end")
    batch = batch_of(persons, np.arange(size(persons)))
    present = records_present(batch, len(lowest))
    features = batch[0].double().numpy()
    scaled = np.clip(2 * ((features - lowest) / (highest - lowest)) - 1, -1.0, 1.0)
    rows = np.concatenate([scaled, scaled**2], axis=-1)
    if present is not None:
        rows = _means(rows, present.numpy())
    rows[~np.isfinite(rows).all(axis=1)] = 0.0
    return rows


def _means(rows: Real, present: NDArray[np.bool_]) -> Real:
    """The mean over each person's records, shape (persons, columns). What stands where no record is does not count."""
    counts = np.maximum(present.sum(axis=1), 1)[:, None]
    return np.asarray(np.where(present[:, :, None], rows, 0.0).sum(axis=1) / counts)


def own_normalisation(persons: Persons) -> Normalisation:
    """The mean and deviation of a dataset's features, for models that never leave their site. One person counts as
    much as another, however many records there are.

    Raises:
        ConfigError: the features are not of a layout that can be normalised.
    """
    batch = batch_of(persons, np.arange(size(persons)))
    present = records_present(batch, batch[0].shape[-1])
    features = batch[0].double().numpy()
    if present is None:
        features, kept = features[:, None, :], np.ones((len(features), 1), dtype=np.bool_)
    else:
        kept = present.numpy()
    mean = _means(features, kept).mean(axis=0)
    variance = _means((features - mean) ** 2, kept).mean(axis=0)
    return Normalisation(tuple(mean.tolist()), tuple(np.maximum(np.sqrt(variance), 1e-6).tolist()))
