"""Which path a model takes, found by looking at it once and by comparing sums.

A path may change how fast a sum comes, never what is summed: so the choice is no part of a privacy plan, and nothing
of it is charged, sent or written down.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.clipping.analytic import AnalyticPath
from fedseal.client.clipping.factors import NotPerPersonError, clip_factors
from fedseal.client.clipping.opacus_paths import GhostPath, HooksPath
from fedseal.client.clipping.stack import StackPath
from fedseal.client.probe import alone, check_model, check_per_person, moved, probed, quiet, still
from fedseal.client.task import Batch, Persons, Task, batch_of, build_model, size

# Of a sum's error: far above rounding in doubles, and above that of all but very deep models in float32.
TOLERANCE = 1e-6
# From so many parameters on, not forming their gradients saves more than ghost clipping's second backward pass costs
# (measured, bench/README.md). No timing decides: the same study has to take the same path everywhere.
GHOST_PAYS = 2**14


class ClippingPath(Enum):
    """How a sum of clipped gradients is computed, the fastest first."""

    STACK = "stack"
    ANALYTIC = "analytic"
    GHOST = "ghost"
    HOOKS = "hooks"


class _Path(Protocol):
    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]: ...


@dataclass(frozen=True, slots=True)
class Clipping:
    """A model and the path of its gradients.

    Attributes:
        path: which.
        module: the model itself, whose parameters are read at every sum.
    """

    path: ClippingPath
    module: nn.Module
    _by: _Path

    def clipped_sum(self, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        """The sum over a batch of each person's gradient, clipped in L2 over all trainable parameters together.

        Args:
            task: whose loss is differentiated.
            batch: of any number of persons, none included.
            clip: the bound.

        Returns:
            A tensor for each trainable parameter, in their order. A person whose gradient is no number somewhere
            counts as zero.

        Raises:
            ConfigError: the loss is not one a person, or the model used a layer in another way than before.
        """
        if not batch[0].shape[0]:
            return [torch.zeros_like(p, requires_grad=False) for p in self.module.parameters() if p.requires_grad]
        return self._by.clipped_sum(task, batch, clip)


def clip_by(path: ClippingPath, module: nn.Module) -> Clipping:
    """Take one path, unproven.

    Raises:
        NotPerPersonError: the model's layers are not the path's.
    """
    match path:
        case ClippingPath.STACK:
            return Clipping(path, module, StackPath(module))
        case ClippingPath.ANALYTIC:
            return Clipping(path, module, AnalyticPath(module))
        case ClippingPath.GHOST:
            return Clipping(path, module, GhostPath(module))
        case ClippingPath.HOOKS:
            return Clipping(path, module, HooksPath(module))


def choose(task: Task, persons: Persons) -> Clipping:
    """The first path whose sums are those of the persons' true gradients, each clipped by itself.

    Raises:
        ConfigError: a layer has no gradient of each person, the loss couples persons, or what would be clipped is
            not a person's whole gradient.
    """
    module = build_model(task)
    check_model(module)
    if size(persons):
        # By autograd alone: whether the losses are per person is no question of the path.
        check_per_person(task, module, persons, clipped=True)
        ghost = (ClippingPath.GHOST,) if _without_gradients(module) >= GHOST_PAYS else ()
        for path in (ClippingPath.STACK, ClippingPath.ANALYTIC, *ghost):
            if is_true(task, path, persons):
                return clip_by(path, build_model(task))
    hooks = HooksPath(module)
    check_per_person(task, hooks.wrapped, persons)
    return Clipping(ClippingPath.HOOKS, module, hooks)


def is_true(task: Task, path: ClippingPath, persons: Persons) -> bool:
    """Whether a path fits the model and its sums are right for a few persons: in doubles, where nothing but a wrong
    sum shows. A study whose code insists on float32 is compared in that.
    """
    for dtype in (torch.float64, torch.float32):
        try:
            return largest_error(task, clip_by(path, build_model(task).to(dtype)), persons, dtype) <= TOLERANCE
        except NotPerPersonError:
            return False
        except RuntimeError:
            # torch mixes no dtypes. In float32 it is another refusal: Opacus' of tied parameters, or torch's of an
            # output that is changed in place.
            continue
    return False


def largest_error(task: Task, clipping: Clipping, persons: Persons, dtype: torch.dtype) -> float:
    """How far a path's sums are from those of autograd, person by person: the L2 norm of the difference of the sums
    over all parameters, in parts of the sum of the persons' clipped norms.

    At the model's start and one random step away; clipping nobody, which shows what is summed, and most, which shows
    their norms; all probed persons together, and one alone.
    """
    items = TensorDataset(*_as(dtype, batch_of(persons, probed(persons))))
    everyone = np.arange(len(items))
    reference = build_model(task).to(dtype)
    clipping.module.train()
    errors = []
    with quiet(), still(task, reference, batch_of(items, everyone[:1])):
        # What is still in the reference has to be in the other.
        for other, part in zip(clipping.module.modules(), reference.modules(), strict=True):
            other.training = part.training
        for step in (0.0, 1.0):
            with moved(reference, step), moved(clipping.module, step):
                rows = alone(task, reference, items, everyone)
                errors += _errors(task, clipping, batch_of(items, everyone), rows)
                errors += _errors(task, clipping, batch_of(items, everyone[:1]), rows[:1])
    clipping.module.train()
    return max(errors)


def _errors(task: Task, clipping: Clipping, batch: Batch, rows: Tensor) -> list[float]:
    squares = rows.square().sum(dim=1).numpy()
    norms, errors = np.sqrt(np.where(np.isfinite(squares), squares, 0.0)), []
    some = norms[norms > 0]
    # The median: a person who fits well has a gradient of nothing but rounding.
    usual, longest = (float(np.median(some)), float(some.max())) if len(some) else (1.0, 1.0)
    for clip in (0.5 * usual, 2.0 * longest):
        factors = clip_factors(squares, clip)
        expected = torch.tensordot(torch.from_numpy(factors), rows.nan_to_num(0.0, 0.0, 0.0), dims=1)
        found = torch.cat([t.flatten() for t in clipping.clipped_sum(task, batch, clip)]).double()
        errors.append(float((found - expected).norm()) / (float(factors @ norms) + 1e-6))
    return errors


def _as(dtype: torch.dtype, batch: Batch) -> Batch:
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in batch)


def _without_gradients(module: nn.Module) -> int:
    """How many parameters lie in layers for which Opacus' ghost clipping forms no gradient of a person."""
    layers = [layer for layer in module.modules() if type(layer) in (nn.Linear, nn.Embedding)]
    return sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad)
