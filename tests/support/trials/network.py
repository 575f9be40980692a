"""The line between sites and server: cut, slow, silent, broken in the middle; for less and for longer than a stage's
deadline and the server's patience.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import Keeper, join, serve
from support.trials.kills import LOOK, Follower, spread
from support.trials.oracle import Invariant, Oracle
from support.trials.proxy import CALM, Line, Weather
from support.trials.reference import simulated
from support.trials.results import Chunk, row_of
from support.trials.study import Federation, Plan, Shape, make_federation

# Seconds from the end of a disturbance until a round has to have ended.
BOUND = 300.0


@dataclass(frozen=True, slots=True)
class Disturbance:
    """What a line does, for how many seconds, and how often; to one site after the other, or to all at once."""

    name: str
    weather: Weather
    seconds: float
    times: int
    everyone: bool = False


SHORT = (
    Disturbance("cut for 1 s", Weather(cut=True), 1, 6),
    Disturbance("cut for 8 s", Weather(cut=True), 8, 2),
    Disturbance("all sites cut for 4 s", Weather(cut=True), 4, 3, everyone=True),
    Disturbance("every piece 0.15 s late, for 8 s", Weather(delay=0.15), 8, 2, everyone=True),
    Disturbance("30 kB/s, for 8 s", Weather(rate=30_000), 8, 2, everyone=True),
    Disturbance("silent for 6 s", Weather(silent=True), 6, 3),
    Disturbance("connections reset after 6 kB, for 3 s", Weather(drop_after=6_000), 3, 5),
    Disturbance("the way to the server closed after 6 kB, for 3 s", Weather(half_after=6_000), 3, 5),
)
LONG = (
    Disturbance("silent for 70 s", Weather(silent=True), 70, 1),
    Disturbance("cut for 140 s, longer than a stage may take", Weather(cut=True), 140, 1),
)


def network_chunks() -> Iterator[Chunk]:
    """One chunk a disturbance."""
    for number, disturbance in enumerate(SHORT):
        plan: Plan = "distributed" if number % 4 == 3 else "none"
        yield Chunk(disturbance.name, 90, partial(disturbed, disturbance, plan))
    for disturbance in LONG:
        yield Chunk(disturbance.name, 400, partial(disturbed, disturbance, "none"))


def redirect(federation: Federation, name: str, port: int) -> None:
    """Let a site's node connect to another port."""
    file = federation.files.nodes[name]
    text, count = re.subn(r'(?m)^("?address"? = "127\.0\.0\.1):\d+"', rf'\1:{port}"', file.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError("a node's file without an address")
    file.write_text(text, encoding="utf-8")


def port_of(federation: Federation) -> int:
    """Where the server listens."""
    found = re.search(r'(?m)^"?port"? = (\d+)$', federation.files.server.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError("a server's file without a port")
    return int(found[1])


def disturbed(disturbance: Disturbance, plan: Plan, folder: Path, left: float) -> dict[str, Any]:
    """Disturb runs of four sites, of which three are enough for a sum.

    Args:
        disturbance: of the lines.
        plan: of the runs.
        folder: a new one.
        left: not used: it takes what it takes.
    """
    shape = Shape(sites=4, rounds=6 if plan == "none" else 24, plan=plan, retries=3 if plan == "none" else 40)
    federation = make_federation(folder / "federation", shape)
    with ExitStack() as stack:
        lines = {name: stack.enter_context(Line(port_of(federation))) for name in shape.names}
        for name, line in lines.items():
            redirect(federation, name, line.port)
        keeper = stack.enter_context(Keeper(folder / "logs"))
        serve(keeper, federation)
        notes = join(keeper, federation, folder / "notes")
        oracle = Oracle(federation, None, notes)
        follower = Follower(federation, next(iter(notes.values())))
        waits = _through(lines, disturbance, follower, oracle)
        broken = sum(line.broken for line in lines.values())
    judge_runs(folder, federation, follower, oracle)
    oracle.everything([])
    states = {how.partition(":")[0] for how in follower.runs.values()}
    figures = {"next_round": spread(waits), "broken_connections": broken, "rounds": follower.rounds} | {
        "attempts": follower.attempts,
        "runs": sorted(follower.runs.values()),
    }
    happened = "all runs finished" if states == {"finished"} else ", ".join(sorted(states))
    return row_of(f"line: {disturbance.name}", disturbance.times, happened, oracle.findings, figures)


def _through(lines: dict[str, Line], disturbance: Disturbance, follower: Follower, oracle: Oracle) -> list[float]:
    waits: list[float] = []
    names = list(lines)
    for turn in range(disturbance.times):
        until_round(follower, BOUND)
        struck = names if disturbance.everyone else [names[turn % len(names)]]
        # Not always at the beginning of a round.
        pass_time(follower, 0.3 * (turn % 4))
        for name in struck:
            lines[name].set(disturbance.weather)
        pass_time(follower, disturbance.seconds)
        for name in struck:
            lines[name].set(CALM)
        begun = time.monotonic()
        oracle.findings.check(Invariant.RECOVERY, until_round(follower, BOUND), "no round within the bound")
        waits.append(time.monotonic() - begun)
    finish(follower)
    return waits


def finish(follower: Follower) -> None:
    """Let the run that goes on come to its end."""
    end = time.monotonic() + BOUND
    while not follower.over and time.monotonic() < end:
        pass_time(follower, LOOK, again=False)


def pass_time(follower: Follower, seconds: float, *, again: bool = True) -> None:
    """Let time pass, and order the next run where one is over."""
    end = time.monotonic() + seconds
    while True:
        follower.look()
        if follower.over and again and follower.affordable:
            follower.order()
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
            missing = oracle.missing(place)
            expected = simulated(federation, folder / f"simulated-{number}", missing)
            oracle.model(place, expected)
        else:
            oracle.model(place)
