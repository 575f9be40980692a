"""Every strategy against a slow twin in doubles that follows its paper, through the whole sealed federation.

Flower's FedAdam, FedYogi and FedAdagrad depart from Reddi et al. 2021 in where the second moment begins, and FedAdam in
a bias correction besides: they are compared with what they document, and the papers' own values are shown to be what
they give where the departure is taken back.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.serverapp.strategy import FedAdam
from support.flower import flower_task
from support.planes import START, UNEQUAL, Planes, Points, Vector, flat, steps, training

from fedseal.server.app import build_strategy
from fedseal.study import Training

ROUNDS = 5
# With a tau of this size an error of the mean grows at most eta / tau = 2 times in a round.
ADAPTIVE = {"tau": 0.05, "server_learning_rate": 0.1}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


Server = Callable[[Training, int, Vector, dict[str, Any]], Vector]


def averaging(how: Training, number: int, way: Vector, memory: dict[str, Any]) -> Vector:
    """McMahan et al. 2017, Algorithm 1: the weighted mean of the sites' models."""
    return way


def momentum(how: Training, number: int, way: Vector, memory: dict[str, Any]) -> Vector:
    """Hsu, Qi and Brown 2019, section 4.3: v <- beta v + dw, w <- w - v, with dw = -way."""
    memory["v"] = how.server_momentum * memory.get("v", 0.0) - way
    return np.asarray(-how.server_rate * memory["v"])


def adaptive(
    second: Callable[[Training, Vector, Vector], Vector], begin: float, corrected: bool
) -> Callable[[Training, int, Vector, dict[str, Any]], Vector]:
    """Reddi et al. 2021, Algorithm 2, beginning with v_{-1} = begin. The paper asks for begin >= tau^2 and corrects
    nothing; Flower begins with 0, and its FedAdam is ``corrected``.
    """

    def server(how: Training, number: int, way: Vector, memory: dict[str, Any]) -> Vector:
        beta = how.momentum
        memory["m"] = beta * memory.get("m", 0.0) + (1 - beta) * way
        memory["v"] = second(how, np.asarray(memory.get("v", np.full(way.shape, begin))), way**2)
        eta = how.server_rate
        if corrected:
            # Kingma and Ba 2015, with t + 1 in round t.
            eta *= np.sqrt(1 - how.beta_2 ** (number + 1)) / (1 - beta ** (number + 1))
        return np.asarray(eta * memory["m"] / (np.sqrt(memory["v"]) + how.tau))

    return server


def adagrad(how: Training, v: Vector, square: Vector) -> Vector:
    return v + square


def adam(how: Training, v: Vector, square: Vector) -> Vector:
    return how.beta_2 * v + (1 - how.beta_2) * square


def yogi(how: Training, v: Vector, square: Vector) -> Vector:
    return np.asarray(v - (1 - how.beta_2) * square * np.sign(v - square))


def twin(planes: Planes, how: Training, server: Server, mu: float = 0.0) -> list[Vector]:
    """The models after each round: sites' steps, their weighted mean way, the server's step."""
    x, memory, models = flat(START), dict[str, Any](), []
    for number in range(1, how.rounds + 1):
        ways = [steps(x, site, how, mu=mu) - x for site in planes.sites]
        x = x + server(how, number, np.average(ways, axis=0, weights=planes.weights), memory)
        models.append(x)
    return models


def distance(one: list[Vector], other: list[Vector]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True))


def tolerance(planes: Planes, growth: float = 1.0) -> float:
    """The quantiser's stated error of a round's mean and the model's own precision, for so many rounds.

    A site's steps do not increase it; ``growth`` says how much the server's may.
    """
    largest = max(float(np.abs(model).max()) for model in planes.models)
    return growth * ROUNDS * (planes.error + 8 * float(np.spacing(np.float32(largest))))


