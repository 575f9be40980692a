"""The start-up probe: does each person's gradient depend on that person alone, and is it the one that gets clipped?

Clipping bounds what one person can change only if per-sample gradients are per person. A loss that couples the
persons of a batch (batch statistics, contrastive or ranking terms, a mean taken before a nonlinearity) voids that
silently, and so does a layer whose per-sample gradients Opacus gets wrong. The probe compares the per-sample gradients
of a small batch with the true gradients of its persons one by one.
"""

import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.noise import clear_gradients
from fedseal.client.task import Batch, Persons, Task, batch_of, size
from fedseal.errors import ConfigError

PROBED = 8
TOLERANCE = 1e-4
# A dataset that makes its items on demand is not read to its end for a probe.
LOOKED_AT = 256
COUPLED = "the loss couples the persons of a batch: a person's gradient depends on who else is in it"
# Layers that take mean and deviation of their batch.
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
BATCH_LEVEL = "[tool.fedseal.training] batch_level = true"


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
            next_step="Replace the layer (GroupNorm for BatchNorm; DPGRU, DPLSTM, DPRNN or DPMultiheadAttention of "
            'opacus.layers for torch\'s) or use plan = "none".',
        )


def check_statistics(module: nn.Module, staying: Collection[str] = ()) -> None:
    """Refuse layers that keep statistics of the batches they saw: only parameters are sent, so nobody else's copy of
    the model would have them.

    Args:
        module: the model.
        staying: arrays that stay at their site, by name: nobody else's copy is to have those.

    Raises:
        ConfigError: names the layer.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            if f"{name}.running_mean" in staying:
                continue
            raise ConfigError(
                f"layer {name or type(part).__name__!r} keeps running statistics of its batches, which are not sent",
                next_step="Use GroupNorm or LayerNorm, whose answer depends on one person only; or let each site keep "
                'its own: strategy = "fedbn", with batch_level = true and plan none or client.',
            )


def check_per_person(task: Task, module: nn.Module, persons: Persons, *, clipped: bool = False) -> None:
    """Compare per-sample gradients in a batch with the gradients of single persons, at two points of the model.

    Args:
        task: whose loss is probed.
        module: the model; wrapped by Opacus where its gradients are going to be clipped, and bare otherwise. Its
            parameters are as before afterwards.
        persons: the training persons, of whom a few with targets that differ are used. With fewer than two there is
            nothing that could be coupled.
        clipped: whether a person's gradient is going to be clipped, on whatever path: there a coupling cannot be
            declared.

    Raises:
        ConfigError: the loss has the wrong shape or couples persons, or a parameter has no right per-sample gradient.
    """
    chosen = probed(persons)
    if len(chosen) < 2:
        return
    if any(isinstance(part, BATCH_NORMS) for part in module.modules()):
        # It couples them by what it is, and of one person alone it has no deviation.
        raise _undeclared()
    clipped = clipped or isinstance(module, GradSampleModule)
    with quiet(), still(task, module, batch_of(persons, chosen[:1])):
        # At its start a model may answer the same to everyone, and many a coupling does not show there.
        _compare(task, module, persons, chosen, clipped)
        with moved(module):
            _compare(task, module, persons, chosen, clipped)


@contextmanager
def quiet() -> Iterator[None]:
    """torch's generator as it was afterwards, and no warnings of Opacus' hooks, which sit on layers whose inputs need
    no gradient.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        yield


def check_shape(losses: Tensor, batch: Batch, *, batch_level: bool = False) -> None:
    """One loss a person, or one number for the batch where the study declares that; ConfigError otherwise."""
    if losses.shape != batch[0].shape[:1] and not (batch_level and losses.ndim == 0):
        raise ConfigError(
            f"loss() returned shape {tuple(losses.shape)} for a batch of {len(batch[0])} persons",
            next_step="Return one loss for each person, shape (batch,): reduction='none', not 'mean'. A loss of the "
            f'whole batch needs plan = "none" and {BATCH_LEVEL}.',
        )


