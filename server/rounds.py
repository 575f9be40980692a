"""The round loop: Flower's public strategy hooks, a checkpoint after every round, and a way to go on from the last one.

`Strategy.start` cannot resume, stop early or checkpoint; the hooks it calls can be called from here just as well.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fedseal.errors import ConfigError, RoundAborted
from fedseal.privacy.adaptive import ClipStep
from fedseal.privacy.secagg.assurance import Assurance
from fedseal.privacy.secagg.messages import Stage
from fedseal.server.contents import TaskSetting
from fedseal.server.grid import AveragingGrid
from fedseal.server.means import clipped_share
from fedseal.server.store import Checkpoint
from fedseal.server.strategies import memory_of, restore_memory

Arrays = dict[str, NDArray[Any]]
# In a checkpoint: the next round's clip norm, where it adapts.
CLIP_KEY = "clip-norm"


@dataclass(frozen=True, slots=True)
class StageCost:
    """Seconds, and bytes to and from all sites, of one exchange."""

    seconds: float
    bytes_down: int
    bytes_up: int


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """One finished round: all that the server knows about it. ``model`` is the model after it, ``assurance`` what the
    sum's graph is sure of, ``clip`` what was counted where the clip norm adapts.
    """

    number: int
    seconds: float
    sites: int
    attempts: int
    weight: float
    clipped: float
    metrics: Mapping[str, float | list[float]]
    stages: Mapping[str, StageCost]
    model: Arrays
    assurance: Assurance | None = None
    clip: ClipStep | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rounds, with which settings for the sites."""

    rounds: int
    settings: Mapping[str, TaskSetting]
    timeout: float = 3600.0


def run_rounds(
    grid: AveragingGrid,
    strategy: FedAvg,
    initial: Arrays,
    plan: Plan,
    observe: Callable[[RoundRecord], None],
    finish: Callable[[Arrays], None] = lambda _: None,
) -> Arrays:
    """Train, going on from the run's checkpoint if there is one, and close the run.

    Args:
        grid: the sealed grid; its store holds the checkpoints.
        strategy: a fresh strategy of the class the run began with.
        initial: the model to begin with.
        plan: rounds and settings.
        observe: told of every round, after its checkpoint is on disk.
        finish: what the run releases about the final model, before it is closed.

    Returns:
        The final model.

    Raises:
        RoundAborted: a round failed with all its retries. The checkpoint of the round before stands; the run can be
            resumed.
    """
    model, done = _resume(grid, strategy, initial)
    for number in range(done + 1, plan.rounds + 1):
        start = time.monotonic()
        settings = ConfigRecord(dict(plan.settings))
        messages = strategy.configure_train(number, _record(model), settings, grid)
        replies = list(grid.send_and_receive(messages, timeout=plan.timeout))
        arrays, metrics = strategy.aggregate_train(number, replies)
        if arrays is None:
            raise RoundAborted(f"the strategy asked no site to train in round {number}")
        # FedOpt's strategies turn float32 into float64 on the way; the model keeps its own dtypes.
        model = {name: arrays[name].numpy().astype(before.dtype, copy=False) for name, before in model.items()}
        memory = memory_of(strategy)
        kept = dict(plan.settings) if grid.clip_norm is None else {**plan.settings, CLIP_KEY: grid.clip_norm}
        grid.store.save(grid.run_id, Checkpoint(number, model, type(strategy).__name__, memory, kept))
        observe(_describe(grid, number, time.monotonic() - start, metrics, model))
    finish(model)
    grid.close(rounds=plan.rounds, model=model)
    return model


def _resume(grid: AveragingGrid, strategy: FedAvg, initial: Arrays) -> tuple[Arrays, int]:
    """The model and round to go on from."""
    checkpoint = grid.store.load(grid.run_id)
    if checkpoint is None:
        return initial, 0
    if checkpoint.strategy != type(strategy).__name__ or checkpoint.memory is None:
        raise ConfigError(
            f"the run was begun with {checkpoint.strategy} and cannot be resumed with {type(strategy).__name__}"
        )
    restore_memory(strategy, checkpoint.memory)
    if grid.clip_norm is not None:
        # Sites hold the server to it: only from there do they follow.
        grid.clip_norm = float(checkpoint.settings.get(CLIP_KEY, grid.clip_norm))
    # safetensors orders by name; the model's own order is what the sites were sent before.
    return {name: checkpoint.model[name] for name in initial}, checkpoint.fl_round


def _record(model: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in model.items()})


def _describe(
    grid: AveragingGrid, number: int, seconds: float, metrics: MetricRecord | None, model: Arrays
) -> RoundRecord:
    account, total = grid.last_account, grid.last_sum
    stages = {} if account is None else account.stages
    return RoundRecord(
        number=number,
        seconds=seconds,
        sites=0 if total is None else total.sites,
        attempts=0 if account is None else account.attempts,
        weight=0.0 if total is None else total.weight,
        clipped=0.0 if total is None else clipped_share(total),
        metrics={name: _plain(value) for name, value in (metrics or {}).items()},
        stages={Stage(s).label: StageCost(t.seconds, t.down, t.up) for s, t in stages.items()},
        model=model,
        assurance=None if account is None else account.assurance,
        clip=grid.last_clip,
    )


def _plain(value: Any) -> float | list[float]:
    return [float(v) for v in value] if isinstance(value, list) else float(value)
