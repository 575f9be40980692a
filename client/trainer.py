"""Training at a site: a few local steps on Poisson-drawn persons, privately where the plan says so.

The module is built and wrapped once and kept; each release only loads the received parameters into it. The accountant
is not asked here: what a plan costs is known before it runs.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from torch import nn

from fedseal.client.noise import NoisyOptimizer, clear_gradients, empty_batch_gradients
from fedseal.client.probe import check_model, check_per_person, check_shape
from fedseal.client.task import Persons, Task, batch_of, build_model, size
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, Performance, PrivacyPlan
from fedseal.privacy.randomness import Stream

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What the server asks for: public, the same at all sites.

    Under a private plan sample rate and steps are the plan's.
    """

    learning_rate: float
    sample_rate: float
    local_steps: int


class Streams(Protocol):
    """The randomness of one release, by purpose."""

    def __call__(self, *purpose: str | int) -> Stream: ...


def trainable(module: nn.Module) -> Arrays:
    """The parameters that are trained and released, by name."""
    return {name: p.detach().numpy().copy() for name, p in module.named_parameters() if p.requires_grad}


def load(module: nn.Module, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Put received arrays into the trainable parameters; ConfigError if names or shapes differ."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if {n: tuple(p.shape) for n, p in parameters.items()} != {n: a.shape for n, a in arrays.items()}:
        raise ConfigError(
            "the received arrays are not this model's trainable parameters",
            next_step="Server and site have to run the same version of the study.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(arrays[name])))


class Trainer:
    """One site's training, kept from release to release.

    Args:
        task: the study's task.
        persons: the site's training persons.
        public_persons: the roster's rounded number of them, which noisy sums are divided by.
        performance: may change speed and memory, nothing else.
    """

    def __init__(
        self, task: Task, persons: Persons, *, public_persons: int, performance: Performance | None = None
    ) -> None:
        self.task = task
        self.persons = persons
        self.module = build_model(task)
        self._public_persons = public_persons
        self._performance = performance or Performance()
        self._wrapped: tuple[GradSampleModule, nn.Module] | None = None

    def fit(
        self, arrays: Mapping[str, NDArray[Any]], settings: TrainSettings, plan: PrivacyPlan, streams: Streams
    ) -> Arrays:
        """Train from the received parameters and return the new ones.

        Raises:
            ConfigError: the arrays do not fit the model, or the model or loss cannot be trained under the plan.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Opacus' hooks sit on layers whose inputs need no gradient; torch warns of that at every first layer.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            # Dropout and the like; not what privacy rests on.
            torch.manual_seed(int(streams("torch").words64(1)[0] >> np.uint64(1)))
            match plan:
                case LocalGaussian():
                    return self._fit_private(arrays, settings, plan, streams)
                case NoPrivacy():
                    return self._fit_plain(arrays, settings, streams)

    def _draw(self, rate: float, stream: Stream) -> NDArray[np.intp]:
        """Everyone independently with probability ``rate``: the sampling that the accountant assumes."""
        return np.flatnonzero(stream.coins(rate, size(self.persons)))

    def _fit_plain(self, arrays: Mapping[str, NDArray[Any]], settings: TrainSettings, streams: Streams) -> Arrays:
        load(self.module, arrays)
        self.module.train()
        optimizer = torch.optim.SGD(self._parameters(self.module), lr=settings.learning_rate)
        expected = max(settings.sample_rate * size(self.persons), 1.0)
        for step in range(settings.local_steps):
            chosen = self._draw(settings.sample_rate, streams("sampling", step))
            if not len(chosen):
                continue
            batch = batch_of(self.persons, chosen)
            losses = self.task.loss(self.module, batch)
            check_shape(losses, batch)
            optimizer.zero_grad()
            torch.autograd.backward(losses.sum() / expected)
            optimizer.step()
        return trainable(self.module)

    def _fit_private(
        self, arrays: Mapping[str, NDArray[Any]], settings: TrainSettings, plan: LocalGaussian, streams: Streams
    ) -> Arrays:
        wrapped, module = self._wrap()
        load(module, arrays)
        wrapped.train()
        parameters = self._parameters(wrapped)
        optimizer = NoisyOptimizer(
            torch.optim.SGD(parameters, lr=settings.learning_rate),
            plan,
            expected_batch=max(plan.sample_rate * self._public_persons, 1.0),
            stream=streams("noise"),
        )
        for step in range(plan.steps):
            clear_gradients(wrapped)
            chosen = self._draw(plan.sample_rate, streams("sampling", step))
            # One step's persons in portions of bounded memory: Opacus adds up clipped gradients and adds noise once,
            # at the end.
            portions = np.array_split(chosen, max(1, -(-len(chosen) // self._performance.physical_batch)))
            for i, portion in enumerate(portions):
                optimizer.signal_skip_step(do_skip=i < len(portions) - 1)
                self._backward(wrapped, parameters, portion)
                optimizer.step()
                optimizer.zero_grad()
        clear_gradients(wrapped)
        return trainable(module)

    def _backward(self, wrapped: GradSampleModule, parameters: list[torch.Tensor], portion: NDArray[np.intp]) -> None:
        """Leave per-sample gradients of these persons in the parameters."""
        if not len(portion):
            empty_batch_gradients(parameters)
            return
        batch = batch_of(self.persons, portion)
        losses = self.task.loss(wrapped, batch)
        check_shape(losses, batch)
        torch.autograd.backward(losses.sum())

    def _wrap(self) -> tuple[GradSampleModule, nn.Module]:
        """Opacus' wrapper and the module inside, a second one: the hooks stay off the module that plain training
        uses.
        """
        if self._wrapped is None:
            module = build_model(self.task)
            check_model(module)
            wrapped = GradSampleModule(module, loss_reduction="sum")
            check_per_person(self.task, wrapped, self.persons)
            self._wrapped = wrapped, module
        return self._wrapped

    @staticmethod
    def _parameters(module: nn.Module) -> list[torch.Tensor]:
        return [p for p in module.parameters() if p.requires_grad]
