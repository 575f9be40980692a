"""The analytic path: one backward pass to the layers' outputs, and from there each layer's share (`layers`).

Neither the parameters' gradients nor, for linear layers, any person's are formed on the way. It is for models whose
every trainable parameter belongs to one known layer that is called once; what is not, is refused here and taken by
another path.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fedseal.client.clipping.factors import NotPerPersonError, clip_factors
from fedseal.client.clipping.layers import Sums, is_known, share_of
from fedseal.client.probe import check_shape
from fedseal.client.task import Batch, Task

_NEXT = "Call each layer once, with persons in the first dimension; weights that are shared have no path of this kind."


@dataclass(frozen=True, slots=True)
class _Use:
    """One call of a layer: what went in, in which version, and where its output stands in the graph."""

    inputs: Tensor
    version: int
    output: GradientEdge


class AnalyticPath:
    """Listens to the layers of a module while it sums.

    Args:
        module: the model; its layers get forward hooks.

    Raises:
        NotPerPersonError: a trainable parameter belongs to no layer that is known, or to two.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._layers = _layers(module)
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._uses: list[list[_Use]] = [[] for _ in self._layers]
        self._listening = False
        for number, layer in enumerate(self._layers):
            layer.register_forward_hook(partial(self._heard, number))

    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        """As `Clipping.clipped_sum`, for a batch of at least one person."""
        self._listening = True
        try:
            losses = task.loss(self.module, batch)
            check_shape(losses, batch)
            uses = [self._only(number, len(losses)) for number in range(len(self._layers))]
        finally:
            self._listening = False
            for heard in self._uses:
                heard.clear()
        slopes = torch.autograd.grad(losses.sum(), [use.output for use in uses], allow_unused=True)
        squares = np.zeros(len(losses))
        # What is no number is looked for below.
        with np.errstate(invalid="ignore", over="ignore"):
            shares = [
                share_of(layer, use.inputs, slope)
                for layer, use, slope in zip(self._layers, uses, slopes, strict=True)
                if slope is not None
            ]
            for share in shares:
                squares += share.squares
        dtype = self._parameters[0].dtype
        factors = torch.from_numpy(clip_factors(squares, clip)).to(dtype)
        # One number says whether all of them are.
        broken = None if math.isfinite(squares.sum()) else torch.from_numpy(~np.isfinite(squares))
        sums: Sums = {}
        for share in shares:
            sums |= share.summed(factors, broken)
        return [sums[p] if p in sums else torch.zeros_like(p, requires_grad=False) for p in self._parameters]

    def _heard(self, number: int, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self._listening:
            return
        if len(inputs) != 1:
            raise NotPerPersonError("a layer is called with something else than one input", next_step=_NEXT)
        values = inputs[0].detach()
        self._uses[number].append(_Use(values, values._version, get_gradient_edge(output)))

    def _only(self, number: int, persons: int) -> _Use:
        """The one call of a layer in this pass."""
        if len(self._uses[number]) != 1:
            raise NotPerPersonError("a layer is called twice, or not at all", next_step=_NEXT)
        (use,) = self._uses[number]
        if use.inputs.dim() < 2 and not isinstance(self._layers[number], nn.Embedding):
            raise NotPerPersonError("a layer's input has no dimension of persons", next_step=_NEXT)
        if len(use.inputs) != persons:
            raise NotPerPersonError("the first dimension of a layer's input does not count persons", next_step=_NEXT)
        if use.inputs._version != use.version:
            raise NotPerPersonError("a layer's input is changed in place after the layer has read it", next_step=_NEXT)
        return use


def _layers(module: nn.Module) -> list[nn.Module]:
    """The layers that own the trainable parameters."""
    found, owners = [], Counter[nn.Parameter]()
    for layer in module.modules():
        # Also the second name of a parameter that one layer has twice.
        own = [p for p in layer._parameters.values() if p is not None and p.requires_grad]
        owners.update(own)
        if own:
            found.append(layer)
    if not all(is_known(layer) for layer in found) or any(count > 1 for count in owners.values()):
        raise NotPerPersonError("a parameter belongs to a layer that is not known, or to two layers", next_step=_NEXT)
    return found
