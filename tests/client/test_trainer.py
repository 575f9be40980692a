"""Training at a site:

clipped sums, our sampling and noise, against slow twins that follow the paper; and the probe.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client import noise
from fedseal.client.noise import GRID_BITS, add_gaussian, noisy_mean
from fedseal.client.task import Batch, Metric, SiteData, Split, build_model
from fedseal.client.trainer import Trainer, TrainSettings, load, trainable
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, Performance
from fedseal.privacy.randomness import KeyedRandomness, Stream

SETTINGS = TrainSettings(learning_rate=0.3, sample_rate=0.5, local_steps=4)
PLAIN = NoPrivacy(releases=1, retries=0)
PERSONS = 23


def plan(**changes: Any) -> LocalGaussian:
    fields: dict[str, Any] = {
        "clip_norm": 0.7,
        "noise_multiplier": 1.3,
        "sample_rate": 0.5,
        "steps": 4,
        "releases": 1,
        "retries": 0,
    }
    return LocalGaussian(**{**fields, **changes})


def persons(count: int = PERSONS) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(count, 5, generator=generator) * 2
    return TensorDataset(features, (features[:, 0] > 0).float())


class Linear:
    """A small task; other tasks change one thing about it."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 1))

    def data(self, site: SiteData) -> Split:
        return Split(persons(), persons(), persons())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return []


def streams(*purpose: str | int) -> Stream:
    return KeyedRandomness(7, "test").stream(*purpose)


STEP = TrainSettings(learning_rate=1.0, sample_rate=1.0, local_steps=1)


class Steep(Linear):
    """Everybody's gradient is far longer than any bound."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) * 1e6


def start() -> dict[str, Any]:
    torch.manual_seed(3)
    return trainable(Linear().model())


def dp_sgd_twin(arrays: dict[str, Any], p: LocalGaussian, *, public: int) -> dict[str, Any]:
    """Algorithm 1 of Abadi et al. 2016, person by person, in doubles, with the trainer's own coins and noise."""
    model = Linear().model().double()
    load(model, {n: a.astype(np.float64) for n, a in arrays.items()})
    features, labels = persons().tensors
    noise = streams("noise")
    parameters = list(model.parameters())
    for step in range(p.steps):
        lot = np.flatnonzero(streams("sampling", step).coins(p.sample_rate, PERSONS))
        total = [torch.zeros_like(q) for q in parameters]
        for i in lot:
            loss = Linear().loss(model, (features[i : i + 1].double(), labels[i : i + 1].double()))
            gradients = torch.autograd.grad(loss.sum(), parameters)
            norm = math.sqrt(sum(float((g**2).sum()) for g in gradients))
            for t, g in zip(total, gradients, strict=True):
                t += g / max(1.0, norm / p.clip_norm)
        with torch.no_grad():
            for q, t in zip(parameters, total, strict=True):
                draw = noise.normal(q.numel()).reshape(q.shape) * p.noise_multiplier * p.clip_norm
                q.sub_(SETTINGS.learning_rate * (t + torch.from_numpy(draw)) / (p.sample_rate * public))
    return trainable(model)


def assert_close(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=tolerance)


def test_private_training_follows_the_paper() -> None:
    found = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
    assert_close(found, dp_sgd_twin(start(), plan(), public=20), 2e-5)


def test_the_twin_would_notice_a_missing_clip_or_less_noise() -> None:
    found = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
    for changed in (plan(clip_norm=100.0, noise_multiplier=1.3 * 0.7 / 100), plan(noise_multiplier=1.2)):
        expected = dp_sgd_twin(start(), changed, public=20)
        assert max(float(np.abs(found[n] - expected[n]).max()) for n in found) > 1e-3


def test_the_physical_batch_changes_nothing_but_memory() -> None:
    whole = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
    small = Trainer(Linear(), persons(), public_persons=20, performance=Performance(physical_batch=3))
    assert_close(small.fit(start(), SETTINGS, plan(), streams), whole, 1e-6)


def test_plain_training_is_poisson_sampled_gradient_descent() -> None:
    found = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, PLAIN, streams)
    model = Linear().model().double()
    load(model, {n: a.astype(np.float64) for n, a in start().items()})
    features, labels = (t.double() for t in persons().tensors)
    for step in range(SETTINGS.local_steps):
        lot = np.flatnonzero(streams("sampling", step).coins(0.5, PERSONS))
        loss = Linear().loss(model, (features[lot], labels[lot])).sum() / (0.5 * PERSONS)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for q, g in zip(model.parameters(), gradients, strict=True):
                q.sub_(SETTINGS.learning_rate * g)
    assert_close(found, trainable(model), 1e-5)


