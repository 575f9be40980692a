"""What a run of a scenario leaves behind: result.json, scenario.toml, metrics.parquet, events.jsonl, junit.xml,
report.html and the last model.
"""

import json
from pathlib import Path

import pandas as pd
import safetensors.numpy

from fedseal.client.trainer import Arrays
from fedseal.simulation.scenario.files import as_toml
from fedseal.simulation.scenario.junit import junit
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.outcome import ScenarioResult
from fedseal.simulation.scenario.page import write_page

RESULT, SCENARIO, METRICS, EVENTS, JUNIT, REPORT, MODEL = (
    "result.json",
    "scenario.toml",
    "metrics.parquet",
    "events.jsonl",
    "junit.xml",
    "report.html",
    "model.safetensors",
)


def write_run(folder: Path, scenario: Scenario, result: ScenarioResult, model: Arrays | None) -> None:
    """Write all files of a run into its folder."""
    (folder / RESULT).write_text(result.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / SCENARIO).write_text(as_toml(scenario), encoding="utf-8")
    metrics_table(result).to_parquet(folder / METRICS, index=False)
    (folder / EVENTS).write_text("".join(json.dumps(e) + "\n" for e in events(result)), encoding="utf-8")
    (folder / JUNIT).write_text(junit({result.scenario: result.gates}, result.seconds), encoding="utf-8")
    if model is not None:
        (folder / MODEL).write_bytes(safetensors.numpy.save(model))
    write_page(folder / REPORT, scenario, result)


def read_result(folder: Path) -> ScenarioResult:
    """A finished run's result."""
    return ScenarioResult.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))


def metrics_table(result: ScenarioResult) -> pd.DataFrame:
    """Everything measured as one long table: scenario, strategy, seed, step, round, site, metric, value.

    ``round`` counts within a training from 1, and is 0 for what belongs to the step itself; ``site`` is "all" for what
    is of all sites; ``step`` is -1 for what a scenario has once.
    """
    rows: list[tuple[int, int, str, str, float | None]] = []
    for step in result.steps:
        rows += [(step.step, 0, "all", name, value) for name, value in step.metrics.items()]
        rows += [(step.step, 0, site, "accuracy", value) for site, value in step.sites.items()]
        rows += [(step.step, 0, site, "persons", float(count)) for site, count in step.persons.items()]
    for entry in result.rounds:
        measured = {
            "accuracy": entry.accuracy,
            "loss": entry.loss,
            "sites": float(entry.sites),
            "seconds": entry.seconds,
            "bytes_down": float(entry.bytes_down),
            "bytes_up": float(entry.bytes_up),
        }
        rows += [(entry.step, entry.number, "all", name, value) for name, value in measured.items()]
        rows += [(entry.step, entry.number, s, "accuracy", value) for s, value in entry.sites_accuracy.items()]
    rows += [(-1, 0, "all", name, value) for name, value in result.whole.items()]
    for compared in result.compared:
        rows.append((-1, 0, "all", f"accuracy.{compared.name}", compared.accuracy))
        rows += [(-1, 0, site, f"accuracy.{compared.name}", value) for site, value in compared.sites.items()]
    table = pd.DataFrame(rows, columns=["step", "round", "site", "metric", "value"])
    table["value"] = table["value"].astype("float64")
    table.insert(0, "seed", result.seed)
    table.insert(0, "strategy", result.strategy)
    table.insert(0, "scenario", result.scenario)
    return table


def events(result: ScenarioResult) -> list[dict[str, object]]:
    """What happened, in the order in which it did: trainings, alarms, decisions."""
    found: list[dict[str, object]] = []
    for step in result.steps:
        trainings = [t for t in result.trainings if t.step == step.step]
        first = [t for t in trainings if t.reason == "first"]
        found += [_training(t.model_dump()) for t in first]
        if step.alarm is not None:
            found.append({"event": "window", "step": step.step, "outcome": step.alarm, "cause": step.cause})
        found += [{"event": "decision", "step": step.step, "decision": d} for d in step.decisions]
        found += [_training(t.model_dump()) for t in trainings if t.reason != "first"]
    return found


def _training(row: dict[str, object]) -> dict[str, object]:
    return {"event": "training", **{k: list(v) if isinstance(v, tuple) else v for k, v in row.items()}}
