"""Which path a model takes, that a wrong one is never taken, and that none changes what comes out."""

from dataclasses import replace
from typing import cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from support.clipping_models import KINDS, PERSONS, Kind, Scaled
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.clipping import analytic, layers
from fedseal.client.clipping.choice import (
    TOLERANCE,
    Clipping,
    ClippingPath,
    choose,
    clip_by,
    is_true,
    largest_error,
)
from fedseal.client.clipping.factors import NotPerPersonError
from fedseal.client.task import Batch, batch_of, build_model
from fedseal.client.trainer import Arrays, Trainer, TrainSettings, trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, Performance
from fedseal.privacy.randomness import KeyedRandomness, Stream

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")
PLAN = LocalGaussian(clip_norm=0.5, noise_multiplier=1.1, sample_rate=0.3, steps=5, releases=1, retries=0)
SETTINGS = TrainSettings(learning_rate=0.2, sample_rate=0.3, local_steps=5)
ROWS = KINDS["mlp"].features
CHOSEN = {
    **dict.fromkeys(KINDS, ClippingPath.ANALYTIC),
    **dict.fromkeys(["mlp", "without bias", "logistic", "wrapped"], ClippingPath.STACK),
    "recurrent": ClippingPath.HOOKS,
    "own parameter": ClippingPath.HOOKS,
    "large, own parameter": ClippingPath.GHOST,
}


def streams(*purpose: str | int) -> Stream:
    return KeyedRandomness(3, "test").stream(*purpose)


def kind(make: type[nn.Module], features: Tensor = ROWS) -> Kind:
    return Kind(make.__name__, make, features)


def fit(task: Kind, clipping: Clipping | None = None, **performance: int) -> Arrays:
    trainer = Trainer(
        task,
        task.persons(),
        public_persons=PERSONS,
        performance=Performance(**performance),
        clipping=clipping,
    )
    return trainer.fit(trainable(build_model(task)), SETTINGS, PLAN, streams)


@pytest.mark.quick("mlp", "logistic", "frozen", "texts", "lora", "grouped, formed", "own parameter")
@pytest.mark.parametrize("name", KINDS)
def test_the_fastest_true_path_is_taken(name: str) -> None:
    assert choose(KINDS[name], KINDS[name].persons()).path is CHOSEN[name]


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.second.weight = self.first.weight

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(torch.tanh(self.second(torch.tanh(self.first(rows)))))  # type: ignore[no-any-return]


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(torch.tanh(self.first(rows)))))  # type: ignore[no-any-return]


class Functional(nn.Module):
    """Uses a layer, and its weight past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, rows: Tensor) -> Tensor:
        state = nn.functional.linear(torch.tanh(self.first(rows)), self.first.weight)
        return self.last(state)  # type: ignore[no-any-return]


class Circular(nn.Module):
    """A convolution whose padding Opacus' function does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 2, 3, padding=1, padding_mode="circular"), nn.Linear(10, 3)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(self.first(rows[:, None]).flatten(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("model", [Tied, Twice], ids=lambda m: m.__name__)
def test_shared_weights_fall_back_to_hooks(model: type[nn.Module]) -> None:
    task = kind(model)
    assert not is_true(task, ClippingPath.ANALYTIC, task.persons())
    found = choose(task, task.persons())
    assert found.path is ClippingPath.HOOKS
    doubles = clip_by(ClippingPath.HOOKS, build_model(task).double())
    assert largest_error(task, doubles, task.persons(), torch.float64) <= TOLERANCE


@pytest.mark.parametrize("model", [Functional, Circular], ids=lambda m: m.__name__)
def test_what_no_path_sums_rightly_is_refused(model: type[nn.Module]) -> None:
    task = kind(model)
    for path in ClippingPath:
        assert not is_true(task, path, task.persons())
    with pytest.raises(ConfigError, match="not a person's whole gradient"):
        choose(task, task.persons())


