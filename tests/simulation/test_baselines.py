"""What a federation is compared with: every site on its own persons, all persons in one place, and their median."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.studies import TINY, tiny
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from fedseal.client.metrics import LOSS, accuracy, auc
from fedseal.client.task import Batch, Metric, Persons, SiteData, Split, batch_of, size
from fedseal.simulation.baselines import local_baseline, majority_baseline, pooled_baseline
from fedseal.simulation.oracle import Judged, Oracle
from fedseal.simulation.training import Material, initial_model
from fedseal.study import Study, Training

# One step on everybody: gradient descent that can be done by hand.
ONE_STEP = Training(rounds=1, local_steps=1, sample_rate=1.0, learning_rate=0.7)
COUNTS = {"a": 20, "b": 90, "c": 50}
SHIFTS = {"a": 2.0, "b": -1.0, "c": 0.0}
Numbers = NDArray[np.float64]


class Logistic:
    """Two features, one logit, two metrics."""

    def model(self) -> nn.Module:
        return nn.Linear(2, 1)

    def data(self, site: SiteData) -> Split:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc(bins=40)]


class Listed(Dataset[tuple[Tensor, ...]]):
    """A dataset that is no TensorDataset."""

    def __init__(self, inner: Persons) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return size(self._inner)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self._inner[index]


def persons(count: int, seed: int, shift: float, label: float | None = None) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 2, generator=generator) + shift
    chances = torch.sigmoid(features[:, 0] - features[:, 1])
    labels = (torch.rand(count, generator=generator) < chances).float()
    return TensorDataset(features, labels if label is None else torch.full_like(labels, label))


def made(splits: dict[str, Split]) -> Material:
    task = Logistic()
    return Material(Study(TINY, tiny().contract), task, splits, dict.fromkeys(splits, Path()), Oracle(task, splits), 5)


@pytest.fixture(scope="module")
def three() -> Material:
    """Three sites of different sizes and places."""
    splits = {
        name: Split(persons(count, i, SHIFTS[name]), persons(5, 10 + i, 0.0), persons(60, 20 + i, 0.0))
        for i, (name, count) in enumerate(COUNTS.items())
    }
    return made(splits)


def arrays_of(data: Persons) -> tuple[Numbers, Numbers]:
    features, labels = batch_of(data, np.arange(size(data)))
    return features.numpy().astype(np.float64), labels.numpy().astype(np.float64)


def one_step_by_hand(material: Material, features: Numbers, labels: Numbers) -> Judged:
    """The model after one step of gradient descent on these persons, judged."""
    start = initial_model(material.task, material.seed)
    weight, bias = start["weight"].astype(np.float64), start["bias"].astype(np.float64)
    residual = 1 / (1 + np.exp(-(features @ weight[0] + bias[0]))) - labels
    rate = ONE_STEP.learning_rate
    moved = {
        "weight": (weight - rate * (residual[:, None] * features).mean(axis=0)).astype(np.float32),
        "bias": (bias - rate * residual.mean()).astype(np.float32),
    }
    return material.oracle.judge_arrays(moved, None)


def same(found: Any, expected: Any) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-5), name


def test_the_pooled_model_is_trained_on_all_training_persons(three: Material) -> None:
    columns = [arrays_of(split.train) for split in three.splits.values()]
    features, labels = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    assert len(features) == sum(COUNTS.values())
    expected = one_step_by_hand(three, features, labels)
    same(pooled_baseline(three, ONE_STEP, normalise=False).everyone, expected.everyone)


def test_pooling_works_for_any_dataset(three: Material) -> None:
    splits = {n: Split(Listed(s.train), s.validation, s.test) for n, s in three.splits.items()}
    found = pooled_baseline(made(splits), ONE_STEP, normalise=False)
    same(found.everyone, pooled_baseline(three, ONE_STEP, normalise=False).everyone)


def test_each_site_alone_trains_on_its_own_persons_and_is_judged_on_everybodys(three: Material) -> None:
    found = local_baseline(three, ONE_STEP, normalise=False)
    assert list(found.sites) == list(COUNTS)
    for name, split in three.splits.items():
        same(found.sites[name], one_step_by_hand(three, *arrays_of(split.train)).everyone)
    assert len({scores[LOSS] for scores in found.sites.values()}) == 3


def test_everyone_is_the_median_of_the_sites_metric_by_metric(three: Material) -> None:
    found = local_baseline(three, ONE_STEP, normalise=False)
    for metric in (LOSS, "accuracy", "auc"):
        assert found.everyone[metric] == median(s[metric] or 0.0 for s in found.sites.values())


def test_an_even_number_of_sites_has_the_mean_of_the_middle_two(three: Material) -> None:
    two = made({name: three.splits[name] for name in ("a", "b")})
    found = local_baseline(two, ONE_STEP, normalise=False)
    losses = [s[LOSS] or 0.0 for s in found.sites.values()]
    assert found.everyone[LOSS] == pytest.approx(sum(losses) / 2)


def test_the_median_leaves_out_what_is_undefined() -> None:
    """Test persons of one class: no site has an AUC, every site has an accuracy."""
    splits = {
        n: Split(persons(40, i, 0.0), persons(1, 9, 0.0), persons(20, 20 + i, 0.0, label=1.0))
        for i, n in enumerate("abc")
    }
    found = local_baseline(made(splits), ONE_STEP, normalise=False)
    assert found.everyone["auc"] is None
    assert found.everyone["accuracy"] is not None


def test_sites_of_one_class_learn_little_alone_and_the_pool_learns_from_them() -> None:
    splits = {
        "healthy": Split(persons(100, 1, -1.5, label=0.0), persons(1, 9, 0.0), persons(40, 3, -1.5, label=0.0)),
        "ill": Split(persons(100, 2, 1.5, label=1.0), persons(1, 9, 0.0), persons(40, 4, 1.5, label=1.0)),
    }
    training = Training(rounds=5, local_steps=10, sample_rate=0.5, learning_rate=2.0)
    material = made(splits)
    together = pooled_baseline(material, training, normalise=False).everyone
    assert (together["accuracy"] or 0.0) > 0.95
    for scores in local_baseline(material, training, normalise=False).sites.values():
        assert (scores[LOSS] or 0.0) > 1.5 * (together[LOSS] or 0.0)


def test_a_site_alone_takes_as_many_steps_as_the_federation(three: Material) -> None:
    """Three rounds of two steps are six steps."""
    federation = Training(rounds=3, local_steps=2, sample_rate=0.5, learning_rate=0.3)
    at_once = Training(rounds=1, local_steps=6, sample_rate=0.5, learning_rate=0.3)
    fewer = Training(rounds=1, local_steps=2, sample_rate=0.5, learning_rate=0.3)
    found = local_baseline(three, federation, normalise=False)
    assert found == local_baseline(three, at_once, normalise=False)
    assert found != local_baseline(three, fewer, normalise=False)


def test_normalised_baselines_do_not_depend_on_the_features_units(three: Material) -> None:
    """Each with the mean and deviation of the persons it may see."""

    def in_millimetres(split: Split) -> Split:
        def moved(part: Any) -> TensorDataset:
            return TensorDataset(part.tensors[0] * 1000 + 500, part.tensors[1])

        return Split(moved(split.train), moved(split.validation), moved(split.test))

    other = made({name: in_millimetres(split) for name, split in three.splits.items()})
    for baseline in (local_baseline, pooled_baseline):
        metres, millimetres = (baseline(m, ONE_STEP, normalise=True) for m in (three, other))
        assert millimetres.everyone[LOSS] == pytest.approx(metres.everyone[LOSS], abs=1e-3)


def test_the_majority_is_that_of_the_training_persons(three: Material) -> None:
    """Not of the test persons: a constant that has seen them would be an oracle itself."""
    found = majority_baseline(three)
    assert found is not None
    share = float(np.concatenate([arrays_of(s.train)[1] for s in three.splits.values()]).mean())
    tested = float(np.concatenate([arrays_of(s.test)[1] for s in three.splits.values()]).mean())
    assert found.everyone["accuracy"] == pytest.approx(tested if share > 0.5 else 1 - tested)
    expected = -(tested * np.log(share) + (1 - tested) * np.log(1 - share))
    assert found.everyone[LOSS] == pytest.approx(expected, abs=1e-5)
    assert found.everyone["auc"] == pytest.approx(0.5)
