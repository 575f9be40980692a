"""What nobody in a real federation can know: the model's quality on all sites' test persons, after every round, for
free.

Only a simulation has it. Everything that comes from here is marked as an oracle value wherever it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedseal.client.metrics import Measured, measure, pooled, values
from fedseal.client.normalise import Normalisation
from fedseal.client.task import Batch, Persons, Split, Task, batch_of, build_model, size
from fedseal.client.trainer import load

Scores = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Judged:
    """A model's scores on all test persons together, and on each site's own."""

    everyone: Scores
    sites: dict[str, Scores]
    errors: dict[str, float]


class Oracle:
    """Judges models on the test persons of all sites.

    Args:
        task: the study's task.
        splits: every site's persons.
    """

    def __init__(self, task: Task, splits: Mapping[str, Split]) -> None:
        self._task = task
        self._tests = {name: split.test for name, split in splits.items()}
        self._errors = {m.name: m.error for m in task.metrics()}

    @property
    def persons(self) -> int:
        """How many test persons there are."""
        return sum(size(test) for test in self._tests.values())

    def judge_arrays(self, arrays: Mapping[str, NDArray[Any]], normalisation: Normalisation | None) -> Judged:
        """Judge the task's model with these parameters."""
        module = build_model(self._task)
        load(module, arrays)
        return self.judge(module, normalisation)

    def judge(self, module: nn.Module, normalisation: Normalisation | None) -> Judged:
        """Judge any module that takes the task's inputs."""
        return self.judge_own(dict.fromkeys(self._tests, module), normalisation)

    def judge_own(self, modules: Mapping[str, nn.Module], normalisation: Normalisation | None) -> Judged:
        """Judge a module of each site's own, by name, on that site's test persons; ``everyone`` is over them all."""
        measured = {name: self._measure(modules[name], test, normalisation) for name, test in self._tests.items()}
        whole = pooled(list(measured.values()))
        errors = {name: error(whole.means[name]) for name, error in self._errors.items() if whole.persons}
        return Judged(values(self._task, whole), {name: values(self._task, m) for name, m in measured.items()}, errors)

    def _measure(self, module: nn.Module, test: Persons, normalisation: Normalisation | None) -> Measured:
        persons = test if normalisation is None or not size(test) else normalisation.apply(test)
        # Nothing is released from here, so nothing has to be bounded.
        return measure(self._task, module, persons, bounded=False)


class Constant(nn.Module):
    """Says the same about everyone: the logits of the class shares, or the mean of a number."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The constant, once for each person."""
        return self.output.expand(len(inputs[0]), *self.output.shape)


def majority(task: Task, splits: Mapping[str, Split]) -> Constant:
    """The best constant by the training persons of all sites: what any model has to beat.

    Class shares for a classifier. For numbers, the constant of the least loss, whatever the loss is: the mean for a
    squared one, the logarithm of the mean for a Poisson one.
    """
    batches = [batch_of(s.train, np.arange(size(s.train))) for s in splits.values() if size(s.train)]
    targets = torch.cat([b[-1] for b in batches])
    with torch.no_grad():
        module = build_model(task).eval()
        shape = module(*(t[:1] for t in batches[0][:-1])).shape[1:]
    rows = targets.reshape(len(targets), -1).double()
    one, whole = rows.shape[1] == 1, bool((rows == rows.round()).all())
    if one and whole and len(shape) == 1 and shape[0] > 1 and bool((rows >= 0).all()) and rows.max() < shape[0]:
        shares = torch.bincount(rows[:, 0].long(), minlength=shape[0]).double() / len(rows)
        return Constant(torch.log(shares.clamp(min=1e-6)).float())
    mean = rows.mean(dim=0)
    if bool(((rows == 0) | (rows == 1)).all()) and mean.numel() in {1, shape.numel()}:
        share = mean.clamp(1e-6, 1 - 1e-6)
        return Constant(_spread(torch.log(share / (1 - share)), shape))
    start = _spread(mean, shape) if mean.numel() in {1, shape.numel()} else torch.zeros(shape)
    whole_batch = tuple(torch.cat(column) for column in zip(*batches, strict=True))
    return _least(task, start, whole_batch)


def _spread(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """One number for every output, or each its own."""
    values = values.float()
    return values.expand(shape.numel()).reshape(shape).clone() if values.numel() == 1 else values.reshape(shape).clone()


def _least(task: Task, start: torch.Tensor, batch: Batch) -> Constant:
    """The constant of the least loss, sought from a first guess and from zero; a guess where a loss has no slope."""
    found: list[tuple[float, int, Constant]] = []
    for begin in (start, torch.zeros_like(start)):
        constant = Constant(begin.clone().requires_grad_())
        optimizer = torch.optim.LBFGS([constant.output], max_iter=60, line_search_fn="strong_wolfe")

        def closure(constant: Constant = constant, optimizer: torch.optim.Optimizer = optimizer) -> torch.Tensor:
            optimizer.zero_grad()
            loss = task.loss(constant, batch).double().mean()
            if loss.requires_grad:
                torch.autograd.backward(loss)
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        for guess in (constant.output.detach(), begin):
            with torch.no_grad():
                loss = float(task.loss(Constant(guess), batch).double().mean())
            if np.isfinite(loss) and bool(torch.isfinite(guess).all()):
                found.append((loss, len(found), Constant(guess)))
    return min(found)[2] if found else Constant(start)
