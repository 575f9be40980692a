"""Every path's sums against Opacus' per-sample gradients, clipped in doubles as the paper says.

An error is the L2 norm of the difference over all parameters, in parts of the sum of the persons' clipped norms.
"""

import copy
import math
from itertools import pairwise
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.clipping_models import KINDS, Grouped, Kind, Real, clipped, flat_sum, opacus_rows
from torch import Tensor, nn

from fedseal.client.clipping import analytic, layers
from fedseal.client.clipping.choice import Clipping, ClippingPath, clip_by
from fedseal.client.clipping.factors import NotPerPersonError, clip_factors
from fedseal.client.task import Batch, batch_of

pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook")
STACK, ANALYTIC, GHOST, HOOKS = ClippingPath
STACKS = {"mlp", "without bias", "logistic", "wrapped"}
NOT_ANALYTIC = {"recurrent", "own parameter", "large, own parameter"}
# Several records a person, or an output that is changed in place.
NOT_GHOST = {"texts", "lora", "grouped, formed", "grouped, by Gram matrices", "grouped twice", "mlp", "without bias"}
CASES = [
    (kind, path)
    for kind in KINDS.values()
    for path in ClippingPath
    if (path is not STACK or kind.name in STACKS)
    and (path is not ANALYTIC or kind.name not in NOT_ANALYTIC)
    and (path is not GHOST or kind.name not in NOT_GHOST)
    and (path is not HOOKS or kind.name not in {"mlp", "without bias"})
]


def made(kind: Kind, path: ClippingPath) -> Clipping:
    torch.manual_seed(0)
    return clip_by(path, kind.model())


def people(kind: Kind, count: int) -> Batch:
    return batch_of(kind.persons(), np.arange(count))


def levels(rows: Real) -> list[float]:
    """Bounds that clip everybody, some, nobody."""
    norms = np.linalg.norm(rows, axis=1)
    # Somebody may have no gradient at all.
    return [0.1 * float(norms[norms > 0].min()), float(np.median(norms)), 2.0 * float(norms.max())]


@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda v: v.name)
def test_sums_are_those_of_opacus_per_sample_gradients(kind: Kind, path: ClippingPath) -> None:
    clipping = made(kind, path)
    for count in (1, 7, 40):
        rows = opacus_rows(kind, count)
        for clip in levels(rows):
            expected, scale = clipped(rows, clip)
            assert np.linalg.norm(flat_sum(clipping, kind, people(kind, count), clip) - expected) <= 1e-6 * scale


@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda v: v.name)
def test_nobody_is_a_sum_of_zeros(kind: Kind, path: ClippingPath) -> None:
    clipping = made(kind, path)
    shapes = [p.shape for p in clipping.module.parameters() if p.requires_grad]
    found = clipping.clipped_sum(kind, people(kind, 0), 1.0)
    assert [t.shape for t in found] == shapes
    assert not any(t.any() for t in found)


@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda v: v.name)
def test_one_person_never_exceeds_the_bound(kind: Kind, path: ClippingPath) -> None:
    clipping = made(kind, path)
    for clip in (1e-6, 0.5):
        for person in range(3):
            found = flat_sum(clipping, kind, batch_of(kind.persons(), np.array([person])), clip)
            assert np.linalg.norm(found) <= clip