def test_a_trainer_forgets_one_release_before_the_next() -> None:
    reused = Trainer(Linear(), persons(), public_persons=20)
    reused.fit(start(), SETTINGS, plan(noise_multiplier=9.0), streams)
    reused.fit(start(), SETTINGS, PLAIN, streams)
    fresh = Trainer(Linear(), persons(), public_persons=20)
    again, first = reused.fit(start(), SETTINGS, plan(), streams), fresh.fit(start(), SETTINGS, plan(), streams)
    assert all(np.array_equal(again[n], first[n]) for n in first)


def test_an_empty_draw_still_gets_its_noise() -> None:
    """If nobody is drawn and nothing changed, an observer would know that nobody was drawn."""
    before = start()
    rare = plan(sample_rate=1e-6, steps=1)
    assert not streams("sampling", 0).coins(1e-6, PERSONS).any()
    after = Trainer(Linear(), persons(), public_persons=20).fit(before, SETTINGS, rare, streams)
    assert all(not np.array_equal(after[n], before[n]) for n in before)


def test_a_site_without_persons_answers_with_noise_alone() -> None:
    after = Trainer(Linear(), persons(0), public_persons=10).fit(start(), SETTINGS, plan(), streams)
    assert all(np.isfinite(a).all() and not np.array_equal(a, start()[n]) for n, a in after.items())


