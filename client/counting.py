"""Counting a site's persons into the tables of a release: which of their numbers goes where."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from fedseal.client.metrics import Real, loss_range, probability
from fedseal.client.task import Batch, Persons, Task, batch_of, outputs_and_targets, size
from fedseal.errors import ConfigError
from fedseal.privacy.counts import Axis, Source, Tables, Whole, counted

BATCH = 1024


def count_persons(
    tables: Tables,
    task: Task,
    persons: Persons,
    model: tuple[nn.Module, Persons] | None,
    columns: Mapping[str, Real],
) -> Whole:
    """The counts of all tables over some persons, flat.

    Args:
        tables: what is counted.
        task: the study's.
        persons: as the task gives them, not normalised.
        model: what is asked for scores and losses, and the same persons as it wants them.
        columns: the task's own numbers of these persons by name.

    Raises:
        ConfigError: the persons have no such number; nothing here depends on what the numbers are.
    """
    return counted(tables, numbers_of(task, persons, model, columns))


def numbers_of(
    task: Task, persons: Persons, model: tuple[nn.Module, Persons] | None, columns: Mapping[str, Real]
) -> Callable[[Axis], Real]:
    """The numbers of some persons for any axis, each looked up once. What is missing is said when it is asked for."""
    found: dict[Axis, Real] = {}
    batch = batch_of(persons, np.arange(size(persons))) if size(persons) else None

    def numbers(axis: Axis) -> Real:
        if batch is None:
            return np.zeros(0)
        if axis not in found:
            found[axis] = _numbers(axis, task, batch, model, columns)
        return found[axis]

    return numbers


def _numbers(
    axis: Axis, task: Task, batch: Batch, model: tuple[nn.Module, Persons] | None, columns: Mapping[str, Real]
) -> Real:
    match Source(axis.source):
        case Source.LABEL:
            return _one_each(batch[-1].double().numpy(), len(batch[-1]), "the label")
        case Source.FEATURE:
            first = batch[0]
            if first.ndim != 2 or axis.number >= first.shape[1]:
                raise ConfigError(f"there is no feature {axis.number} to count: one record a person, counted from 0")
            return np.asarray(first[:, axis.number].double().numpy())
        case Source.COLUMN:
            if axis.name not in columns:
                raise ConfigError(
                    f"data() hands out no column {axis.name!r}",
                    next_step="Return it: Split(..., columns={...}), one number for each training person, or "
                    "test_columns for test persons.",
                )
            return _one_each(np.asarray(columns[axis.name], dtype=np.float64), len(batch[-1]), f"column {axis.name!r}")
        case source:
            if model is None:
                raise ConfigError("counts about a model, and the request brought none")
            return _of_model(source, task, *model)


def _one_each(values: Real, persons: int, what: str) -> Real:
    if values.size != persons:
        raise ConfigError(f"{what} has {values.size} numbers for {persons} persons")
    return values.reshape(persons)


def _of_model(source: Source, task: Task, module: nn.Module, persons: Persons) -> Real:
    """One number a person about what a model says."""
    parts, count = [], size(persons)
    module.eval()
    with torch.no_grad():
        for start in range(0, count, BATCH):
            batch = batch_of(persons, np.arange(start, min(start + BATCH, count)))
            if source is Source.LOSS:
                found = task.loss(module, batch).double().clamp(*loss_range(task))
            else:
                outputs, targets = outputs_and_targets(module, batch)
                found = probability(outputs).double() if source is Source.SCORE else _right(outputs, targets)
            parts.append(_one_each(found.numpy(), len(batch[0]), "what the model says"))
    return np.concatenate(parts)


def _right(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the class the model says is the label, as the metric `accuracy` has it."""
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        said = outputs.argmax(dim=1)
    else:
        said = (outputs.reshape(len(outputs)) > 0).long()
    return (said == targets.reshape(len(targets)).long()).double()