@pytest.mark.parametrize(("kind", "path"), CASES, ids=lambda v: v.name)
@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_person_who_is_no_number_counts_as_zero(kind: Kind, path: ClippingPath, broken: float) -> None:
    class Broken(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return super().loss(model, batch) * torch.where(batch[1] == 1, broken, 1.0)

    clipping, batch = made(kind, path), people(kind, 7)
    others = tuple(t[batch[1] != 1] for t in batch)
    found = flat_sum(clipping, Broken(kind.name, kind.make, kind.features), batch, 0.5)
    expected = flat_sum(clipping, kind, others, 0.5)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    only = tuple(t[batch[1] == 1] for t in batch)
    assert not flat_sum(clipping, Broken(kind.name, kind.make, kind.features), only, 0.5).any()


def test_words_of_the_padding_have_no_gradient() -> None:
    """Opacus' own function gives them one; torch does not."""
    kind = Kind("padded", lambda: KINDS["texts"].model(), KINDS["texts"].features % 4)
    model = kind.model()
    model.words.padding_idx = 0  # type: ignore[union-attr]
    parameters, rows = list(model.parameters()), []
    for person in range(7):
        loss = kind.loss(model, batch_of(kind.persons(), np.array([person])))
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss.sum(), parameters)]).double().numpy())
    expected, scale = clipped(np.stack(rows), 0.5)
    found = flat_sum(clip_by(ANALYTIC, model), kind, people(kind, 7), 0.5)
    assert np.linalg.norm(found - expected) <= 1e-6 * scale


shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.lists(st.integers(1, 12), min_size=1, max_size=3))


@settings(max_examples=25, deadline=None)
@given(shapes, st.booleans(), st.floats(1e-3, 1e3), st.integers(0, 2**31))
def test_linear_stacks_of_all_shapes(shape: tuple[int, int, list[int]], bias: bool, clip: float, seed: int) -> None:
    """Person by person with autograd, in doubles: nothing but the formula is left to differ."""
    persons, records, widths = shape
    torch.manual_seed(seed)
    sizes = [3, *widths, 3]
    parts = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b, bias=bias), nn.Tanh())]
    model = nn.Sequential(*parts).double()
    features = (
        torch.randn(persons, records, 3, dtype=torch.float64) if records > 1 else torch.randn(persons, 3).double()
    )

    class Summed(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            return cast(Tensor, (model(batch[0]).flatten(1).sum(dim=1) - batch[1]).square())

    kind = Summed("stack", lambda: model, features)
    rows = []
    for person in range(persons):
        loss = kind.loss(model, batch_of(kind.persons(), np.array([person]))).sum()
        rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))]).numpy())
    expected, scale = clipped(np.stack(rows), clip)
    for path in (ANALYTIC, STACK) if records == 1 else (ANALYTIC,):
        found = flat_sum(clip_by(path, copy.deepcopy(model)), kind, people(kind, persons), clip)
        assert np.linalg.norm(found - expected) <= 1e-10 * scale + 1e-14


# Twins: what the comparison is worth.


def error_of(kind: Kind) -> float:
    rows = opacus_rows(kind, 7)
    expected, scale = clipped(rows, levels(rows)[0])
    found = flat_sum(made(kind, ANALYTIC), kind, people(kind, 7), levels(rows)[0])
    return float(np.linalg.norm(found - expected)) / scale


def test_a_sum_that_is_not_clipped_is_noticed() -> None:
    def unclipped(squares: Real, clip: float) -> Real:
        return np.ones_like(squares)

    with patch.object(analytic, "clip_factors", unclipped):
        assert error_of(KINDS["cnn"]) > 1.0


