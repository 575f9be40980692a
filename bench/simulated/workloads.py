"""The three workloads: data, models, who trains in which round, and in which order batches are taken.

Everything is fixed by seeds, so that engines that train the same way end with the same accuracy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


@dataclass(frozen=True, slots=True)
class Workload:
    """Users with equally many examples each, a model, and plain SGD for one epoch a round."""

    name: str
    users: int
    cohort: int
    examples: int
    features: int
    classes: int
    batch: int
    learning_rate: float
    model: Callable[[], nn.Module]
    seed: int

    def first_model(self) -> nn.Module:
        """The model that everyone begins with."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model()

    def cohort_of(self, fl_round: int) -> list[int]:
        """Who trains in a round, counted from 1."""
        if self.cohort == self.users:
            return list(range(self.users))
        chosen = np.random.default_rng([self.seed, 1, fl_round]).choice(self.users, self.cohort, replace=False)
        return [int(user) for user in sorted(chosen)]

    def order(self, fl_round: int, user: int) -> torch.Tensor:
        """In which order a user takes its examples."""
        return torch.from_numpy(np.random.default_rng([self.seed, 2, fl_round, user]).permutation(self.examples))

    def batches(self, fl_round: int, user: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """A user's batches in a round."""
        inputs, targets = user_data(self.name, user)
        for places in self.order(fl_round, user).split(self.batch):
            yield inputs[places], targets[places]

    def train(self, model: nn.Module, fl_round: int, user: int) -> None:
        """One epoch of plain SGD."""
        optimizer = torch.optim.SGD(model.parameters(), lr=self.learning_rate)
        for inputs, targets in self.batches(fl_round, user):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    def accuracy(self, model: nn.Module) -> float:
        """On examples of nobody's."""
        inputs, targets = test_data(self.name)
        with torch.no_grad():
            return float((model(inputs).argmax(1) == targets).float().mean())


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 62))


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 33),
        nn.ReLU(),
        nn.Linear(33, 62),
    )


def _small() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 2))


WORKLOADS = {
    w.name: w
    for w in (
        Workload("W1m", 1000, 50, 50, 784, 62, 10, 0.1, _mlp, 11),
        Workload("W1c", 1000, 50, 50, 784, 62, 10, 0.1, _cnn, 11),
        Workload("W2", 10, 10, 5000, 32, 2, 64, 0.1, _small, 12),
    )
}
# How far classes lie apart, in deviations of a pixel's noise.
SPREAD = {784: 0.35, 32: 0.25}


@cache
def all_users(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Everybody's inputs and targets, one user's behind the other's."""
    inputs, targets = _drawn(WORKLOADS[name], WORKLOADS[name].users * WORKLOADS[name].examples, 3)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def user_data(name: str, user: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A user's inputs and targets. Everybody's are drawn when the first are asked for."""
    workload = WORKLOADS[name]
    place = slice(user * workload.examples, (user + 1) * workload.examples)
    inputs, targets = all_users(name)
    return inputs[place], targets[place]


@cache
def test_data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """2,000 examples of nobody's."""
    inputs, targets = _drawn(WORKLOADS[name], 2000, 4)
    return torch.from_numpy(inputs), torch.from_numpy(targets)


def _drawn(workload: Workload, count: int, purpose: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Two centres a class, so that no linear model is enough, and noise around them."""
    centres = np.random.default_rng([workload.seed, 5]).standard_normal((2 * workload.classes, workload.features))
    rng = np.random.default_rng([workload.seed, purpose])
    chosen = rng.integers(0, 2 * workload.classes, count)
    inputs = rng.standard_normal((count, workload.features), dtype=np.float32)
    inputs += (SPREAD[workload.features] * centres.astype(np.float32))[chosen]
    return inputs, (chosen % workload.classes).astype(np.int64)
