"""The same round, event by event: a heap of (time, number, event) and a clock that jumps from one to the next.

`rounds.plan_round` comes to the same result in a few array operations. This one says besides what happened when, for
a timeline of a cohort that fits on a page, and it is the other's slow twin in the tests.
"""

import heapq
from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

import numpy as np

from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.virtual.fleet import Fleet, Reals, Sites
from fedseal.simulation.virtual.rounds import (
    UNDISTURBED,
    Arrivals,
    Disturbance,
    Moment,
    Quorum,
    RoundTiming,
    StageTiming,
    answer_seconds,
    arriving,
    deadline_of,
    train_seconds,
)
from fedseal.simulation.virtual.sizes import Sizes

E = TypeVar("E")


@dataclass(slots=True)
class Loop(Generic[E]):
    """Events in the order of their times, those of one time in the order in which they were planned. Never sleeps."""

    now: float = 0.0
    _events: list[tuple[float, int, E]] = field(default_factory=list)
    _planned: int = 0

    def plan(self, at: float, event: E) -> None:
        """Something will happen at a virtual time; what never does is at infinity and is forgotten."""
        if at < np.inf:
            heapq.heappush(self._events, (max(at, self.now), self._planned, event))
            self._planned += 1

    def take(self) -> E | None:
        """The next event, with the clock moved to it; None if there is none."""
        if not self._events:
            return None
        self.now, _, event = heapq.heappop(self._events)
        return event

    def clear(self) -> None:
        """Forget what was planned."""
        self._events.clear()


class Kind(Enum):
    """What can happen in an exchange."""

    ASKED = "asked"
    AWAY = "away"
    ANSWERED = "answered"
    TOO_LATE = "too late"
    DEADLINE = "deadline"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happened at a virtual second; ``site`` is None where it happened to the server."""

    seconds: float
    stage: Stage
    kind: Kind
    site: int | None = None


def trace_round(
    fleet: Fleet,
    cohort: Sites,
    examples: float | Reals,
    sizes: Sizes,
    quorum: Quorum,
    moment: Moment,
    disturbance: Disturbance = UNDISTURBED,
) -> tuple[RoundTiming, tuple[Happening, ...]]:
    """What `rounds.plan_round` gives, and what happened, in order. The arguments are the same."""
    loop: Loop[Happening] = Loop(moment.start)
    training = dict(zip(cohort.tolist(), train_seconds(fleet, cohort, examples, moment).tolist(), strict=True))
    asked = np.asarray(cohort, dtype=np.intp)
    left: tuple[int, ...] = (len(cohort),)
    stages: list[StageTiming] = []
    seen: list[Happening] = []
    able = np.ones(len(asked), dtype=np.bool_)
    for stage in Stage:
        if stage is Stage.UNMASK:
            asked = stages[Stage.MASK].answered
        down, up = sizes.exchange(stage, left)
        took = answer_seconds(fleet, asked, down, up)
        if stage is Stage.MASK:
            took = took + np.array([training[int(site)] for site in asked])
        arrivals = arriving(fleet, asked, able, took, stage, loop.now, moment, disturbance)
        began = loop.now
        answered = _exchange(loop, fleet, stage, asked, arrivals, quorum, seen)
        stages.append(
            StageTiming(
                stage=stage,
                seconds=loop.now - began,
                asked=asked,
                answered=np.array([s for s in asked.tolist() if s in answered], dtype=np.intp),
                late=np.array([s for s in asked[arrivals.reached].tolist() if s not in answered], dtype=np.intp),
                bytes_down=down * len(asked),
                bytes_up=up * len(answered),
            )
        )
        asked, left = stages[-1].answered, (*left, len(answered))
        able = arrivals.reached if stage is Stage.CONSISTENCY else np.ones(len(asked), dtype=np.bool_)
        if len(asked) < quorum.needed(stage):
            return RoundTiming(moment, False, tuple(stages)), tuple(seen)
    return RoundTiming(moment, True, tuple(stages)), tuple(seen)


def _exchange(
    loop: Loop[Happening],
    fleet: Fleet,
    stage: Stage,
    asked: Sites,
    arrivals: Arrivals,
    quorum: Quorum,
    seen: list[Happening],
) -> set[int]:
    """Run one exchange to its end; who has answered."""
    wanted = quorum.wanted if stage is Stage.MASK else None
    open_sites = set(asked[arrivals.awaited].tolist())
    for site, there, at in zip(asked.tolist(), arrivals.awaited.tolist(), arrivals.at.tolist(), strict=True):
        seen.append(Happening(loop.now, stage, Kind.ASKED if there else Kind.AWAY, site))
        loop.plan(at, Happening(at, stage, Kind.ANSWERED, site))
    deadline = loop.now + deadline_of(fleet, stage)
    loop.plan(deadline, Happening(deadline, stage, Kind.DEADLINE))
    answered: set[int] = set()
    while open_sites and (event := loop.take()) is not None:
        seen.append(event)
        if event.kind is Kind.DEADLINE:
            break
        if event.site is not None:
            open_sites.discard(event.site)
            answered.add(event.site)
        if wanted is not None and len(answered) == wanted:
            break
    seen.extend(Happening(loop.now, stage, Kind.TOO_LATE, site) for site in sorted(open_sites))
    seen.append(Happening(loop.now, stage, Kind.CLOSED))
    loop.clear()
    return answered
