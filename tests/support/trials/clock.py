"""Clocks that are wrong or set while a round goes on: at a site, and at the server.

By Debian's libfaketime, which answers a program's questions for the time of day with another one. What is measured by
the monotonic clock goes on as it is, as when somebody sets a clock.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.oracle import Findings, Oracle
from support.trials.results import Chunk, row_of
from support.trials.steps import Step, StepTrial
from support.trials.study import Shape, make_federation

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
MINUTE, DAY = 60, 86_400
# Seconds beside the true time. A certificate of the trials is valid for thirty days from an hour ago.
STEPS = (10 * MINUTE, -10 * MINUTE, DAY, -DAY)
# Long enough that heartbeats, and what is held, meet the new time.
SECONDS = 15.0
# Under libfaketime 0.9.10 Python's `time.sleep` asks for a time that the kernel calls invalid.
SLEEP = "import threading, time; time.sleep = lambda seconds: threading.Event().wait(seconds) and None\n"


def clock_chunks() -> Iterator[Chunk]:
    """One chunk a clock."""
    for who in ("site", "server"):
        yield Chunk(who, 200, partial(skewed, who))


def faked(file: Path) -> Mapping[str, str]:
    """The environment of a program whose clock is what a file says."""
    return {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        # A new time counts within a second; to look at the file at every question costs most of a core.
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def set_clock(file: Path, seconds: int) -> None:
    """Set the clock, so many seconds beside the true time."""
    part = file.with_suffix(".part")
    part.write_text(f"{seconds:+d}\n", encoding="ascii")
    part.replace(file)


def skewed(who: str, folder: Path, left: float) -> list[dict[str, Any]]:
    """Set a clock, and put it right again, during runs of four sites, of which three are enough."""
    if not LIBRARY.is_file():
        return [row_of(f"clock of the {who}", 0, "not tried: needs Debian's package faketime", Findings(), {})]
    shape = Shape(sites=4, rounds=6)
    federation = make_federation(folder / "federation", shape)
    file, first = folder / "clock", shape.names[0]
    victim = SERVER if who == "server" else first
    set_clock(file, 0)
    with Keeper(folder / "logs") as keeper:
        serve(keeper, federation, faked(file) if victim == SERVER else None, before=SLEEP)
        notes = join(keeper, federation, folder / "notes", environment={first: faked(file)} if victim == first else {})
        trial = StepTrial(federation, Oracle(federation, None, notes), notes[shape.names[-1]])
        trial.run([_step(step, file, victim, keeper) for step in STEPS])
        ended = len(keeper.codes(victim))
    return trial.rows(f"clock of the {who}", folder, {"programs_ended": ended})


def _step(seconds: int, file: Path, victim: str, keeper: Keeper) -> Step:
    def said() -> str:
        words = ("certificate is not yet valid", "certificate has expired")
        found = [word for word in words if keeper.said(victim, word)]
        return f"its log says: {', '.join(found)}" if found else ""

    return Step(
        _said(seconds), 1, SECONDS, lambda _: set_clock(file, seconds), lambda _: set_clock(file, 0), remark=said
    )


def _said(seconds: int) -> str:
    number, unit = (seconds // DAY, "day") if seconds % DAY == 0 else (seconds // MINUTE, "min")
    return f"{number:+d} {unit}"
