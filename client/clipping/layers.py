"""One layer's share in every person's gradient, from what went into the layer and the slope of the loss at what came
out.

The gradient of a linear layer's weight is, for one person, the outer product b a^T of slope and input, or a sum of
such products over the person's records. Its norm is that of a times that of b (Goodfellow 2015, "Efficient
per-example gradient computations"), and the clipped sum over persons is one matrix product, so no person's gradient
is ever formed. With several records the norm follows from the two Gram matrices (Li et al. 2022, "Large language
models can be strong differentially private learners", section 4), where that is cheaper than forming it (Bu et al.
2023, "Differentially private optimization on large model at small cost", whose one backward pass this is).
Other layers' gradients are formed by Opacus' own functions.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from torch import Tensor, nn

# By parameter. torch calls a layer's parameters tensors.
Sums: TypeAlias = dict[Tensor, Tensor]
# One number a person, in doubles.
Squares: TypeAlias = NDArray[np.float64]

# Layers whose per-sample gradients Opacus forms from input and slope alone, persons first.
FORMED: tuple[type[nn.Module], ...] = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
)
# A person's gradient may be a small remainder of large products over the records. Below this share of their sum the
# float32 rounding of the clipped sum is no longer far below its margin, and the gradient is formed instead.
CANCELLED = 2.0**-6


@dataclass(frozen=True, slots=True)
class Outer:
    """A linear layer's gradients, not formed: inputs (persons, ..., in) and slopes (persons, ..., out)."""

    layer: nn.Linear
    inputs: Tensor
    slopes: Tensor
    squares: Squares

    def summed(self, factors: Tensor, broken: Tensor | None) -> Sums:
        """The sum over persons, weighted by ``factors``; ``broken`` persons count as zero whatever they hold."""
        inputs, slopes = self.inputs, self.slopes
        if broken is not None:
            inputs, slopes = _emptied(inputs, broken), _emptied(slopes, broken)
        slopes = slopes * factors.view(-1, *[1] * (slopes.dim() - 1))
        if slopes.dim() > 2:
            inputs, slopes = inputs.flatten(0, -2), slopes.flatten(0, -2)
        found: Sums = {}
        if self.layer.weight.requires_grad:
            found[self.layer.weight] = slopes.T @ inputs
        if self.layer.bias is not None and self.layer.bias.requires_grad:
            found[self.layer.bias] = slopes.sum(dim=0)
        return found


@dataclass(frozen=True, slots=True)
class Formed:
    """A layer's gradients, one for each person, (persons, ...) for each parameter."""

    gradients: Sums
    squares: Squares

    def summed(self, factors: Tensor, broken: Tensor | None) -> Sums:
        """As of `Outer`."""
        found: Sums = {}
        for parameter, gradient in self.gradients.items():
            kept = gradient if broken is None else _emptied(gradient, broken)
            found[parameter] = torch.tensordot(factors, kept, dims=1)
        return found


@dataclass(frozen=True, slots=True)
class Rows:
    """An embedding's gradients, the rows that are not zero: rows (k, width), whose each is, and of which word."""

    weight: Tensor
    rows: Tensor
    persons: Tensor
    words: Tensor
    squares: Squares

    def summed(self, factors: Tensor, broken: Tensor | None) -> Sums:
        """As of `Outer`."""
        rows = self.rows if broken is None else _emptied(self.rows, broken[self.persons])
        weighted = rows * factors[self.persons, None]
        return {self.weight: torch.zeros_like(self.weight).index_add_(0, self.words, weighted)}


Share: TypeAlias = Outer | Formed | Rows


def is_known(layer: nn.Module) -> bool:
    """Whether `share_of` knows a layer. Its own type and no subclass: that could compute anything."""
    if type(layer) is nn.Embedding:
        return layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    if type(layer) is nn.LayerNorm:
        # Opacus' function reads the bias.
        return layer.bias is not None
    return type(layer) is nn.Linear or type(layer) in FORMED


