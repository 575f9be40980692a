"""kill -9 of the server and of nodes at random times of runs that go on, until so many kills have been made.

The times and the victims follow from a seed; what happens then follows from the machine.
"""

import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.trials.keeper import SERVER, Keeper
from support.trials.oracle import Findings, Invariant, Oracle, read_notes
from support.trials.study import Federation

from fedseal.errors import ConfigError
from fedseal.server.coordination import Order
from fedseal.server.recording import EVENTS
from fedseal.simulation.deployed.submission import Events

LOOK = 0.05
READY = {SERVER: "listening at"}
JOINED = "connected to"
# Seconds without a kill and without a finished round after which hands would be needed.
BOUND = 300.0


@dataclass(frozen=True, slots=True)
class KillPlan:
    """How many kills, of whom, when.

    ``pause``: seconds between one kill and the next, drawn evenly; ``down``: for how long a killed program is away;
    ``server``: the share of kills that strike the server; ``hasty``: the share that does not wait until everybody is
    back from the kills before.
    """

    kills: int
    seed: int
    pause: tuple[float, float] = (0.1, 4.0)
    down: tuple[float, float] = (0.1, 1.0)
    server: float = 0.35
    hasty: float = 0.2

    def draws(self, sites: list[str]) -> "list[Kill]":
        """All kills, the same for the same seed and sites."""
        generator = random.Random(self.seed)
        return [
            Kill(
                generator.uniform(*self.pause),
                SERVER if generator.random() < self.server else generator.choice(sites),
                generator.uniform(*self.down),
                generator.random() < self.hasty,
            )
            for _ in range(self.kills)
        ]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: so many seconds after the one before, or after everybody is back from it, of whom, and for how long it
    is away.
    """

    pause: float
    victim: str
    down: float
    hasty: bool


@dataclass(frozen=True, slots=True)
class Struck:
    """A kill that was made. ``answers``: how many answers the first site had given since the last round ended: where
    in a round it struck. ``starting``: the victim had not come up yet from an earlier one.
    """

    kill: Kill
    answers: int
    starting: bool


@dataclass(slots=True)
class KillReport:
    """What came of it. ``back``: seconds from a program's new start until it listens or has joined; ``next_round``:
    seconds from a kill until the next round that ended.
    """

    struck: list[Struck] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    next_round: list[float] = field(default_factory=list)
    runs: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    attempts: int = 0
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)

    def figures(self) -> dict[str, Any]:
        """For a file of results."""
        victims = Counter("server" if s.kill.victim == SERVER else "site" for s in self.struck)
        return {
            "kills": len(self.struck),
            "victims": dict(victims),
            "while_starting": sum(s.starting for s in self.struck),
            "answers_since_round": dict(sorted(Counter(min(s.answers, 6) for s in self.struck).items())),
            "runs": dict(Counter(how.partition(":")[0] for how in self.runs.values())),
            "rounds": self.rounds,
            "attempts": self.attempts,
            "seconds": round(self.seconds, 1),
            "back": spread(self.back),
            "next_round": spread(self.next_round),
        }


def spread(values: list[float]) -> dict[str, float]:
    """Median, nine tenths, largest, and how many."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 2),
        "p90": round(ordered[min(len(ordered) * 9 // 10, len(ordered) - 1)], 2),
        "max": round(ordered[-1], 2),
        "n": len(ordered),
    }


class KillTrial:
    """Makes runs one after the other, and kills, until all kills are made or the time is over; the run that goes on
    then is left in peace to its end.

    Args:
        federation: made, with the keeper's services for it.
        keeper: keeps the server and all nodes.
        oracle: told before each kill and after each run.
        notes: the first site's, by which kills are placed.
    """

    def __init__(self, federation: Federation, keeper: Keeper, oracle: Oracle, notes: Path) -> None:
        self._federation = federation
        self._keeper = keeper
        self._oracle = oracle
        self._follower = Follower(federation, notes)
        self._report = KillReport()
        # Of those who are not back: how often they had said that they were there.
        self._away: dict[str, int] = {}

    def run(self, plan: KillPlan, within: float) -> KillReport:
        """Make the trial.

        Args:
            plan: the kills.
            within: seconds after which no kill is made any more.
        """
        begun = time.monotonic()
        self._follower.order()
        going_on = True
        for kill in plan.draws(self._federation.shape.names):
            if self._follower.over and not self._follower.affordable:
                break
            going_on = (kill.hasty or self._all_back()) and self._pass(kill.pause)
            if not going_on or time.monotonic() - begun > within:
                break
            self._strike(kill)
        while going_on and (self._away or not self._follower.over):
            going_on = self._pass(0.2, again=False)
        self._oracle.findings.check(Invariant.RECOVERY, going_on, f"nothing went on for {BOUND:.0f} seconds")
        report, follower = self._report, self._follower
        report.seconds = time.monotonic() - begun
        report.runs, report.rounds, report.attempts = follower.runs, follower.rounds, follower.attempts
        for folder, how in follower.runs.items():
            self._oracle.findings.check(Invariant.RECOVERY, how == "finished", f"{folder}: {how}")
        report.findings = self._oracle.findings
        return report

    @property
    def folders(self) -> list[Path]:
        """Of all runs that have finished."""
        return [self._federation.runs / name for name, how in self._follower.runs.items() if how == "finished"]

    def _strike(self, kill: Kill) -> None:
        name, keeper = kill.victim, self._keeper
        self._oracle.watch(name)
        said = keeper.said(name, READY.get(name, JOINED))
        starting = name in self._away
        if keeper.kill(name, down=kill.down) is None:
            # It is away already: the kill strikes nobody.
            return
        self._report.struck.append(Struck(kill, self._follower.answers(), starting))
        self._follower.disturbed()
        self._away[name] = said

    def _pass(self, seconds: float, *, again: bool = True) -> bool:
        """Let time pass and see what happens in it; False where hands would be needed."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._look_for_those_away()
            self._report.next_round += self._follower.look()
            if self._follower.over and again and self._follower.affordable:
                self._follower.order()
            if time.monotonic() - self._follower.progress > BOUND:
                return False
            time.sleep(LOOK)
        return True

    def _all_back(self) -> bool:
        while self._away:
            if not self._pass(LOOK):
                return False
        return True

    def _look_for_those_away(self) -> None:
        for name, before in list(self._away.items()):
            if self._keeper.said(name, READY.get(name, JOINED)) > before:
                self._report.back.append(time.monotonic() - self._keeper.started(name))
                del self._away[name]


class Follower:
    """Orders runs and follows their events.

    Args:
        federation: whose.
        notes: of one site, by which one sees where in a round the run is.
    """

    def __init__(self, federation: Federation, notes: Path) -> None:
        self._federation = federation
        self._notes = notes
        self._order: Order | None = None
        self._events: Events | None = None
        self._answers = 0
        self._open: list[float] = []
        self.progress = time.monotonic()
        self.runs: dict[str, str] = {}
        self.rounds = self.attempts = 0
        # Of each round.
        self.seconds: list[float] = []
        self.bytes_up: list[int] = []

    @property
    def over(self) -> bool:
        """Whether the run that was ordered last is over."""
        return self._order is None or self.runs[self._order.folder.name] != "open"

    @property
    def affordable(self) -> bool:
        """Whether the sites' budgets have room for another run: under a private plan for one and no more."""
        return self._federation.shape.plan == "none" or not self.runs

    def order(self) -> Order:
        """Order the next run."""
        order = self._federation.order()
        self._order, self._events = order, Events(order.folder / EVENTS)
        self.runs[order.folder.name] = "open"
        return order

    def order_if_possible(self) -> None:
        """Order the next run, unless the disk has no room for an order: whoever orders tries again."""
        try:
            self.order()
        except (OSError, ConfigError):
            return

    def answers(self) -> int:
        """How many answers the site has given since the last round ended."""
        return len(read_notes(self._notes)) - self._answers

    def disturbed(self) -> None:
        """Something was done to the run now; the next round that ends shows that it went on."""
        self._open.append(time.monotonic())
        # The run has all its time again to go on in.
        self.progress = time.monotonic()

    def look(self) -> list[float]:
        """Read what has happened: seconds since each disturbance that a round has ended after now."""
        found: list[float] = []
        if self._order is None or self._events is None:
            return found
        for event in self._events.new():
            if event["event"] == "round":
                self.rounds += 1
                self.attempts += event["attempts"]
                self.seconds.append(event["seconds"])
                self.bytes_up.append(sum(stage["up"] for stage in event["stages"].values()))
                self._answers = len(read_notes(self._notes))
            if event["event"] in {"round", "finished", "failed"}:
                now = self.progress = time.monotonic()
                found += [now - since for since in self._open]
                self._open.clear()
            if event["event"] == "failed":
                self.runs[self._order.folder.name] = f"failed: {event['error']}: {event['message']}"
            if event["event"] == "finished":
                self.runs[self._order.folder.name] = "finished"
        return found
