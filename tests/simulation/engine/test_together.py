"""Sites that train together: the same persons, almost the same floats, exactly the same whole numbers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.studies import tiny
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy, measure
from fedseal.client.task import Batch, Metric, SiteData, Split, Task, batch_of, build_model
from fedseal.client.trainer import TrainSettings, lots, trainable
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.quantize import Layout, RangeError, Rounding, Segment, bound
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.digest import canonical_digest, run_digest
from fedseal.simulation.engine import crew
from fedseal.simulation.engine.gradients import Batched, Mapped, Slope
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.engine.rounding import Bounds
from fedseal.simulation.engine.rows import Rows, Streams, draws
from fedseal.simulation.engine.splits import IndexedSplits
from fedseal.simulation.engine.together import chunks, measured
from fedseal.simulation.engine.ways import Source
from fedseal.simulation.grid import NodeList
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.training import Material, Trained
from fedseal.study import Contract

SITES = 34


class Stack:
    """A small classifier; its model may be another."""

    def __init__(self, module: Any = None) -> None:
        self._module = module or (lambda: nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))

    def model(self) -> nn.Module:
        found: nn.Module = self._module()
        return found

    def data(self, site: SiteData) -> Split:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy()]


class Convolving(nn.Module):
    """No stack: only torch.func can map it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(1, 4, 2), nn.Linear(16, 3)

    def forward(self, features: Tensor) -> Tensor:
        out: Tensor = self.last(torch.relu(self.first(features.unsqueeze(1))).flatten(1))
        return out


def persons(count: int, seed: int) -> TensorDataset:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    features = rng.normal(size=(count, 5)) + labels[:, None] * np.linspace(-1, 1, 5)
    return TensorDataset(torch.tensor(features, dtype=torch.float32), torch.tensor(labels))


def ragged(sites: int = SITES) -> dict[str, Split]:
    """Sites of 1 to 13 training persons, and 0 to 4 for validation."""
    return {
        f"site-{i:02d}": Split(persons(1 + i % 13, i), persons(i % 5, 1000 + i), persons(3, 2000 + i))
        for i in range(1, sites + 1)
    }


def gathered(task: Task | None = None, splits: Any = None, **changes: Any) -> tuple[Material, Contract]:
    study = tiny(
        **({"privacy": {"plan": "none"}, "training": {"rounds": 2, "learning_rate": 0.3, "local_steps": 3}} | changes)
    )
    task, splits = task or Stack(), ragged() if splits is None else splits
    oracle = Oracle(task, {"all": Split(persons(0, 0), persons(0, 0), persons(200, 9))})
    return Material(study, task, splits, {}, oracle, 7), study.contract


def distance(one: Trained, other: Trained) -> float:
    return max(float(np.abs(one.model[name] - other.model[name]).max()) for name in one.model)


ROUND = {"rounds": 2, "learning_rate": 0.3, "local_steps": 3}

CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "stack, batched": (Stack(), "batched", {}),
    "stack, vmap": (Stack(), "vmap", {}),
    "one layer, batches": (Stack(lambda: nn.Linear(5, 3)), "batched", {"training": {**ROUND, "batch_size": 4}}),
    "no bias, fedprox": (
        Stack(lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 3, bias=False))),
        "batched",
        {"training": {**ROUND, "strategy": "fedprox", "proximal_mu": 0.5}},
    ),
    "convolution, vmap": (Stack(Convolving), "vmap", {"training": {**ROUND, "batch_size": 4}}),
    "client": (
        Stack(),
        "batched",
        {"privacy": {"plan": "client", "epsilon": 100.0}, "cohort": {"colluders": 1, "largest_site": 100}},
    ),
    "clipped": (Stack(), "batched", {"training": {**ROUND, "update_range": 0.05}, "cohort": {"largest_site": 6}}),
}


@pytest.mark.quick("stack, vmap", "one layer, batches", "no bias, fedprox", "client", "clipped")
@pytest.mark.parametrize("name", CASES)
def test_training_together_comes_out_as_one_by_one(name: str) -> None:
    task, way, changes = CASES[name]
    material, contract = gathered(task, **changes)
    alone = train_modelled(material, contract, vectorised="one-by-one")
    together = train_modelled(material, contract, vectorised=way)  # type: ignore[arg-type]
    assert (alone.engine, together.engine) == ("one-by-one", way)
    assert distance(alone, together) < 2e-6
    for ours, theirs in zip(together.rounds, alone.rounds, strict=True):
        assert ours.record.weight == theirs.record.weight
        assert ours.record.clipped == theirs.record.clipped
        assert ours.record.metrics == pytest.approx(theirs.record.metrics, abs=1e-5)
    assert together.privacy == alone.privacy