CASES: dict[str, tuple[dict[str, Any], Server, float]] = {
    "fedavg": ({}, averaging, 1.0),
    "fedprox": ({"proximal_mu": 0.7}, averaging, 1.0),
    "fedavgm": ({"server_momentum": 0.8}, momentum, 1 / (1 - 0.8)),
    "fedadam": (ADAPTIVE, adaptive(adam, 0.0, corrected=True), 2.0),
    "fedyogi": (ADAPTIVE, adaptive(yogi, 0.0, corrected=False), 2.0),
    "fedadagrad": (ADAPTIVE, adaptive(adagrad, 0.0, corrected=False), 2.0),
}


@pytest.mark.quick("fedavg")
@pytest.mark.parametrize("name", list(CASES))
def test_it_follows_its_twin_within_the_stated_error(name: str, tmp_path: Path) -> None:
    changes, server, growth = CASES[name]
    how = training(name, rounds=ROUNDS, **changes)
    planes = Planes(tmp_path, UNEQUAL)
    planes.train(how)
    mu = how.proximal_mu if name == "fedprox" else 0.0
    assert type(build_strategy(how, 4)).__module__.startswith("flwr.")
    assert len(planes.models) == ROUNDS
    assert 0 < planes.error < 1e-6
    assert distance(planes.models, twin(planes, how, server, mu)) <= tolerance(planes, growth)
    # The bound is about something: no other strategy's twin is anywhere near.
    others = [twin(planes, how, another) for other, (_, another, _) in CASES.items() if another is not server]
    others.append(twin(planes, how, server, mu + 0.1))
    assert all(distance(planes.models, other) > 50 * tolerance(planes, growth) for other in others)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "second"), [("fedyogi", yogi), ("fedadagrad", adagrad), ("fedadam", adam)])
def test_with_its_departure_taken_back_flowers_class_is_the_papers(name: str, second: Any, tmp_path: Path) -> None:
    """Algorithm 2 begins with v >= tau^2; given that, and no bias correction, the very same models come out."""
    how = training(name, rounds=ROUNDS, **ADAPTIVE, bias_correction=False)
    paper = adaptive(second, how.tau**2, corrected=False)
    strategy: Any = build_strategy(how, 4)
    strategy.v_t = {n: np.full(a.shape, how.tau**2, a.dtype) for n, a in START.items()}
    planes = Planes(tmp_path)
    planes.train(how, strategy=strategy)
    assert distance(planes.models, twin(planes, how, paper)) <= tolerance(planes, 2.0)


def test_what_the_departures_are_worth() -> None:
    """With the default values, in the first round: a correction that is a round ahead makes FedAdam's step shorter."""
    how, way = training("fedadam", rounds=1), np.full(4, 0.02)
    ratios = [
        flowers(how, 1, way, {})[0] / adaptive(second, how.tau**2, corrected=False)(how, 1, way, {})[0]
        for second, flowers in ((adam, CASES["fedadam"][1]), (yogi, CASES["fedyogi"][1]))
    ]
    assert ratios == pytest.approx([0.80, 1.08], abs=0.005)
    defaults = FedAdam()
    assert (defaults.beta_1, defaults.beta_2, defaults.tau) == (how.momentum, how.beta_2, how.tau)


@pytest.mark.slow
@pytest.mark.parametrize("steps_a_round", [2, 7])
def test_batches_of_a_fresh_order_for_each_pass(steps_a_round: int, tmp_path: Path) -> None:
    """Every person once a pass, the last batch smaller, and the mean over each batch: FedAvg with its own batches."""
    how = training("fedavg", rounds=2, batch_size=6, local_steps=steps_a_round)
    planes = Planes(tmp_path, UNEQUAL)
    planes.train(how)
    x = flat(START)
    for number in (1, 2):
        ways = []
        for index, site in enumerate(planes.sites, start=1):
            stream = planes.federation.site(index).identity.randomness().stream
            w, order = x.copy(), np.zeros(0, dtype=int)
            for step in range(steps_a_round):
                if not len(order):
                    order = stream("sampling", step, number, 0).permutation(len(site.targets))
                lot, order = order[:6], order[6:]
                w = w - how.learning_rate * Points(site.rows[lot], site.targets[lot]).gradient(w)
            ways.append(w - x)
        x = x + np.average(ways, axis=0, weights=planes.weights)
        assert np.abs(planes.models[number - 1] - x).max() <= tolerance(planes)
