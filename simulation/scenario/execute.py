"""From a scenario to a finished folder: one run, its gates, its files."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from fedseal.simulation.folders import run_folder
from fedseal.simulation.scenario.gates import judge
from fedseal.simulation.scenario.golden import recorded
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.logbook import BUNDLES, LOG
from fedseal.simulation.scenario.outcome import ScenarioResult
from fedseal.simulation.scenario.runner import Watcher, run_scenario
from fedseal.simulation.scenario.setting import setting_of
from fedseal.simulation.scenario.writing import write_run


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run and its folder."""

    folder: Path
    result: ScenarioResult


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a scenario's files are: ``folder`` is its own, ``data`` holds what its source needs."""

    folder: Path
    data: Path | None = None


def execute(
    scenario: Scenario,
    sources: Sources,
    out: Path,
    watcher: Watcher,
    *,
    name: str | None = None,
    workers: int = 1,
    baselines: bool = True,
) -> Finished:
    """Run a scenario once and write its folder, which appears when everything is written and not before.

    Args:
        scenario: the scenario; its sweep is not looked at.
        sources: where its files are.
        out: the folder for runs.
        watcher: told of every step.
        name: the first part of the folder's name; the scenario's if None.
        workers: processes for the sites of a training. They change no digest.
        baselines: whether to compare.

    Raises:
        FedsealError: says whose fault it is; nothing is left behind.
    """
    setting = setting_of(scenario, sources.folder, sources.data)
    with run_folder(out, name or scenario.scenario.name) as (folder, run):
        work = folder / "work"
        work.mkdir()
        result, model = run_scenario(setting, work, run, watcher, workers=workers, baselines=baselines)
        plain = [gate for gate in scenario.gate if gate.confidence is None]
        gates = tuple(judge(plain, [result], recorded(scenario.scenario.name, sources.folder)))
        result = result.model_copy(update={"gates": gates})
        watcher.phase("writing the report")
        for kept in ("study", LOG, BUNDLES):
            if (work / kept).is_dir():
                shutil.copytree(work / kept, folder / kept)
        shutil.rmtree(work)
        write_run(folder, scenario, result, model)
    return Finished(out / run, result)
