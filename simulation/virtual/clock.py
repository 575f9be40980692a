"""Virtual time of a whole run: attempt after attempt, for the modelled protocol or the real one."""

from collections.abc import Callable, Mapping

import numpy as np

from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.grid import Deliver, answer_of
from fedseal.simulation.virtual.delivery import timed_delivery
from fedseal.simulation.virtual.fleet import Fleet, Reals
from fedseal.simulation.virtual.rounds import UNDISTURBED, Disturbance, Moment, Quorum, RoundTiming, plan_round
from fedseal.simulation.virtual.sizes import ByFormula


class VirtualClock:
    """Times every attempt that a run makes, each where the one before ended.

    Site n of a roster, which counts from 1, is site n - 1 of the fleet.

    Args:
        fleet: the sites' devices.
        examples: how many examples each site of the fleet works through in a round, or one number for all.
        seed: the scenario's.
        task: bytes of the model that is sent along.
        disturbance: what is made to go wrong in a round, by its number.
        start: the virtual second at which the run begins.
    """

    def __init__(
        self,
        fleet: Fleet,
        examples: float | Reals,
        seed: int,
        *,
        task: int,
        disturbance: Callable[[int], Disturbance] = lambda _: UNDISTURBED,
        start: float = 0.0,
    ) -> None:
        self._fleet, self._examples, self._seed, self._task = fleet, examples, seed, task
        self._disturbance = disturbance
        self._timings: dict[bytes, RoundTiming] = {}
        self.now = start

    @property
    def timings(self) -> tuple[RoundTiming, ...]:
        """All attempts so far, in order."""
        return tuple(self._timings.values())

    def timing(self, header: Header) -> RoundTiming:
        """The timing of an attempt; the clock goes on when it is asked for the first time."""
        key = header.digest()
        if key not in self._timings:
            cohort = np.array(header.cohort, dtype=np.intp) - 1
            work = self._examples if isinstance(self._examples, float | int) else self._examples[cohort]
            timing = plan_round(
                self._fleet,
                cohort,
                work,
                ByFormula(header, self._task),
                Quorum.of(header, self._wanted(header)),
                # By the release, not by the attempt's number alone: a round may be begun anew after a crash.
                Moment(header.fl_round, self._seed, self.now, header.release_seq * ATTEMPTS + header.attempt),
                self._disturbance(header.fl_round).of_attempt(header.attempt),
            )
            self._timings[key] = timing
            self.now += timing.seconds
        return self._timings[key]

    def losses(self, header: Header) -> dict[int, Stage]:
        """Who falls silent in an attempt, by the roster's numbers: what `engine.modelled.train_modelled` asks for."""
        return {site + 1: stage for site, stage in self.timing(header).losses().items()}

    def delivery(self, numbers: Mapping[int, int], deliver: Deliver = answer_of) -> Deliver:
        """How `LocalGrid` delivers messages so that the real protocol keeps the clock's time.

        Args:
            numbers: by Flower node id the roster's number of its site.
            deliver: how messages are delivered otherwise.
        """
        return timed_delivery(self.timing, {node: number - 1 for node, number in numbers.items()}, deliver)

    def _wanted(self, header: Header) -> int | None:
        """With over-commitment, how many vectors end the exchange in which sites train."""
        share = self._fleet.devices.over_commit
        return None if share == 1.0 else max(header.minimum, round(len(header.cohort) / share))


# More than a release has attempts.
ATTEMPTS = 1 << 16
