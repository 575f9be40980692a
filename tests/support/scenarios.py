"""Small scenarios, run in seconds, and findings made by hand."""

from pathlib import Path

from fedseal.simulation.scenario.files import parse
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.outcome import ScenarioResult, StepRow
from fedseal.simulation.scenario.runner import Silent, run_scenario
from fedseal.simulation.scenario.setting import setting_of

SMALL = """
[scenario]
name = "small"
title = "A small one"
steps = 4

[population]
source = "generator:sea"
sites = 4
rows_per_step = 60

[[drift]]
kind = "concept"
op = "concept"
to = 3
when = "sudden@2"

[run]
rounds = 3
retrain_rounds = 2
retrain_every = 2
test_rows = 50

[[gate]]
metric = "accuracy.global"
op = ">="
value = 0.5
"""


def small(text: str = "") -> Scenario:
    """The small scenario with more tables behind it."""
    return parse(SMALL + text, "small.toml")


def run(scenario: Scenario, folder: Path, *, workers: int = 1, baselines: bool = True) -> ScenarioResult:
    """Run a scenario in a new folder."""
    folder.mkdir(parents=True)
    result, _ = run_scenario(
        setting_of(scenario, Path()), folder, "run", Silent(), workers=workers, baselines=baselines
    )
    return result


def made(accuracies: list[float | None], *, seed: int = 1, strategy: str = "fedavg", **whole: float) -> ScenarioResult:
    """Findings with these accuracies, step by step."""
    steps = tuple(
        StepRow(step=i, model=0, metrics={"accuracy.global": a, "eps.spent": 1.0}, sites={}, persons={})
        for i, a in enumerate(accuracies)
    )
    return ScenarioResult(
        scenario="made",
        title="Made",
        scenario_sha256="",
        run="run",
        seed=seed,
        strategy=strategy,
        epsilon=None,
        delta=None,
        secagg="model",
        created="",
        seconds=0.0,
        steps=steps,
        trainings=(),
        rounds=(),
        compared=(),
        sites={},
        heterogeneity={},
        whole={"bytes.total": 1.0, "virtual_time.total_s": 1.0, **whole},
    )
