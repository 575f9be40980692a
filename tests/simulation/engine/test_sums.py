"""Sums begun in the workers: the integers of the sealed protocol, whoever adds them and in whatever order."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, FedMedian, FedYogi, Krum
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.flower import Script, flower_task, local_grid, make_federation, model, ordinary_app, train_messages
from support.grid_contract import messages

from fedseal.errors import ConfigError
from fedseal.privacy.quantize import IntegerSum, Rounding
from fedseal.privacy.releases import MetricRange
from fedseal.server.grid import SealedGrid
from fedseal.server.scaffold import Scaffold
from fedseal.simulation.engine.pool import PoolGrid
from fedseal.simulation.engine.sums import IntegerSums, PartialSum, combined, round_sum
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.grid import LocalGrid

SITES = 7
NODES = range(101, 101 + SITES)


@pytest.fixture(autouse=True)
def _flower() -> Iterator[None]:
    with flower_task():
        yield


def noisy_app() -> ClientApp:
    """Adds to a model what only its node and the round decide; values of many magnitudes, so that floats round."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        fl_round = int(str(message.content.config_records["config"]["server-round"]))
        rng = np.random.default_rng([context.node_id, fl_round])
        arrays = {}
        for name, array in message.content.array_records["arrays"].items():
            received = array.numpy()
            change = rng.normal(size=received.shape) * 10.0 ** rng.integers(-6, 1, received.shape)
            arrays[name] = Array((received + change).astype(received.dtype))
        metrics = MetricRecord({"num-examples": int(rng.integers(1, 90)), "loss": float(rng.uniform(0, 5))})
        return Message(RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": context.node_id - 100, "accuracy": 1 / (context.node_id - 99)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def sums(strategy: FedAvg | None = None, **changes: Any) -> IntegerSums:
    metrics = {"loss": MetricRange(0, 10), "accuracy": MetricRange(0, 1)}
    return IntegerSums(strategy or FedAvg(), 100, metrics, **changes)


def sent(order: Sequence[int] = NODES, message_type: str = "train") -> list[Message]:
    content = RecordDict({"arrays": model(), "config": ConfigRecord({"server-round": 1})})
    return [Message(content, dst_node_id=n, message_type=message_type) for n in order]


def pooled(workers: int, order: Sequence[int] = NODES, **changes: Any) -> tuple[bytes, dict[str, bytes], IntegerSum]:
    """The sum of one round, its arrays and metrics."""
    with Workers(noisy_app(), workers) as started:
        grid = PoolGrid(started, {n: {} for n in NODES}, run_config={}, sums=sums(**changes))
        (reply,) = grid.send_and_receive(sent(order))
    arrays = {name: array.numpy().tobytes() for name, array in reply.content.array_records["arrays"].items()}
    metrics = repr(sorted(reply.content.metric_records["metrics"].items())).encode()
    assert grid.last_sum is not None
    return grid.last_sum.vector.tobytes(), arrays | {"metrics": metrics}, grid.last_sum


@pytest.mark.parametrize("changes", [{}, {"ring_bits": 32}, {"rounding": Rounding.STOCHASTIC, "seed": 3}])
def test_the_same_bytes_for_any_number_of_workers_and_any_order_of_messages(changes: dict[str, Any]) -> None:
    first = pooled(1, **changes)
    shuffled = random.Random(1).sample(list(NODES), SITES)
    for other in (pooled(2, **changes), pooled(4, shuffled, **changes)):
        assert other[:2] == first[:2]


def test_another_seed_tosses_other_coins() -> None:
    one, other = (pooled(1, rounding=Rounding.STOCHASTIC, seed=seed)[0] for seed in (1, 2))
    assert one != other


def replies(grid: LocalGrid, order: Sequence[int] = NODES) -> list[Message]:
    return list(grid.send_and_receive(sent(order)))


def test_sums_of_floats_would_depend_on_the_order() -> None:
    """The twin: FedAvg's own sum over the same replies, in two orders, and in parts."""
    grid = LocalGrid(noisy_app(), {n: {} for n in NODES}, run_config={})
    found = []
    for order in (list(NODES), list(reversed(NODES))):
        arrays, _ = FedAvg().aggregate_train(1, replies(grid, order))
        assert arrays is not None
        found.append(arrays["weight"].numpy())
    assert np.allclose(found[0], found[1])
    assert found[0].tobytes() != found[1].tobytes()


def test_the_mean_is_fedavgs_to_the_last_bits_of_a_float() -> None:
    grid = LocalGrid(noisy_app(), {n: {} for n in NODES}, run_config={})
    clear, metrics = FedAvg().aggregate_train(1, replies(grid))
    with Workers(noisy_app(), 2) as started:
        pool = PoolGrid(started, {n: {} for n in NODES}, run_config={}, sums=sums())
        arrays, own = FedAvg().aggregate_train(1, pool.send_and_receive(sent()))
    assert clear is not None and arrays is not None and metrics is not None and own is not None
    for name, array in clear.items():
        np.testing.assert_allclose(arrays[name].numpy(), array.numpy(), rtol=3e-7, atol=1e-9)
    assert own["loss"] == pytest.approx(metrics["loss"])


@pytest.mark.parametrize(("ring_bits", "message_type"), [(32, "train"), (64, "train"), (32, "evaluate")])
def test_the_sum_is_the_one_that_the_protocol_unmasks(tmp_path: Path, ring_bits: int, message_type: str) -> None:
    """The same app, sealed and through five exchanges with its masks."""
    federation = make_federation(tmp_path, 5)
    script = Script(
        {n: 0.1 * n for n in range(1, 6)}, {n: 7 * n for n in range(1, 6)}, {"loss": dict.fromkeys(range(1, 6), 1.5)}
    )
    strategy = FedAvg()
    sealed = SealedGrid(
        local_grid(federation, ordinary_app(script)),
        strategy,
        store=federation.server,
        max_examples=100,
        metrics={"loss": (0, 10)},
        ring_bits=ring_bits,
        rounding=Rounding.NEAREST,
    )
    requests = train_messages(sealed, model(), message_type)
    list(sealed.send_and_receive(requests))
    with Workers(ordinary_app(script, sealed=False), 2) as started:
        grid = PoolGrid(
            started,
            federation.nodes(),
            run_config={},
            sums=IntegerSums(strategy, 100, {"loss": MetricRange(0, 10)}, ring_bits=ring_bits),
        )
        list(grid.send_and_receive(train_messages(grid, model(), message_type)))
    assert sealed.last_sum is not None and grid.last_sum is not None
    assert grid.last_sum.layout == sealed.last_sum.layout
    assert grid.last_sum.vector.tobytes() == sealed.last_sum.vector.tobytes()
    assert grid.last_sum.sites == sealed.last_sum.sites == 5


def test_a_site_that_fails_is_not_in_the_sum_and_its_error_is_handed_on() -> None:
    script = Script({1: 1.0, 2: 2.0, 3: 3.0}, error={2: ValueError("broken")})
    nodes = {100 + n: {"number": n} for n in (1, 2, 3)}
    with Workers(ordinary_app(script, sealed=False), 2) as started:
        grid = PoolGrid(started, nodes, run_config={}, sums=sums())
        reply, error = grid.send_and_receive(train_messages(grid, model()))
        assert error.has_error() and error.metadata.src_node_id == 102
        assert grid.last_sum is not None and grid.last_sum.sites == 2
        assert reply.content.metric_records["metrics"]["num-examples"] == 20
        arrays, _ = FedAvg().aggregate_train(1, [reply, error])
    assert arrays is not None
    change = arrays["bias"].numpy() - model()["bias"].numpy()
    np.testing.assert_allclose(change, 2.0 * np.linspace(-1, 1, 3), atol=1e-6)


def test_a_round_without_any_reply_is_nothing_but_errors() -> None:
    nodes = {100 + n: {"number": n} for n in (1, 2)}
    with Workers(ordinary_app(Script({}, error=ValueError("all")), sealed=False), 2) as started:
        grid = PoolGrid(started, nodes, run_config={}, sums=sums())
        found = list(grid.send_and_receive(train_messages(grid, model())))
    assert [reply.has_error() for reply in found] == [True, True]


@pytest.mark.parametrize("strategy", [FedMedian(), Krum()])
def test_strategies_that_look_at_single_replies_are_refused(strategy: FedAvg) -> None:
    with pytest.raises(ConfigError, match="looks at single replies"):
        sums(strategy)


def test_what_else_cannot_be_summed_is_refused() -> None:
    with pytest.raises(ConfigError, match="asks who is in a sum"):
        sums(Scaffold(SITES, local_steps=1, learning_rate=0.1))
    with Workers(noisy_app(), 1) as started:
        grid = PoolGrid(started, {n: {} for n in NODES}, run_config={}, sums=sums(FedYogi()))
        with pytest.raises(ConfigError, match="not single messages"):
            grid.push_messages(sent())
        with pytest.raises(ConfigError, match="different contents"):
            grid.send_and_receive(sent() + messages(101, content=RecordDict({"config": ConfigRecord({"lr": 2.0})})))
        with pytest.raises(ConfigError, match="cannot be sealed"):
            grid.send_and_receive(sent(message_type="query"))
        assert list(grid.send_and_receive([])) == []


def test_an_app_that_returns_other_arrays_ends_the_run_with_the_reason() -> None:
    script = Script({1: 1.0, 2: 1.0}, alter={2: lambda content: content.__delitem__("arrays")})
    nodes = {100 + n: {"number": n} for n in (1, 2)}
    with Workers(ordinary_app(script, sealed=False), 1) as started:
        grid = PoolGrid(started, nodes, run_config={}, sums=sums())
        with pytest.raises(ConfigError, match="returned 0 array records"):
            grid.send_and_receive(train_messages(grid, model()))


def reply(message: Message, arrays: dict[str, NDArray[Any]], examples: int) -> Message:
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    content = RecordDict({"arrays": record, "metrics": MetricRecord({"num-examples": examples})})
    return Message(content, reply_to=message)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_split_of_the_replies_gives_the_same_sum(data: st.DataObject) -> None:
    sites = data.draw(st.integers(2, 9))
    seed = data.draw(st.integers(0, 1 << 30))
    ring = data.draw(st.sampled_from([32, 64]))
    rng = np.random.default_rng(seed)
    with flower_task():
        batch = sent(range(sites))
        summing = round_sum(sums(ring_bits=ring), batch)
        found = [
            (m, reply(m, {n: a.numpy() + rng.normal(size=a.shape).astype("f4") for n, a in model().items()}, 1 + i))
            for i, m in enumerate(batch)
        ]
        totals = []
        for _ in range(2):
            owner = data.draw(st.lists(st.integers(0, 3), min_size=sites, max_size=sites))
            parts = [PartialSum(summing.order) for _ in range(4)]
            for at in data.draw(st.permutations(range(sites))):
                parts[owner[at]].add(*found[at])
            assert sum(part.sites for part in parts) == sites
            totals.append(combined(summing.order, [part.vector for part in parts]).tobytes())
        assert totals[0] == totals[1]


METRICS = {"loss": MetricRange(-10, 20), "scores": MetricRange(0, 1, 3), "absent": MetricRange(0, 1)}


@settings(max_examples=40, deadline=None)
@given(
    size=st.sampled_from([1e-9, 0.01, 1.0, 24.9999, 25.0, 30.0, 1e4]),
    ring=st.sampled_from([32, 64]),
    dtype=st.sampled_from(["f4", "f8", "f2", "i4"]),
    seed=st.integers(0, 1 << 20),
    broken=st.sampled_from([None, np.nan, np.inf]),
)
def test_the_quick_way_is_the_sites_way(size: float, ring: int, dtype: str, seed: int, broken: float | None) -> None:
    """Updates below, at and above their bound; arrays longer than a piece; what is no number."""
    rng = np.random.default_rng(seed)
    with flower_task():
        shapes: dict[str, tuple[int, ...]] = {"long": (3, 13_000), "one": (1,), "none": (0,), "few": (7, 2)}
        start = {name: (10 * rng.normal(size=shape)).astype(dtype) for name, shape in shapes.items()}
        record = ArrayRecord({name: Array(array) for name, array in start.items()})
        batch = [Message(RecordDict({"arrays": record}), dst_node_id=n, message_type="train") for n in (1, 2)]
        summing = round_sum(IntegerSums(FedAvg(), 100, METRICS, update_range=25.0, ring_bits=ring), batch)
        changes = {name: rng.normal(size=shape) for name, shape in shapes.items()}
        norm = np.sqrt(sum(float((c**2).sum()) for c in changes.values()))
        arrays = {n: (start[n] + changes[n] * size / norm).astype(dtype) for n in shapes}
        if broken is not None and dtype != "i4":
            arrays["few"][3, 1] = broken
        answer = reply(batch[0], arrays, int(rng.integers(0, 130)))
        answer.content.metric_records["metrics"]["loss"] = float(rng.uniform(-20, 30))
        answer.content.metric_records["metrics"]["scores"] = [float(v) for v in rng.uniform(0, 1.2, 3)]
        quick, slow = summing.order.begun(), summing.order.begun()
        quick.add(batch[0], answer)
        slow.add_as_a_site(batch[0], answer)
        assert quick.vector.tobytes() == slow.vector.tobytes()


def test_a_quick_way_that_multiplied_at_once_would_differ() -> None:
    """The twin of the check above: the product of weight and scale is another double."""
    rng = np.random.default_rng(1)
    change, fraction, scale = rng.normal(size=100_000), 37 / 100, 2.0**52 / 7 / 25
    assert (np.rint(change * fraction * scale) != np.rint(change * (fraction * scale))).any()
