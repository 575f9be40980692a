"""Clustered training through sealed rounds against IFCA in doubles, and that no block's sum is over too few sites."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from support.flower import flower_task
from support.planes import FOLDER, START, Planes, Points, Vector, flat, silent, start_of, steps, training
from support.studies import tiny
from torch.utils.data import Subset

from fedseal.client import clusters
from fedseal.client.clusters import membership, models_in, open_clusters
from fedseal.client.first_model import first_arrays
from fedseal.client.records import control_bytes
from fedseal.client.task import SiteData, Split, Task
from fedseal.client.work import SiteWork
from fedseal.errors import ConfigError, LocalError, RoundAborted
from fedseal.privacy.quantize import IntegerSum
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.releases import VALUES
from fedseal.privacy.secagg.messages import MaskRequest
from fedseal.server import clustered
from fedseal.server.app import build_strategy
from fedseal.server.clustered import Clustered, block, opened
from fedseal.server.grid import SealedGrid
from fedseal.study import Training
from fedseal.study_code import load_task

SIZES = (8, 24, 12, 40, 16, 10)
ROUNDS = 4
HOW: dict[str, Any] = {"rounds": ROUNDS, "local_steps": 3, "cluster_minimum": 2}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def blocks(model: Vector) -> list[Vector]:
    return list(model.reshape(-1, 4))


def loss(site: Points, w: Vector) -> float:
    return float(np.mean((site.rows @ w - site.targets) ** 2) / 2)


def paper(planes: Planes, how: Training) -> tuple[list[list[Vector]], list[list[int]]]:
    """Ghosh et al. 2020, Algorithm 1 (model averaging), where a site may only take a model that enough sites want.

    The models after each round, and the sites of each cluster that wanted it.
    """
    models = blocks(flat(planes.start or {}))
    found, wanted = [], []
    for _ in range(how.rounds):
        best = [min(range(len(models)), key=lambda j: loss(site, models[j])) for site in planes.sites]
        counts = [best.count(j) for j in range(len(models))]
        wanted.append(counts)
        allowed = [j for j, count in enumerate(counts) if count >= how.cluster_minimum] or [int(np.argmax(counts))]
        taken = [min(allowed, key=lambda j: loss(site, models[j])) for site in planes.sites]
        following = [m.copy() for m in models]
        for j in allowed:
            mine = [i for i, choice in enumerate(taken) if choice == j]
            ways = [steps(models[j], planes.sites[i], how) - models[j] for i in mine]
            if mine:
                following[j] = models[j] + np.average(ways, axis=0, weights=[planes.sizes[i] for i in mine])
        models = following
        found.append(models)
    return found, wanted


class Sums:
    """All that the server has unmasked."""

    def __init__(self) -> None:
        self.updates: list[IntegerSum] = []
        self.counts: list[tuple[int, ...]] = []

    def __call__(self, grid: SealedGrid, strategy: Any) -> None:
        send = grid.send_and_receive

        def look(messages: Any, *, timeout: float | None = None) -> Any:
            replies = send(messages, timeout=timeout)
            if grid.last_sum is not None:
                self.updates.append(grid.last_sum)
            self.counts.append(strategy.counts)
            return replies

        grid.send_and_receive = look  # type: ignore[method-assign]


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["one small cluster", "two halves"])
def test_it_follows_the_paper(apart: bool, tmp_path: Path) -> None:
    planes, how, sums = Planes(tmp_path, SIZES), training("clustered", **HOW), Sums()
    planes.start = halves(planes) if apart else start_of(how)
    planes.train(how, watch=sums)
    models, wanted = paper(planes, how)
    assert [list(counts) for counts in sums.counts] == wanted
    for found, expected in zip(planes.models, models, strict=True):
        # A share of an eighth of the weight makes an error of the mean eight times as large.
        np.testing.assert_allclose(found, np.concatenate(expected), atol=8 * 2 * ROUNDS * (planes.error + 1e-6))
    assert sorted(wanted[0]) == ([3, 3] if apart else [1, 5])
    assert np.abs(planes.models[-1][:4] - planes.models[-1][4:]).max() > 0.1


def test_a_block_of_one_site_is_never_summed(tmp_path: Path) -> None:
    """It is known that one site is there, not which; its update is in the sum of the others, and its block is zeros."""
    planes, how, sums = Planes(tmp_path, SIZES), training("clustered", **HOW | {"rounds": 1}), Sums()
    planes.start = start_of(how)
    planes.train(how, watch=sums)
    assert sums.counts == [(5, 1)]
    (total,) = sums.updates
    assert not total.real(VALUES)[4:].any()
    assert total.real(VALUES)[:4].all()
    np.testing.assert_array_equal(planes.models[0][4:], flat({n: planes.start[block(1) + n] for n in START}))
    # All six are in the first block.
    ways = [steps(flat(START), site, how) - flat(START) for site in planes.sites]
    expected = flat(START) + np.average(ways, axis=0, weights=planes.weights)
    np.testing.assert_allclose(planes.models[0][:4], expected, atol=1e-5)


@pytest.mark.slow
def test_if_more_fall_silent_than_the_smallest_block_can_spare_nothing_is_unmasked(tmp_path: Path) -> None:
    """Three sites a cluster, at least three a sum: the round needs all six, by its signed header."""
    masked: list[int] = []

    def lose(node: int, message: Message) -> bool:
        if control_bytes(message)[3] == MaskRequest.TAG and node == 5:
            masked.append(node)
        # It says where it goes, and then it trains in vain, twice.
        return bool(masked[1:]) and node == 5 and control_bytes(message)[3] == MaskRequest.TAG

    sums = Sums()
    planes = Planes(tmp_path, SIZES, deliver=silent(lose))
    planes.start = halves(planes)
    with pytest.raises(RoundAborted):
        planes.train(training("clustered", **HOW | {"cluster_minimum": 3}), watch=sums)
    assert (len(masked), sums.updates, planes.models) == (3, [], [])
    # With two a sum one may be missing, as it is here.
    (tmp_path / "again").mkdir()
    masked.clear()
    planes = Planes(tmp_path / "again", SIZES, deliver=silent(lose))
    planes.start = halves(planes)
    planes.train(training("clustered", **HOW | {"rounds": 1}), watch=sums)
    assert [total.sites for total in sums.updates] == [5]


def halves(planes: Planes) -> dict[str, NDArray[Any]]:
    """Two models that three of the six sites each like better."""
    rng = np.random.default_rng(3)
    for _ in range(1000):
        one, two = rng.normal(size=(2, 4)).astype(np.float32)
        if sum(loss(site, one) < loss(site, two) for site in planes.sites) == 3:
            return {f"{block(j)}bias": w[:1] for j, w in enumerate((one, two))} | {
                f"{block(j)}weight": w[None, 1:] for j, w in enumerate((one, two))
            }
    raise AssertionError


counts = st.lists(st.integers(0, 12), min_size=2, max_size=4)


@given(counts, st.integers(2, 6), st.integers(0, 3), st.data())
def test_whoever_falls_silent_no_block_is_over_fewer_than_the_minimum(
    wanted: list[int], minimum: int, empty: int, data: st.DataObject
) -> None:
    sites = sum(wanted) + empty
    allowed, fewest = opened(tuple(wanted), minimum, sites)
    # Where everybody of a closed cluster goes is up to them; those without persons are in no block.
    members = [j for j, count in enumerate(wanted) for _ in range(count)]
    taken = [j if j in allowed else data.draw(st.sampled_from(allowed)) for j in members] + [-1] * empty
    silent = data.draw(st.sets(st.integers(0, max(sites - 1, 0)), max_size=max(sites - fewest, 0))) if sites else set()
    if sites - len(silent) < fewest:
        return
    left = [j for i, j in enumerate(taken) if i not in silent]
    assert all(left.count(j) >= minimum for j in allowed)


def test_one_dropout_more_would_be_too_many() -> None:
    """The bound is no wider than it has to be, and no narrower."""
    assert opened((6, 4), 3, 10) == ((0, 1), 9)
    assert opened((5, 1), 3, 6) == ((0,), 3)
    assert opened((2, 2, 2), 3, 6) == ((0,), 3)
    assert opened((4, 3), 3, 9) == ((0, 1), 9)


def test_a_site_without_persons_is_counted_nowhere(tmp_path: Path) -> None:
    """Another's update would stand alone beside it."""
    planes = Planes(tmp_path, SIZES)
    task = cast(Task, load_task("task:Plane", FOLDER))
    rows = task.data(SiteData("site-1", planes.folder / "data-1")).train
    nobody = Subset(rows, [])
    start, settings = start_of(training("clustered")), {"clusters": 2}
    assert membership(SiteWork(task, Split(nobody, rows, rows), 8), start, settings).tolist() == [0.0, 0.0]
    assert sum(membership(SiteWork(task, Split(rows, rows, rows), 8), start, settings)) == 1.0


