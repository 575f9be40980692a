"""A disk that is full for a while, at a site or at the server: a small file system of its own, filled to the last byte.

Needs root and Linux (a tmpfs is mounted); elsewhere the trial says that it was not made.
"""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.kills import Follower, spread
from support.trials.network import BOUND, finish, judge_runs, pass_time, until_round
from support.trials.oracle import Findings, Invariant, Oracle
from support.trials.results import Chunk, row_of
from support.trials.study import PLANS, Federation, Plan, Shape, make_federation

SIZE = 24 << 20
FILLER = "filler"


@dataclass(frozen=True, slots=True)
class FullDisk:
    """Whose disk is full, for how many seconds each time, and how often.

    ``place``: "site" (its store), "server" (its store), "runs" (where runs are ordered and written down).
    """

    place: str
    seconds: float = 6.0
    times: int = 4


DISKS = (FullDisk("site"), FullDisk("server"), FullDisk("runs"))


def disk_chunks() -> Iterator[Chunk]:
    """One chunk a place and plan."""
    for disk in DISKS:
        for plan in PLANS:
            yield Chunk(f"{disk.place}, plan {plan}", 120, partial(filled, disk, plan))


@contextmanager
def own_disk(folder: Path) -> Iterator[bool]:
    """Move a folder to a small file system of its own, until the block ends; False where that cannot be done."""
    command = shutil.which("mount")
    kept = folder.with_name(f"{folder.name}.kept")
    if command is None or os.geteuid() != 0:
        yield False
        return
    folder.rename(kept)
    folder.mkdir(mode=0o700)
    done = subprocess.run(
        [command, "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "fedseal-trial", str(folder)], check=False
    )
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            last = folder.with_name(f"{folder.name}.last")
            with contextlib.suppress(FileNotFoundError):
                (folder / FILLER).unlink()
            shutil.copytree(folder, last)
            subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S607 - likewise
            folder.rmdir()
            last.rename(folder)


def fill(folder: Path) -> None:
    """Take all space that is left."""
    with (folder / FILLER).open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def filled(disk: FullDisk, plan: Plan, folder: Path, left: float) -> dict[str, Any]:
    """Let a disk be full while runs of four sites go on, of which three are enough."""
    shape = Shape(sites=4, rounds=6 if plan == "none" else 24, plan=plan, retries=3 if plan == "none" else 60)
    federation = make_federation(folder / "federation", shape)
    victim = SERVER if disk.place != "site" else shape.names[0]
    place = _folder(federation, disk, victim)
    injected = f"disk full for {disk.seconds:.0f} s: {disk.place}, plan {plan}"
    with own_disk(place) as mounted:
        if not mounted:
            return row_of(injected, 0, "not tried: needs root and Linux", Findings(), {})
        with Keeper(folder / "logs") as keeper:
            serve(keeper, federation)
            notes = join(keeper, federation, folder / "notes")
            oracle = Oracle(federation, None, notes)
            follower = Follower(federation, notes[shape.names[-1]])
            waits = _through(place, disk, follower, oracle)
            ended, said = len(keeper.codes(victim)), keeper.log(victim).read_text(encoding="utf-8", errors="replace")
    judge_runs(folder, federation, follower, oracle)
    oracle.everything([])
    states = {how.partition(":")[0] for how in follower.runs.values()}
    figures = {
        "next_round": spread(waits),
        "rounds": follower.rounds,
        "attempts": follower.attempts,
        "missing": sum(len(sites) for n in follower.runs for sites in oracle.missing(federation.runs / n).values()),
        "runs": sorted(follower.runs.values()),
        "programs_ended": ended,
        "named": sorted({word for word in ("No space left on device", "disk is full") if word in said}),
    }
    happened = "all runs finished" if states == {"finished"} else ", ".join(sorted(states))
    return row_of(injected, disk.times, happened, oracle.findings, figures)


def _folder(federation: Federation, disk: FullDisk, victim: str) -> Path:
    match disk.place:
        case "site":
            return federation.files.enrolled.site_stores[victim].parent
        case "server":
            return federation.files.enrolled.server_store.parent
        case _:
            federation.runs.mkdir(mode=0o700)
            return federation.runs


def _through(place: Path, disk: FullDisk, follower: Follower, oracle: Oracle) -> list[float]:
    waits: list[float] = []
    for turn in range(disk.times):
        until_round(follower, BOUND)
        pass_time(follower, 0.4 * turn, again=False)
        fill(place)
        end = time.monotonic() + disk.seconds
        while time.monotonic() < end:
            pass_time(follower, 0.2, again=False)
        (place / FILLER).unlink()
        begun = time.monotonic()
        oracle.findings.check(Invariant.RECOVERY, until_round(follower, BOUND), "no round within the bound")
        waits.append(time.monotonic() - begun)
    finish(follower)
    return waits
