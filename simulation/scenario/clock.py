"""A training under a scenario's devices and faults: what it takes on the virtual clock, and who falls silent in it."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedseal.simulation.faults.draws import faults_of_round
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.virtual.clock import VirtualClock
from fedseal.simulation.virtual.fleet import Fleet
from fedseal.study import Training


def examples_of(training: Training, persons: NDArray[np.intp]) -> NDArray[np.float64]:
    """How many examples each site works through in a round, shape (sites,): steps times the expected batch."""
    batch = training.sample_rate * persons if training.batch_size is None else np.minimum(training.batch_size, persons)
    steps = np.array([training.steps_over(int(count)) for count in persons], dtype=np.float64)
    examples: NDArray[np.float64] = steps * np.asarray(batch, dtype=np.float64)
    return examples


def part_of(fleet: Fleet, places: NDArray[np.intp]) -> Fleet:
    """The devices of some sites, in their order; the fleet itself if these are all."""
    if len(places) == fleet.sites:
        return fleet
    return replace(
        fleet,
        compute=fleet.compute[places],
        down=fleet.down[places],
        up=fleet.up[places],
        latency=fleet.latency[places],
        row=fleet.row[places] if len(fleet.row) else fleet.row,
        phase=fleet.phase[places] if len(fleet.phase) else fleet.phase,
    )


def training_clock(
    fleet: Fleet,
    examples: NDArray[np.float64],
    names: tuple[str, ...],
    faults: tuple[Fault, ...],
    *,
    seed: int,
    model_bytes: int,
    start: float,
) -> VirtualClock:
    """The clock of one training.

    Args:
        fleet: the devices of its sites.
        examples: what each of them works through in a round, shape (sites,).
        names: of its sites.
        faults: the scenario's.
        seed: the training's.
        model_bytes: of the model that is sent along.
        start: virtual seconds at which it begins.
    """
    return VirtualClock(
        fleet,
        examples,
        seed,
        task=model_bytes,
        # Statistics before the first round have the number 0.
        disturbance=lambda number: faults_of_round(faults if number else (), names, max(number, 1), seed).disturbance(),
        start=start,
    )


def seconds_by_round(clock: VirtualClock) -> Mapping[int, float]:
    """Virtual seconds of every round, all attempts at it together."""
    found: dict[int, float] = {}
    for timing in clock.timings:
        found[timing.moment.number] = found.get(timing.moment.number, 0.0) + timing.seconds
    return found
