"""Things that are done to a federation one after the other while runs go on, each undone after a while."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.trials.kills import LOOK, Follower, spread
from support.trials.oracle import Invariant, Oracle
from support.trials.reference import simulated
from support.trials.results import row_of
from support.trials.study import Federation

# Seconds from the end of a disturbance until a round has to have ended.
BOUND = 300.0


@dataclass(frozen=True, slots=True)
class Step:
    """One thing: its name, how often, for how many seconds, and what does and undoes it, told which time it is.

    ``remark``: what was seen of it, once it is undone for the last time.
    """

    name: str
    times: int
    seconds: float
    begin: Callable[[int], None]
    end: Callable[[int], None]
    remark: Callable[[], str] = lambda: ""


@dataclass(slots=True)
class Stepped:
    """What came of a step: seconds from each end of it until the next round had ended."""

    step: Step
    waits: list[float] = field(default_factory=list)
    remark: str = ""


class StepTrial:
    """Does all steps while runs go on, and judges.

    Args:
        federation: whose server and nodes are running.
        oracle: of the federation, without an expected model.
        notes: of a site that nothing is done to, where there is one.
    """

    def __init__(self, federation: Federation, oracle: Oracle, notes: Path) -> None:
        self._federation = federation
        self._oracle = oracle
        self._follower = Follower(federation, notes)
        self._found: list[Stepped] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Do the steps, and let the run that goes on then come to its end."""
        follower = self._follower
        for step in steps:
            found = Stepped(step)
            self._found.append(found)
            for turn in range(step.times):
                until_round(follower, BOUND)
                # Not always at the beginning of a round.
                pass_time(follower, 0.4 * (turn % 4))
                step.begin(turn)
                pass_time(follower, step.seconds)
                step.end(turn)
                begun = time.monotonic()
                went_on = until_round(follower, BOUND)
                self._oracle.findings.check(Invariant.RECOVERY, went_on, f"{step.name}: no round within {BOUND:.0f} s")
                found.waits.append(time.monotonic() - begun)
            found.remark = step.remark()
        finish(follower)

    def rows(self, what: str, folder: Path, figures: dict[str, Any]) -> list[dict[str, Any]]:
        """A row a step, and one of what was looked at afterwards. All programs have to have ended.

        Args:
            what: names them together.
            folder: a new one, for simulations.
            figures: of all together.
        """
        follower, oracle = self._follower, self._oracle
        judge_runs(folder, self._federation, follower, oracle)
        oracle.everything([])
        states = {how.partition(":")[0] for how in follower.runs.values()}
        happened = "all runs finished" if states == {"finished"} else ", ".join(sorted(states))
        missing = [oracle.missing(self._federation.runs / name) for name in follower.runs]
        whole = {
            "rounds": follower.rounds,
            "attempts": follower.attempts,
            "runs": sorted(follower.runs.values()),
            "sites_missing_from_sums": sum(absent.count for absent in missing),
        }
        rows = [
            row_of(
                f"{what}: {found.step.name}",
                found.step.times,
                f"next round {spread(found.waits).get('median')} s after it was over, at most "
                f"{spread(found.waits).get('max')} s" + (f"; {found.remark}" if found.remark else ""),
                oracle.findings.__class__(),
                {"next_round": spread(found.waits)},
            )
            for found in self._found
        ]
        return [*rows, row_of(f"{what}: afterwards", len(follower.runs), happened, oracle.findings, whole | figures)]


def pass_time(follower: Follower, seconds: float, *, again: bool = True) -> None:
    """Let time pass, and order the next run where one is over."""
    end = time.monotonic() + seconds
    while True:
        follower.look()
        if follower.over and again and follower.affordable:
            follower.order_if_possible()
        if time.monotonic() >= end:
            return
        time.sleep(LOOK)


def until_round(follower: Follower, within: float) -> bool:
    """Wait for the end of a round; whether it came."""
    rounds, end = follower.rounds, time.monotonic() + within
    while follower.rounds == rounds:
        if time.monotonic() > end or (follower.over and not follower.affordable):
            return False
        pass_time(follower, LOOK)
    return True


def finish(follower: Follower) -> None:
    """Let the run that goes on come to its end."""
    end = time.monotonic() + BOUND
    while not follower.over and time.monotonic() < end:
        pass_time(follower, LOOK, again=False)


def judge_runs(folder: Path, federation: Federation, follower: Follower, oracle: Oracle) -> None:
    """Look at each run that was ordered: it has finished, with the model of a simulation in which the same sites were
    missing from the same rounds.
    """
    for number, (name, how) in enumerate(follower.runs.items()):
        oracle.findings.check(Invariant.RECOVERY, how == "finished", f"{name}: {how}")
        if how != "finished":
            continue
        place = federation.runs / name
        if federation.shape.plan == "none":
            oracle.model(place, simulated(federation, folder / f"simulated-{number}", oracle.missing(place)))
        else:
            oracle.model(place)