def share_of(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> Share:
    """A layer's share.

    Args:
        layer: one that `is_known`.
        inputs: what went in, persons first.
        slopes: of the sum of losses at what came out, persons first.
    """
    match layer:
        case nn.Linear():
            return _linear(layer, inputs, slopes)
        case nn.Embedding():
            return _embedding(layer, inputs, slopes)
        case _:
            gradients = GradSampleModule.GRAD_SAMPLERS[type(layer)](layer, [inputs], slopes)
            return _formed({p: g for p, g in gradients.items() if p.requires_grad})


def _linear(layer: nn.Linear, inputs: Tensor, slopes: Tensor) -> Share:
    weighted = layer.weight.requires_grad
    biased = layer.bias is not None and layer.bias.requires_grad
    if inputs.dim() == 2:
        if not weighted:
            return Outer(layer, inputs, slopes, squares_of(slopes.numpy()))
        # Of (b a^T, b): the bias is a weight whose input is 1.
        return Outer(layer, inputs, slopes, squares_of(slopes.numpy()) * (squares_of(inputs.numpy()) + float(biased)))
    inputs, slopes = _three(inputs), _three(slopes)
    if not weighted or 2 * inputs.shape[1] ** 2 <= layer.weight.numel():
        squares, sound = _gram_squares(inputs.double(), slopes.double()) if weighted else (np.zeros(len(inputs)), True)
        if sound:
            return Outer(layer, inputs, slopes, squares + squares_of(slopes.sum(dim=1).numpy()) if biased else squares)
    gradients: Sums = {layer.weight: torch.bmm(slopes.mT, inputs)}
    if biased and layer.bias is not None:
        gradients[layer.bias] = slopes.sum(dim=1)
    return _formed(gradients)


def _gram_squares(inputs: Tensor, slopes: Tensor) -> tuple[Squares, bool]:
    """||sum over t of b_t a_t^T||^2 = sum over t, u of (a_t . a_u) (b_t . b_u), and whether nobody's products cancel
    so far that rounding would matter. In doubles, because they do cancel.
    """
    of_inputs, of_slopes = torch.bmm(inputs, inputs.mT), torch.bmm(slopes, slopes.mT)
    squares = (of_inputs * of_slopes).sum(dim=(1, 2)).clamp(min=0.0)
    each = of_inputs.diagonal(dim1=1, dim2=2) * of_slopes.diagonal(dim1=1, dim2=2)
    longest = each.sqrt().sum(dim=1)
    return squares.numpy(), not bool((squares < (CANCELLED * longest) ** 2).any())


def _embedding(layer: nn.Embedding, words: Tensor, slopes: Tensor) -> Rows:
    """A word that occurs twice has one row: the rows are added up first, and only then is there a norm."""
    persons, count = len(words), layer.num_embeddings
    keys = (torch.arange(persons)[:, None] * count + words.reshape(persons, -1)).flatten()
    slopes = slopes.reshape(-1, layer.embedding_dim)
    if layer.padding_idx is not None:
        kept = keys % count != layer.padding_idx
        keys, slopes = keys[kept], slopes[kept]
    unique, place = torch.unique(keys, return_inverse=True)
    rows = slopes.new_zeros(len(unique), layer.embedding_dim).index_add_(0, place, slopes)
    owner = unique // count
    squares: Squares = np.bincount(owner.numpy(), weights=squares_of(rows.numpy()), minlength=persons).astype(
        np.float64
    )
    return Rows(layer.weight, rows, owner, unique % count, squares)


def _formed(gradients: Sums) -> Formed:
    return Formed(gradients, formed_squares(list(gradients.values())))


def formed_squares(gradients: list[Tensor]) -> Squares:
    """Each person's squared norm over gradients of shape (persons, ...), in doubles.

    `sum` adds pairwise, so that a long row costs no accuracy; `norm` in float32 does not.
    """
    found = np.zeros(len(gradients[0]))
    for gradient in gradients:
        found += gradient.flatten(1).square().sum(dim=1).numpy()
    return found


def _three(values: Tensor) -> Tensor:
    """(persons, ..., width) as (persons, records, width)."""
    return values.reshape(len(values), -1, values.shape[-1])


def squares_of(values: NDArray[np.floating]) -> Squares:
    """Each person's squared norm, in doubles; persons first."""
    rows = values.astype(np.float64)
    if rows.ndim != 2:
        rows = rows.reshape(len(rows), -1)
    squares: Squares = np.vecdot(rows, rows)
    return squares


def _emptied(values: Tensor, broken: Tensor) -> Tensor:
    """With zeros for those who are no number somewhere: 0 times infinity would not be one."""
    return values.masked_fill(broken.reshape(-1, *[1] * (values.dim() - 1)), 0.0)