def test_a_path_with_a_wrong_norm_is_never_taken() -> None:
    """A build whose norms are one in two hundred too small still trains, on another path."""
    real = layers.share_of

    def short(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> layers.Share:
        share = real(layer, inputs, slopes)
        return replace(share, squares=0.99 * share.squares)

    task = KINDS["cnn"]
    assert choose(task, task.persons()).path is ClippingPath.ANALYTIC
    with patch.object(analytic, "share_of", short):
        assert choose(task, task.persons()).path is ClippingPath.HOOKS


def test_a_loss_that_couples_persons_is_refused_on_every_path() -> None:
    class Centred(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            scores = model(batch[0])[:, 0]
            return cast(Tensor, (scores - scores.mean() - batch[1]) ** 2)

    for name in ("mlp", "recurrent", "large, own parameter"):
        task = Centred(name, KINDS[name].make, KINDS[name].features)
        with pytest.raises(ConfigError, match="couples the persons") as caught:
            choose(task, task.persons())
        assert "clipping would bound nothing" in caught.value.next_step


def test_a_use_that_shows_up_late_stops_training_and_not_the_bound() -> None:
    class Late(Twice):
        late = False

        def forward(self, rows: Tensor) -> Tensor:
            if self.late:
                return super().forward(rows)
            return self.last(torch.tanh(self.first(rows)))  # type: ignore[no-any-return]

    task = kind(Late)
    found = choose(task, task.persons())
    assert found.path is ClippingPath.ANALYTIC
    found.module.late = True  # type: ignore[assignment]
    with pytest.raises(NotPerPersonError, match="called twice"):
        found.clipped_sum(task, batch_of(task.persons(), np.arange(5)), 1.0)


def test_a_study_that_insists_on_float32_and_a_site_of_one_person_have_the_fast_path_too() -> None:
    class Single(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().loss(model, (batch[0].float(), batch[1]))

    for rows in (ROWS, ROWS[:1]):
        single = Single("single", lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)), rows)
        assert choose(single, single.persons()).path is ClippingPath.STACK


def test_a_site_without_persons_has_a_sum() -> None:
    task = KINDS["frozen"]
    nobody = TensorDataset(ROWS[:0], torch.zeros(0, dtype=torch.long))
    found = choose(task, nobody).clipped_sum(task, batch_of(nobody, np.arange(0)), 1.0)
    assert not any(t.any() for t in found)


# Training.


@pytest.mark.parametrize("name", ["mlp", "wrapped", "frozen", "cnn", "large, own parameter"])
def test_every_path_trains_the_same_model(name: str) -> None:
    task, found = KINDS[name], {}
    for path in ClippingPath:
        if is_true(task, path, task.persons()):
            found[path] = fit(task, clip_by(path, build_model(task)))
    assert len(found) >= 2
    first, *others = found.values()
    for other in others:
        for key, array in first.items():
            np.testing.assert_allclose(other[key], array, atol=2e-6)


@pytest.mark.parametrize("name", ["mlp", "texts", "recurrent", "large, own parameter"])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    one, two = fit(KINDS[name]), fit(KINDS[name])
    assert all(one[key].tobytes() == two[key].tobytes() for key in one)


@pytest.mark.quick("grouped, formed")
@pytest.mark.parametrize("name", ["grouped, formed", "large, own parameter"])
def test_portions_change_nothing_but_memory(name: str) -> None:
    whole, parts = fit(KINDS[name]), fit(KINDS[name], physical_batch=3)
    for key, array in whole.items():
        np.testing.assert_allclose(parts[key], array, atol=2e-6)


def test_no_path_leaves_gradients_behind() -> None:
    for name, path in (
        ("wrapped", ClippingPath.STACK),
        ("cnn", ClippingPath.GHOST),
        ("cnn", ClippingPath.HOOKS),
        ("cnn", ClippingPath.ANALYTIC),
    ):
        found = clip_by(path, build_model(KINDS[name]))
        found.clipped_sum(KINDS[name], batch_of(KINDS[name].persons(), np.arange(5)), 1.0)
        for parameter in found.module.parameters():
            assert parameter.grad is None
            assert getattr(parameter, "grad_sample", None) is None


def test_a_parameter_of_no_layer_is_scaled_rightly() -> None:
    """Opacus' hooks find it by torch.func; the comparison is with autograd."""
    task = Kind("scaled", lambda: nn.Sequential(Scaled(), nn.Linear(5, 3)), ROWS)
    assert is_true(task, ClippingPath.HOOKS, task.persons())
