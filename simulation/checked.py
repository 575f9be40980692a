"""A study's task in a simulation: its errors and wrong return values become messages for the person who wrote it.

The apps at the simulated sites load the task for themselves, as deployed ones do; there an error becomes a refusal.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

from fedseal.client.metrics import LOSS, Real, loss_range
from fedseal.client.personal import staying_in
from fedseal.client.probe import check_model, check_per_person, check_shape, check_statistics
from fedseal.client.split import person_text
from fedseal.client.task import (
    Batch,
    Metric,
    Persons,
    SiteData,
    Split,
    Task,
    batch_of,
    build_model,
    columns,
    outputs_and_targets,
    size,
)
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.releases import VALIDATION_RATIO
from fedseal.study import Contract
from fedseal.study_code import study_code

T = TypeVar("T")
_HOW = "docs/studies.md says what the methods of a task return."


@dataclass(frozen=True, slots=True)
class CheckedTask:
    """A task whose every answer is checked.

    All methods raise ConfigError where the study's own code raises or returns something else than it should; a
    DataError of `columns` or `SiteData.table` passes.

    ``batch_level`` says that the study declares a loss of the whole batch; ``person`` names the column of ids, if a
    site's items are to be counted against its persons.
    """

    inner: Task
    batch_level: bool = False
    person: str | None = None

    @property
    def loss_range(self) -> tuple[float, float]:
        """The public range of one person's loss."""
        return loss_range(self.inner)

    def model(self) -> nn.Module:
        """The task's module."""
        with study_code("model()"):
            module = self.inner.model()
        return _of_type(module, nn.Module, "model()", "a torch Module")

    def data(self, site: SiteData) -> Split:
        """A site's persons, the first of each part looked at."""
        what = f"data() for {site.name}"
        with study_code(what):
            split = self.inner.data(site)
        _of_type(split, Split, what, "a Split")
        for name, part in (("train", split.train), ("validation", split.validation), ("test", split.test)):
            _check_persons(part, f"{what}, {name} persons")
        if self.person is not None:
            self._check_items(site, split)
        return split

    def _check_items(self, site: SiteData, split: Split) -> None:
        persons = len({person_text(value) for value in columns(site.table(), [str(self.person)])[str(self.person)]})
        items = sum(size(part) for part in (split.train, split.validation, split.test))
        if items > persons:
            raise ConfigError(
                f"data() for {site.name} made {items} items of {persons} persons",
                next_step="The privacy promise is made to persons: make one item of all records of a person, for "
                "example with person_items() of fedseal.client.items.",
            )

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """One loss a person, or one number for the batch where the study declares that."""
        with study_code("loss()"):
            losses = self.inner.loss(model, batch)
        check_shape(_of_type(losses, Tensor, "loss()", "a torch Tensor"), batch, batch_level=self.batch_level)
        return losses

    def metrics(self) -> Sequence[Metric]:
        """The task's metrics, checked and with their functions under the same care."""
        with study_code("metrics()"):
            metrics = list(self.inner.metrics())
        for metric in metrics:
            _check_metric(_of_type(metric, Metric, "metrics()", "a list of Metric"))
        names = [metric.name for metric in metrics]
        if len(set(names)) < len(names):
            raise ConfigError("metrics() names a metric twice", next_step="Give each a name of its own.")
        return [_careful(metric) for metric in metrics]


def check_start(task: Task, splits: Mapping[str, Split], contract: Contract) -> None:
    """What every site would refuse, or would silently count as nothing, said once and before anything is trained.

    Args:
        task: the study's task.
        splits: every site's persons.
        contract: the study's contract.

    Raises:
        ConfigError: the model cannot be trained under the plan, or the loss couples persons undeclared.
        DataError: a person's values or loss are no numbers.
    """
    private = contract.privacy.plan != "none"
    module = build_model(task)
    staying = staying_in(contract.training)
    check_statistics(module, () if staying is None else staying.names(module))
    if private:
        check_model(module)
    # Features that the federation is still to normalise are nothing that the model will see.
    for name, split in splits.items() if contract.normalisation.kind == "task" else ():
        for part, persons in (("training", split.train), ("validation", split.validation), ("test", split.test)):
            _check_numbers(task, module, persons, f"{part} persons of {name}")
    if not contract.training.batch_level:
        largest = max(splits.values(), key=lambda split: size(split.train)).train
        check_per_person(task, GradSampleModule(module, loss_reduction="sum") if private else module, largest)


