"""One round in virtual time: who answers which exchange when, who misses which, what it takes and what it moves.

A site's answer to an exchange takes

    2 * latency + 8 * bytes down / bandwidth down + 8 * bytes up / bandwidth up,

and where sites train, examples * seconds_per_example / compute besides (FedScale's completion time with the factor 3
for forward and backward inside `seconds_per_example`). The server's own line and computing are not in it, nor is a
site's cryptography. The five exchanges follow one another as `server.sealing` carries them out: an exchange is over
once all who can still answer have, or at its deadline; a site that was not there when it was asked is known not to
answer, as a SuperLink knows of a node whose heartbeats have stopped; one that goes away later is waited for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.virtual.fleet import COMPONENT, Flags, Fleet, Reals, Sites, uniform
from fedseal.simulation.virtual.sizes import Sizes

NOBODY: Sites = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many sites have to be left: ``minimum`` up to MASK, ``threshold`` from then on (complete graph).

    ``wanted``: MASK ends once so many vectors are there, where more were asked; None to wait for all.
    """

    minimum: int
    threshold: int
    wanted: int | None = None

    @classmethod
    def of(cls, header: Header, wanted: int | None = None) -> "Quorum":
        """That of a real round."""
        return cls(header.minimum, header.threshold, wanted)

    def needed(self, stage: Stage) -> int:
        """How many have to answer an exchange for the round to go on."""
        return self.minimum if stage <= Stage.MASK else self.threshold


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What is made to go wrong in a round, by site number.

    ``silent``: answers nothing from this exchange on; ``lost``: its answer to this exchange does not count;
    ``lost_once``: in the first attempt, that is; ``delays``: seconds that an answer comes later, likewise.
    """

    silent: Mapping[int, Stage] = field(default_factory=dict)
    lost: frozenset[tuple[int, Stage]] = frozenset()
    lost_once: frozenset[tuple[int, Stage]] = frozenset()
    delays: Mapping[tuple[int, Stage], float] = field(default_factory=dict)

    def of_attempt(self, attempt: int) -> "Disturbance":
        """What of it there is in an attempt."""
        if attempt == 0:
            return Disturbance(self.silent, self.lost | self.lost_once, frozenset(), self.delays)
        return Disturbance(self.silent, self.lost)


UNDISTURBED = Disturbance()


@dataclass(frozen=True, slots=True)
class Moment:
    """Which round and attempt, at which virtual second it begins, and of which seed."""

    number: int
    seed: int
    start: float = 0.0
    attempt: int = 0

    def randomness(self) -> KeyedRandomness:
        """That of the devices."""
        return KeyedRandomness(self.seed, COMPONENT)


@dataclass(frozen=True, slots=True)
class StageTiming:
    """One exchange. ``late`` have received the request and answered in vain; the other missing ones were not there.

    ``bytes_down`` are those sent to all who were asked, as a server counts them; ``bytes_up`` those that arrived in
    time.
    """

    stage: Stage
    seconds: float
    asked: Sites
    answered: Sites
    late: Sites
    bytes_down: float
    bytes_up: float


@dataclass(frozen=True, slots=True)
class RoundTiming:
    """A round in virtual time. ``finished``: enough sites were left at every exchange."""

    moment: Moment
    finished: bool
    stages: tuple[StageTiming, ...]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def bytes_down(self) -> float:
        """To all sites."""
        return sum(stage.bytes_down for stage in self.stages)

    @property
    def bytes_up(self) -> float:
        """From all sites."""
        return sum(stage.bytes_up for stage in self.stages)

    @property
    def survivors(self) -> Sites:
        """Whose vectors are in the sum; nobody's if the round did not finish."""
        return self.stages[Stage.MASK].answered if self.finished else NOBODY

    def missed(self) -> dict[int, Stage]:
        """The first exchange that a site did not answer, by site; sites that answered all are not in it."""
        return {
            int(site): timing.stage
            for timing in reversed(self.stages)
            for site in np.setdiff1d(timing.asked, timing.answered, assume_unique=True)
        }

    def losses(self) -> dict[int, Stage]:
        """From which exchange on a site counts as silent, by site.

        In a round that finished, whose confirmation alone came too late has opened its shares and counts as there.
        """
        missed = self.missed()
        if self.finished:
            opened = set(self.stages[Stage.UNMASK].answered.tolist())
            missed = {s: at for s, at in missed.items() if at is not Stage.CONSISTENCY or s not in opened}
        return missed


