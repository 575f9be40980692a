"""What only a simulation knows, measured rightly: sites together are all persons, constants are the best constants,
and a binned AUC is as near to the exact one as it says.
"""

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss, r2_score, roc_auc_score
from sklearn.metrics import mean_absolute_error as mean_absolute
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, TensorDataset

from fedseal.client.metrics import (
    LOSS,
    LOSS_CAP,
    accuracy,
    auc,
    mean_absolute_error,
    measure,
    pooled,
    r_squared,
    values,
)
from fedseal.client.normalise import Normalisation, own_normalisation
from fedseal.client.task import Batch, Metric, Persons, SiteData, Split, Task
from fedseal.client.trainer import trainable
from fedseal.errors import ConfigError
from fedseal.simulation.oracle import Oracle, majority

EMPTY = TensorDataset(torch.zeros(0, 2), torch.zeros(0))


class Binary:
    """Two features, one logit."""

    outputs = 1

    def model(self) -> nn.Module:
        torch.manual_seed(4)
        return nn.Linear(2, self.outputs)

    def data(self, site: SiteData) -> Split:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(model(features).squeeze(1), labels, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy(), auc(bins=50)]


class ManyClasses(Binary):
    """Three logits."""

    outputs = 3

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, labels = batch
        return nn.functional.cross_entropy(model(features), labels.long(), reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy()]


