"""FedNova on sealed sums against the paper's algorithm in doubles, at sites whose numbers of local steps differ."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError
from support.flower import flower_task
from support.planes import FOLDER, START, UNEQUAL, Planes, Points, Vector, flat, lots, training
from support.studies import tiny

from fedseal.client import local_steps
from fedseal.client.site_round import Assignment, contribute
from fedseal.client.task import SiteData, Task
from fedseal.client.work import SiteWork
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.plan import SharedSkellam, Unit
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.server import fednova
from fedseal.server.app import build_strategy, task_settings
from fedseal.study import Training
from fedseal.study_code import load_task

ROUNDS = 5
PASSES: dict[str, Any] = {"local_epochs": 2, "batch_size": 4, "rounds": ROUNDS, "learning_rate": 0.05}
# By the sizes 8, 24, 12 and 40.
STEPS = (4, 12, 6, 20)


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


def stepped(planes: Planes, x: Vector, site: int, how: Training, number: int) -> tuple[Vector, int]:
    """y_i and tau_i of one round."""
    rows, w, taken = planes.sites[site - 1], x.copy(), 0
    for lot in lots(planes, site, how, number):
        w = w - how.learning_rate * Points(rows.rows[lot], rows.targets[lot]).gradient(w)
        taken += 1
    return w, taken


def paper(planes: Planes, how: Training) -> list[Vector]:
    """Wang et al. 2020, equation 8: x <- x - eta tau_eff sum_i p_i d_i with d_i = (x - y_i) / tau_i."""
    x, p, models = flat(START), planes.weights, []
    for number in range(1, how.rounds + 1):
        done = [stepped(planes, x, site, how, number) for site in range(1, len(planes.sizes) + 1)]
        d = [(x - y) / tau for y, tau in done]
        effective = sum(share * tau for share, (_, tau) in zip(p, done, strict=True))
        x = x - how.server_rate * effective * np.average(d, axis=0, weights=p)
        models.append(x)
    return models


def tolerance(planes: Planes) -> float:
    """Quantisation and float32, the received model and the mean at the size of tau_eff over the reference."""
    largest = max(float(np.abs(model).max()) for model in planes.models)
    return 3 * ROUNDS * (planes.error + 8 * float(np.spacing(np.float32(largest))))


@pytest.mark.quick("0.5")
@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_it_follows_the_paper_where_steps_differ(rate: float, tmp_path: Path) -> None:
    planes, how = Planes(tmp_path, UNEQUAL), training("fednova", server_learning_rate=rate, **PASSES)
    assert tuple(how.steps_over(size) for size in UNEQUAL) == STEPS
    planes.train(how)
    for found, expected in zip(planes.models, paper(planes, how), strict=True):
        assert np.abs(found - expected).max() <= tolerance(planes)
    # The bound is about something: FedAvg of the same steps comes out elsewhere.
    x = flat(START)
    ways = [stepped(planes, x, site, how, 1)[0] - x for site in (1, 2, 3, 4)]
    assert np.abs(planes.models[0] - x - rate * np.average(ways, axis=0, weights=planes.weights)).max() > 1e-2


@pytest.mark.slow
def test_with_equal_steps_it_is_fedavg(tmp_path: Path) -> None:
    models = {}
    for name in ("fedavg", "fednova"):
        (tmp_path / name).mkdir()
        planes = Planes(tmp_path / name, UNEQUAL)
        planes.train(training(name, rounds=3))
        models[name] = planes.models
    for one, other in zip(models["fedavg"], models["fednova"], strict=True):
        np.testing.assert_allclose(one, other, atol=3 * tolerance(planes))


def test_a_site_that_holds_more_than_the_roster_says_takes_at_most_twice_the_largest_ones_steps(tmp_path: Path) -> None:
    """Where its number would be cut, it takes as many steps as it may say."""
    planes, how = Planes(tmp_path, UNEQUAL), training("fednova", **PASSES | {"rounds": 1})
    planes.train(how, strategy=build_strategy(how, 4, dict.fromkeys((1, 2, 3, 4), 8)))
    x, done = flat(START), []
    for site in (1, 2, 3, 4):
        own, rows = lots(planes, site, how, 1), planes.sites[site - 1]
        y = x.copy()
        # Twice the four steps of a site of eight.
        for lot in own[:8]:
            y = y - how.learning_rate * Points(rows.rows[lot], rows.targets[lot]).gradient(y)
        done.append(((y - x) / min(len(own), 8), min(len(own), 8)))
    effective = np.average([tau for _, tau in done], weights=planes.weights)
    way = effective * np.average([d for d, _ in done], axis=0, weights=planes.weights)
    np.testing.assert_allclose(planes.models[0], x + way, atol=tolerance(planes))


CLIENT = SharedSkellam(
    unit=int(Unit.SITE), clip_norm=0.5, resolution=1 << 14, length=4, variance=1 << 26, releases=8, retries=1
)


def test_under_plan_client_steps_are_counted_by_the_rosters_persons(tmp_path: Path) -> None:
    """No number rides along there: site and server count the same. What is clipped is what comes out here."""
    planes, how = Planes(tmp_path, UNEQUAL), training("fednova", **PASSES)
    strategy = build_strategy(how, 4, {1: 8, 2: 16, 3: 24, 4: 32})
    assert isinstance(strategy, fednova.FedNova)
    # Steps 4, 8, 12 and 16, of which 10 is the mean; by persons of the sites in the sum.
    assert strategy._public([1, 4]) == pytest.approx((8 * 4 + 32 * 16) / 40 / 10)
    task = cast(Task, load_task("task:Plane", FOLDER))
    split = task.data(SiteData("site-2", tmp_path / "data-2"))
    settings = {**task_settings(how, None), fednova.NOVA_STEPS: 10, fednova.NOVA_MOST: 32}
    done = contribute(SiteWork(task, split, 16), Assignment(dict(START), settings, CLIENT, 0.5), streams, None)
    assert (done.metrics, done.memory) == (None, None)
    order = [streams("sampling", step).permutation(24) for step in (0, 6)]
    own, y = [o[i : i + 4] for o in order for i in range(0, 24, 4)], flat(START)
    # It holds 24 persons and passes over them in six batches a pass, but takes the steps of the roster's 16.
    for lot in own[:8]:
        y = y - how.learning_rate * Points(planes.sites[1].rows[lot], planes.sites[1].targets[lot]).gradient(y)
    np.testing.assert_allclose(flat(done.arrays), flat(START) + 10 / 8 * (y - flat(START)), atol=1e-6)


def streams(*purpose: str | int) -> Stream:
    return KeyedRandomness(7, "test").stream(*purpose)


def test_both_sides_use_the_same_names() -> None:
    ours = (fednova.NOVA_STEPS, fednova.NOVA_MOST, fednova.NOVA_METRIC)
    assert ours == (local_steps.NOVA_STEPS, local_steps.NOVA_MOST, local_steps.NOVA_METRIC)


def test_it_works_on_sealed_sums_only() -> None:
    with pytest.raises(LocalError, match="SealedGrid"):
        build_strategy(training("fednova"), 4).aggregate_train(1, [])


def test_passes_need_to_be_counted_in_batches_over_persons() -> None:
    with pytest.raises(ConfigError, match="nobody says how many"):
        build_strategy(training("fednova", **PASSES), 4)
    with pytest.raises(ValidationError, match="local_epochs counts passes in batches"):
        training("fednova", local_epochs=2)
    with pytest.raises(ValidationError, match="scaffold needs as many steps"):
        training("scaffold", local_epochs=2, batch_size=4)
    with pytest.raises(ValidationError, match="plan distributed has none"):
        tiny(privacy={"plan": "distributed"}, training={"strategy": "fednova"})