def plan_round(
    fleet: Fleet,
    cohort: Sites,
    examples: float | Reals,
    sizes: Sizes,
    quorum: Quorum,
    moment: Moment,
    disturbance: Disturbance = UNDISTURBED,
) -> RoundTiming:
    """One attempt at a round. Pure: the same arguments give the same timing; draws are keyed by site and moment.

    Args:
        fleet: all sites' devices.
        cohort: the sites that are asked, numbered from 0 as in the fleet.
        examples: how many examples a site works through (steps times batch), of all or of each site of the cohort.
        sizes: bytes of the exchanges.
        quorum: how many have to be left.
        moment: when it begins.
        disturbance: faults on purpose, of this attempt.
    """
    training = train_seconds(fleet, cohort, examples, moment)
    asked, now = np.asarray(cohort, dtype=np.intp), moment.start
    left: tuple[int, ...] = (len(cohort),)
    stages: list[StageTiming] = []
    able: Flags = np.ones(len(asked), dtype=np.bool_)
    for stage in Stage:
        if stage is Stage.UNMASK:
            # Also those whose confirmation came too late: they have signed, and can open shares.
            asked = stages[Stage.MASK].answered
        down, up = sizes.exchange(stage, left)
        took = answer_seconds(fleet, asked, down, up) + (training if stage is Stage.MASK else 0.0)
        arrivals = arriving(fleet, asked, able, took, stage, now, moment, disturbance)
        wanted = quorum.wanted if stage is Stage.MASK else None
        ended, answered = _collected(arrivals, now, deadline_of(fleet, stage), wanted)
        answering = asked[answered]
        stages.append(
            StageTiming(
                stage=stage,
                seconds=ended - now,
                asked=asked,
                answered=answering,
                late=asked[arrivals.reached & ~answered],
                bytes_down=down * len(asked),
                bytes_up=up * len(answering),
            )
        )
        able = arrivals.reached if stage is Stage.CONSISTENCY else able[answered]
        training = training[answered] if stage < Stage.MASK else training
        asked, now, left = answering, ended, (*left, len(answering))
        if len(asked) < quorum.needed(stage):
            return RoundTiming(moment, False, tuple(stages))
    return RoundTiming(moment, True, tuple(stages))


def plan_release(
    fleet: Fleet,
    cohort: Sites,
    examples: float | Reals,
    sizes: Sizes,
    quorum: Quorum,
    moment: Moment,
    *,
    retries: int = 0,
    disturbance: Disturbance = UNDISTURBED,
) -> tuple[RoundTiming, ...]:
    """Attempts at a round until one finishes or none is left, one after the other; who fell silent is asked again."""
    attempts: list[RoundTiming] = []
    for attempt in range(retries + 1):
        struck = disturbance.of_attempt(attempt)
        attempts.append(plan_round(fleet, cohort, examples, sizes, quorum, moment, struck))
        if attempts[-1].finished:
            break
        moment = replace(moment, start=moment.start + attempts[-1].seconds, attempt=moment.attempt + 1)
    return tuple(attempts)


def over_committed(fleet: Fleet, wanted: int) -> int:
    """How many sites are asked where so many are wanted, at most all."""
    return min(math.ceil(wanted * fleet.devices.over_commit - 1e-9), fleet.sites)


def answer_seconds(fleet: Fleet, asked: Sites, down: float, up: float) -> Reals:
    """What an answer takes without computing, shape (asked,)."""
    seconds: Reals = 2 * fleet.latency[asked] + 8 * down / fleet.down[asked] + 8 * up / fleet.up[asked]
    return seconds


def train_seconds(fleet: Fleet, cohort: Sites, examples: float | Reals, moment: Moment) -> Reals:
    """What training takes, shape (cohort,); stragglers of this round and attempt take longer."""
    devices = fleet.devices
    seconds: Reals = examples * devices.seconds_per_example / fleet.compute[cohort]
    if devices.stragglers == 0.0:
        return seconds
    slow = uniform(moment.randomness(), cohort, "straggler", moment.number, moment.attempt) < devices.stragglers
    return np.where(slow, devices.slowdown * seconds, seconds)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Of those asked at an exchange, shape (asked,) each: ``awaited`` were there when it began, ``reached`` have the
    request, ``at`` is when the answer arrives: infinity if it never does.
    """

    awaited: Flags
    reached: Flags
    at: Reals


def arriving(
    fleet: Fleet,
    asked: Sites,
    able: Flags,
    took: Reals,
    stage: Stage,
    now: float,
    moment: Moment,
    disturbance: Disturbance,
) -> Arrivals:
    """When the answers arrive that take so long, of those who are there and able to answer.

    Who goes away before its answer has arrived never sends it, though it may come back before the deadline.
    """
    there, until = fleet.there(asked, now, moment.randomness(), moment.number, moment.attempt)
    awaited = there & able
    reached, at = awaited.copy(), now + took
    for place, site in _disturbed(asked, disturbance):
        at[place] += disturbance.delays.get((site, stage), 0.0)
        if disturbance.silent.get(site, stage + 1) <= stage:
            # As a program that hangs: the node is there and says nothing.
            reached[place] = False
        if not reached[place] or (site, stage) in disturbance.lost:
            at[place] = np.inf
    return Arrivals(awaited, reached, np.where(awaited & (at <= until), at, np.inf))


def deadline_of(fleet: Fleet, stage: Stage) -> float:
    """How many seconds the server waits in an exchange."""
    return fleet.devices.deadline_s if stage is Stage.MASK else fleet.devices.stage_deadline_s


def _collected(arrivals: Arrivals, now: float, wait: float, wanted: int | None) -> tuple[float, Flags]:
    """When an exchange is over, and which answers it has, shape (asked,)."""
    answered: Flags = arrivals.at <= now + wait
    count = int(answered.sum())
    if wanted is not None and count >= wanted > 0:
        first = np.argsort(arrivals.at, kind="stable")[:wanted]
        answered = np.zeros(len(answered), dtype=np.bool_)
        answered[first] = True
        return float(arrivals.at[first[-1]]), answered
    if bool((arrivals.awaited & ~answered).any()):
        return now + wait, answered
    return float(arrivals.at[answered].max()) if count else now, answered


def _disturbed(asked: Sites, disturbance: Disturbance) -> list[tuple[int, int]]:
    """The places among those asked of sites that a disturbance names, with their numbers."""
    named = {*disturbance.silent, *(s for s, _ in disturbance.lost), *(s for s, _ in disturbance.delays)}
    if not named:
        return []
    return [(int(p), int(asked[p])) for p in np.flatnonzero(np.isin(asked, sorted(named)))]