def _check_numbers(task: Task, module: nn.Module, persons: Persons, whose: str) -> None:
    """That inputs and losses of a new model are finite for everyone."""
    for start in range(0, size(persons), 1024):
        batch = batch_of(persons, np.arange(start, min(start + 1024, size(persons))))
        with study_code("model()"), torch.no_grad():
            outputs, _ = outputs_and_targets(module.eval(), batch)
            losses = task.loss(module, batch)
        module.train()
        if not torch.isfinite(losses).all():
            raise DataError(
                f"the loss is no number for {int((~torch.isfinite(losses)).sum())} of {len(batch[0])} {whose}"
                if losses.ndim
                else f"the loss is no number for a batch of {len(batch[0])} {whose}",
                next_step=_cause(batch, outputs),
            )


def _cause(batch: Batch, outputs: object) -> str:
    """Where to look when a loss is no number."""
    for i, tensor in enumerate(batch):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            what = "the target" if i == len(batch) - 1 else f"input {i + 1}"
            return (
                f"{what[0].upper()}{what[1:]} that data() returns has missing values: leave these persons out, or fill "
                "in a public value, for example with scaled(..., fill_missing=True) of fedseal.client.items."
            )
    if isinstance(outputs, Tensor) and not torch.isfinite(outputs).all():
        return "data() returns numbers and a new model makes none of them: scale the inputs by public ranges."
    return "Inputs, targets and outputs of a new model are numbers: look at loss(), at a logarithm or a division."


def _of_type(value: object, kind: type[T], what: str, expected: str) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"{what} returned {type(value).__name__}, expected {expected}", next_step=_HOW)
    return value


def _check_persons(persons: Persons, what: str) -> None:
    """That a part of a split is a dataset whose items are tuples of tensors."""
    # A dataset is the study's own code, or nothing of the kind.
    with study_code(f"reading {what}"):
        batch = batch_of(persons, np.arange(1)) if size(persons) else None
    if batch is not None and (len(batch) < 2 or not all(isinstance(t, Tensor) for t in batch)):
        raise ConfigError(
            f"{what}: an item is not a tuple of tensors", next_step="Items are inputs and, last, the target."
        )


def _check_metric(metric: Metric) -> None:
    if metric.name in {LOSS, VALIDATION_RATIO}:
        raise ConfigError(f"a metric cannot be called {metric.name!r}", next_step="Give it another name.")
    if not (math.isfinite(metric.low) and math.isfinite(metric.high) and metric.low < metric.high):
        raise ConfigError(f"metric {metric.name!r} needs finite bounds, low below high", next_step=_HOW)
    if metric.length < 1:
        raise ConfigError(f"metric {metric.name!r} needs a length of at least 1", next_step=_HOW)


def _careful(metric: Metric) -> Metric:
    what = f"of metric {metric.name!r}"

    def statistic(outputs: Tensor, targets: Tensor) -> Tensor:
        with study_code(f"the statistic {what}"):
            rows = metric.statistic(outputs, targets)
        _of_type(rows, Tensor, f"the statistic {what}", "a torch Tensor")
        if rows.numel() != len(targets) * metric.length:
            raise ConfigError(
                f"the statistic {what} has shape {tuple(rows.shape)} for {len(targets)} persons",
                next_step=f"Return one row of {metric.length} for each person.",
            )
        return rows

    def error(mean: Real) -> float:
        with study_code(f"the error {what}"):
            return float(metric.error(mean))

    return replace(metric, statistic=statistic, value=_careful_value(metric.value, f"the value {what}"), error=error)


def _careful_value(value: Callable[[Real], float | None], what: str) -> Callable[[Real], float | None]:
    def careful(mean: Real) -> float | None:
        with study_code(what):
            found = value(mean)
            return None if found is None else float(found)

    return careful
