"""The start-up probe: does each person's gradient depend on that person alone?

Clipping bounds what one person can change only if per-sample gradients are per person. A loss that couples the
persons of a batch (batch statistics, contrastive terms, a mean taken before a nonlinearity) voids that silently. The
probe compares the per-sample gradients of a small batch with the gradients of its persons one by one.
"""

import numpy as np
import torch
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import nn

from fedseal.client.noise import clear_gradients
from fedseal.client.task import Batch, Persons, Task, batch_of, size
from fedseal.errors import ConfigError

PROBED = 4
TOLERANCE = 1e-4


def check_model(module: nn.Module) -> None:
    """Refuse layers for which per-sample gradients do not exist or do not mean what they should.

    Raises:
        ConfigError: names the layers and what to use instead.
    """
    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        first = str(problems[0]).strip().splitlines()[0]
        raise ConfigError(
            f"the model cannot be trained under a private plan: {first}",
            next_step="Replace the layer (GroupNorm for BatchNorm, for example) or use plan none.",
        )


def check_per_person(task: Task, wrapped: GradSampleModule, persons: Persons) -> None:
    """Compare per-sample gradients in a batch with those of single persons.

    Args:
        task: whose loss is probed.
        wrapped: the model, wrapped by Opacus.
        persons: the training persons; the first few are used. With fewer than two there is nothing that could be
            coupled.

    Raises:
        ConfigError: the loss has the wrong shape, or couples persons.
    """
    count = min(PROBED, size(persons))
    if count < 2:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropouts = [m for m in wrapped.modules() if isinstance(m, nn.modules.dropout._DropoutNd) and m.training]
        for module in dropouts:
            module.eval()
        together = _gradients(task, wrapped, batch_of(persons, np.arange(count)))
        alone = [_gradients(task, wrapped, batch_of(persons, np.array([i]))) for i in range(count)]
        for module in dropouts:
            module.train()
    for i, single in enumerate(alone):
        scale = float(single[0].norm()) + 1e-6
        if float((together[i] - single[0]).norm()) > TOLERANCE * scale:
            raise ConfigError(
                "the loss couples the persons of a batch: a person's gradient depends on who else is in it",
                next_step="Make loss() treat each person on its own, or use plan none: clipping would bound nothing.",
            )


def _gradients(task: Task, wrapped: GradSampleModule, batch: Batch) -> torch.Tensor:
    """Per-sample gradients, flat, shape (batch, parameters)."""
    clear_gradients(wrapped)
    losses = task.loss(wrapped, batch)
    check_shape(losses, batch)
    torch.autograd.backward(losses.sum())
    rows = [p.grad_sample.flatten(1).double() for p in wrapped.parameters() if p.requires_grad]
    clear_gradients(wrapped)
    return torch.cat(rows, dim=1)


def check_shape(losses: torch.Tensor, batch: Batch) -> None:
    """One loss a person; ConfigError otherwise."""
    if losses.shape != (len(batch[0]),):
        raise ConfigError(
            f"loss() returned shape {tuple(losses.shape)} for a batch of {len(batch[0])} persons",
            next_step="Return one loss for each person, shape (batch,): reduction='none', not 'mean'.",
        )
