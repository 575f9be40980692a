"""The probe tells losses that couple persons from those that do not, and gradients that Opacus gets wrong from right
ones. Every loss here that is refused has a twin beside it that is not.
"""

from collections.abc import Callable, Sequence
from typing import cast

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPGRU
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from fedseal.client.probe import PROBED, check_model, check_per_person, check_shape, check_statistics, probed
from fedseal.client.task import Batch, Metric, Persons, SiteData, Split
from fedseal.errors import ConfigError

Loss = Callable[[nn.Module, Batch], Tensor]


class OnDemand(Dataset[tuple[Tensor, ...]]):
    """Items made on demand."""

    def __init__(self, inner: TensorDataset) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return cast(tuple[Tensor, ...], self.inner[index])


class OneLoss:
    """A task with a given model and loss."""

    def __init__(self, loss: Loss, model: Callable[[], nn.Module] = lambda: nn.Linear(3, 1)) -> None:
        self._loss, self._model = loss, model

    def model(self) -> nn.Module:
        torch.manual_seed(1)
        return self._model()

    def data(self, site: SiteData) -> Split:
        return Split(survivals(), survivals(), survivals())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return self._loss(model, batch)

    def metrics(self) -> Sequence[Metric]:
        return []


def survivals(count: int = 40) -> TensorDataset:
    """Features, and a target of (time, event); events are rare and come late in the table."""
    generator = torch.Generator().manual_seed(2)
    time = torch.rand(count, generator=generator)
    event = (torch.arange(count) >= count - 3).float()
    return TensorDataset(torch.randn(count, 3, generator=generator), torch.stack([time, event], dim=1))


def score(model: nn.Module, batch: Batch) -> Tensor:
    return cast(Tensor, model(batch[0]).reshape(len(batch[0])))


def cox(model: nn.Module, batch: Batch) -> Tensor:
    """Each event against everyone who is still there: the partial likelihood."""
    risk, (time, event) = score(model, batch), batch[-1].T
    there = time[None, :] >= time[:, None]
    losses: Tensor = event * (torch.logsumexp(risk.expand(len(risk), -1).masked_fill(~there, -torch.inf), dim=1) - risk)
    return losses


def ranking(model: nn.Module, batch: Batch) -> Tensor:
    """Every event should score higher than everyone without one."""
    risk, event = score(model, batch), batch[-1][:, 1]
    pairs = torch.relu(1 - (risk[:, None] - risk[None, :])) * event[:, None] * (1 - event[None, :])
    return pairs.sum(dim=1)


def contrastive(model: nn.Module, batch: Batch) -> Tensor:
    risk = score(model, batch).unsqueeze(1)
    return nn.functional.cross_entropy(risk @ risk.T, torch.arange(len(risk)), reduction="none")


def centred(model: nn.Module, batch: Batch) -> Tensor:
    risk = score(model, batch)
    return (risk - risk.mean() - batch[-1][:, 0]) ** 2


def divided(model: nn.Module, batch: Batch) -> Tensor:
    """Only the number of persons is shared: still, one more person changes everybody's gradient."""
    return squared(model, batch) / len(batch[0])


def spread_mean(model: nn.Module, batch: Batch) -> Tensor:
    return squared(model, batch).mean().expand(len(batch[0]))


def squared(model: nn.Module, batch: Batch) -> Tensor:
    return (score(model, batch) - batch[-1][:, 0]) ** 2


