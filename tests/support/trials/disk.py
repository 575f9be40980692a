"""A disk that is full for a while, at a site or at the server: a small file system of its own, filled to the last byte.

Needs root and Linux (a tmpfs is mounted); elsewhere the trial says that it was not made.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import SERVER, Keeper, join, serve
from support.trials.oracle import Findings, Oracle
from support.trials.results import Chunk, row_of
from support.trials.steps import Step, StepTrial
from support.trials.study import PLANS, Plan, Shape, make_federation

SIZE = 24 << 20
FILLER = "filler"
SECONDS, TIMES = 6.0, 4


def disk_chunks() -> Iterator[Chunk]:
    """One chunk a plan."""
    for plan in PLANS:
        yield Chunk(f"plan {plan}", 300, partial(filled, plan))


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


def filled(plan: Plan, folder: Path, left: float, times: int = TIMES) -> list[dict[str, Any]]:
    """Let disks be full while runs of four sites go on, of which three are enough: that of a site's store, that of the
    server's, and that of the folder of runs.
    """
    shape = Shape(sites=4, rounds=6 if plan == "none" else 60, plan=plan, retries=20 if plan == "none" else 80)
    federation = make_federation(folder / "federation", shape)
    enrolled, first = federation.files.enrolled, shape.names[0]
    federation.runs.mkdir(mode=0o700)
    places = {
        "a site's store": (enrolled.site_stores[first].parent, first),
        "the server's store": (enrolled.server_store.parent, SERVER),
        "the folder of runs": (federation.runs, SERVER),
    }
    with ExitStack() as stack:
        if not all(stack.enter_context(own_disk(place)) for place, _ in places.values()):
            return [row_of(f"disk full, plan {plan}", 0, "not tried: needs root and Linux", Findings(), {})]
        with Keeper(folder / "logs") as keeper:
            serve(keeper, federation)
            notes = join(keeper, federation, folder / "notes")
            trial = StepTrial(federation, Oracle(federation, None, notes), notes[shape.names[-1]])
            trial.run([_step(f"{name} for {SECONDS:.0f} s", *where, keeper, times) for name, where in places.items()])
            ended = {name: len(keeper.codes(name)) for name in (SERVER, first)}
    return trial.rows(f"disk full, plan {plan}", folder, {"programs_ended": ended})


def _step(name: str, place: Path, victim: str, keeper: Keeper, times: int) -> Step:
    def said() -> str:
        log = keeper.log(victim).read_text(encoding="utf-8", errors="replace")
        stood = log.count("stands still")
        return f"the server said {stood} times that the run stands still" if stood else ""

    return Step(name, times, SECONDS, lambda _: fill(place), lambda _: (place / FILLER).unlink(), said)