def test_other_persons_would_be_noticed_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: whoever draws others is refused by name, and left aside by `auto`."""
    stream = Streams.__call__

    def other(self: Streams, *purpose: str | int) -> Any:
        return stream(self, *purpose, *(("other",) if purpose[0] == "sampling" else ()))

    fit = crew.Methods._fit
    honest = stream

    def fitted(self: Any, site: int, asked: Any) -> Any:
        monkeypatch.setattr(Streams, "__call__", honest)
        found = fit(self, site, asked)
        monkeypatch.setattr(Streams, "__call__", other)
        return found

    monkeypatch.setattr(crew.Methods, "_fit", fitted)
    material, contract = gathered()
    with pytest.raises(ConfigError, match="do not come out as on their own"):
        train_modelled(material, contract, vectorised="batched")
    assert train_modelled(material, contract).engine == "one-by-one"


def test_a_model_that_is_no_stack_is_refused_by_name_and_mapped_by_auto() -> None:
    material, contract = gathered(Stack(Convolving))
    with pytest.raises(ConfigError, match="Convolving is no layer of a stack"):
        train_modelled(material, contract, vectorised="batched")


def test_a_layer_with_randomness_of_its_own_is_left_to_the_sites() -> None:
    material, contract = gathered(Stack(lambda: nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))))
    assert train_modelled(material, contract).engine == "one-by-one"


def test_few_sites_are_asked_one_by_one() -> None:
    material, contract = gathered(splits=ragged(5))
    assert train_modelled(material, contract).engine == "one-by-one"


@pytest.mark.parametrize("strategy", ["scaffold", "fednova", "ditto", "clustered"])
def test_what_is_not_known_here_is_left_to_the_sites(strategy: str) -> None:
    material, contract = gathered(splits=ragged(5), training={**ROUND, "strategy": strategy})
    # Sites with models of their own are judged each by itself.
    each = Material(material.study, material.task, material.splits, {}, Oracle(material.task, material.splits), 7)
    together, alone = (train_modelled(each, contract, vectorised=way) for way in ("batched", "one-by-one"))
    assert run_digest(replace(together, engine="one-by-one")) == run_digest(alone)


# Any number of processes


@pytest.mark.quick("fedavg-batched", "scaffold-one-by-one")
@pytest.mark.parametrize("way", ["one-by-one", "batched"])
@pytest.mark.parametrize("strategy", ["fedavg", "scaffold"])
def test_the_digest_is_the_same_for_any_number_of_processes(way: Any, strategy: str) -> None:
    # Twenty-one sites are two chunks.
    material, contract = gathered(splits=ragged(21), training={**ROUND, "strategy": strategy})
    found = {run_digest(train_modelled(material, contract, vectorised=way, workers=w)) for w in (1, 2, 4)}
    assert len(found) == 1


def test_the_digest_does_not_depend_on_the_order_in_which_sites_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    material, contract = gathered(splits=ragged(21))
    first = run_digest(train_modelled(material, contract, vectorised="batched"))
    monkeypatch.setattr(NodeList, "get_node_ids", lambda nodes: list(nodes._nodes)[::-1])
    assert run_digest(train_modelled(material, contract, vectorised="batched")) == first


def test_another_seed_is_another_digest() -> None:
    material, contract = gathered(splits=ragged(6))
    other = Material(material.study, material.task, material.splits, {}, material.oracle, 8)
    assert run_digest(train_modelled(material, contract)) != run_digest(train_modelled(other, contract))


def test_a_process_that_dies_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> Any:
        raise SystemExit(1)

    monkeypatch.setattr(crew.Methods, "portion", die)
    material, contract = gathered(splits=ragged(5))
    with pytest.raises(LocalError, match="has ended"):
        train_modelled(material, contract, workers=2)


def test_a_failure_in_a_process_is_that_sites_alone() -> None:
    splits = ragged(5)
    bad = persons(4, 1)
    splits["site-03"] = Split(TensorDataset(bad.tensors[0][:, :2], bad.tensors[1]), persons(2, 5), persons(2, 6))
    material, contract = gathered(splits=splits, cohort={"colluders": 0})
    trained = train_modelled(material, contract, workers=2)
    assert [view.record.sites for view in trained.rounds] == [4, 4]


# The parts


def pieces(values: NDArray[np.float64]) -> Source:
    """A matrix of sites by coordinates, a piece at a time."""

    def write(piece: slice, out: NDArray[np.float64]) -> None:
        out[...] = values[:, piece]

    return write


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    sites=st.integers(1, 7),
    length=st.integers(1, 40),
    ring_bits=st.sampled_from([16, 32, 64]),
    rounding=st.sampled_from(list(Rounding)),
)
def test_rounding_many_is_rounding_each(seed: int, sites: int, length: int, ring_bits: int, rounding: Rounding) -> None:
    scale = 900.0 / sites
    parts = (Segment("a", length, -1.0, 1.0, scale, True), Segment("b", 2, 0.5, 3.0, scale, False))
    layout = Layout(ring_bits, int(rounding), parts)
    rng = np.random.default_rng(seed)
    rows = [{"a": rng.uniform(-1, 1, length), "b": rng.uniform(0.5, 3, 2)} for _ in range(sites)]
    streams = [KeyedRandomness(seed, k).stream("rounding") for k in range(sites)]
    expected = np.zeros(length + 2, dtype="<u8" if ring_bits == 64 else "<u4")
    for row, k in zip(rows, range(sites), strict=True):
        expected += bound(row, layout, KeyedRandomness(seed, k).stream("rounding")).vector
    bounds = Bounds(layout)
    total = bounds.nothing()
    bounds.add(total, pieces(np.stack([np.concatenate([r["a"], r["b"]]) for r in rows])), streams)
    found = bounds.in_ring(total)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1.1, -1.1])
def test_rounding_many_refuses_what_rounding_one_refuses(value: float) -> None:
    layout = Layout(32, 1, (Segment("a", 2, -1.0, 1.0, 50.0, True), Segment("b", 1, 0.0, 1.0, 50.0, False)))
    with pytest.raises(RangeError, match="'a'"):
        bounds = Bounds(layout)
        bounds.add(bounds.nothing(), pieces(np.array([[0.5, value, 0.5]])), [KeyedRandomness(1).stream("rounding")])


def test_long_vectors_are_rounded_piece_by_piece_with_the_same_coins() -> None:
    length = 20_000
    layout = Layout(32, 1, (Segment("a", length, -1.0, 1.0, 900.0, True),))
    row = np.random.default_rng(1).uniform(-1, 1, length)
    bounds = Bounds(layout)
    total = bounds.nothing()
    bounds.add(total, pieces(row[None]), [KeyedRandomness(1).stream("rounding")])
    assert np.array_equal(
        bounds.in_ring(total), bound({"a": row}, layout, KeyedRandomness(1).stream("rounding")).vector
    )


@pytest.mark.parametrize(
    "chosen", [TrainSettings(0.1, 0.5, 3), TrainSettings(0.1, 1.0, 2), TrainSettings(0.1, 1.0, 5, batch_size=4)]
)
@pytest.mark.parametrize("counts", [(5, 1, 9), (6, 6, 6), (8, 8, 8)])
def test_draws_are_each_sites_own(chosen: TrainSettings, counts: tuple[int, ...]) -> None:
    rows = Rows(persons(sum(counts), 1).tensors, np.array(counts))
    found = list(draws(rows, chosen, [Streams(3, n, (1, 0)) for n in (1, 2, 3)]))
    for k, start in enumerate(rows.starts):
        own = list(lots(int(counts[k]), chosen, Streams(3, k + 1, (1, 0))))
        for step, (places, divisor) in zip(found, own, strict=True):
            weights = step.weights[k].numpy()
            assert step.rows[k, : len(places)].tolist() == (places + start).tolist()
            assert np.all(weights[: len(places)] == np.float32(1.0 / divisor))
            assert not weights[len(places) :].any()


DEEP = Stack(
    lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 4, bias=False), nn.Sigmoid(), nn.Linear(4, 3))
)


@pytest.mark.parametrize("way", [Batched, Mapped])
@pytest.mark.parametrize("mu", [0.0, 0.3])
def test_steps_are_each_models_own(way: Any, mu: float) -> None:
    """Against autograd, model by model and person by person."""
    sites, each, rate = 3, 4, 0.7
    models = [trainable(DEEP.model()) for _ in range(sites)]
    anchor = {n: torch.from_numpy(a) for n, a in trainable(DEEP.model()).items()}
    batch = persons(sites * each, 4).tensors
    weights = torch.rand(sites, each)
    weights[1, 1] = 0.0
    stacked = {n: torch.tensor(np.stack([m[n] for m in models])) for n in models[0]}
    way(DEEP)(stacked, batch, weights, Slope(rate, mu, anchor))
    for k, model in enumerate(models):
        module = DEEP.model()
        module.load_state_dict({n: torch.tensor(a) for n, a in model.items()})
        total = torch.zeros(())
        for b in range(each):
            row = slice(k * each + b, k * each + b + 1)
            total = total + weights[k, b] * DEEP.loss(module, (batch[0][row], batch[1][row]))[0]
        torch.autograd.backward(total)
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            expected = parameter - rate * (parameter.grad + mu * (parameter - anchor[name]))
            assert torch.allclose(stacked[name][k], expected, atol=1e-6)


@pytest.mark.parametrize("way", [Batched, Mapped])
def test_what_only_fills_up_does_not_count(way: Any) -> None:
    task, batch = Stack(), persons(4, 4).tensors
    batch[0][3] = torch.inf
    stacked = {n: torch.tensor(a)[None] for n, a in trainable(task.model()).items()}
    before = {n: a.clone() for n, a in stacked.items()}
    weights = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    way(task)(stacked, (batch[0].nan_to_num(posinf=1e6), batch[1]), weights, Slope(0.1, 0.0, {}))
    shorter = {n: a.clone() for n, a in before.items()}
    way(task)(shorter, (batch[0][:3], batch[1][:3]), weights[:, :3], Slope(0.1, 0.0, {}))
    assert all(torch.allclose(stacked[n], shorter[n], atol=1e-6) for n in stacked)


def test_measuring_many_is_measuring_each() -> None:
    task = Stack()
    module = build_model(task)
    splits = list(ragged(9).values())
    tensors = tuple(torch.cat([s.validation.tensors[i] for s in splits]) for i in range(2))  # type: ignore[attr-defined]
    counts = np.array([len(s.validation) for s in splits])  # type: ignore[arg-type]
    found = measured(task, module, Rows(tensors, counts))
    for k, split in enumerate(splits):
        own = measure(task, module, split.validation)
        for name, mean in own.means.items():
            # A product of matrices of another size adds its floats in another order.
            assert found[name][k] == pytest.approx(mean, abs=1e-6)


def test_chunks_do_not_depend_on_the_number_of_processes_and_cover_everyone() -> None:
    for count in (1, 5, 8, 9, 50, 1000):
        sites = tuple(range(1, count + 1))
        parts = chunks(sites, 650)
        assert tuple(site for part in parts for site in part) == sites
    assert len(chunks(tuple(range(50)), 108_000)) > 2


# Sites as index arrays


def indexed(sites: int = SITES) -> IndexedSplits:
    splits = ragged(sites)
    parts = [s.train for s in splits.values()] + [s.validation for s in splits.values()]
    pool = tuple(torch.cat([p.tensors[i] for p in parts]) for i in range(2))  # type: ignore[attr-defined]
    train = np.cumsum([len(s.train) for s in splits.values()])  # type: ignore[arg-type]
    validation = np.cumsum([len(s.validation) for s in splits.values()])  # type: ignore[arg-type]
    places = np.arange(train[-1] + validation[-1])
    return IndexedSplits(pool, places[: train[-1]], train, places[train[-1] :], validation)


@pytest.mark.parametrize("way", ["one-by-one", "batched"])
def test_index_arrays_give_what_tensors_give(way: Any) -> None:
    material, contract = gathered(splits=ragged(9))
    other, _ = gathered(splits=indexed(9))
    assert len(other.splits) == 9
    one, two = (train_modelled(m, contract, vectorised=way) for m in (material, other))
    assert [v.record.metrics for v in one.rounds] == [v.record.metrics for v in two.rounds]
    assert distance(one, two) == 0.0


def test_index_arrays_that_do_not_fit_are_refused() -> None:
    pool = persons(4, 1).tensors
    with pytest.raises(LocalError, match="ends"):
        IndexedSplits(pool, np.arange(4), np.array([2, 3]))
    with pytest.raises(LocalError, match="outside"):
        IndexedSplits(pool, np.array([0, 4]), np.array([1, 2]))


def test_a_part_of_the_sites_is_asked_in_each_round() -> None:
    material, contract = gathered(splits=indexed())
    trained = train_modelled(material, contract, fraction=0.25)
    assert [view.record.sites for view in trained.rounds] == [SITES // 4] * 2
    assert sorted({p.releases for p in trained.privacy.values()})[:2] == [0, 1]
    with pytest.raises(ConfigError, match="share"):
        train_modelled(material, contract, fraction=0.0)


# Digests


def test_a_digest_tells_values_apart_and_not_orders() -> None:
    assert canonical_digest({"a": 1.0, "b": [1, None]}) == canonical_digest({"b": [1, None], "a": 1.0})
    values: list[Any] = [1, 1.0, "1", True, None, [1], [[1]], {"a": 1}, {"a": [1, 2]}, {"a": [2, 1]}, ["a", 1], []]
    assert len({canonical_digest(v) for v in values}) == len(values)
    assert canonical_digest(0.0) == canonical_digest(-0.0)
    assert canonical_digest(0.1 + 0.2) != canonical_digest(0.3)


def test_batches_of_a_site_are_what_they_were() -> None:
    dataset = persons(6, 3)
    rows = Rows(dataset.tensors, np.array([6]), np.array([5, 4, 3, 2, 1, 0]))
    for ours, theirs in zip(rows.batch(np.array([0, 2])), batch_of(dataset, np.array([5, 3])), strict=True):
        assert torch.equal(ours, theirs)


def test_paths_of_a_study_are_not_needed(tmp_path: Path) -> None:
    material, contract = gathered(splits=ragged(4))
    train_modelled(material, contract)
    assert not list(tmp_path.iterdir())