def poisson(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.poisson_nll_loss(score(model, batch), batch[-1][:, 1], reduction="none")


def exponential(model: nn.Module, batch: Batch) -> Tensor:
    """The survival likelihood of a constant hazard: the twin of Cox that needs nobody else."""
    risk, (time, event) = score(model, batch), batch[-1].T
    losses: Tensor = time * risk.exp() - event * risk
    return losses


def quantile(model: nn.Module, batch: Batch) -> Tensor:
    residual = batch[-1][:, 0] - score(model, batch)
    return torch.maximum(0.9 * residual, -0.1 * residual)


def check(task: OneLoss, *, private: bool, persons: Persons | None = None) -> None:
    module = task.model()
    wrapped = GradSampleModule(module, loss_reduction="sum") if private else module
    before = [p.detach().clone() for p in module.parameters()]
    state = torch.random.get_rng_state()
    try:
        check_per_person(task, wrapped, survivals() if persons is None else persons)
    finally:
        assert all(torch.equal(p, b) for p, b in zip(module.parameters(), before, strict=True))
        assert torch.equal(state, torch.random.get_rng_state())
        assert all(part.training for part in module.modules())


COUPLED = [cox, ranking, contrastive, centred, divided]
SINGLE = [squared, poisson, exponential, quantile]


@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
@pytest.mark.parametrize("loss", COUPLED, ids=lambda f: f.__name__)
def test_a_loss_that_couples_persons_is_found(loss: Loss, private: bool) -> None:
    with pytest.raises(ConfigError, match="couples the persons") as caught:
        check(OneLoss(loss), private=private)
    assert "batch_level = true" in caught.value.next_step


def test_a_mean_for_everybody_couples_each_loss_but_not_their_sum() -> None:
    """Clipping looks at the sum's gradient, which is everyone's own; without it each loss is looked at."""
    with pytest.raises(ConfigError, match="couples the persons"):
        check(OneLoss(spread_mean), private=False)
    check(OneLoss(spread_mean), private=True)


@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
@pytest.mark.parametrize("loss", SINGLE, ids=lambda f: f.__name__)
def test_a_loss_of_each_person_passes(loss: Loss, private: bool) -> None:
    check(OneLoss(loss), private=private)
    check(OneLoss(loss), private=private, persons=OnDemand(survivals()))


@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
def test_a_coupling_that_a_new_model_does_not_show_is_found(private: bool) -> None:
    """A layer that begins at zero scores everybody alike, and a penalty on the batch's variance then has no slope."""

    def zero() -> nn.Module:
        module = nn.Linear(3, 1)
        torch.nn.init.zeros_(module.weight)
        return module

    def calm(model: nn.Module, batch: Batch) -> Tensor:
        risk = score(model, batch)
        return squared(model, batch) + (risk - risk.mean()) ** 2

    with pytest.raises(ConfigError, match="couples the persons"):
        check(OneLoss(calm, zero), private=private)
    check(OneLoss(squared, zero), private=private)


@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
def test_models_of_many_kinds_pass(private: bool) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.recurrent, self.last = DPGRU(1, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.last(self.recurrent(x.unsqueeze(2))[0][:, -1]))

    class OwnParameter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.last = nn.Parameter(torch.ones(3)), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.last(x * self.weight))

    def convolution() -> nn.Module:
        return nn.Sequential(
            nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 2), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 1)
        )

    def dropped() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    for model in (Recurrent, OwnParameter, convolution, dropped):
        check(OneLoss(squared, model), private=private)


def test_randomness_of_the_models_own_is_no_coupling() -> None:
    class Shaken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.dropout(x, 0.5, self.training))

    check(OneLoss(squared, lambda: Shaken(3, 1)), private=False)


def test_a_parameter_whose_gradients_opacus_misses_is_refused_under_a_private_plan() -> None:
    class Tied(nn.Module):
        """Uses a layer's weight past the layer."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.last(torch.tanh(self.first(x)) @ self.first.weight))

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.spare = nn.Linear(3, 1), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.last(x))

    class Flat(nn.Module):
        """Hands a layer records where it expects persons."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return cast(Tensor, self.last(x.reshape(-1, 1)).reshape(x.shape).sum(dim=1))

    says = {Tied: "not a person's whole gradient", Unused: "'spare.weight' has no", Flat: "gradients for 8 persons"}
    for model, text in says.items():
        with pytest.raises(ConfigError, match=text) as caught:
            check(OneLoss(squared, model), private=True)
        assert caught.value.next_step
        check(OneLoss(squared, model), private=False)


def test_a_loss_that_forgets_the_model_is_told() -> None:
    with pytest.raises(ConfigError, match="does not depend on the model"):
        check(OneLoss(lambda model, batch: batch[-1][:, 0]), private=False)


def test_statistics_that_are_not_sent_are_refused() -> None:
    for layer in (nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True)):
        with pytest.raises(ConfigError, match="running statistics") as caught:
            check_statistics(nn.Sequential(nn.Linear(3, 3), layer))
        assert "GroupNorm" in caught.value.next_step
    check_statistics(nn.Sequential(nn.Linear(3, 3), nn.GroupNorm(1, 3), nn.LayerNorm(3)))


def test_a_layer_without_per_sample_gradients_is_refused_with_its_replacement() -> None:
    with pytest.raises(ConfigError, match="GRU") as caught:
        check_model(nn.GRU(1, 1))
    assert "DPGRU" in caught.value.next_step


def test_one_number_for_the_batch_only_where_it_is_declared() -> None:
    batch = (torch.zeros(4, 3), torch.zeros(4))
    with pytest.raises(ConfigError, match="batch of 4") as caught:
        check_shape(torch.zeros(()), batch)
    assert "batch_level = true" in caught.value.next_step
    check_shape(torch.zeros(()), batch, batch_level=True)
    check_shape(torch.zeros(4), batch, batch_level=True)
    for shape in ((3,), (4, 1), (4, 4)):
        with pytest.raises(ConfigError):
            check_shape(torch.zeros(shape), batch, batch_level=True)


def test_the_probed_persons_are_few_and_their_targets_lie_far_apart() -> None:
    data = survivals(1000)
    chosen = probed(data)
    assert len(set(chosen.tolist())) == len(chosen) == PROBED
    targets = data.tensors[-1][torch.from_numpy(chosen)]
    assert set(targets[:, 1].tolist()) == {0.0, 1.0}
    assert targets[:, 0].max() == data.tensors[-1][:, 0].max()
    assert probed(survivals(3)).tolist() == [0, 1, 2]
    check(OneLoss(cox), private=False, persons=survivals(1))
