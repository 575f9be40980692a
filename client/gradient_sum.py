"""What a site sums under plan `distributed`: every training person's gradient at the received model, each clipped.

Everyone counts in every round, so nothing is drawn and nothing is amplified. The sum leaves as whole numbers with a
share of noise added to them, which `release` and `privacy.shares` see to; here nothing is noisy yet.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from torch import nn

from fedseal.client.clipping.factors import clip_factors
from fedseal.client.clipping.layers import formed_squares
from fedseal.client.noise import clear_gradients
from fedseal.client.probe import check_model, check_per_person, check_shape
from fedseal.client.task import Persons, Task, batch_of, build_model, size
from fedseal.client.trainer import Arrays, load
from fedseal.privacy.plan import Performance
from fedseal.privacy.randomness import Stream


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """A sum of clipped gradients, in doubles by parameter, and the count of who was not clipped: plus a half for each
    person whose gradient was within the bound, minus a half for each other.
    """

    arrays: Arrays
    unclipped: float


class GradientSum:
    """One site's sums of clipped gradients; the module is built, wrapped and probed once.

    Args:
        task: the study's task.
        persons: the training persons.
        performance: how many gradients are held at once.

    Raises:
        ConfigError: the model or the loss has no gradient per person.
    """

    def __init__(self, task: Task, persons: Persons, performance: Performance | None = None) -> None:
        self._task = task
        self._persons = persons
        self._portion = (performance or Performance()).physical_batch
        self._module = build_model(task)
        check_model(self._module)
        self._wrapped = GradSampleModule(self._module, loss_reduction="sum")
        check_per_person(task, self._wrapped, persons)

    def at(self, arrays: Mapping[str, NDArray[Any]], clip: float, stream: Stream) -> Arrays:
        """The sum alone of `counted`: arrays of the parameters' shapes in doubles."""
        return self.counted(arrays, clip, stream).arrays

    def counted(self, arrays: Mapping[str, NDArray[Any]], clip: float, stream: Stream) -> ClippedSum:
        """The sum over all training persons at the model with these parameters, and how many were not clipped.

        Args:
            arrays: the parameters, by name.
            clip: bound on the L2 norm of one person's whole gradient.
            stream: seeds torch's own generator, for dropout and the like.

        Raises:
            ConfigError: the arrays do not fit the model.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            torch.default_generator.manual_seed(int(stream.words64(1)[0] >> np.uint64(1)))
            load(self._module, arrays)
            self._wrapped.train()
            return clipped_gradient_sum(self._wrapped, self._module, self._task, self._persons, clip, self._portion)


def clipped_gradient_sum(
    wrapped: GradSampleModule, module: nn.Module, task: Task, persons: Persons, clip: float, portion: int
) -> ClippedSum:
    """The sum of the clipped gradients of all persons, and how many were not clipped.

    Args:
        wrapped: Opacus' wrapper of ``module``.
        module: names the parameters.
        task: whose loss is differentiated.
        persons: over whom is summed.
        clip: bound on the L2 norm of a person's gradient over all trainable parameters.
        portion: how many persons' gradients are held at once.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    unclipped = 0.0
    for start in range(0, size(persons), portion):
        clear_gradients(wrapped)
        batch = batch_of(persons, np.arange(start, min(start + portion, size(persons))))
        losses = task.loss(wrapped, batch)
        check_shape(losses, batch)
        torch.autograd.backward(losses.sum())
        gradients = {name: p.grad_sample.double() for name, p in parameters.items()}  # type: ignore[attr-defined]
        squares = formed_squares(list(gradients.values()))
        # Written so that what is no number counts as clipped: it is in the sum as nothing.
        unclipped += float(np.where(squares <= clip * clip, 0.5, -0.5).sum())
        factors = torch.from_numpy(clip_factors(squares, clip))
        for name, gradient in gradients.items():
            # A person whose gradient is no number somewhere counts as zero: 0 times infinity would not.
            total[name] += torch.tensordot(factors, torch.nan_to_num(gradient, 0.0, 0.0, 0.0), dims=1)
    clear_gradients(wrapped)
    return ClippedSum({name: value.numpy() for name, value in total.items()}, unclipped)