def test_torchs_generator_is_neither_used_for_noise_nor_disturbed() -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    one = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
    torch.manual_seed(99)
    two = Trainer(Linear(), persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
    assert all(np.array_equal(one[n], two[n]) for n in one)
    torch.manual_seed(11)
    assert torch.equal(state, torch.random.get_rng_state())


def test_noise_has_the_planned_deviation_and_lies_on_the_grid() -> None:
    deviation, zeros = 1.7, np.zeros(200_000)
    noisy = add_gaussian(zeros, deviation, streams("noise"))
    assert noisy.std() == pytest.approx(deviation, rel=0.01)
    grid = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    assert np.array_equal(noisy / grid, np.rint(noisy / grid))
    # Whatever it is added to, the outcome lies on the same grid: the low bits say nothing.
    other = add_gaussian(zeros + 1e-9, deviation, streams("noise"))
    assert np.array_equal(other / grid, np.rint(other / grid))


@pytest.mark.parametrize("sizes", [(5,), (7, 1, 300), (9000, 33)])
@pytest.mark.parametrize("large", [noise.LARGE, 1])
def test_normals_drawn_ahead_are_those_of_the_stream_one_by_one(sizes: tuple[int, ...], large: int) -> None:
    """From the same words: whoever draws next from the stream finds it where it would have been."""
    for turns in (1, 6, 70):
        ours, twin = streams("noise"), streams("noise")
        with patch.object(noise, "LARGE", large):
            normals = noise.Normals(ours, sizes, turns)
            found = np.stack([normals.draw().copy() for _ in range(turns)])
        expected = [np.concatenate([twin.normal(size) for size in sizes]) for _ in range(turns)]
        np.testing.assert_allclose(found, np.stack(expected), rtol=0, atol=1e-14)
        assert ours.raw(16) == twin.raw(16)


def test_how_far_noise_is_drawn_ahead_changes_nothing() -> None:
    values, found = np.linspace(-1, 1, 310), []
    for drawn in (1, 1000, 2**14):
        with patch.object(noise, "DRAWN", drawn):
            steps = noise.StepNoise(streams("noise"), 0.7, (10, 300), 9)
            found.append(np.stack([steps.added_to(values) for _ in range(9)]))
    assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
    assert np.array_equal(found[0][0], add_gaussian_in_turn(values, (10, 300)))


def add_gaussian_in_turn(values: Any, sizes: tuple[int, ...]) -> Any:
    stream, parts = streams("noise"), np.split(values, np.cumsum(sizes)[:-1])
    return np.concatenate([add_gaussian(part, 0.7, stream) for part in parts])


def test_a_noisy_mean_is_clipped_rows_plus_noise() -> None:
    rows = np.array([[3.0, 4.0], [0.1, 0.0], [0.0, -30.0]])
    one = plan(clip_norm=1.0, sample_rate=1.0, steps=1, noise_multiplier=2.0)
    found = noisy_mean(rows, one, persons=10, stream=streams("noise"))
    clipped = np.array([0.6 + 0.1, 0.8 - 1.0])
    expected = (clipped + 2.0 * streams("noise").normal(2)) / 10
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_person_whose_row_is_no_number_counts_as_zeros() -> None:
    """And is not told by the sum, which would be no number either."""
    one = plan(clip_norm=1.0, sample_rate=1.0, steps=1, noise_multiplier=2.0)
    rows = np.array([[3.0, 4.0], [np.nan, 1.0], [np.inf, 0.0]])
    found = noisy_mean(rows, one, persons=10, stream=streams("noise"))
    np.testing.assert_array_equal(found, noisy_mean(rows[:1], one, persons=10, stream=streams("noise")))


@pytest.mark.parametrize("broken", [math.nan, math.inf, 3e38])
def test_a_person_whose_gradient_is_no_number_counts_as_zeros(broken: float) -> None:
    class Broken(Linear):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().loss(model, batch) * torch.where(batch[0][:, 1] > 1, broken, 1.0) ** 2

    class Silent(Linear):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().loss(model, batch) * torch.where(batch[0][:, 1] > 1, 0.0, 1.0)

    found, expected = (
        Trainer(task, persons(), public_persons=20).fit(start(), SETTINGS, plan(), streams)
        for task in (Broken(), Silent())
    )
    assert_close(found, expected, 1e-6)


def test_no_person_exceeds_the_plans_bound() -> None:
    """Opacus clips in float32, which may round up: the bound it is given is a little lower."""
    data = persons(1)
    for clip_norm in (0.7, 1e-6, 1e-3, 3.3):
        p = plan(clip_norm=clip_norm, noise_multiplier=1e-3, sample_rate=1.0, steps=1)
        before = {n: np.zeros_like(a) for n, a in start().items()}
        found = Trainer(Steep(), data, public_persons=1).fit(before, STEP, p, streams)
        noise, moved = streams("noise"), []
        for name, array in found.items():
            draw = noise.normal(array.size).reshape(array.shape) * clip_norm * 1e-3
            moved.append((before[name] - array.astype(np.float64) - draw).ravel())
        grid = clip_norm * 1e-3 * 2.0**-GRID_BITS
        assert np.linalg.norm(np.concatenate(moved)) <= clip_norm * (1 + 1e-6) + grid


# The probe.


class Coupled(Linear):
    """A loss that centres on the batch: a person's gradient depends on the others."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        scores = model(features).squeeze(1)
        return cast(Tensor, (scores - scores.mean() - labels) ** 2)


class Normed(Linear):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


class Dropped(Linear):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))


class Averaged(Linear):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch).mean()


class Frozen(Linear):
    def model(self) -> nn.Module:
        model = cast(nn.Sequential, super().model())
        model[0].requires_grad_(False)
        return model


def fit(task: Linear, p: LocalGaussian | NoPrivacy, settings: TrainSettings = SETTINGS) -> dict[str, Any]:
    torch.manual_seed(3)
    return Trainer(task, persons(), public_persons=20).fit(trainable(task.model()), settings, p, streams)


def test_a_loss_that_couples_persons_is_refused_unless_it_is_declared_without_a_private_plan() -> None:
    declared = replace(SETTINGS, batch_level=True)
    for p in (plan(), PLAIN):
        with pytest.raises(ConfigError, match="couples the persons"):
            fit(Coupled(), p)
    with pytest.raises(ConfigError, match="a private plan clips"):
        fit(Coupled(), plan(), declared)
    fit(Coupled(), PLAIN, declared)


def test_batch_norm_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(ConfigError, match="private plan") as caught:
        fit(Normed(), plan())
    assert "GroupNorm" in caught.value.next_step


def test_dropout_is_no_coupling() -> None:
    fit(Dropped(), plan())


@pytest.mark.parametrize("p", [plan(), PLAIN], ids=["private", "plain"])
def test_a_mean_instead_of_one_loss_a_person_is_refused(p: LocalGaussian | NoPrivacy) -> None:
    with pytest.raises(ConfigError, match=r"returned shape \(\)") as caught:
        fit(Averaged(), p)
    assert "reduction='none'" in caught.value.next_step


@pytest.mark.parametrize("p", [plan(), PLAIN], ids=["private", "plain"])
def test_only_trainable_parameters_are_trained_and_released(p: LocalGaussian | NoPrivacy) -> None:
    assert set(fit(Frozen(), p)) == {"2.weight", "2.bias"}


@pytest.mark.parametrize("p", [plan(), PLAIN], ids=["private", "plain"])
def test_a_frozen_layer_is_the_same_at_every_site(p: LocalGaussian | NoPrivacy) -> None:
    """Nobody sends it. What is trained on top of it would mean something else over another one."""
    arrays, found = start(), []
    del arrays["0.weight"], arrays["0.bias"]
    for generator_seed in (1, 2):
        torch.manual_seed(generator_seed)
        found.append(Trainer(Frozen(), persons(), public_persons=20).fit(arrays, SETTINGS, p, streams))
    assert all(np.array_equal(found[0][name], found[1][name]) for name in arrays)


def test_building_a_model_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(11)
    state = torch.random.get_rng_state()
    one, two = build_model(Linear()).state_dict(), build_model(Linear()).state_dict()
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_arrays_of_another_model_are_refused() -> None:
    with pytest.raises(ConfigError, match="not this model's"):
        Trainer(Linear(), persons(), public_persons=20).fit({"w": np.zeros(2)}, SETTINGS, PLAIN, streams)
