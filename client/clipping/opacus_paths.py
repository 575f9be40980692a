"""The two paths that are Opacus': gradients of each person by hooks, and ghost clipping.

Opacus' optimiser is not used: what clipping means is said once, in `factors`.
"""

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping
from torch import Tensor, nn

from fedseal.client.clipping.factors import NotPerPersonError, clip_factors
from fedseal.client.clipping.layers import Squares, formed_squares
from fedseal.client.noise import clear_gradients
from fedseal.client.probe import check_shape
from fedseal.client.task import Batch, Task


class HooksPath:
    """Every person's gradient is formed and kept until it is clipped.

    Args:
        module: the model, which is wrapped.
    """

    def __init__(self, module: nn.Module) -> None:
        self.wrapped = GradSampleModule(module, loss_reduction="sum")

    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        """As `Clipping.clipped_sum`, for a batch of at least one person."""
        clear_gradients(self.wrapped)
        losses = task.loss(self.wrapped, batch)
        check_shape(losses, batch)
        torch.autograd.backward(losses.sum())
        gradients = [p.grad_sample for p in _trainable(self.wrapped)]  # type: ignore[attr-defined]
        if any(g is None or len(g) != len(losses) for g in gradients):
            raise NotPerPersonError(
                "a parameter has no gradient of each person in this batch",
                next_step="Every layer has to take part in loss() for every batch.",
            )
        squares = formed_squares(gradients)
        factors = torch.from_numpy(clip_factors(squares, clip))
        if not np.isfinite(squares).all():
            gradients = [g.nan_to_num(0.0, 0.0, 0.0) for g in gradients]
        sums = [torch.tensordot(factors.to(g.dtype), g, dims=1) for g in gradients]
        clear_gradients(self.wrapped)
        return sums


class GhostPath:
    """Norms first, without keeping any gradient; then a second backward pass over the losses, weighted.

    Opacus 1.6 has norms without gradients for `Linear` and `Embedding` only; other layers' gradients are formed one
    layer at a time. For a linear layer with several records a person its norm cancels in float32, and with more than
    one dimension of records there is none: there this path is refused.

    Args:
        module: the model, which is wrapped.
    """

    def __init__(self, module: nn.Module) -> None:
        self._wrapped = GradSampleModuleFastGradientClipping(module, loss_reduction="sum", use_ghost_clipping=True)
        for layer in module.modules():
            if type(layer) is nn.Linear and any(p.requires_grad for p in layer.parameters()):
                layer.register_forward_pre_hook(_two_dimensions)

    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        """As `Clipping.clipped_sum`, for a batch of at least one person."""
        parameters = _trainable(self._wrapped)
        self._forget(parameters)
        losses = task.loss(self._wrapped, batch)
        check_shape(losses, batch)
        torch.autograd.backward(losses.sum(), retain_graph=True)
        squares = self._squares(parameters, len(losses))
        finite = np.isfinite(squares)
        if not finite.all():
            # In the second pass 0 times infinity would be no number. What is random is drawn anew with its norms.
            self._forget(parameters)
            if not finite.any():
                return [torch.zeros_like(p, requires_grad=False) for p in parameters]
            return self.clipped_sum(task, tuple(t[torch.from_numpy(finite)] for t in batch), clip)
        factors = torch.from_numpy(clip_factors(squares, clip))
        clear_gradients(self._wrapped)
        self._wrapped.disable_hooks()
        try:
            torch.autograd.backward((losses * factors.to(losses.dtype)).sum())
        finally:
            self._wrapped.enable_hooks()
        sums = [torch.zeros_like(p, requires_grad=False) if p.grad is None else p.grad for p in parameters]
        self._forget(parameters)
        return sums

    def _squares(self, parameters: list[nn.Parameter], persons: int) -> Squares:
        found = [p._norm_sample for p in parameters]  # type: ignore[attr-defined]
        if any(norm is None or norm.shape != (persons,) for norm in found):
            raise NotPerPersonError(
                "a parameter has no norm of each person's gradient in this batch",
                next_step="Every layer has to take part in loss() for every batch, with persons first.",
            )
        squares: Squares = torch.stack(found).double().square().sum(dim=0).numpy()
        return squares

    def _forget(self, parameters: list[nn.Parameter]) -> None:
        """So that nothing is ever used twice."""
        clear_gradients(self._wrapped)
        for parameter in parameters:
            parameter._norm_sample = None  # type: ignore[attr-defined]


def _two_dimensions(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if len(inputs) != 1 or inputs[0].dim() != 2:
        raise NotPerPersonError(
            "Opacus has no sound norm for a linear layer with several records a person",
            next_step="Leave the choice of the path to fedseal.client.clipping.",
        )


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]
