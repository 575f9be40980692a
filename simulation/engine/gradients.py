"""One step of gradient descent of many sites' models at once, each at its own parameters and on its own persons.

Parameters are stacked: one tensor a name, its first dimension sites. The sum over sites of their weighted losses has
as its gradient exactly the stack of the sites' own gradients, since no site's loss depends on another's parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from fedseal.client.task import Batch, Task, build_model
from fedseal.errors import ConfigError

Stacked = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Slope:
    """How far down: the learning rate, and FedProx's mu with the parameters that it pulls to, not stacked."""

    rate: float
    mu: float
    anchor: Mapping[str, Tensor]

    def pulled(self, name: str, values: Tensor) -> None:
        """FedProx's part of a step, in place: its gradient is mu (w - w^t)."""
        if self.mu:
            values.sub_(values - self.anchor[name], alpha=self.rate * self.mu)


class Descent(Protocol):
    """A way to take a step."""

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor, slope: Slope) -> None:
        """Take one step, in place.

        Args:
            parameters: stacked.
            batch: tensors of shape (sites * persons, ...), site after site.
            weights: what each person's loss is multiplied by, shape (sites, persons).
            slope: how far.
        """


def weighted(losses: Tensor, weights: Tensor) -> Tensor:
    """The sum of losses by weight; what is weighted by nothing does not count, also if it is no number.

    Raises:
        ConfigError: the losses are not one number a person.
    """
    flat = weights.reshape(-1)
    if losses.shape != flat.shape:
        raise ConfigError("the loss is not one number a person")
    return torch.where(flat > 0, losses, torch.zeros_like(losses)).mul(flat).sum()


@dataclass(frozen=True, slots=True)
class _Activation:
    """What is done to every number, and a slope by what came out."""

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor], Tensor]


ACTIVATIONS: Mapping[type[nn.Module], _Activation] = {
    # What came out is not negative, so its sign says the same as whether it is above zero, in a fifth of the time.
    nn.ReLU: _Activation(torch.relu, lambda slope, out: slope * out.sign()),
    nn.Sigmoid: _Activation(torch.sigmoid, lambda slope, out: slope * (out * (1 - out))),
    nn.Tanh: _Activation(torch.tanh, lambda slope, out: slope * (1 - out * out)),
    nn.Identity: _Activation(lambda values: values, lambda slope, _: slope),
}


@dataclass(frozen=True, slots=True)
class _Linear:
    """The names of a linear layer's parameters."""

    weight: str
    bias: str | None


class Batched:
    """For stacks of linear layers and activations: each layer is one batched product of matrices, forwards, backwards
    and into the parameters; only the loss is autograd's.

    Args:
        task: whose loss it is.

    Raises:
        ConfigError: the model is something else.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._layers = _layers(build_model(task))
        # The weights that were looked at last, and whether some are nothing: steps often share them.
        self._looked: tuple[Tensor, bool] | None = None

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor, slope: Slope) -> None:
        """As `Descent` says."""
        answering = _Answering(self._layers, parameters, weights.shape)
        losses, flat = self._task.loss(cast(nn.Module, answering), batch), weights.reshape(-1)
        if answering.outputs is None or losses.shape != flat.shape:
            raise ConfigError("the loss is not one number a person, of what the model says once")
        (down,) = torch.autograd.grad(losses, answering.outputs, flat)
        if self._filled_up(weights):
            # Nothing times what is no number is no number.
            down = torch.where(flat[:, None] > 0, down, torch.zeros_like(down))
        self._back(parameters, answering.inputs, down.reshape(*weights.shape, -1), slope)

    def _filled_up(self, weights: Tensor) -> bool:
        if self._looked is None or self._looked[0] is not weights:
            self._looked = weights, not bool(weights.all())
        return self._looked[1]

    def _back(self, parameters: Stacked, inputs: list[Tensor], down: Tensor, slope: Slope) -> None:
        """From the slopes of the outputs back to the first layer, each of whose parameters moves on the way."""
        for place in range(len(self._layers) - 1, -1, -1):
            layer = self._layers[place]
            if isinstance(layer, _Activation):
                down = layer.backward(down, inputs[place + 1])
                continue
            weight, came = parameters[layer.weight], inputs[place]
            passed = torch.bmm(down, weight) if place else down
            slope.pulled(layer.weight, weight)
            weight.baddbmm_(down.transpose(1, 2), came, alpha=-slope.rate)
            if layer.bias is not None:
                bias = parameters[layer.bias]
                slope.pulled(layer.bias, bias)
                bias.sub_(down.sum(dim=1), alpha=slope.rate)
            down = passed


class _Answering:
    """Answers for many models at once, each about its own persons. It has nothing else that a task might ask."""

    def __init__(self, layers: "list[_Linear | _Activation]", parameters: Stacked, shape: torch.Size) -> None:
        self._layers = layers
        self._parameters = parameters
        self._shape = shape
        # What each layer got, and what the last one gave.
        self.inputs: list[Tensor] = []
        self.outputs: Tensor | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.outputs is not None:
            raise ConfigError("the loss asks the model twice")
        sites, persons = self._shape
        values = inputs.reshape(sites, persons, -1)
        for layer in self._layers:
            self.inputs.append(values)
            if isinstance(layer, _Activation):
                values = layer.forward(values)
            else:
                weight = self._parameters[layer.weight].transpose(1, 2)
                if layer.bias is None:
                    values = torch.bmm(values, weight)
                else:
                    values = torch.baddbmm(self._parameters[layer.bias].unsqueeze(1), values, weight)
        self.inputs.append(values)
        self.outputs = values.reshape(sites * persons, -1).requires_grad_()
        return self.outputs


def _layers(module: nn.Module, prefix: str = "", *, first: bool = True) -> list[_Linear | _Activation]:
    """The layers in their order, by the names of their parameters."""
    if type(module) is nn.Sequential:
        found: list[_Linear | _Activation] = []
        for name, part in module.named_children():
            found += _layers(part, f"{prefix}{name}.", first=first and not found)
        return found
    if type(module) is nn.Linear and all(p.requires_grad for p in module.parameters()):
        return [_Linear(f"{prefix}weight", None if module.bias is None else f"{prefix}bias")]
    if type(module) is nn.Flatten and first and (module.start_dim, module.end_dim) == (1, -1):
        # Persons are rows of numbers anyway.
        return []
    if type(module) in ACTIVATIONS:
        return [ACTIVATIONS[type(module)]]
    raise ConfigError(f"{type(module).__name__} is no layer of a stack")


class Mapped:
    """For any model that torch.func can call with parameters of its choice.

    Args:
        task: whose loss it is.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._module = build_model(task)
        self._module.train()

    def __call__(self, parameters: Stacked, batch: Batch, weights: Tensor, slope: Slope) -> None:
        """As `Descent` says."""
        sites, persons = weights.shape
        parts = tuple(tensor.reshape(sites, persons, *tensor.shape[1:]) for tensor in batch)
        mapped: Callable[..., Stacked] = torch.func.vmap(torch.func.grad(self._total), randomness="error")
        for name, gradient in mapped(parameters, parts, weights).items():
            slope.pulled(name, parameters[name])
            parameters[name].sub_(gradient, alpha=slope.rate)

    def _total(self, parameters: Stacked, batch: Batch, weights: Tensor) -> Tensor:
        def answer(*inputs: Tensor) -> Tensor:
            return cast(Tensor, torch.func.functional_call(self._module, parameters, inputs))

        return weighted(self._task.loss(cast(nn.Module, answer), batch), weights)
