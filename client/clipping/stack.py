"""The path of stacks: linear layers and activations one after the other, of whose passes only the loss is autograd's.

For such a model the arithmetic of a small batch is short beside what it costs to build and walk a graph. So the stack
is run forwards and backwards by hand; autograd differentiates whatever the task does with the stack's outputs. What a
layer's share in a person's gradient is, and its norm, is as in `layers` for one record a person. Products of matrices
are torch's, with as many threads as it was told; what is done by element is numpy's, whose calls are shorter.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedseal.client.clipping.factors import NotPerPersonError, clip_factors
from fedseal.client.clipping.layers import Squares, squares_of
from fedseal.client.probe import check_shape
from fedseal.client.task import Batch, Task

_NEXT = "Call the stack once, with a row of features for each person and nothing trained before it."

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class _Activation:
    """What is done to every element, and its derivative as a function of what came out."""

    forward: Callable[[Tensor], Tensor]
    derivative: Callable[[Floats], Any]


ACTIVATIONS: Mapping[type[nn.Module], _Activation] = {
    nn.ReLU: _Activation(torch.relu, lambda out: out > 0),
    nn.Sigmoid: _Activation(torch.sigmoid, lambda out: out * (1 - out)),
    nn.Tanh: _Activation(torch.tanh, lambda out: 1 - out * out),
}


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer's parameters, by themselves: a module's attributes are slow to find."""

    weight: Tensor
    bias: Tensor | None

    def forward(self, inputs: Tensor) -> Tensor:
        """Without a graph."""
        bias = None if self.bias is None else self.bias.detach()
        return nn.functional.linear(inputs, self.weight.detach(), bias)

    def squares(self, inputs: Floats, slopes: Floats) -> Squares:
        """Each person's squared norm of (b a^T, b): the bias is a weight whose input is 1."""
        squares = squares_of(inputs)
        return squares_of(slopes) * (squares if self.bias is None else squares + 1.0)

    def summed(self, inputs: Tensor, slopes: Floats) -> list[Tensor]:
        """The gradients' sums over persons, of slopes that are weighted already."""
        found = [torch.mm(torch.from_numpy(slopes).T, inputs)]
        if self.bias is not None:
            found.append(torch.from_numpy(np.add.reduce(slopes, axis=0)))
        return found


class StackPath:
    """Takes the place of a stack's `forward` while it sums.

    Args:
        module: the model. One layer or `Sequential` in it, possibly itself, has to hold all that is trained.

    Raises:
        NotPerPersonError: there is no such stack, or something in it is not known.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._stack = _stack(module)
        layers = list(self._stack) if isinstance(self._stack, nn.Sequential) else [self._stack]
        self._parts = [
            _Linear(layer.weight, layer.bias) if isinstance(layer, nn.Linear) else ACTIVATIONS[type(layer)]
            for layer in layers
        ]
        self._former = self._stack.forward
        # An attribute of this one module, found before its class's: `module` is nobody else's.
        self._stack.forward = self._forward
        self._summing = False
        self._values: list[Tensor] = []
        self._version = 0

    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        """As `Clipping.clipped_sum`, for a batch of at least one person."""
        self._summing = True
        try:
            losses = task.loss(self.module, batch)
            check_shape(losses, batch)
            values = self._only(losses.shape[0])
        finally:
            self._summing = False
            self._values = []
        slopes = _slopes(losses, values[-1])
        if slopes is None:
            return [torch.zeros_like(p, requires_grad=False) for p in self._stack.parameters()]
        return self._summed(values, slopes, clip)

    def _forward(self, inputs: Tensor) -> Tensor:
        if not self._summing:
            return self._former(inputs)  # type: ignore[no-any-return]
        if self._values:
            raise NotPerPersonError("the stack is called twice", next_step=_NEXT)
        if not isinstance(inputs, Tensor) or inputs.dim() != 2 or inputs.requires_grad:
            raise NotPerPersonError("the stack is called with something else than rows", next_step=_NEXT)
        self._version = inputs._version
        values = [inputs]
        for part in self._parts:
            values.append(part.forward(values[-1]))
        self._values = values
        # From here on autograd; no operation above saw anything that requires a gradient.
        return values[-1].requires_grad_()

    def _only(self, persons: int) -> list[Tensor]:
        """The values before, between and behind the layers in the one call of this pass."""
        values = self._values
        if not values:
            raise NotPerPersonError("the stack is not called", next_step=_NEXT)
        if values[0].shape[0] != persons:
            raise NotPerPersonError("the first dimension of the stack's input does not count persons", next_step=_NEXT)
        if values[0]._version != self._version:
            raise NotPerPersonError("the stack's input is changed in place after it was read", next_step=_NEXT)
        return values

    def _behind(self, values: list[Tensor], slopes: Floats) -> list[tuple[_Linear, Tensor, Floats]]:
        """Back through the stack: the linear layers, what went into each, and the slopes at what came out."""
        found = []
        for place in range(len(self._parts) - 1, -1, -1):
            part = self._parts[place]
            if isinstance(part, _Linear):
                found.append((part, values[place], slopes))
                if place:
                    slopes = torch.mm(torch.from_numpy(slopes), part.weight.detach()).numpy()
            else:
                slopes = slopes * part.derivative(values[place + 1].detach().numpy())
        return found[::-1]

    def _summed(self, values: list[Tensor], slopes: Floats, clip: float) -> list[Tensor]:
        squares = np.zeros(slopes.shape[0])
        # What is no number is looked for below.
        with np.errstate(invalid="ignore", over="ignore"):
            found = self._behind(values, slopes)
            for layer, inputs, behind in found:
                squares += layer.squares(inputs.numpy(), behind)
        factors = clip_factors(squares, clip).astype(slopes.dtype)[:, None]
        if not math.isfinite(squares.sum()):
            # 0 times infinity would not be zero.
            finite = np.isfinite(squares)[:, None]
            found = [(i, a.where(torch.from_numpy(finite), 0.0), np.where(finite, b, 0 * factors)) for i, a, b in found]
        return [total for layer, a, b in found for total in layer.summed(a, b * factors)]


def _slopes(losses: Tensor, outputs: Tensor) -> Floats | None:
    """Of the sum of losses at the stack's outputs; None if it does not depend on them."""
    if not losses.requires_grad:
        return None
    (slopes,) = torch.autograd.grad(losses, outputs, torch.ones_like(losses), allow_unused=True)
    return None if slopes is None else slopes.numpy()


def _stack(module: nn.Module) -> nn.Module:
    """The outermost part of a module that is a stack and holds all its trainable parameters."""
    trained = [p for p in module.parameters() if p.requires_grad]
    for part in module.modules():
        layers = list(part) if type(part) is nn.Sequential else [part]
        linear = [layer for layer in layers if type(layer) is nn.Linear]
        own = [p for layer in linear for p in (layer.weight, layer.bias) if p is not None]
        # The same objects in the same order; one that two layers share stands twice in `own`.
        same = len(own) == len(trained) and all(p is q for p, q in zip(own, trained, strict=True))
        if (
            same
            and linear
            and all(type(layer) in (nn.Linear, *ACTIVATIONS) for layer in layers)
            and all(_is_plain(layer) for layer in (part, *layers))
        ):
            return part
    raise NotPerPersonError("what is trained is no stack of linear layers and activations", next_step=_NEXT)


def _is_plain(layer: nn.Module) -> bool:
    """Whether a layer computes what its class does: nothing listens to it or stands in for it."""
    listens = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return "forward" not in vars(layer) and not listens
