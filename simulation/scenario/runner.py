"""One run of a scenario, from its setting to its findings; nothing is written but what simulated stores need."""

import importlib.metadata
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Protocol

import numpy as np
from torch import nn

from fedseal.client.trainer import Arrays, load
from fedseal.simulation.heterogeneity import Heterogeneity, gradient_dissimilarity, heterogeneity
from fedseal.simulation.scenario.comparing import compare
from fedseal.simulation.scenario.language import Scenario, scenario_digest
from fedseal.simulation.scenario.outcome import Compared, RoundRow, ScenarioResult, SiteRow, StepRow, run_digest
from fedseal.simulation.scenario.quality import answers
from fedseal.simulation.scenario.setting import Setting
from fedseal.simulation.scenario.timeline import PROMOTED, ROLLED_BACK, Timeline
from fedseal.simulation.scenario.training import Conditions
from fedseal.simulation.scenario.truth import detection
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import initial_model

PACKAGES = ("fedseal", "numpy", "torch", "flwr", "scipy", "scikit-learn")


class Watcher(Protocol):
    """Who watches a run."""

    def step(self, row: StepRow) -> None:
        """A step is over."""

    def phase(self, title: str) -> None:
        """Something else begins."""


@dataclass(frozen=True, slots=True)
class Silent:
    """Watches and says nothing."""

    def step(self, row: StepRow) -> None:
        """Nothing."""

    def phase(self, title: str) -> None:
        """Nothing."""


def run_scenario(
    setting: Setting,
    folder: Path,
    run: str,
    watcher: Watcher,
    *,
    workers: int = 1,
    baselines: bool = True,
    logged: bool = True,
) -> tuple[ScenarioResult, Arrays | None]:
    """Run a scenario; its findings, without gates, and the model in use at the end.

    Args:
        setting: scenario, world and task.
        folder: an existing folder for what simulated parties keep.
        run: the run's name.
        watcher: told of every step.
        workers: processes for the sites of a training.
        baselines: whether to compare.
        logged: whether a watched scenario keeps a log, in the folder's ``log`` at the end; it changes no digest.
    """
    with one_thread():
        return _run(setting, folder, run, watcher, workers=workers, baselines=baselines, logged=logged)


def _run(
    setting: Setting, folder: Path, run: str, watcher: Watcher, *, workers: int, baselines: bool, logged: bool
) -> tuple[ScenarioResult, Arrays | None]:
    started = time.monotonic()
    timeline, scenario = Timeline(setting, folder, watcher.step, workers, logged), setting.scenario
    timeline.run()
    compared: list[Compared] = []
    if baselines and timeline.trainings.first is not None:
        watcher.phase("majority class, every site alone, all data pooled, no privacy")
        conditions = Conditions(workers=workers, engine=scenario.run.engine)
        compared = compare(timeline.trainings.first, setting.task, conditions)
    private = scenario.run.privacy.plan != "none"
    world = setting.world
    figures = heterogeneity(world.sites, world.classes, world.class_table(0))
    result = ScenarioResult(
        scenario=scenario.scenario.name,
        title=scenario.scenario.title or scenario.scenario.name,
        scenario_sha256=scenario_digest(scenario),
        run=run,
        seed=scenario.scenario.seed,
        strategy=scenario.run.strategy,
        epsilon=scenario.run.privacy.epsilon if private else None,
        delta=scenario.run.privacy.delta if private else None,
        secagg=scenario.run.secagg,
        created=datetime.now(UTC).replace(microsecond=0).isoformat(),
        seconds=round(time.monotonic() - started, 3),
        steps=tuple(timeline.steps),
        trainings=tuple(timeline.trainings.rows),
        rounds=tuple(timeline.trainings.rounds),
        windows=tuple(timeline.windows),
        compared=tuple(compared),
        sites=site_rows(figures),
        heterogeneity=heterogeneity_facts(setting, figures),
        whole=whole(timeline, compared),
        notes=tuple(notes(timeline)),
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        origin=str(setting.folder.resolve()) if uses_files(scenario) else "",
    )
    model = None if timeline.in_use is None else timeline.trainings.models[timeline.in_use]
    return result.model_copy(update={"digest": run_digest(result)}), model


def uses_files(scenario: Scenario) -> bool:
    """Whether the scenario names files beside it."""
    matrix = any(drift.schedule.form == "matrix" for drift in scenario.drift)
    return matrix or scenario.population.path is not None or isinstance(scenario.devices.availability, str)


def site_rows(figures: Heterogeneity) -> dict[str, SiteRow]:
    """Persons and classes of every site's first window, by the true labels."""
    rows = {}
    for name, own, distance in zip(figures.sites, figures.table, figures.hellinger, strict=True):
        classes = {c: int(n) for c, n in zip(figures.classes, own, strict=True)}
        rows[name] = SiteRow(persons=int(own.sum()), classes=classes, hellinger=float(distance))
    return rows