@pytest.mark.parametrize("name", ["frozen", "grouped, by Gram matrices"])
def test_a_norm_without_the_bias_is_noticed(name: str) -> None:
    real = layers.share_of

    def without(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> Any:
        bias, layer.bias = layer.bias, None  # type: ignore[assignment]
        try:
            share = real(layer, inputs, slopes)
        finally:
            layer.bias = bias
        return share

    assert error_of(KINDS[name]) <= 1e-6
    with patch.object(analytic, "share_of", without):
        assert error_of(KINDS[name]) > 1e-3


def test_a_norm_of_one_layer_alone_is_noticed() -> None:
    """All parameters are clipped together, not layer by layer."""

    def by_itself(squares: Real, clip: float) -> Real:
        return clip_factors(squares / 2, clip)

    with patch.object(analytic, "clip_factors", by_itself):
        assert error_of(KINDS["cnn"]) > 1e-3


# Where rounding could hide a norm.


def cancelling(width: int) -> tuple[Kind, Batch]:
    """Records in pairs that nearly cancel in a person's gradient, though each is large."""
    half = 1e3 * torch.randn(7, 2, 5, generator=torch.Generator().manual_seed(1))
    near = half * (1 + 1e-5)

    class Opposed(Kind):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            outputs = model(batch[0])
            return cast(Tensor, (outputs[:, :2] - outputs[:, 2:]).sum(dim=(1, 2)))

    kind = Opposed("opposed", lambda: nn.Linear(5, width, bias=False), torch.cat([half, near], dim=1))
    return kind, people(kind, 7)


def test_norms_that_cancel_are_taken_from_the_gradient_itself() -> None:
    kind, batch = cancelling(40)
    clipping = made(kind, ANALYTIC)
    chosen: list[type] = []

    real = layers.share_of

    def seen(layer: nn.Module, inputs: Tensor, slopes: Tensor) -> Any:
        share = real(layer, inputs, slopes)
        chosen.append(type(share))
        return share

    with patch.object(analytic, "share_of", seen):
        for person in range(7):
            found = flat_sum(clipping, kind, tuple(t[person : person + 1] for t in batch), 0.01)
            assert np.linalg.norm(found) <= 0.01
        assert chosen == [layers.Formed] * 7
        chosen.clear()
        flat_sum(
            made(KINDS["grouped, by Gram matrices"], ANALYTIC),
            KINDS["grouped, by Gram matrices"],
            people(KINDS["grouped, by Gram matrices"], 7),
            0.01,
        )
        assert layers.Outer in chosen


# What the analytic path does not take.


class Twice(Grouped):
    def forward(self, records: Tensor) -> Tensor:
        return super().forward(records) + super().forward(-records)


class Flat(nn.Module):
    """Hands a layer records where it expects persons."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, records: Tensor) -> Tensor:
        return self.last(records.flatten(0, 1)).unflatten(0, (len(records), -1)).sum(dim=1)  # type: ignore[no-any-return]


class Overwritten(nn.Module):
    """Changes what a layer has read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(5, 5), nn.Linear(5, 3)

    def forward(self, rows: Tensor) -> Tensor:
        state = rows + 0.0
        first = self.first(state)
        state.mul_(2.0)
        return self.last(first + state)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("model", "features"),
    [(lambda: Twice(4), (4, 5)), (Flat, (4, 5)), (Overwritten, (5,))],
    ids=["called twice", "records as persons", "changed in place"],
)
def test_a_layer_that_is_used_otherwise_is_refused(model: Any, features: tuple[int, ...]) -> None:
    kind = Kind("refused", model, torch.randn(9, *features, generator=torch.Generator().manual_seed(2)))
    clipping = made(kind, ANALYTIC)
    with pytest.raises(NotPerPersonError) as caught:
        clipping.clipped_sum(kind, people(kind, 9), 1.0)
    assert caught.value.next_step


def test_shared_and_unknown_parameters_are_refused() -> None:
    shared = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3))
    shared[1].weight = shared[0].weight

    class Subclass(nn.Linear):
        """Could compute anything."""

    for model in (shared, KINDS["own parameter"].model(), KINDS["recurrent"].model(), Subclass(5, 3)):
        with pytest.raises(NotPerPersonError):
            clip_by(ANALYTIC, model)
    once = nn.Embedding(3, 3, max_norm=1.0)
    with pytest.raises(NotPerPersonError):
        clip_by(ANALYTIC, once)


@pytest.mark.parametrize("name", ["lora", "grouped twice"])
def test_ghost_norms_of_several_records_are_refused(name: str) -> None:
    with pytest.raises(NotPerPersonError, match="several records"):
        made(KINDS[name], GHOST).clipped_sum(KINDS[name], people(KINDS[name], 3), 1.0)
