"""Many resident nodes on one machine: seconds a round, and what they and their server take of memory and CPU."""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from support.trials.keeper import FORKED, SERVER, Keeper, join, join_forked, serve
from support.trials.kills import Follower, spread
from support.trials.oracle import Invariant, Oracle
from support.trials.reference import simulated
from support.trials.results import Chunk, row_of
from support.trials.steps import pass_time
from support.trials.study import Shape, make_federation

from fedseal.simulation.deployed.guard import listed

EVERY = 5.0
# Seconds for all nodes to start and join: each starts a Python program.
JOINED = 1500.0
JOINED_TEXT = "connected to"


class Gauge:
    """Measures the memory and CPU of services every few seconds; a context manager with a thread of its own.

    Args:
        keeper: keeps them.
        names: which.
    """

    def __init__(self, keeper: Keeper, names: Sequence[str]) -> None:
        self._keeper = keeper
        self._names = list(names)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="gauge", daemon=True)
        self._rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in self._names}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def figures(self, since: float = 0.0) -> dict[str, dict[str, float]]:
        """Of each service: its memory in MB at first, at last and at most, the slope of a line through it in MB a
        minute, and of how many cores it took how much.

        Args:
            since: what was measured before, by the monotonic clock, is left out.
        """
        found = {}
        for name, all_rows in self._rows.items():
            rows = [row for row in all_rows if row[0] >= since]
            if len(rows) < 2:
                continue
            times, memory, cpu = (np.array(column) for column in zip(*rows, strict=True))
            slope = float(np.polyfit(times / 60, memory, 1)[0])
            # CPU seconds begin anew with a new process.
            used = float(np.maximum(np.diff(cpu), 0).sum())
            found[name] = {
                "first": round(float(memory[0]), 1),
                "last": round(float(memory[-1]), 1),
                "largest": round(float(memory.max()), 1),
                "slope_mb_a_minute": round(slope, 2),
                "cores": round(used / float(times[-1] - times[0]), 3),
                "minutes": round(float(times[-1] - times[0]) / 60, 1),
            }
        return found

    def _measure(self) -> None:
        while not self._over.wait(EVERY):
            for name in self._names:
                pid = self._keeper.pid(name)
                if pid is not None and (row := usage(pid)) is not None:
                    self._rows[name].append((time.monotonic(), *row))


def usage(pid: int) -> tuple[float, float] | None:
    """A process's memory in MB, shared pages by their share (PSS), and its CPU seconds; None if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    pss = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
    return pss / 1024, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def load_chunks() -> Iterator[Chunk]:
    """A short one and the long one."""
    for sites, rounds in ((10, 10), (50, 100)):
        yield Chunk(f"{sites} nodes", 300, partial(loaded, sites, rounds))


def loaded(sites: int, rounds: int, folder: Path, left: float) -> list[dict[str, Any]]:
    """One run of many sites, for so many rounds or so much time as there is.

    Two nodes are programs of their own, whose memory is measured; the others are forked from one that has loaded the
    program, and share with it what they do not change.
    """
    begun = time.monotonic()
    shape = Shape(sites=sites, rounds=rounds, minimum=sites * 2 // 3)
    federation = make_federation(folder / "federation", shape)
    with Keeper(folder / "logs") as keeper:
        serve(keeper, federation)
        first, last = alone = (shape.names[0], shape.names[-1])
        notes = join_forked(keeper, federation, folder / "notes", shape.names[1:-1])
        notes |= join(keeper, federation, folder / "notes", alone)
        ready = _all_joined(keeper, alone, sites - 2, time.monotonic() + JOINED)
        joined = time.monotonic() - begun
        with Gauge(keeper, [SERVER, first, last]) as gauge:
            oracle = Oracle(federation, None, notes)
            follower = Follower(federation, notes[first])
            follower.order()
            start = time.monotonic()
            # What is left has to be enough for a simulation and for looking at all stores.
            while not follower.over and time.monotonic() - begun < left * 0.8:
                pass_time(follower, 0.5, again=False)
            forked = [row[0] for pid in children_of(keeper.pid(FORKED)) if (row := usage(pid)) is not None]
        figures = {"joined_after": round(joined, 1), "round": spread(follower.seconds), "rounds": follower.rounds} | {
            "attempts": follower.attempts,
            "bytes_up_a_round": follower.bytes_up[-1] if follower.bytes_up else 0,
            "processes": gauge.figures(start),
            "forked_node_mb": spread(forked),
            "seconds_by_tenth": [round(float(np.median(part)), 2) for part in np.array_split(follower.seconds, 10)]
            if len(follower.seconds) >= 10
            else [],
        }
    oracle.findings.check(Invariant.RECOVERY, ready, "not all nodes have joined")
    whole = follower.over and "finished" in follower.runs.values()
    if whole:
        (name,) = follower.runs
        place = federation.runs / name
        oracle.model(place, simulated(federation, folder / "simulated", oracle.missing(place)))
    oracle.everything([])
    happened = "all rounds, the simulation's model" if whole else f"{follower.rounds} rounds in the time there was"
    return [row_of(f"load: {sites} nodes, {rounds} rounds", follower.rounds, happened, oracle.findings, figures)]


def children_of(parent: int | None) -> list[int]:
    """The processes that a process has started."""
    return [row.number for row in listed() if row.parent == parent and not row.has_ended]


def _all_joined(keeper: Keeper, alone: Sequence[str], forked: int, end: float) -> bool:
    while time.monotonic() < end:
        if keeper.said(FORKED, JOINED_TEXT) >= forked and all(keeper.said(name, JOINED_TEXT) for name in alone):
            return True
        time.sleep(1)
    return False
