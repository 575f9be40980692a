"""A scenario's virtual clock: every attempt at a round takes what its sites' devices make it take, and whoever is late
at an exchange is not in the sum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.virtual.fleet import Fleet
from fedseal.simulation.virtual.rounds import Moment, Quorum, RoundTiming, plan_round
from fedseal.simulation.virtual.sizes import ByFormula
from fedseal.study import Training


def examples_of(training: Training, persons: NDArray[np.intp]) -> NDArray[np.float64]:
    """How many examples each site works through in a round, shape (sites,): steps times the expected batch."""
    batch = training.sample_rate * persons if training.batch_size is None else np.minimum(training.batch_size, persons)
    examples: NDArray[np.float64] = training.local_steps * np.asarray(batch, dtype=np.float64)
    return examples


@dataclass(slots=True)
class Clock:
    """The clock of one training.

    Args:
        fleet: the devices of all sites of the world.
        places: of the training's sites, in the roster's order, their numbers in the fleet.
        examples: what each of them works through in a round, shape (sites,).
        model_bytes: of the model that is sent along.
        seed: the training's.
        now: virtual seconds at which it begins.
    """

    fleet: Fleet
    places: NDArray[np.intp]
    examples: NDArray[np.float64]
    model_bytes: int
    seed: int
    now: float = 0.0
    # Seconds by round, all attempts at it together.
    seconds: dict[int, float] = field(default_factory=dict)

    def attempt(self, header: Header) -> RoundTiming:
        """One attempt in virtual time; the clock stands where it ends."""
        cohort = np.array(header.cohort, dtype=np.intp) - 1
        timing = plan_round(
            self.fleet,
            self.places[cohort],
            self.examples[cohort],
            ByFormula(header, self.model_bytes),
            Quorum.of(header),
            Moment(header.fl_round, self.seed, self.now, header.attempt),
        )
        self.now += timing.seconds
        self.seconds[header.fl_round] = self.seconds.get(header.fl_round, 0.0) + timing.seconds
        return timing

    def losses(self, header: Header) -> Mapping[int, Stage]:
        """Who falls silent in an attempt, and at which exchange first, by number in the roster."""
        numbers = {int(place): number for number, place in enumerate(self.places, start=1)}
        return {numbers[place]: stage for place, stage in self.attempt(header).missed().items()}