def test_first_models_that_are_all_alike_are_moved_apart() -> None:
    task = cast(Task, load_task("task:Plane", FOLDER))

    def stream() -> Stream:
        return KeyedRandomness(1, "test").stream()

    how = training("clustered", clusters=3)
    alike = models_in(first_arrays(task, how, lambda _: dict(START), stream()), 3)
    assert len({flat(model).tobytes() for model in alike}) == 3
    again = models_in(first_arrays(task, how, lambda _: dict(START), stream()), 3)
    assert [flat(m).tolist() for m in alike] == [flat(m).tolist() for m in again]


# What is not right is said.


def test_both_sides_use_the_same_names() -> None:
    ours = (clustered.CLUSTERS, clustered.OPEN, clustered.CLUSTER_METRIC, clustered.block(3))
    assert ours == (clusters.CLUSTERS, clusters.OPEN, clusters.CLUSTER_METRIC, clusters.block(3))


def test_what_does_not_go_with_it_is_refused() -> None:
    with pytest.raises(ValidationError, match="no plan covers"):
        tiny(training={"strategy": "clustered"})
    with pytest.raises(ValidationError, match="cluster_minimum has to be at least 4"):
        tiny(privacy={"plan": "none"}, cohort={"minimum": 4}, training={"strategy": "clustered"})
    with pytest.raises(ConfigError, match="as many models"):
        models_in(START, 2)
    with pytest.raises(ConfigError, match="which clusters"):
        open_clusters({})
    made = build_strategy(training("clustered"), 4)
    assert isinstance(made, Clustered)
    with pytest.raises(LocalError, match="SealedGrid"):
        made.configure_train(1, ArrayRecord({}), ConfigRecord(), cast(Any, None))