def probed(persons: Persons) -> NDArray[np.intp]:
    """A few persons whose targets lie far apart: a ranking couples only persons of different targets."""
    count = size(persons)
    if count <= PROBED:
        return np.arange(count)
    if isinstance(persons, TensorDataset):
        targets = persons.tensors[-1]
    else:
        targets = batch_of(persons, np.arange(min(count, LOOKED_AT)))[-1]
    rows = targets.reshape(len(targets), -1).double().numpy().T[: PROBED // 2]
    each = PROBED // max(len(rows), 1)
    found: dict[int, None] = {}
    for row in rows:
        order = np.argsort(row, kind="stable")
        found |= dict.fromkeys(int(i) for i in order[np.linspace(0, len(order) - 1, each).astype(np.intp)])
    found |= dict.fromkeys(range(PROBED))
    return np.array(list(found)[:PROBED], dtype=np.intp)


def alone(task: Task, module: nn.Module, persons: Persons, chosen: NDArray[np.intp]) -> Tensor:
    """The true gradient of each person by itself, shape (persons, parameters), in doubles."""
    return torch.stack([_whole(task, module, batch_of(persons, np.array([i]))) for i in chosen])


def _undeclared() -> ConfigError:
    return ConfigError(
        COUPLED, next_step=f"Make loss() treat each person on its own, or declare the coupling: {BATCH_LEVEL}."
    )


def _compare(task: Task, module: nn.Module, persons: Persons, chosen: NDArray[np.intp], clipped: bool) -> None:
    true = alone(task, module, persons, chosen)
    if clipped and not isinstance(module, GradSampleModule):
        # Without per-sample gradients, who is no number makes everybody's gradient none; when clipped they count as
        # zero.
        finite = torch.isfinite(true).all(dim=1)
        true, chosen = true[finite], chosen[finite.numpy()]
        if len(chosen) < 2:
            return
    together = _per_sample(task, module, batch_of(persons, chosen))
    if _alike(together, true):
        return
    if not clipped:
        raise _undeclared()
    single = torch.cat([_per_sample(task, module, batch_of(persons, np.array([i]))) for i in chosen])
    if _alike(single, true):
        raise ConfigError(
            COUPLED,
            next_step="Make loss() and the model treat each person on its own: clipping would bound nothing here. A "
            f'loss of the whole batch needs plan = "none" and {BATCH_LEVEL}.',
        )
    raise ConfigError(
        "what would be clipped is not a person's whole gradient: clipping would bound nothing",
        next_step="A parameter is used outside the layer that owns it, or by a layer that Opacus does not know: call "
        "the layer, and give each use parameters of its own.",
    )


def _alike(some: Tensor, others: Tensor) -> bool:
    """The same gradients up to rounding, row by row; what is no number has to be none in both."""
    finite = torch.isfinite(some) & torch.isfinite(others)
    norms = torch.where(finite, others, 0.0).norm(dim=1)
    apart = torch.where(finite, some - others, 0.0).norm(dim=1)
    # A person who fits well has a gradient of nothing but rounding.
    scale = torch.maximum(norms, 1e-3 * norms.max()) + 1e-6
    return torch.equal(torch.isfinite(some), torch.isfinite(others)) and bool((apart <= TOLERANCE * scale).all())


def _whole(task: Task, module: nn.Module, batch: Batch) -> Tensor:
    """The true gradient of the sum of a batch's losses, flat."""
    losses = task.loss(module, batch)
    check_shape(losses, batch)
    return _flat(module, losses.sum(), keep=False)


def _per_sample(task: Task, module: nn.Module, batch: Batch) -> Tensor:
    """What would be clipped, or without clipping the gradient of each person's loss; shape (batch, parameters)."""
    losses = task.loss(module, batch)
    check_shape(losses, batch)
    if not isinstance(module, GradSampleModule):
        return torch.stack([_flat(module, loss, keep=True) for loss in losses])
    clear_gradients(module)
    torch.autograd.backward(losses.sum())
    rows = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            _check_sample(name.removeprefix("_module."), parameter, len(batch[0]))
            rows.append(parameter.grad_sample.flatten(1).double())
    clear_gradients(module)
    return torch.cat(rows, dim=1)


def _check_sample(name: str, parameter: Tensor, persons: int) -> None:
    found = getattr(parameter, "grad_sample", None)
    if found is None:
        raise ConfigError(
            f"parameter {name!r} has no gradient of each person",
            next_step="It takes no part in loss(), or is used outside the layer that owns it: remove it, freeze it "
            "with requires_grad_(False), or call its layer.",
        )
    if len(found) != persons:
        raise ConfigError(
            f"parameter {name!r} has {len(found)} gradients for {persons} persons",
            next_step="A layer's first dimension has to count persons: hand it (persons, records, features) as it is, "
            "not reshaped to (persons * records, features).",
        )


def _flat(module: nn.Module, loss: Tensor, *, keep: bool) -> Tensor:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not loss.requires_grad:
        raise ConfigError(
            "loss() does not depend on the model's trainable parameters",
            next_step="Compute it from model(...), without detach(), numpy or no_grad.",
        )
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=keep)
    rows = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    clear_gradients(module)
    return torch.cat([row.flatten() for row in rows]).double()


@contextmanager
def still(task: Task, module: nn.Module, one: Batch) -> Iterator[None]:
    """Without dropout. What else is random in training is stilled by evaluation mode."""
    flags = [(part, part.training) for part in module.modules()]
    try:
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.eval()
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            found.append(_whole(task, module, one))
        if not torch.equal(found[0].nan_to_num(), found[1].nan_to_num()):
            module.eval()
        yield
    finally:
        for part, training in flags:
            part.training = training


@contextmanager
def moved(module: nn.Module, step: float = 1.0) -> Iterator[None]:
    """Every trainable parameter a random step away, times ``step``, and back."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    torch.manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in parameters:
                length = step * (0.1 + parameter.square().mean().sqrt())
                parameter.add_(torch.randn_like(parameter) * length)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
