"""Running a finished run again, and naming what is not the same."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedseal.errors import ConfigError
from fedseal.simulation.scenario.execute import Sources
from fedseal.simulation.scenario.files import load
from fedseal.simulation.scenario.outcome import UNFIXED, ScenarioResult
from fedseal.simulation.scenario.runner import Silent, run_scenario
from fedseal.simulation.scenario.setting import setting_of
from fedseal.simulation.scenario.writing import RESULT, SCENARIO, read_result


@dataclass(frozen=True, slots=True)
class Verified:
    """The digest that came out, what is not the same, each a line, and which versions are not those of the run."""

    digest: str
    differences: list[str]
    versions: list[str]


def rerun(folder: Path, data: Path | None = None, workers: int = 1) -> Verified:
    """Run a run's own scenario.toml again and compare with its result.json.

    Args:
        folder: the run's.
        data: the folder of files that its source needs.
        workers: processes; the digest may not depend on them.

    Raises:
        ConfigError: the folder is no run of a scenario.
    """
    if not (folder / RESULT).is_file() or not (folder / SCENARIO).is_file():
        raise ConfigError(
            f"{folder} is no run of a scenario",
            next_step=f"Give a folder with {RESULT} and {SCENARIO}, as fedseal simulate SCENARIO makes it.",
        )
    before = read_result(folder)
    scenario = load(str(folder / SCENARIO))
    origin = Path(before.origin) if before.origin else folder
    setting = setting_of(scenario, Sources(origin, data).folder, data)
    with tempfile.TemporaryDirectory() as work:
        after, _ = run_scenario(
            setting,
            Path(work),
            before.run,
            Silent(),
            workers=workers,
            baselines=bool(before.compared),
            logged=False,
        )
    found = differences(before, after)
    if not found and before.digest != after.digest:
        found = [f"result.json says digest {before.digest}, and its own numbers have {after.digest}"]
    versions = [
        f"{name} was {then}, is {after.versions.get(name)}"
        for name, then in before.versions.items()
        if then != after.versions.get(name)
    ]
    return Verified(after.digest, found, versions)


def differences(before: ScenarioResult, after: ScenarioResult) -> list[str]:
    """Where two results differ in what scenario and seed fix, in the order of the file."""
    return _differences("", before.model_dump(exclude=UNFIXED), after.model_dump(exclude=UNFIXED))


def _differences(place: str, before: Any, after: Any) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [
            line
            for key in keys
            for line in _differences(f"{place}.{key}" if place else str(key), before.get(key), after.get(key))
        ]
    if isinstance(before, list | tuple) and isinstance(after, list | tuple):
        if len(before) != len(after):
            return [f"{place}: {len(before)} entries, now {len(after)}"]
        return [
            line
            for i, (old, new) in enumerate(zip(before, after, strict=True))
            for line in _differences(f"{place}[{i}]", old, new)
        ]
    return [] if before == after else [f"{place}: was {before!r}, is {after!r}"]
