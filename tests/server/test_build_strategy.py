"""From a contract to a strategy: Flower's own classes, with the numbers that the contract says."""

from typing import Any

import numpy as np
import pytest
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvgM, FedProx
from pydantic import ValidationError
from support.planes import training
from support.studies import tiny

from fedseal.errors import ConfigError
from fedseal.server.app import build_strategy, task_settings
from fedseal.server.clustered import Clustered
from fedseal.server.counted import Personal
from fedseal.server.fednova import FedNova
from fedseal.server.scaffold import Scaffold
from fedseal.server.strategies import check_strategy, memory_of, restore_memory
from fedseal.simulation.simulate import Options, resolve

CLASSES: dict[str, Any] = {
    "fedavg": flower.FedAvg,
    "fedprox": flower.FedProx,
    "fedavgm": flower.FedAvgM,
    "fedadam": flower.FedAdam,
    "fedyogi": flower.FedYogi,
    "fedadagrad": flower.FedAdagrad,
    "scaffold": Scaffold,
    "fednova": FedNova,
    "ditto": Personal,
    "fedrep": Personal,
    "fedbn": Personal,
    "clustered": Clustered,
}


@pytest.mark.parametrize("name", list(CLASSES))
def test_it_is_flowers_own_class_and_asks_everyone(name: str) -> None:
    made = build_strategy(training(name), 7)
    assert type(made) is CLASSES[name]
    assert check_strategy(made) is made
    assert (made.min_train_nodes, made.min_available_nodes, made.fraction_evaluate) == (7, 7, 0.0)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_without_a_word_it_has_the_papers_values(name: str) -> None:
    made: Any = build_strategy(training(name), 4)
    beta = 0.0 if name == "fedadagrad" else 0.9
    assert (made.eta, made.eta_l, made.beta_1, made.tau) == (0.1, 0.1, beta, 1e-3)
    if name != "fedadagrad":
        assert made.beta_2 == 0.99


def test_what_the_contract_says_arrives() -> None:
    yogi: Any = build_strategy(training("fedyogi", beta_1=0.5, beta_2=0.6, tau=0.7, server_learning_rate=0.8), 4)
    assert (yogi.beta_1, yogi.beta_2, yogi.tau, yogi.eta) == (0.5, 0.6, 0.7, 0.8)
    momentum = build_strategy(training("fedavgm", server_momentum=0.3), 4)
    assert isinstance(momentum, FedAvgM)
    assert (momentum.server_momentum, momentum.server_learning_rate) == (0.3, 1.0)
    proximal = build_strategy(training("fedprox", proximal_mu=0.2), 4)
    assert isinstance(proximal, FedProx)
    assert proximal.proximal_mu == 0.2
    assert task_settings(training("fedavg", batch_size=4), None)["batch-size"] == 4
    assert "batch-size" not in task_settings(training("fedavg"), None)


def test_fedavgms_memory_is_a_list_in_the_models_order() -> None:
    old, new = FedAvgM(server_momentum=0.9), FedAvgM(server_momentum=0.9)
    assert memory_of(old) == {}
    old.momentum_vector = [np.full(2, float(i)) for i in range(12)]
    memory = memory_of(old)
    assert memory is not None
    # As a checkpoint has them: ordered by name, in which 10 comes before 2.
    restore_memory(new, dict(sorted(memory.items())))
    assert new.momentum_vector is not None
    assert [int(a[0]) for a in new.momentum_vector] == list(range(12))


def test_batches_go_with_plan_none_only() -> None:
    tiny(privacy={"plan": "none"}, training={"batch_size": 4})
    with pytest.raises(ValidationError, match="batch_size goes with plans none and client"):
        tiny(training={"batch_size": 4})


def test_an_option_that_turns_privacy_on_says_that_batches_do_not_go_with_it() -> None:
    study = tiny(privacy={"plan": "none"}, training={"batch_size": 4})
    with pytest.raises(ConfigError, match="batch_size goes with plans none and client"):
        resolve(study.contract, Options(epsilon=3.0))
