"""Clocks that are wrong or set while a round goes on: at a site, and at the server.

By Debian's libfaketime, which answers a program's questions for the time of day with another one. What is measured by
the monotonic clock goes on as it is, as when somebody sets a clock.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.kills import Follower, spread
from support.trials.network import BOUND, finish, judge_runs, pass_time, until_round
from support.trials.oracle import Findings, Invariant, Oracle
from support.trials.results import Chunk, row_of
from support.trials.study import Shape, make_federation

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
MINUTE, DAY = 60, 86_400


@dataclass(frozen=True, slots=True)
class Skew:
    """Whose clock is set, and to how many seconds beside the true time, one after the other during a run."""

    who: str
    steps: tuple[int, ...]

    @property
    def name(self) -> str:
        """For a table."""
        return f"clock of the {self.who}: {', '.join(_said(step) for step in self.steps)}"


SKEWS = (
    Skew("site", (10 * MINUTE, -10 * MINUTE, 0)),
    Skew("site", (DAY, 0, 20 * DAY, 0)),
    Skew("site", (-DAY, 0)),
    Skew("server", (10 * MINUTE, -10 * MINUTE, 0)),
    Skew("server", (DAY, 0, -DAY, 0)),
)


def clock_chunks() -> Iterator[Chunk]:
    """One chunk a clock."""
    for skew in SKEWS:
        yield Chunk(skew.name, 120, partial(skewed, skew))


def faked(file: Path) -> Mapping[str, str]:
    """The environment of a program whose clock is what a file says."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, seconds: int) -> None:
    """Set the clock, so many seconds beside the true time."""
    part = file.with_suffix(".part")
    part.write_text(f"{seconds:+d}\n", encoding="ascii")
    part.replace(file)


def skewed(skew: Skew, folder: Path, left: float) -> dict[str, Any]:
    """Set a clock during runs of four sites, of which three are enough."""
    if not LIBRARY.is_file():
        return row_of(skew.name, 0, "not tried: needs Debian's package faketime", Findings(), {})
    shape = Shape(sites=4, rounds=6)
    federation = make_federation(folder / "federation", shape)
    file, victim = folder / "clock", SERVER if skew.who == "server" else shape.names[0]
    set_clock(file, 0)
    with Keeper(folder / "logs") as keeper:
        serve(keeper, federation, faked(file) if victim == SERVER else None)
        notes = join(keeper, federation, folder / "notes", environment={shape.names[0]: faked(file)})
        oracle = Oracle(federation, None, notes)
        follower = Follower(federation, notes[shape.names[-1]])
        waits = []
        for turn, step in enumerate(skew.steps):
            until_round(follower, BOUND)
            # In a round, not between two.
            pass_time(follower, 0.4 + 0.2 * turn)
            set_clock(file, step)
            begun = time.monotonic()
            oracle.findings.check(Invariant.RECOVERY, until_round(follower, BOUND), "no round within the bound")
            waits.append(time.monotonic() - begun)
            # Long enough that heartbeats, and what is held, meet the new time.
            pass_time(follower, 15)
        finish(follower)
        said = keeper.log(victim).read_text(encoding="utf-8", errors="replace")
        ends = keeper.codes(victim)
    judge_runs(folder, federation, follower, oracle)
    oracle.everything([])
    without = sum(len(sites) for n in follower.runs for sites in oracle.missing(federation.runs / n).values())
    states = {how.partition(":")[0] for how in follower.runs.values()}
    figures = {
        "next_round": spread(waits),
        "rounds": follower.rounds,
        "attempts": follower.attempts,
        "missing": without,
        "programs_ended": len(ends),
        "named": sorted({w for w in ("certificate is not yet valid", "certificate has expired", "clock") if w in said}),
    }
    happened = "all runs finished" if states == {"finished"} else ", ".join(sorted(states))
    return row_of(skew.name, len(skew.steps), happened, oracle.findings, figures)


def _said(seconds: int) -> str:
    if not seconds:
        return "right again"
    number, unit = (seconds // DAY, "day") if seconds % DAY == 0 else (seconds // MINUTE, "min")
    return f"{number:+d} {unit}"
