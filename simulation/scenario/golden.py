"""Golden figures: what a scenario of the library gave when it was recorded, and how close a later run has to come.

Figures are recorded on one machine; another processor or another version of a library rounds elsewhere, and a model
may answer differently for a person or two. So accuracies have to be within 0.02 and other numbers within 5 %, counts of
decisions within 1. The digest is exact on the machine and versions it was recorded with and promised for no others.
"""

import math
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from fedseal.config import Frozen
from fedseal.simulation.scenario.files import GOLDEN
from fedseal.simulation.scenario.gates import Golden, value_of
from fedseal.simulation.scenario.metrics import METRIC_NAMES
from fedseal.simulation.scenario.outcome import ScenarioResult

SHARES = ("accuracy.", "lift.", "gap.", "privacy.")
COUNTS = ("drift.", "alarms", "trainings", "promotions", "rollbacks", "rounds", "dropouts")


class Recorded(Frozen):
    """A scenario's golden figures: its metrics at the end, and the digest with where it holds."""

    schema_version: Literal[1] = 1
    scenario: str
    scenario_sha256: str
    metrics: dict[str, float | None]
    digest: str
    where: dict[str, str] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Departure:
    """A metric that is not within its tolerance of the recorded figure."""

    metric: str
    recorded: float | None
    found: float | None


def figures(result: ScenarioResult) -> dict[str, float | None]:
    """All metrics of a run at its end."""
    return {name: value_of(result, name) for name in METRIC_NAMES}


def record(result: ScenarioResult) -> Recorded:
    """A run as golden figures."""
    return Recorded(
        scenario=result.scenario,
        scenario_sha256=result.scenario_sha256,
        metrics=figures(result),
        digest=result.digest,
        where=here(),
    )


def here() -> dict[str, str]:
    """What a digest holds for."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "torch": torch.__version__,
        # Sums of floats are taken in other orders by wider registers.
        "vectors": torch.backends.cpu.get_cpu_capability(),
    }


def read(name: str, folder: Path | None = None) -> Recorded | None:
    """The recorded figures of a scenario: in the folder ``golden`` beside its file, or the library's own.

    Args:
        name: the scenario's.
        folder: the one its file is in.
    """
    places = [GOLDEN] if folder is None else [folder / "golden", GOLDEN]
    path = next((place / f"{name}.json" for place in places if (place / f"{name}.json").is_file()), None)
    return None if path is None else Recorded.model_validate_json(path.read_text(encoding="utf-8"))


def recorded(name: str, folder: Path | None = None) -> Golden | None:
    """The figures that gates compare with; see `read`."""
    found = read(name, folder)
    return None if found is None else Golden({k: v for k, v in found.metrics.items() if v is not None})


def write(result: ScenarioResult, folder: Path) -> Path:
    """Record a run's figures in a folder; the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.scenario}.json"
    path.write_text(record(result).model_dump_json(indent=2) + "\n", encoding="utf-8")
    return path


def departures(golden: Recorded, result: ScenarioResult) -> list[Departure]:
    """The metrics of a run that are further from the recorded ones than allowed."""
    found = figures(result)
    return [
        Departure(name, wanted, found[name])
        for name, wanted in golden.metrics.items()
        if not _close(name, wanted, found[name])
    ]


def _close(name: str, wanted: float | None, found: float | None) -> bool:
    if wanted is None or found is None:
        return wanted is found
    if name.startswith(SHARES):
        return abs(wanted - found) <= 0.02
    if name.startswith(COUNTS):
        return abs(wanted - found) <= 1
    if name == "regret":
        return abs(wanted - found) <= 0.02 + 0.1 * abs(wanted)
    return math.isclose(wanted, found, rel_tol=0.05, abs_tol=1e-6)