def heterogeneity_facts(setting: Setting, figures: Heterogeneity) -> dict[str, float]:
    """How unlike the sites are before anything drifts."""
    task, world = setting.task, setting.world
    module = task.model()
    load(module, initial_model(task, setting.scenario.scenario.seed))
    windows = [world.window(i, 0) for i in range(len(world.sites))]
    scaled = [(task.scaled(w.x).astype(np.float64), w.y) for w in windows]
    apart = gradient_dissimilarity(
        module, lambda model, x, y: nn.functional.cross_entropy(model(x), y, reduction="none"), scaled
    )
    return {
        "hellinger.mean": float(figures.hellinger.mean()),
        "hellinger.max": float(figures.hellinger.max()),
        "total_variation.mean": float(figures.total_variation.mean()),
        "effective_sites": figures.effective_sites,
        "gradient_dissimilarity": min(apart, 1e9),
    }


def whole(timeline: Timeline, compared: list[Compared]) -> dict[str, float | None]:
    """The metrics that a scenario has once."""
    rounds, trainings = timeline.trainings.rounds, timeline.trainings.rows
    found = detection(timeline.steps, timeline.changes, timeline.moved)
    watched = any(row.alarm is not None for row in timeline.steps)
    decisions = [d for row in timeline.steps for d in row.decisions]
    seconds = [row.seconds for row in rounds]
    moved = sum(row.bytes_down + row.bytes_up for row in rounds)
    by_name: dict[str, float | None] = {c.name: c.accuracy for c in compared}
    own = by_name.get("federated")

    def beside(name: str, sign: int) -> float | None:
        other = by_name.get(name)
        return None if own is None or other is None else sign * (own - other) + 0.0

    return {
        "drift.delay": None if found.delay is None else float(found.delay),
        "drift.missed": float(found.missed) if watched else None,
        "drift.false_alarms_per_100": found.false_per_100,
        "alarms": float(sum(row.alarm == "alarm" for row in timeline.steps)) if watched else None,
        "trainings": float(sum(t.aborted is None for t in trainings)),
        "trainings.aborted": float(sum(t.aborted is not None for t in trainings)),
        "promotions": float(sum(d == PROMOTED for d in decisions)),
        "rollbacks": float(sum(d == ROLLED_BACK for d in decisions)),
        "rounds": float(len(rounds)),
        "dropouts": float(sum(row.asked - row.sites for row in rounds)),
        "lift.majority": beside("majority", 1),
        "lift.local": beside("local", 1),
        "gap.pooled": beside("pooled", -1),
        "gap.plain": beside("plain", -1),
        "bytes.total": float(moved),
        "bytes.per_site_round": _mean_per_site(rounds),
        "virtual_time.round.mean_s": mean(seconds) if seconds else None,
        "virtual_time.round.p95_s": float(np.quantile(seconds, 0.95)) if seconds else None,
        "virtual_time.total_s": sum(seconds),
        "privacy.advantage": membership_advantage(timeline),
    }


def membership_advantage(timeline: Timeline) -> float | None:
    """How much better than a coin one guesses who was trained on in the first training, by whether the model's loss of
    a person is below the mean of those trained on (Yeom, Giacomelli, Fredrikson and Jha 2018, adversary 2).

    It is the share of members below that mean minus the share of others.
    """
    trainings, setting = timeline.trainings, timeline.setting
    if trainings.first is None:
        return None
    number = min(trainings.models)
    model, step = trainings.models[number], trainings.first.step
    members = list(trainings.cohorts[number].train.values())
    rows = setting.scenario.run.test_rows
    others = [setting.world.test(i, step, rows) for i in range(len(setting.world.sites))]
    inside, outside = (
        answers(setting.task, model, np.concatenate([r.x for r in some])).losses(np.concatenate([r.y for r in some]))
        for some in (members, others)
    )
    return float((inside <= inside.mean()).mean() - (outside <= inside.mean()).mean())


def _mean_per_site(rounds: list[RoundRow]) -> float | None:
    """Bytes for one site and one round."""
    visits = sum(row.asked for row in rounds)
    return sum(row.bytes_down + row.bytes_up for row in rounds) / visits if visits else None


def notes(timeline: Timeline) -> list[str]:
    """What a reader should know of this run."""
    scaled = (
        "Columns are scaled by public figures, two digits of each, as a data dictionary states them; here they are "
        "taken from all sites' first windows."
    )
    found = [scaled]
    run = timeline.setting.scenario.run
    if run.secagg == "model":
        found.append(
            "The protocol was modelled: sums in its integers, its bytes and its noise, without keys and masks. "
            'secagg = "real" in [run] runs it.'
        )
    found += [
        f"Training {t.number} at step {t.step} ended without a model: {t.aborted}"
        for t in timeline.trainings.rows
        if t.aborted is not None
    ]
    return found
