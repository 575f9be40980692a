"""Ready-made metrics, and measuring a model with a task's metrics. All are means over persons of bounded statistics."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedseal.client.task import Batch, Metric, Persons, Task, batch_of, outputs_and_targets, size
from fedseal.errors import ConfigError

LOSS = "loss"
# One person's loss is clamped to this where it is summed over sites, unless the task has a `loss_range`: a public range
# has to exist before the round.
LOSS_CAP = 20.0

Real = NDArray[np.float64]


def loss_range(task: Task) -> tuple[float, float]:
    """The public range of one person's loss: the task's own ``loss_range``, or from 0 to 20.

    Raises:
        ConfigError: the task has one that is no pair of finite numbers, low below high.
    """
    found = getattr(task, "loss_range", (0.0, LOSS_CAP))
    if (
        not isinstance(found, tuple | list)
        or len(found) != 2
        or not all(isinstance(end, int | float) and math.isfinite(end) for end in found)
        or not found[0] < found[1]
    ):
        raise ConfigError(
            "the task's loss_range is no range", next_step="Write two finite numbers: loss_range = (0.0, 400.0)."
        )
    return float(found[0]), float(found[1])


def probability(outputs: Tensor) -> Tensor:
    """P(class 1) from logits of shape (batch,), (batch, 1) or (batch, 2)."""
    if outputs.ndim == 2 and outputs.shape[1] == 2:
        return torch.softmax(outputs, dim=1)[:, 1]
    return torch.sigmoid(outputs.reshape(len(outputs)))


def accuracy() -> Metric:
    """The share of persons classified rightly. Binary for one output, the largest of several otherwise."""

    def statistic(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.ndim == 2 and outputs.shape[1] > 1:
            predicted = outputs.argmax(dim=1)
        else:
            predicted = (outputs.reshape(len(outputs)) > 0).long()
        return (predicted == targets.reshape(len(targets)).long()).double().unsqueeze(1)

    return Metric("accuracy", 0.0, 1.0, 1, statistic, lambda mean: float(mean[0]))


def auc(bins: int = 200) -> Metric:
    """The area under the ROC curve of a binary classifier, from a score x label histogram of equal bins of
    probability.

    Persons of different label in one bin count half, so the number is off by at most half the share of such pairs:
    that is `error`.
    """

    def statistic(outputs: Tensor, targets: Tensor) -> Tensor:
        place = (probability(outputs) * bins).long().clamp(0, bins - 1)
        place = place + bins * targets.reshape(len(targets)).long()
        return nn.functional.one_hot(place, 2 * bins).double()

    def halves(mean: Real) -> tuple[Real, Real, float]:
        negatives, positives = np.clip(mean[:bins], 0.0, None), np.clip(mean[bins:], 0.0, None)
        return negatives, positives, float(negatives.sum() * positives.sum())

    def value(mean: Real) -> float | None:
        negatives, positives, pairs = halves(mean)
        if pairs == 0.0:
            return None
        below = np.cumsum(negatives) - negatives
        return float((positives * (below + negatives / 2)).sum() / pairs)

    def error(mean: Real) -> float:
        negatives, positives, pairs = halves(mean)
        return float((positives * negatives).sum() / (2 * pairs)) if pairs else 0.0

    return Metric("auc", 0.0, 1.0, 2 * bins, statistic, value, error)


def mean_absolute_error(largest: float) -> Metric:
    """The mean distance between prediction and number, in the number's unit.

    Args:
        largest: a public bound; a person's error counts as at most this. Several numbers a person count as their mean.

    Raises:
        ValueError: the bound is not positive and finite.
    """
    _check_range(0.0, largest)

    def statistic(outputs: Tensor, targets: Tensor) -> Tensor:
        return _residuals(outputs, targets).abs().mean(dim=1, keepdim=True)

    return Metric("mean_absolute_error", 0.0, largest, 1, statistic, lambda mean: float(mean[0]))


def r_squared(low: float, high: float) -> Metric:
    """The share of the number's variance that the model explains: 1 is perfect, 0 as good as the mean of all.

    Args:
        low, high: the public range of the number; numbers and predictions outside it count as its ends.

    Raises:
        ValueError: the range is not finite, low below high.
    """
    _check_range(low, high)

    def statistic(outputs: Tensor, targets: Tensor) -> Tensor:
        said, true = (
            2 * (t.reshape(len(t), -1).double().clamp(low, high) - low) / (high - low) - 1 for t in (outputs, targets)
        )
        if said.shape != true.shape or said.shape[1] != 1:
            raise ValueError("r_squared is for one number a person")
        # In [-1, 1]: a quarter of the squared error, the number, and its square.
        return torch.cat([(said - true) ** 2 / 4, true, true**2], dim=1)

    def value(mean: Real) -> float | None:
        variance = mean[2] - mean[1] ** 2
        return float(1 - 4 * mean[0] / variance) if variance > 1e-12 else None

    return Metric("r_squared", -1.0, 1.0, 3, statistic, value)


def _check_range(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError("expected a finite public range, low below high")


def _residuals(outputs: Tensor, targets: Tensor) -> Tensor:
    """Shape (batch, numbers). Without this, (batch, 1) minus (batch,) would be (batch, batch)."""
    said, true = (t.reshape(len(t), -1).double() for t in (outputs, targets))
    if said.shape != true.shape:
        raise ValueError(f"the model says {said.shape[1]} numbers a person, the target has {true.shape[1]}")
    return said - true


@dataclass(frozen=True, slots=True)
class Measured:
    """Mean statistics over some persons, by metric, and how many persons these were.

    Stays at the site unless it is sealed.
    """

    persons: int
    means: Mapping[str, Real]


def measure(task: Task, model: nn.Module, persons: Persons, *, batch: int = 1024, bounded: bool = True) -> Measured:
    """The loss and the task's metrics of a model on a dataset.

    Args:
        task: the study's task.
        model: what is measured.
        persons: on whom.
        batch: how many at once.
        bounded: clamp each person's loss to its public range, as a sum over sites needs it. A loss that is one number
            for a batch counts for each of its persons.
    """
    metrics, count = list(task.metrics()), size(persons)
    sums = {m.name: np.zeros(m.length) for m in metrics} | {LOSS: np.zeros(1)}
    training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, count, batch):
            part = batch_of(persons, np.arange(start, min(start + batch, count)))
            losses = task.loss(model, part).double()
            losses = losses.clamp(*loss_range(task)) if bounded else losses
            sums[LOSS] += float(losses.sum()) if losses.ndim else float(losses) * len(part[0])
            for metric in metrics:
                sums[metric.name] += _statistic(metric, model, part)
    model.train(training)
    return Measured(count, {name: total / max(count, 1) for name, total in sums.items()})


def _statistic(metric: Metric, model: nn.Module, batch: Batch) -> Real:
    rows = metric.statistic(*outputs_and_targets(model, batch)).double().clamp(metric.low, metric.high)
    return rows.reshape(len(rows), metric.length).sum(dim=0).numpy()


def pooled(parts: Sequence[Measured]) -> Measured:
    """The measurement on all the persons of several measurements together."""
    persons = sum(p.persons for p in parts)
    names = parts[0].means.keys() if parts else ()
    return Measured(
        persons, {n: sum((p.means[n] * p.persons for p in parts), np.zeros(1)) / max(persons, 1) for n in names}
    )


def values(task: Task, measured: Measured) -> dict[str, float | None]:
    """What people read: the loss and each metric's value, None where it is undefined (no persons, one class only)."""
    numbers: dict[str, float | None] = {LOSS: float(measured.means[LOSS][0]) if measured.persons else None}
    for metric in task.metrics():
        numbers[metric.name] = metric.value(measured.means[metric.name]) if measured.persons else None
    return numbers
