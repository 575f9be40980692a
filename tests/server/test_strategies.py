"""Strategies that need single replies are refused with the reason; the exact classes that need none are taken."""

from typing import Any

import pytest
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAdam, FedAvg, Strategy

from fedseal.errors import ConfigError
from fedseal.server.strategies import SUM_ONLY, check_strategy, memory_of, restore_memory

LOOKS_AT_REPLIES = ("FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum", "Bulyan", "QFedAvg", "FedXgbBagging")


class Renamed(FedAvg):
    """A subclass may override anything, so it has to say that it does not."""


class SumOnly(FedAvg):
    """Says so."""

    sum_only = True


def made(kind: type[Strategy]) -> Strategy:
    arguments: dict[str, Any] = {"num_malicious_nodes": 1} if kind.__name__ in ("Krum", "MultiKrum", "Bulyan") else {}
    if kind.__name__ == "MultiKrum":
        arguments["num_nodes_to_select"] = 2
    if kind.__name__ == "QFedAvg":
        arguments["client_learning_rate"] = 0.1
    return kind(**arguments)


@pytest.mark.parametrize("kind", SUM_ONLY)
def test_strategies_of_the_mean_are_taken(kind: type[FedAvg]) -> None:
    strategy = kind(proximal_mu=0.1) if kind.__name__ == "FedProx" else kind()  # type: ignore[call-arg]
    assert check_strategy(strategy) is strategy


@pytest.mark.parametrize("name", LOOKS_AT_REPLIES)
def test_strategies_of_single_replies_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} looks at single replies") as caught:
        check_strategy(made(getattr(flower, name)))
    assert "sum_only" in caught.value.next_step


def test_a_privacy_wrapper_is_refused() -> None:
    wrapper = flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 1.0, 1.0, 3)
    with pytest.raises(ConfigError, match="looks at single replies"):
        check_strategy(wrapper)


def test_a_subclass_has_to_declare_itself() -> None:
    with pytest.raises(ConfigError, match="Renamed"):
        check_strategy(Renamed())
    assert check_strategy(SumOnly())


@pytest.mark.parametrize("argument", ["train_metrics_aggr_fn", "evaluate_metrics_aggr_fn"])
def test_a_custom_metrics_function_is_refused(argument: str) -> None:
    def first(records: list[RecordDict], key: str) -> MetricRecord:
        return MetricRecord()

    strategy = (
        FedAvg(train_metrics_aggr_fn=first) if argument.startswith("train") else FedAvg(evaluate_metrics_aggr_fn=first)
    )
    with pytest.raises(ConfigError, match="one averaged reply"):
        check_strategy(strategy)


def test_memory_goes_round() -> None:
    import numpy as np

    old, new = FedAdam(), FedAdam()
    old.m_t, old.v_t = {"w": np.arange(3.0)}, {"w": np.ones(3)}
    memory = memory_of(old)
    assert memory is not None
    restore_memory(new, memory)
    assert new.m_t is not None
    assert new.m_t["w"].tolist() == [0, 1, 2]
    assert memory_of(FedAvg()) == {}
    assert memory_of(SumOnly()) is None
    with pytest.raises(ConfigError, match="another strategy"):
        restore_memory(FedAvg(), memory)
