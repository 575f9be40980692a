"""The kill trials of `bench/faults.py`, in pieces of a few minutes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.keeper import Keeper, join, serve
from support.trials.kills import KillPlan, KillTrial
from support.trials.oracle import Oracle
from support.trials.reference import simulated
from support.trials.results import Chunk, row_of
from support.trials.study import Plan, Shape, make_federation

KILLS = 20
CHUNKS = 10
# A killed server's round is made anew, and counted again: a run has to have planned for so many attempts. With three,
# as many studies have, a run that is struck this often is refused by its sites.
ATTEMPTS = 60


def kill_chunks() -> Iterator[Chunk]:
    """Two hundred kills: half of them under plan none, three and four sites; half under plan distributed, four."""
    for number in range(CHUNKS):
        plan: Plan = "none" if number % 2 == 0 else "distributed"
        sites = 4 if plan == "distributed" or number % 4 == 2 else 3
        shape = Shape(sites=sites, rounds=8 if plan == "none" else 20, plan=plan, retries=ATTEMPTS)
        yield Chunk(f"{plan}-{number:02d}", 60, partial(killed, shape, number))


def killed(shape: Shape, seed: int, folder: Path, left: float, kills: int = KILLS) -> list[dict[str, Any]]:
    """One trial: a federation of its own, kills, and the oracle.

    Args:
        shape: the federation's.
        seed: of the schedule.
        folder: a new one.
        left: seconds for the kills.
        kills: how many.
    """
    federation = make_federation(folder / "federation", shape)
    with Keeper(folder / "logs") as keeper:
        serve(keeper, federation)
        notes = join(keeper, federation, folder / "notes")
        oracle = Oracle(federation, None, notes)
        trial = KillTrial(federation, keeper, oracle, next(iter(notes.values())))
        report = trial.run(KillPlan(kills, seed), left)
    # A node that was away for longer than the server waits was not in that round's sum, and is not in the simulation's.
    missing = {place: oracle.missing(place) for place in trial.folders}
    for number, place in enumerate(trial.folders):
        sites = missing[place]
        oracle.model(
            place, simulated(federation, folder / f"simulated-{number}", sites) if shape.plan == "none" else None
        )
    findings = oracle.everything([])
    figures = report.figures()
    figures["sites_missing_from_sums"] = sum(absent.count for absent in missing.values())
    happened = "all runs finished" if set(report.runs.values()) == {"finished"} else str(figures["runs"])
    return [row_of(f"kill -9 of server or site, plan {shape.plan}", len(report.struck), happened, findings, figures)]
