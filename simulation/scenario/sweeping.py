"""Running a sweep: every cell in a folder of its own that appears when it is finished, so that what is killed goes on
where it was.
"""

import json
import logging
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedseal.errors import ConfigError
from fedseal.simulation.folders import remove_leftovers
from fedseal.simulation.scenario.compared import Comparison, compare, groups_of
from fedseal.simulation.scenario.execute import Sources, execute
from fedseal.simulation.scenario.files import as_toml
from fedseal.simulation.scenario.gates import judge
from fedseal.simulation.scenario.golden import recorded
from fedseal.simulation.scenario.junit import junit
from fedseal.simulation.scenario.language import Scenario, scenario_digest
from fedseal.simulation.scenario.outcome import GateRow, ScenarioResult
from fedseal.simulation.scenario.page_compare import write_comparison
from fedseal.simulation.scenario.runner import Silent
from fedseal.simulation.scenario.sweep import Cell, cells
from fedseal.simulation.scenario.writing import JUNIT, RESULT, SCENARIO, read_result

CELLS, COMPARE, PAGE = "cells", "compare.json", "compare.html"


@dataclass(frozen=True, slots=True)
class Swept:
    """A finished sweep and its folder; ``resumed`` cells were there already."""

    folder: Path
    comparison: Comparison
    resumed: int

    @property
    def gates(self) -> dict[str, tuple[GateRow, ...]]:
        """The gates of every group."""
        return {group.name: group.gates for group in self.comparison.groups}


@dataclass(frozen=True, slots=True)
class Job:
    """One cell to run, as another process is told."""

    cell: Cell
    sources: Sources
    out: Path
    baselines: bool


def run_sweep(
    scenario: Scenario,
    sources: Sources,
    out: Path,
    progress: Callable[[int, int, str], None],
    *,
    workers: int = 1,
    baselines: bool = True,
) -> Swept:
    """Run every cell that is not there yet, and compare all.

    The folder is named by what the scenario says: the same command again goes on, a changed scenario begins anew.

    Args:
        scenario: with a sweep.
        sources: where its files are.
        out: the folder for runs.
        progress: told how many cells are there, of how many, and which was the last.
        workers: how many cells at once, each in a process of its own.
        baselines: whether every cell is compared with baselines.

    Raises:
        FedsealError: a cell failed; those that are finished stay.
    """
    wanted = cells(scenario)
    digest = scenario_digest(scenario)
    folder = out / f"{scenario.scenario.name}-sweep-{digest[:10]}"
    _make(folder)
    (folder / SCENARIO).write_text(as_toml(scenario), encoding="utf-8")
    remove_leftovers(folder / CELLS)
    found = finished_cells(folder, wanted)
    resumed = len(found)
    progress(len(found), len(wanted), "")
    jobs = [Job(cell, sources, folder / CELLS, baselines) for cell in wanted if cell.name not in found]
    for name, cell_folder in _run(jobs, workers):
        found[name] = read_result(cell_folder)
        progress(len(found), len(wanted), name)
    results = [found[cell.name] for cell in wanted]
    comparison = _compared(scenario, results, digest, sources.folder)
    (folder / COMPARE).write_text(comparison.model_dump_json(indent=2) + "\n", encoding="utf-8")
    suites = {group.name: group.gates for group in comparison.groups}
    seconds = sum(result.seconds for result in results)
    (folder / JUNIT).write_text(junit(suites, seconds), encoding="utf-8")
    write_comparison(folder / PAGE, scenario, comparison)
    return Swept(folder, comparison, resumed)


def finished_cells(folder: Path, wanted: list[Cell]) -> dict[str, ScenarioResult]:
    """Cells that are there and whole, by name: of the very scenario that the cell asks for."""
    found: dict[str, ScenarioResult] = {}
    for cell in wanted:
        for path in sorted((folder / CELLS).glob(f"{cell.name}-????????-??????-??????")):
            try:
                result = read_result(path)
            except (OSError, ValueError, json.JSONDecodeError):
                continue
            if result.scenario_sha256 == scenario_digest(cell.scenario) and (path / RESULT).is_file():
                found[cell.name] = result
    return found


def _run(jobs: list[Job], workers: int) -> Iterator[tuple[str, Path]]:
    """Run the cells, several at once if asked; each as it is finished."""
    if workers == 1 or len(jobs) < 2:
        yield from map(run_cell, jobs)
        return
    # A fresh interpreter each: torch's and Flower's threads do not survive a fork. Leaving the block ends them all.
    with multiprocessing.get_context("spawn").Pool(min(workers, len(jobs)), initializer=_quiet) as pool:
        yield from pool.imap_unordered(run_cell, jobs)


def _quiet() -> None:
    """In a process of its own: Flower logs every step of a round to the console that shows the progress."""
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def run_cell(job: Job) -> tuple[str, Path]:
    """Run one cell; its name and folder."""
    finished = execute(job.cell.scenario, job.sources, job.out, Silent(), name=job.cell.name, baselines=job.baselines)
    return job.cell.name, finished.folder


def _compared(scenario: Scenario, results: list[ScenarioResult], digest: str, folder: Path) -> Comparison:
    groups = groups_of(results)
    golden = recorded(scenario.scenario.name, folder)
    gates = [tuple(judge(scenario.gate, list(group.results.values()), golden)) for group in groups]
    return compare(groups, gates, scenario.scenario.title or scenario.scenario.name, digest)


def _make(folder: Path) -> None:
    try:
        (folder / CELLS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{folder} cannot hold a sweep: {reason}", next_step="Give another --out.") from None
