"""The gradients of many sites' models at once, each at its own parameters and on its own persons.

Parameters are stacked: one tensor a name, its first dimension sites. The sum over sites of their weighted losses has
as its gradient exactly the stack of the sites' own gradients, since no site's loss depends on another's parameters.
"""

from collections.abc import Callable, Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from fedseal.client.task import Batch, Task, build_model
from fedseal.errors import ConfigError

Stacked = dict[str, Tensor]
# Layers without parameters that treat each person's numbers alike, whoever else is in the batch.
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.ELU, nn.SiLU, nn.Softplus, nn.LeakyReLU, nn.Identity)


class Gradients(Protocol):
    """A way to compute them."""

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor) -> tuple[Tensor, ...]:
        """The gradients by name in the order of the parameters, each of shape (sites, ...).

        Args:
            parameters: stacked, requiring gradients.
            batch: tensors of shape (sites * persons, ...), site after site.
            weights: what each person's loss is multiplied by, shape (sites, persons).
        """


def weighted(losses: Tensor, weights: Tensor) -> Tensor:
    """The sum of losses by weight; what is weighted by nothing does not count, also if it is no number."""
    flat = weights.reshape(-1)
    if losses.shape != flat.shape:
        raise ConfigError("the loss is not one number a person")
    return torch.where(flat > 0, losses, torch.zeros_like(losses)).mul(flat).sum()


class Batched:
    """For stacks of linear layers and activations: each layer is one batched product of matrices.

    Args:
        task: whose loss it is; whatever it does with the model's answers is autograd's.

    Raises:
        ConfigError: the model is something else.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._layers = list(_layers(build_model(task)))

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor) -> tuple[Tensor, ...]:
        """As `Gradients` says."""
        model = cast(nn.Module, _Answering(self._layers, parameters, weights.shape))
        total = weighted(self._task.loss(model, batch), weights)
        return torch.autograd.grad(total, list(parameters.values()))


class _Answering:
    """Answers for many models at once, each about its own persons. It has nothing else that a task might ask."""

    def __init__(self, layers: list[tuple[str, nn.Module]], parameters: Stacked, shape: torch.Size) -> None:
        self._layers = layers
        self._parameters = parameters
        self._shape = shape

    def __call__(self, inputs: Tensor) -> Tensor:
        sites, persons = self._shape
        values = inputs.reshape(sites, persons, *inputs.shape[1:])
        for name, layer in self._layers:
            if isinstance(layer, nn.Flatten):
                values = values.reshape(sites, persons, -1)
            elif isinstance(layer, nn.Linear):
                weight = self._parameters[f"{name}weight"].transpose(1, 2)
                if layer.bias is None:
                    values = torch.bmm(values, weight)
                else:
                    values = torch.baddbmm(self._parameters[f"{name}bias"].unsqueeze(1), values, weight)
            else:
                values = layer(values)
        return values.reshape(sites * persons, *values.shape[2:])


def _layers(module: nn.Module, prefix: str = "") -> list[tuple[str, nn.Module]]:
    """The layers in their order, each with the prefix of its parameters' names."""
    if type(module) is nn.Sequential:
        return [found for name, part in module.named_children() for found in _layers(part, f"{prefix}{name}.")]
    linear = type(module) is nn.Linear and all(p.requires_grad for p in module.parameters())
    flat = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    if linear or flat or type(module) in ELEMENTWISE:
        return [(prefix, module)]
    raise ConfigError(f"{type(module).__name__} is no layer of a stack")


class Mapped:
    """For any model that torch.func can call with parameters of its choice.

    Args:
        task: whose loss it is.

    Raises:
        ConfigError: nothing is trained.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._module = build_model(task)
        self._module.train()

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor) -> tuple[Tensor, ...]:
        """As `Gradients` says."""
        sites, persons = weights.shape
        parts = tuple(tensor.reshape(sites, persons, *tensor.shape[1:]) for tensor in batch)
        plain = {name: value.detach() for name, value in parameters.items()}
        mapped: Callable[..., dict[str, Tensor]] = torch.func.vmap(torch.func.grad(self._total), randomness="error")
        found = mapped(plain, parts, weights)
        return tuple(found[name] for name in parameters)

    def _total(self, parameters: Mapping[str, Tensor], batch: Batch, weights: Tensor) -> Tensor:
        def answer(*inputs: Tensor) -> Tensor:
            return cast(Tensor, torch.func.functional_call(self._module, dict(parameters), inputs))

        return weighted(self._task.loss(cast(nn.Module, answer), batch), weights)
