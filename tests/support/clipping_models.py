"""Models of many kinds and their persons, for clipped sums; and what the sums have to be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from opacus.grad_sample import GradSampleModule
from opacus.layers import DPGRU
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.clipping.choice import Clipping
from fedseal.client.clipping.factors import MARGIN
from fedseal.client.task import Batch, Metric, SiteData, Split, batch_of

PERSONS, WORDS = 40, 30
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Kind:
    """A model, and the features of its persons; a task."""

    name: str
    make: Callable[[], nn.Module]
    features: Tensor

    def model(self) -> nn.Module:
        return self.make()

    def data(self, site: SiteData) -> Split:
        return Split(self.persons(), self.persons(), self.persons())

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        outputs = model(batch[0])
        return nn.functional.cross_entropy(outputs, batch[1], reduction="none") * (1 + batch[1])

    def metrics(self) -> Sequence[Metric]:
        return []

    def persons(self) -> TensorDataset:
        return TensorDataset(self.features, torch.arange(len(self.features)) % 3)


class Texts(nn.Module):
    """Words and places, normed, linear layers over three dimensions, a head over two."""

    def __init__(self, width: int, padding: int | None = None) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, width, padding), nn.Embedding(6, width)
        self.norm, self.wide, self.head = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, words: Tensor) -> Tensor:
        state = self.words(words) + self.places(torch.arange(6).expand_as(words))
        return cast(Tensor, self.head((state + torch.tanh(self.wide(self.norm(state)))).mean(dim=1)))


class Adapted(nn.Module):
    """Attention with frozen weights; low-rank adapters on queries and values."""

    def __init__(self, width: int = 16, rank: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width).requires_grad_(False)
        self.query, self.key, self.value = (nn.Linear(width, width).requires_grad_(False) for _ in range(3))
        self.query_down, self.value_down = (nn.Linear(width, rank, bias=False) for _ in range(2))
        self.query_up, self.value_up = (nn.Linear(rank, width, bias=False) for _ in range(2))
        self.after, self.head = nn.LayerNorm(width).requires_grad_(False), nn.Linear(width, 3)

    def forward(self, words: Tensor) -> Tensor:
        state = self.words(words)
        query = self.query(state) + self.query_up(self.query_down(state))
        value = self.value(state) + self.value_up(self.value_down(state))
        seen = torch.softmax(query @ self.key(state).transpose(1, 2), dim=2) @ value
        return cast(Tensor, self.head(self.after(state + seen).mean(dim=1)))


class Grouped(nn.Module):
    """Several records a person, each through the same layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.each, self.head = (
            nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, width)),
            nn.Linear(width, 3),
        )

    def forward(self, records: Tensor) -> Tensor:
        return cast(Tensor, self.head(torch.tanh(self.each(records)).flatten(1, -2).mean(dim=1)))


class Recurrent(nn.Module):
    """A layer that Opacus calls once for each record."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent, self.head = DPGRU(5, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, records: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.recurrent(records)[0][:, -1]))


class Scaled(nn.Module):
    """A parameter that belongs to no layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, rows: Tensor) -> Tensor:
        return rows * self.scale


def mlp(*, bias: bool = True) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(inplace=True), nn.Linear(7, 3, bias=bias))


class Wrapped(nn.Module):
    """Something done to the features, a stack with every activation that is known, something done to what comes out."""

    def __init__(self) -> None:
        super().__init__()
        hidden = nn.Linear(5, 7), nn.Sigmoid(), nn.Linear(7, 6, bias=False), nn.Tanh(), nn.Linear(6, 4), nn.ReLU()
        self.stack = nn.Sequential(nn.Tanh(), *hidden, nn.Linear(4, 3), nn.Sigmoid())

    def forward(self, rows: Tensor) -> Tensor:
        return 3 * cast(Tensor, self.stack(rows / 2)).cumsum(dim=1)


def frozen() -> nn.Module:
    """Frozen in the middle, in a weight, in a bias."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    model[2].requires_grad_(False)
    cast(nn.Linear, model[4]).weight.requires_grad_(False)
    cast(nn.Linear, model[5]).bias.requires_grad_(False)
    return model


def cnn() -> nn.Module:
    first, second = nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.Conv2d(4, 6, 3, groups=2, bias=False)
    return nn.Sequential(first, nn.GroupNorm(2, 4), nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))


def signals() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 3, 2, dilation=2), nn.Flatten(), nn.Linear(9, 3))


def large_with_own() -> nn.Module:
    """So large that a person's gradient is better not formed."""
    return nn.Sequential(Scaled(), nn.Linear(5, 128), nn.Tanh(), nn.Linear(128, 128), nn.Tanh(), nn.Linear(128, 3))


def _kinds() -> list[Kind]:
    draw = torch.Generator().manual_seed(5)
    rows, records = torch.randn(PERSONS, 5, generator=draw), torch.randn(PERSONS, 4, 5, generator=draw)
    images = torch.randn(PERSONS, 1, 8, 8, generator=draw)
    words = torch.randint(0, WORDS, (PERSONS, 6), generator=draw)
    return [
        Kind("mlp", mlp, rows),
        Kind("without bias", lambda: mlp(bias=False), rows),
        Kind("logistic", lambda: nn.Linear(5, 3), rows),
        Kind("wrapped", Wrapped, rows),
        Kind("frozen", frozen, rows),
        Kind("cnn", cnn, images),
        Kind("signals", signals, rows),
        Kind("texts", lambda: Texts(8), words),
        Kind("lora", Adapted, words),
        Kind("grouped, formed", lambda: Grouped(4), records),
        Kind("grouped, by Gram matrices", lambda: Grouped(24), records),
        Kind("grouped twice", lambda: Grouped(24), torch.randn(PERSONS, 2, 3, 5, generator=draw)),
        Kind("recurrent", Recurrent, records),
        Kind("own parameter", lambda: nn.Sequential(Scaled(), nn.Linear(5, 3)), rows),
        Kind("large, own parameter", large_with_own, rows),
    ]


KINDS = {kind.name: kind for kind in _kinds()}


def clipped(rows: Real, clip: float) -> tuple[Real, float]:
    """The sum of clipped rows in doubles (Abadi et al. 2016, Algorithm 1), and the sum of their norms."""
    norms = np.linalg.norm(rows, axis=1)
    factors = 1 / np.maximum(1.0, norms / (clip * (1 - MARGIN)))
    return factors @ rows, float(factors @ norms)


def opacus_rows(kind: Kind, count: int) -> Real:
    """Opacus' per-sample gradients of the first persons, shape (count, parameters)."""
    torch.manual_seed(0)
    model = kind.model()
    # Its hooks take no output that is changed in place.
    for part in model.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    wrapped = GradSampleModule(model, loss_reduction="sum")
    torch.autograd.backward(kind.loss(wrapped, batch_of(kind.persons(), np.arange(count))).sum())
    parts = [p.grad_sample.flatten(1).double().numpy() for p in wrapped.parameters() if p.requires_grad]
    return np.concatenate(parts, axis=1)


def flat_sum(clipping: Clipping, kind: Kind, batch: Batch, clip: float) -> Real:
    """A path's sum in one row."""
    return torch.cat([t.flatten() for t in clipping.clipped_sum(kind, batch, clip)]).double().numpy()
