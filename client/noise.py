"""Opacus' optimiser with our noise: per-sample gradients and clipping are Opacus', the noise comes from a stream of
ours.

Opacus draws its noise from torch's generator, which is not cryptographic, and its secure mode needs a package nobody
maintains. Here every noisy gradient is the clipped sum plus Gaussian noise from the operating system's generator,
computed in doubles and rounded to a grid, so that the low bits of a float betray nothing.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

from fedseal.client.correction import Correction
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.randomness import Stream

# The grid is this many bits finer than the noise's standard deviation: it changes nothing, but hides the float's last
# bits.
GRID_BITS = 16


class NoisyOptimizer(DPOptimizer):  # type: ignore[misc]
    """A `DPOptimizer` whose noise is drawn from a given stream. One instance serves one release.

    Args:
        optimizer: the plain optimiser of the trainable parameters.
        plan: says how much noise and how to clip.
        expected_batch: public expected number of persons in a step, by which the noisy sum is divided.
        stream: where the noise comes from.
        correction: what is added to the noisy mean.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        plan: LocalGaussian,
        *,
        expected_batch: float,
        stream: Stream,
        correction: Correction | None = None,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            # Opacus clips in float32: a little lower, so that rounding never lets a person exceed the plan's bound.
            max_grad_norm=plan.clip_norm * (1 - 2.0**-16),
            expected_batch_size=expected_batch,
            loss_reduction="mean",
        )
        self._stream = stream
        self._deviation = plan.noise_multiplier * plan.clip_norm
        self._correction = correction

    def clip_and_accumulate(self) -> None:
        """Opacus' clipping, after persons whose gradient is not a number somewhere have been set to zero.

        Such a person would turn the whole sum into something that is not a number: a bit about one person that no
        noise covers.
        """
        gradients = [p.grad_sample for p in self.params]
        if len(gradients[0]):
            whole = torch.stack([torch.isfinite(g).flatten(1).all(dim=1) for g in gradients]).all(dim=0)
            for gradient in gradients:
                gradient[~whole] = 0.0
        super().clip_and_accumulate()

    def add_noise(self) -> None:
        """Put the clipped sum plus noise into each parameter's gradient."""
        for parameter in self.params:
            summed = parameter.summed_grad
            noisy = add_gaussian(summed.detach().double().numpy(), self._deviation, self._stream)
            parameter.grad = torch.from_numpy(noisy).to(parameter.dtype).view_as(parameter)

    def scale_grad(self) -> None:
        """Opacus' division by the expected batch, and then the correction: neither clipped, noisy nor divided."""
        super().scale_grad()
        if self._correction is not None:
            self._correction.add_to(self.params)


def add_gaussian(values: NDArray[np.float64], deviation: float, stream: Stream) -> NDArray[np.float64]:
    """``values`` plus independent Gaussian noise, rounded to a grid 2^-16 of the deviation."""
    grid = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    noisy = values + deviation * stream.normal(values.size).reshape(values.shape)
    rounded: NDArray[np.float64] = np.rint(noisy / grid) * grid
    return rounded


def noisy_mean(rows: NDArray[np.float64], plan: LocalGaussian, *, persons: int, stream: Stream) -> NDArray[np.float64]:
    """The mean over persons under a plan with one step: the Gaussian mechanism on the sum of clipped rows.

    Args:
        rows: shape (persons here, k), one row a person.
        plan: sample_rate 1 and one step.
        persons: the public number to divide by.
        stream: where the noise comes from.
    """
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * np.minimum(1.0, plan.clip_norm / np.maximum(norms, 1e-12))
    return add_gaussian(clipped.sum(axis=0), plan.noise_multiplier * plan.clip_norm, stream) / persons


def clear_gradients(module: nn.Module) -> None:
    """Forget per-sample gradients, so that none is ever used twice."""
    for parameter in module.parameters():
        parameter.grad = None
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter.summed_grad = None  # type: ignore[attr-defined]


def empty_batch_gradients(parameters: list[Tensor]) -> None:
    """What a backward pass over nobody would leave: a Poisson draw may be empty, and still gets its noise."""
    for parameter in parameters:
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))  # type: ignore[attr-defined]
