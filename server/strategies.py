"""Which strategies work on sealed sums, and what of them has to be kept to go on after a crash.

A Grid cannot see what a strategy does with replies. On the one averaged reply of a sealed round, Krum, medians,
trimmed means, Flower's own privacy wrappers and custom aggregation functions would run without complaint and be
wrong; they are refused with the reason.
"""

from collections.abc import Mapping
from typing import Any

from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedProx, FedYogi, Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.server.clustered import Clustered
from fedseal.server.counted import Personal
from fedseal.server.fedadam import UncorrectedFedAdam
from fedseal.server.fednova import FedNova
from fedseal.server.scaffold import Scaffold

# Exact types: a subclass may override aggregate_train.
SUM_ONLY: tuple[type[Strategy], ...] = (FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedAdagrad)

# What these strategies remember between rounds, each a dictionary of arrays by name, or None. Others cannot be resumed.
# FedAvgM also keeps the model it made last, which is the one that it is given next.
MEMORY: Mapping[type[Strategy], tuple[str, ...]] = {
    FedAvg: (),
    FedProx: (),
    FedAvgM: ("momentum_vector",),
    FedAdam: ("m_t", "v_t"),
    FedYogi: ("m_t", "v_t"),
    FedAdagrad: ("m_t", "v_t"),
    UncorrectedFedAdam: ("m_t", "v_t"),
    Scaffold: ("held", "tally"),
    FedNova: (),
    Personal: ("tally",),
    Clustered: (),
}
# Of these, lists of arrays in the model's order.
LISTS = ("momentum_vector",)

ADVICE = (
    "Use FedAvg, FedProx, FedAvgM, FedAdam, FedYogi or FedAdagrad as they are, fedseal's Scaffold, FedNova, Personal "
    "or Clustered, or a class of your own that sets sum_only = True because its aggregate_train needs nothing but the "
    "weighted mean."
)


def check_strategy(strategy: Strategy) -> FedAvg:
    """The strategy, if it can work on one weighted mean.

    Raises:
        ConfigError: it cannot, or nobody says that it can.
    """
    kind = type(strategy)
    if kind not in SUM_ONLY and getattr(kind, "sum_only", False) is not True:
        raise ConfigError(
            f"{kind.__name__} looks at single replies, and under secure aggregation there are none", next_step=ADVICE
        )
    if not isinstance(strategy, FedAvg):
        raise ConfigError(f"{kind.__name__} is not built on Flower's FedAvg", next_step=ADVICE)
    functions = (strategy.train_metrics_aggr_fn, strategy.evaluate_metrics_aggr_fn)
    if any(f is not aggregate_metricrecords for f in functions):
        raise ConfigError(
            "a custom metrics aggregation function would see one averaged reply instead of one for each site",
            next_step="Declare the metrics and their ranges; their weighted means arrive ready.",
        )
    return strategy


def memory_of(strategy: Strategy) -> dict[str, NDArray[Any]] | None:
    """The arrays a strategy remembers, by ``attribute/name``; None for a class whose memory is not known."""
    if type(strategy) not in MEMORY:
        return None
    found: dict[str, NDArray[Any]] = {}
    for attribute in MEMORY[type(strategy)]:
        kept = getattr(strategy, attribute) or {}
        for name, array in enumerate(kept) if attribute in LISTS else kept.items():
            found[f"{attribute}/{name}"] = array
    return found


def restore_memory(strategy: Strategy, memory: Mapping[str, NDArray[Any]]) -> None:
    """Give a fresh strategy the memory of a former one of the same class."""
    attributes: dict[str, dict[str, NDArray[Any]]] = {}
    for path, array in memory.items():
        attribute, _, name = path.partition("/")
        attributes.setdefault(attribute, {})[name] = array
    for attribute, arrays in attributes.items():
        if attribute not in MEMORY.get(type(strategy), ()):
            raise ConfigError(f"a checkpoint of another strategy than {type(strategy).__name__}")
        ordered = [arrays[name] for name in sorted(arrays, key=int)] if attribute in LISTS else None
        setattr(strategy, attribute, arrays if ordered is None else ordered)