class Regression(Binary):
    """A number."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        features, targets = batch
        return nn.functional.mse_loss(model(features).squeeze(1), targets, reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return []


def persons(count: int, seed: int, targets: Sequence[float] | None = None) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, 2, generator=generator)
    labels = (torch.rand(count, generator=generator) < 0.4).float() if targets is None else torch.tensor(targets)
    return TensorDataset(features, labels)


def only(train: Persons = EMPTY, test: Persons = EMPTY) -> Split:
    return Split(train, EMPTY, test)


# Measuring parts is measuring the whole.


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6).filter(lambda s: sum(s) > 0), st.integers(1, 17))
def test_pooled_measurements_are_the_measurement_of_everybody(sizes: list[int], batch: int) -> None:
    task = Binary()
    model = task.model()
    parts = [persons(n, i) for i, n in enumerate(sizes)]
    together = pooled([measure(task, model, p, batch=batch) for p in parts])
    everybody: Any = ConcatDataset([p for p in parts if len(p)])
    whole = measure(task, model, everybody)
    assert together.persons == whole.persons == sum(sizes)
    for name, mean in whole.means.items():
        np.testing.assert_allclose(together.means[name], mean, atol=1e-12)


def test_a_measurement_is_what_scikit_learn_says() -> None:
    task = Binary()
    model, data = task.model(), persons(300, 1)
    features, labels = data.tensors
    found = values(task, measure(task, model, data))
    with torch.no_grad():
        share = torch.sigmoid(model(features).squeeze(1)).double().numpy()
    assert found[LOSS] == pytest.approx(log_loss(labels, share), abs=1e-6)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, share > 0.5))


def test_a_loss_is_capped_for_each_person_not_for_the_mean() -> None:
    task = Regression()
    module = task.model()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    data = TensorDataset(torch.zeros(2, 2), torch.tensor([100.0, 1.0]))
    assert float(measure(task, module, data).means[LOSS][0]) == pytest.approx((LOSS_CAP + 1.0) / 2)


def test_the_oracle_judges_each_site_and_everyone() -> None:
    task: Task = Binary()
    tests = {"a": persons(30, 1), "b": persons(50, 2)}
    oracle = Oracle(task, {name: only(test=t) for name, t in tests.items()})
    judged = oracle.judge_arrays(trainable(task.model()), None)
    assert oracle.persons == 80
    assert judged.sites == {name: values(task, measure(task, task.model(), t)) for name, t in tests.items()}
    everybody: Any = ConcatDataset(list(tests.values()))
    expected = values(task, measure(task, task.model(), everybody))
    assert judged.everyone == {name: pytest.approx(value) for name, value in expected.items()}
    assert set(judged.errors) == {"accuracy", "auc"}
    assert judged.errors["accuracy"] == 0.0


def test_what_is_undefined_is_none_and_not_a_number() -> None:
    """One class only: no AUC. Nobody at all: nothing."""
    task: Task = Binary()
    tests = {"one class": persons(10, 1, [1.0] * 10), "nobody": EMPTY, "both": persons(30, 3)}
    judged = Oracle(task, {name: only(test=t) for name, t in tests.items()}).judge(task.model(), None)
    assert judged.sites["one class"]["auc"] is None
    assert judged.sites["one class"]["accuracy"] is not None
    assert judged.sites["nobody"] == {LOSS: None, "accuracy": None, "auc": None}
    assert all(value is not None for value in judged.everyone.values())


def test_the_oracle_normalises_as_the_federation_did() -> None:
    task: Task = Binary()
    data = persons(40, 1)
    moved = TensorDataset(data.tensors[0] * 3 + 7, data.tensors[1])
    plain = Oracle(task, {"a": only(test=data)}).judge(task.model(), None)
    back = Oracle(task, {"a": only(test=moved)}).judge(task.model(), Normalisation((7.0, 7.0), (3.0, 3.0)))
    assert back.everyone[LOSS] == pytest.approx(cast(float, plain.everyone[LOSS]), abs=1e-5)


def test_own_normalisation_is_mean_and_deviation_and_survives_a_constant() -> None:
    features = torch.tensor([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    found = own_normalisation(TensorDataset(features, torch.zeros(3)))
    assert found.mean == pytest.approx((4.0, 5.0))
    assert found.deviation[0] == pytest.approx(np.std([1.0, 3.0, 8.0]))
    assert found.deviation[1] > 0
    normal: Any = found.apply(TensorDataset(features, torch.zeros(3)))
    assert torch.isfinite(normal.tensors[0]).all()


# The best constant.


def constant_loss(task: Task, splits: dict[str, Split]) -> float:
    train: Any = ConcatDataset([s.train for s in splits.values()])
    return float(measure(task, majority(task, splits), train).means[LOSS][0])


def test_the_binary_constant_is_the_share_of_all_sites_together() -> None:
    splits = {"a": only(persons(4, 1, [1.0, 1.0, 1.0, 0.0])), "b": only(persons(6, 2, [0.0] * 6)), "c": only()}
    constant = majority(Binary(), splits)
    answers = constant(torch.randn(5, 2))
    assert answers.shape == (5, 1)
    assert torch.sigmoid(answers).flatten().tolist() == pytest.approx([0.3] * 5)
    entropy = -(0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    assert constant_loss(Binary(), {"a": splits["a"], "b": splits["b"]}) == pytest.approx(entropy, abs=1e-6)


def test_the_constant_of_many_classes_says_the_most_frequent_one() -> None:
    splits = {"a": only(persons(4, 1, [0.0, 2.0, 2.0, 2.0])), "b": only(persons(6, 2, [1.0, 1, 2, 2, 0, 2]))}
    answers = majority(ManyClasses(), splits)(torch.randn(3, 2))
    assert answers.shape == (3, 3)
    assert torch.softmax(answers, dim=1)[0].tolist() == pytest.approx([0.2, 0.2, 0.6], abs=1e-6)
    assert answers.argmax(dim=1).tolist() == [2, 2, 2]


def test_a_class_that_nobody_has_is_unlikely_but_not_impossible() -> None:
    answers = majority(ManyClasses(), {"a": only(persons(4, 1, [0.0, 0.0, 1.0, 1.0]))})(torch.randn(1, 2))
    assert torch.isfinite(answers).all()
    assert answers[0, 2] < answers[0, 0] - 10


def test_the_constant_of_a_regression_is_the_mean() -> None:
    splits = {"a": only(persons(3, 1, [1.5, 2.5, 5.0])), "b": only(persons(1, 2, [7.0]))}
    answers = majority(Regression(), splits)(torch.randn(7, 2))
    assert answers.shape == (7, 1)
    assert answers.flatten().tolist() == pytest.approx([4.0] * 7)
    assert constant_loss(Regression(), splits) == pytest.approx(float(np.var([1.5, 2.5, 5.0, 7.0])), abs=1e-5)


def test_with_one_class_only_the_constant_is_finite() -> None:
    answers = majority(Binary(), {"a": only(persons(5, 1, [0.0] * 5))})(torch.randn(2, 2))
    assert torch.isfinite(answers).all()
    assert (answers < -10).all()


# AUC from a histogram.


def scored(scores: Tensor, labels: Tensor, bins: int) -> tuple[float | None, float]:
    metric = auc(bins)
    mean = metric.statistic(torch.logit(scores), labels).mean(dim=0).numpy()
    return metric.value(mean), metric.error(mean)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 120), st.integers(2, 200))
def test_the_binned_auc_is_within_its_stated_error(seed: int, count: int, bins: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(count, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    labels = (torch.rand(count, generator=generator, dtype=torch.float64) < 0.3 + 0.4 * scores).long()
    labels[0], labels[1] = 0, 1
    value, error = scored(scores, labels, bins)
    assert value is not None
    assert abs(value - roc_auc_score(labels, scores)) <= error + 1e-12
    assert 0 <= error <= 0.5


def test_more_bins_state_a_smaller_error() -> None:
    scores, labels = torch.rand(400, dtype=torch.float64), torch.arange(400) % 2
    errors = [scored(scores, labels, bins)[1] for bins in (2, 20, 200)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.01


def test_with_well_separated_scores_the_binned_auc_is_exact() -> None:
    """Every score in the middle of a bin of its own."""
    order = torch.randperm(100, generator=torch.Generator().manual_seed(2))
    scores = (order.double() + 0.5) / 100
    labels = (torch.arange(100) % 3 == 0).long()
    value, error = scored(scores, labels, 100)
    assert error == 0.0
    assert value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_ties_count_half_as_everywhere() -> None:
    scores, labels = torch.tensor([0.1, 0.1, 0.9, 0.9], dtype=torch.float64), torch.tensor([0, 1, 0, 1])
    value, _ = scored(scores, labels, 10)
    assert value == pytest.approx(roc_auc_score(labels, scores)) == 0.5


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    assert scored(torch.rand(9, dtype=torch.float64), torch.full((9,), label), 10) == (None, 0.0)


# Numbers, and other losses.


class Numbers(Regression):
    """A study whose loss and number of outputs are its own."""

    def __init__(self, loss: Any, outputs: int = 1, loss_range: Any = (0.0, 20.0)) -> None:
        self.own_loss, self.outputs, self.loss_range = loss, outputs, loss_range

    def model(self) -> nn.Module:
        return nn.Linear(2, self.outputs)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return cast(
            Tensor, self.own_loss(model(batch[0]).reshape(len(batch[0]), -1), batch[-1].reshape(len(batch[0]), -1))
        )


COUNTS = [0.0, 0.0, 1.0, 2.0, 7.0, 8.0]


@pytest.mark.parametrize(
    ("loss", "best"),
    [
        (lambda o, t: ((o - t) ** 2).mean(dim=1), np.mean(COUNTS)),
        (lambda o, t: (o.exp() - t * o).mean(dim=1), math.log(np.mean(COUNTS))),
        (lambda o, t: ((o - t / 10) ** 2).mean(dim=1), np.mean(COUNTS) / 10),
        (lambda o, t: (torch.logaddexp(o - t, t - o)).mean(dim=1), 1.5),
    ],
    ids=["squared", "poisson", "scaled", "between mean and median"],
)
def test_the_constant_is_the_best_by_the_tasks_own_loss(loss: Any, best: float) -> None:
    answers = majority(Numbers(loss), {"a": only(persons(6, 1, COUNTS))})(torch.zeros(1, 2))
    found, targets = answers.item(), torch.tensor(COUNTS).unsqueeze(1)
    assert found == pytest.approx(best, abs=0.3 if best == 1.5 else 1e-3)
    for other in np.linspace(found - 1, found + 1, 21):
        least, here = (float(loss(torch.full((6, 1), float(x)), targets).mean()) for x in (found, other))
        assert least <= here + 1e-6


def test_several_numbers_have_a_constant_each() -> None:
    targets = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    splits = {"a": only(TensorDataset(torch.zeros(2, 2), targets))}
    answers = majority(Numbers(lambda o, t: ((o - t) ** 2).mean(dim=1), 2), splits)(torch.zeros(4, 2))
    assert answers.shape == (4, 2)
    assert answers[0].tolist() == pytest.approx([2.0, 20.0], abs=1e-3)


def test_the_oracle_is_not_bounded_and_a_sealed_sum_is_by_the_tasks_own_range() -> None:
    data = TensorDataset(torch.zeros(2, 2), torch.tensor([300.0, -1.0]))
    task = Numbers(lambda o, t: (t - 0 * o).mean(dim=1), loss_range=(-5.0, 200.0))
    assert float(measure(task, task.model(), data).means[LOSS][0]) == pytest.approx((200 - 1) / 2)
    judged = Oracle(task, {"a": only(test=data)}).judge(task.model(), None)
    assert judged.everyone[LOSS] == pytest.approx((300 - 1) / 2)
    for wrong in ((1.0, 1.0), (0.0, math.inf), 20.0, (0.0, "x"), (0.0, 1.0, 2.0)):
        with pytest.raises(ConfigError, match="loss_range"):
            measure(Numbers(task.own_loss, loss_range=wrong), task.model(), data)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60))
def test_metrics_of_numbers_are_the_textbooks(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    true, noise = torch.randn(2, count, generator=generator, dtype=torch.float64)
    said = (true + noise).unsqueeze(1)
    error, share = mean_absolute_error(100.0), r_squared(-50.0, 50.0)
    found = [m.value(m.statistic(said, true).mean(dim=0).numpy()) for m in (error, share)]
    assert found[0] == pytest.approx(mean_absolute(true, said[:, 0]))
    assert found[1] == pytest.approx(r2_score(true, said[:, 0]), rel=1e-6, abs=1e-6)
    for metric in (error, share):
        rows = metric.statistic(said * 1e6, true)
        assert bool((rows.clamp(metric.low, metric.high) <= metric.high).all())


def test_a_number_that_never_varies_has_no_r_squared() -> None:
    metric = r_squared(0.0, 10.0)
    assert metric.value(metric.statistic(torch.ones(4, 1), torch.ones(4)).mean(dim=0).numpy()) is None
    with pytest.raises(ValueError, match="says 2 numbers"):
        mean_absolute_error(1.0).statistic(torch.ones(4, 2), torch.ones(4))
    for wrong in (0.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite public range"):
            mean_absolute_error(wrong)
