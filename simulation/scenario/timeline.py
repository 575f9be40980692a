"""A scenario from its first step to its last: persons arrive, the model in use is judged and watched, and trained anew.

Within a step: the windows arrive; the model in use is judged on them before anything is trained on them; the monitor
looks at them; then what the policy or the schedule decides is done. So what a step's metrics say is of the model that
its persons met. At step 0 there is none, so there the first training comes before.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy

from fedseal.client.trainer import Arrays
from fedseal.simulation.scenario.best import best_model
from fedseal.simulation.scenario.material import Rows, contract_of, make_material, rows_of, training_seed, write_study
from fedseal.simulation.scenario.outcome import RoundRow, StepRow, TrainingRow
from fedseal.simulation.scenario.quality import Quality, quality
from fedseal.simulation.scenario.setting import Setting
from fedseal.simulation.scenario.training import Account, Attempt, attempt
from fedseal.simulation.scenario.truth import began_or_ended, in_force, label
from fedseal.simulation.training import Material, Trained, initial_model
from fedseal.simulation.worlds.world import World
from fedseal.study import Study

FIRST, SCHEDULE = "first", "schedule"


@dataclass(frozen=True, slots=True)
class FirstTraining:
    """The material of the first finished training, which comparisons are made on: all begin with the same new model."""

    material: Material
    trained: Trained
    step: int


@dataclass(slots=True)
class Timeline:
    """The course of one run.

    Args:
        setting: scenario, world and task.
        folder: the run's; federations' stores are kept under it while it runs.
        watcher: told of every step.
        workers: processes for the sites of a training.
    """

    setting: Setting
    folder: Path
    watcher: Callable[[StepRow], None] = lambda _: None
    workers: int = 1
    steps: list[StepRow] = field(default_factory=list)
    trainings: list[TrainingRow] = field(default_factory=list)
    rounds: list[RoundRow] = field(default_factory=list)
    models: dict[int, Arrays] = field(default_factory=dict)
    in_use: int | None = None
    first: FirstTraining | None = None
    moved: list[bool] = field(default_factory=list)
    changes: list[int] = field(default_factory=list)
    _account: Account = field(init=False)
    # The step whose persons the monitor compares with.
    _reference: int = 0

    def __post_init__(self) -> None:
        self._account = Account(self.setting.scenario.run.privacy.delta)

    def run(self) -> None:
        """All steps, in order."""
        write_study(self._study.folder, self.setting.task)
        for step in range(self.setting.scenario.scenario.steps):
            if step and began_or_ended(self.world, step):
                self.changes.append(step)
            self.moved.append(in_force(self.world, step) != in_force(self.world, self._reference))
            row = self._step(step)
            self.steps.append(row)
            self.watcher(row)

    # One step

    def _step(self, step: int) -> StepRow:
        test = self._test(step)
        if self.in_use is None:
            self._retrain(step, FIRST, test)
        met = self.in_use
        row = self._judged(step, met, test)
        if step and met is not None and self._due(step):
            self._retrain(step, SCHEDULE, test)
        return row

    def _due(self, step: int) -> bool:
        """Whether the schedule asks for a training, and there are labels that the last one did not know."""
        every = self.setting.scenario.run.retrain_every
        newest = step - self.setting.scenario.labels.delay_steps
        return every is not None and step % every == 0 and newest > max(self.trainings[-1].windows)

    def _judged(self, step: int, model: int | None, test: Mapping[str, Rows]) -> StepRow:
        """The step's row, of the model that its persons met."""
        task = self.setting.task
        found = Quality(None, None, dict.fromkeys(test)) if model is None else quality(task, self.models[model], test)
        oldest = min(self.models, default=None)
        kept = None if oldest is None else quality(task, self.models[oldest], test).accuracy
        best = self._best(step, test)
        seen = self._observed(step, model)
        before = self.steps[-1].metrics["regret"] if self.steps else 0.0
        lost = None if None in (best, found.accuracy, before) else before + best - found.accuracy  # type: ignore[operator]
        metrics: dict[str, float | None] = {
            "accuracy.global": found.accuracy,
            "accuracy.worst_site": min(found.known, default=None),
            "accuracy.best_site": max(found.known, default=None),
            "accuracy.mean_site": float(np.mean(found.known)) if found.known else None,
            "loss.global": found.loss,
            "accuracy.observed": seen,
            "accuracy.oracle": best,
            "accuracy.kept": kept,
            "regret": lost,
            "eps.spent": self._account.epsilon(),
        }
        return StepRow(
            step=step,
            model=-1 if model is None else model,
            metrics=metrics,
            sites=found.sites,
            persons={name: len(self.world.window(i, step).y) for i, name in enumerate(self.world.sites)},
            drifts=tuple(label(self.world, drift) for drift in self.world.truth(step)),
        )

    def _best(self, step: int, test: Mapping[str, Rows]) -> float | None:
        """The oracle's accuracy: fitted to all sites' persons of this step with their true labels."""
        windows = [self.world.window(i, step) for i in range(len(self.world.sites))]
        x, y = np.concatenate([w.x for w in windows]), np.concatenate([w.y for w in windows])
        if not len(y):
            return None
        everyone = Rows(x, y, np.concatenate([w.persons for w in windows]))
        first = initial_model(self.setting.task, self.setting.scenario.scenario.seed)
        return quality(self.setting.task, best_model(self.setting.task, everyone, first), test).accuracy

    def _observed(self, step: int, model: int | None) -> float | None:
        """What sites see: accuracy by recorded labels on the newest window whose labels are known by now.

        None where the model was trained on that window, as at step 0.
        """
        newest = step - self.setting.scenario.labels.delay_steps
        if model is None or newest < 0 or any(newest in t.windows for t in self.trainings[: model + 1]):
            return None
        windows = {name: self.world.window(i, newest) for i, name in enumerate(self.world.sites)}
        rows = {name: Rows(w.x, w.observed, w.persons) for name, w in windows.items()}
        return quality(self.setting.task, self.models[model], rows).accuracy

    # Training

    def _retrain(self, step: int, reason: str, test: Mapping[str, Rows]) -> int | None:
        """Train on the newest windows and put the model to use; its number, or None if there is none."""
        number = self._train(step, reason, test)
        if number is not None:
            self.in_use = number
        return number

    def _train(self, step: int, reason: str, test: Mapping[str, Rows]) -> int | None:
        """Train on the newest windows with known labels; the number of the training if there is a model."""
        number, run = len(self.trainings), self.setting.scenario.run
        initial = None if self.in_use is None else self.models[self.in_use]
        rounds = run.rounds if initial is None else run.retrain_rounds
        windows, train = self._persons(step)
        contract = contract_of(self.setting.scenario, rounds)
        material = make_material(
            Study(self._study.folder, contract),
            self.setting.task,
            train,
            test,
            seed=training_seed(self.setting.scenario.scenario.seed, number),
            initial=initial,
            tables=self.folder / f"tables-{number}",
        )
        ended = attempt(material, contract, self.folder / f"federation-{number}", faulty=self._faulty)
        self._account.charge(ended.plan, ended.releases, {name: train[name].persons for name in material.splits})
        self._keep(number, step, reason, windows, train, ended)
        if ended.trained is None:
            return None
        self.models[number] = ended.trained.model
        if self.first is None:
            self.first = FirstTraining(material, ended.trained, step)
        return number

    def _persons(self, step: int) -> tuple[tuple[int, ...], dict[str, Rows]]:
        """Which windows a training at a step is on, and every site's persons of them."""
        run, delay = self.setting.scenario.run, self.setting.scenario.labels.delay_steps
        # What a federation begins with was labelled before it began.
        begins = not self.models
        newest = step if begins else step - delay
        windows = tuple(range(max(0, newest - run.train_on + 1), max(newest, 0) + 1))
        gone = self.world.withdrawn(step)
        train = {
            name: rows_of([self.world.window(i, s) for s in windows], step, gone, truth=False, forewarned=begins)
            for i, name in enumerate(self.world.sites)
        }
        return windows, train

    def _keep(
        self, number: int, step: int, reason: str, windows: tuple[int, ...], train: Mapping[str, Rows], ended: Attempt
    ) -> None:
        """The training's rows."""
        privacy, trained = self.setting.scenario.run.privacy, ended.trained
        self.trainings.append(
            TrainingRow(
                number=number,
                step=step,
                reason=reason,
                windows=windows,
                persons=sum(len(rows.y) for rows in train.values()),
                sites=sum(bool(len(rows.y)) for rows in train.values()),
                rounds=0 if trained is None else len(trained.rounds),
                epsilon=None if privacy.plan == "none" else privacy.epsilon,
                aborted=None if trained is not None else ended.reason,
                model_sha256=None if trained is None else model_digest(trained.model),
            )
        )
        for view in () if trained is None else trained.rounds:
            record, judged = view.record, view.judged
            self.rounds.append(
                RoundRow(
                    training=number,
                    step=step,
                    number=record.number,
                    asked=self.trainings[-1].sites,
                    sites=record.sites,
                    seconds=0.0,
                    bytes_down=sum(cost.bytes_down for cost in record.stages.values()),
                    bytes_up=sum(cost.bytes_up for cost in record.stages.values()),
                    accuracy=judged.everyone.get("accuracy"),
                    loss=judged.everyone["loss"],
                    sites_accuracy={name: scores.get("accuracy") for name, scores in judged.sites.items()},
                )
            )

    # What does not change

    def _test(self, step: int) -> dict[str, Rows]:
        """Held-out persons of every site, with their true labels."""
        rows = self.setting.scenario.run.test_rows
        drawn = {name: self.world.test(i, step, rows) for i, name in enumerate(self.world.sites)}
        return {name: Rows(w.x, w.y, w.persons) for name, w in drawn.items()}

    @property
    def world(self) -> World:
        """The scenario's world."""
        return self.setting.world

    @property
    def _faulty(self) -> bool:
        """Whether something goes wrong on purpose."""
        return bool(self.setting.scenario.fault)

    @property
    def _study(self) -> Study:
        scenario = self.setting.scenario
        return Study(self.folder / "study", contract_of(scenario, scenario.run.rounds))


def model_digest(model: Arrays) -> str:
    """SHA-256 of a model's bytes."""
    return hashlib.sha256(safetensors.numpy.save(model)).hexdigest()
