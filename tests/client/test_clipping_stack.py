"""What the path of stacks takes and refuses, and that its comparison would notice a wrong derivative.

Its sums stand with those of all paths in test_clipping.py.
"""

from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.clipping_models import KINDS, Kind, flat_sum
from torch import Tensor, nn

from fedseal.client.clipping import stack
from fedseal.client.clipping.choice import ClippingPath, choose, clip_by, is_true
from fedseal.client.clipping.factors import NotPerPersonError
from fedseal.client.task import Batch, batch_of, build_model

ROWS = KINDS["mlp"].features
STACK = ClippingPath.STACK


def small() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def listened() -> nn.Module:
    model = small()
    model[1].register_forward_hook(lambda layer, inputs, output: 2 * output)
    return model


def shared() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    cast(nn.Linear, model[1]).weight = cast(nn.Linear, model[0]).weight
    return model


def again() -> nn.Module:
    """One layer stands twice in the stack."""
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, layer, nn.Linear(5, 3))


def half_frozen() -> nn.Module:
    model = small()
    cast(nn.Linear, model[0]).bias.requires_grad_(False)
    return model


class Subclass(nn.Linear):
    """Could compute anything."""


class Beside(nn.Module):
    """Something is trained outside the stack."""

    def __init__(self) -> None:
        super().__init__()
        self.stack, self.scale = small(), nn.Parameter(torch.ones(3))

    def forward(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.stack(rows)) * self.scale


REFUSED: dict[str, Any] = {
    "a hook": listened,
    "a shared weight": shared,
    "a layer twice": again,
    "a frozen bias": half_frozen,
    "a subclass": lambda: Subclass(5, 3),
    "dropout": lambda: nn.Sequential(nn.Linear(5, 4), nn.Dropout(), nn.Linear(4, 3)),
    "a parameter beside": Beside,
    "no layer": lambda: nn.Sequential(nn.Tanh()),
}


@pytest.mark.parametrize("model", REFUSED.values(), ids=REFUSED)
def test_what_is_no_stack_is_refused(model: Any) -> None:
    with pytest.raises(NotPerPersonError) as caught:
        clip_by(STACK, model())
    assert caught.value.next_step


class Inner(nn.Module):
    """Calls its stack as it is told."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.stack = how, small()

    def forward(self, rows: Tensor) -> Tensor:
        match self.how:
            case "twice":
                return cast(Tensor, self.stack(rows) + self.stack(-rows))
            case "past it":
                return cast(Tensor, self.stack[2](torch.tanh(self.stack[0](rows))))
            case "records":
                return cast(Tensor, self.stack(rows[:, None]).squeeze(1))
            case "records as persons":
                return cast(Tensor, self.stack(torch.cat([rows, rows]))[: len(rows)])
            case "changed":
                state = rows + 0.0
                found = self.stack(state)
                state.mul_(2.0)
                return cast(Tensor, found)
            case _:
                return cast(Tensor, self.stack(rows))


def inner(how: str) -> Kind:
    return Kind(how, lambda: Inner(how), ROWS)


@pytest.mark.parametrize("how", ["twice", "past it", "records", "records as persons", "changed"])
def test_a_stack_that_is_used_otherwise_is_refused_and_another_path_taken(how: str) -> None:
    kind = inner(how)
    with pytest.raises(NotPerPersonError):
        clip_by(STACK, kind.model()).clipped_sum(kind, batch_of(kind.persons(), np.arange(7)), 1.0)
    assert not is_true(kind, STACK, kind.persons())
    if how in ("past it", "records"):
        assert choose(kind, kind.persons()).path is ClippingPath.ANALYTIC


def test_a_use_that_shows_up_late_stops_training_and_leaves_nothing_behind() -> None:
    kind = inner("as it should be")
    found, batch = choose(kind, kind.persons()), batch_of(kind.persons(), np.arange(7))
    assert found.path is STACK
    before = flat_sum(found, kind, batch, 1.0)
    cast(Inner, found.module).how = "twice"
    with pytest.raises(NotPerPersonError, match="twice"):
        found.clipped_sum(kind, batch, 1.0)
    cast(Inner, found.module).how = "as it should be"
    assert np.array_equal(flat_sum(found, kind, batch, 1.0), before)


def test_a_loss_that_uses_a_weight_past_the_stack_takes_another_path_or_none() -> None:
    class Decayed(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            weights = sum(p.square().sum() for p in model.parameters())
            return super().loss(model, batch) + cast(Tensor, weights)

    kind = Decayed("decayed", small, ROWS)
    assert not is_true(kind, STACK, kind.persons())


def test_outside_of_a_sum_the_module_is_what_it_was() -> None:
    kind = KINDS["wrapped"]
    clipping, plain = clip_by(STACK, build_model(kind)), build_model(kind)
    rows = kind.features[:5]
    assert torch.equal(clipping.module(rows), plain(rows))
    assert clipping.module(rows).grad_fn is not None


def test_a_loss_of_nothing_has_a_gradient_of_zeros() -> None:
    class Constant(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return 0 * super().loss(model, batch).detach()

    kind = Constant("constant", small, ROWS)
    found = clip_by(STACK, small()).clipped_sum(kind, batch_of(kind.persons(), np.arange(3)), 1.0)
    assert [t.shape for t in found] == [p.shape for p in small().parameters()]
    assert not any(t.any() for t in found)


@pytest.mark.parametrize("layer", [nn.ReLU, nn.Sigmoid, nn.Tanh])
def test_a_wrong_derivative_is_never_taken(layer: type[nn.Module]) -> None:
    kind = KINDS["wrapped"]
    assert choose(kind, kind.persons()).path is STACK
    wrong = replace(stack.ACTIVATIONS[layer], derivative=lambda out: 0.99 * np.ones_like(out))
    with patch.dict(stack.ACTIVATIONS, {layer: wrong}):
        assert choose(kind, kind.persons()).path is ClippingPath.ANALYTIC


def test_a_norm_without_the_bias_is_never_taken() -> None:
    real = stack._Linear.squares

    def without(self: stack._Linear, inputs: stack.Floats, slopes: stack.Floats) -> Any:
        return real(replace(self, bias=None), inputs, slopes)

    with patch.object(stack._Linear, "squares", without):
        assert choose(KINDS["mlp"], KINDS["mlp"].persons()).path is ClippingPath.ANALYTIC
