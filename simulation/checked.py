"""A study's task in a simulation: its errors and wrong return values become messages for the person who wrote it.

The apps at the simulated sites load the task for themselves, as deployed ones do; there an error becomes a refusal.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import Tensor, nn

from fedseal.client.metrics import LOSS, Real
from fedseal.client.probe import check_shape
from fedseal.client.task import Batch, Metric, Persons, SiteData, Split, Task, batch_of, size
from fedseal.errors import ConfigError
from fedseal.privacy.releases import VALIDATION_RATIO
from fedseal.study import study_code

T = TypeVar("T")
_HOW = "docs/studies.md says what the methods of a task return."


@dataclass(frozen=True, slots=True)
class CheckedTask:
    """A task whose every answer is checked.

    All methods raise ConfigError where the study's own code raises or returns something else than it should; a
    DataError of `columns` or `SiteData.table` passes.
    """

    inner: Task

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
        return split

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """One loss a person."""
        with study_code("loss()"):
            losses = self.inner.loss(model, batch)
        check_shape(_of_type(losses, Tensor, "loss()", "a torch Tensor"), batch)
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
