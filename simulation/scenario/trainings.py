"""All trainings of one run: on whom, from which model, and what is kept of each."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors.numpy

from fedseal.client.task import size
from fedseal.client.trainer import Arrays
from fedseal.simulation.faults.delivery import Patience
from fedseal.simulation.scenario.clock import examples_of, part_of, seconds_by_round, training_clock
from fedseal.simulation.scenario.faulty import Real
from fedseal.simulation.scenario.material import (
    Rows,
    contract_of,
    make_material,
    rows_of,
    training_seed,
    write_study,
    write_table,
)
from fedseal.simulation.scenario.outcome import RoundRow, TrainingRow
from fedseal.simulation.scenario.setting import Setting
from fedseal.simulation.scenario.training import Account, Attempt, Conditions, attempt
from fedseal.simulation.training import Material, Trained
from fedseal.simulation.virtual.clock import VirtualClock
from fedseal.study import Contract, Study


@dataclass(frozen=True, slots=True)
class FirstTraining:
    """The material of the first finished training, which comparisons are made on: all begin with the same new model.

    ``test`` holds the held-out persons of all sites.
    """

    material: Material
    trained: Trained
    step: int
    test: Mapping[str, Rows]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Whom a training is on: which windows, and their persons by site."""

    windows: tuple[int, ...]
    train: Mapping[str, Rows]


@dataclass(slots=True)
class Trainings:
    """The trainings of one run.

    Args:
        setting: scenario, world and task.
        folder: the run's; federations' stores are kept under it while it runs.
        workers: processes for the sites of a training.
    """

    setting: Setting
    folder: Path
    workers: int = 1
    rows: list[TrainingRow] = field(default_factory=list)
    rounds: list[RoundRow] = field(default_factory=list)
    models: dict[int, Arrays] = field(default_factory=dict)
    cohorts: dict[int, Cohort] = field(default_factory=dict)
    # Sites' own models by training, where the strategy leaves them some.
    own: dict[int, dict[str, Arrays]] = field(default_factory=dict)
    first: FirstTraining | None = None
    # Virtual seconds at which the last training ended: trainings follow one another on one clock.
    now: float = 0.0
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        self.account = Account(self.setting.scenario.run.privacy.delta)
        write_study(self._study, self.setting.task)

    def newest(self, step: int) -> int:
        """The newest window whose labels are known at a step; below 0 if there is none."""
        return step - self.setting.scenario.labels.delay_steps

    def cohort(self, step: int) -> Cohort:
        """The newest windows with known labels. What a federation begins with was labelled before it began."""
        begins = not self.models
        newest = step if begins else self.newest(step)
        windows = tuple(range(max(0, newest - self.setting.scenario.run.train_on + 1), max(newest, 0) + 1))
        world, gone = self.setting.world, self.setting.world.withdrawn(step)
        train = {
            name: rows_of([world.window(i, s) for s in windows], step, gone, truth=False, forewarned=begins)
            for i, name in enumerate(world.sites)
        }
        return Cohort(windows, train)

    def train(self, step: int, reason: str, start: int | None, test: Mapping[str, Rows]) -> int | None:
        """Train once; the training's number if there is a model, None if not.

        Args:
            step: now.
            reason: why, for the report.
            start: the training whose model it begins with; None for a new one.
            test: held-out persons by site, for the oracle.
        """
        number, run = len(self.rows), self.setting.scenario.run
        cohort = self.cohort(step)
        contract = contract_of(self.setting.scenario, run.rounds if start is None else run.retrain_rounds)
        material = make_material(
            Study(self._study, contract),
            self.setting.task,
            cohort.train,
            test,
            seed=training_seed(self.setting.scenario.scenario.seed, number),
            initial=None if start is None else self.models[start],
            tables=self.folder / f"tables-{number}" if run.secagg == "real" else None,
        )
        clock = self._clock(material, contract)
        real = self._real(number, cohort, material) if run.secagg == "real" else None
        ended = attempt(material, contract, Conditions(clock, real, self.workers, run.engine, self.setting.faulty))
        self.now = clock.now
        taking = {name: cohort.train[name].persons for name in material.splits}
        self.account.charge(ended.plan, ended.releases, taking)
        self._keep(number, step, reason, cohort, ended, clock)
        if ended.trained is None:
            return None
        self.models[number], self.cohorts[number] = ended.trained.model, cohort
        if ended.trained.personal:
            self.own[number] = ended.trained.personal
        if self.first is None:
            self.first = FirstTraining(material, ended.trained, step, test)
        return number

    def _keep(self, number: int, step: int, reason: str, cohort: Cohort, ended: Attempt, clock: VirtualClock) -> None:
        """The training's rows."""
        privacy, trained = self.setting.scenario.run.privacy, ended.trained
        sites = sum(bool(len(rows.y)) for rows in cohort.train.values())
        row = TrainingRow(
            number=number,
            step=step,
            reason=reason,
            windows=cohort.windows,
            persons=sum(len(rows.y) for rows in cohort.train.values()),
            sites=sites,
            rounds=0 if trained is None else len(trained.rounds),
            epsilon=None if privacy.plan == "none" else privacy.epsilon,
            aborted=None if trained is not None else ended.reason,
            model_sha256=None if trained is None else model_digest(trained.model),
        )
        self.rows.append(row)
        self.rounds += [] if trained is None else round_rows(row, trained, clock)

    def _clock(self, material: Material, contract: Contract) -> VirtualClock:
        """The virtual clock of a training that begins now."""
        setting, names = self.setting, tuple(material.splits)
        numbers = {name: i for i, name in enumerate(setting.world.sites)}
        places = np.array([numbers[name] for name in names], dtype=np.intp)
        persons = np.array([size(split.train) for split in material.splits.values()], dtype=np.intp)
        return training_clock(
            part_of(setting.fleet, places),
            examples_of(contract.training, persons),
            names,
            setting.scenario.fault,
            seed=material.seed,
            model_bytes=sum(array.nbytes for array in material.first_model().values()),
            start=self.now,
        )

    def _real(self, number: int, cohort: Cohort, material: Material) -> Real:
        """What the real protocol needs besides."""
        scenario, flipped = self.setting.scenario, {}
        if any(fault.attack == "label_flip" for fault in scenario.fault):
            last = len(self.setting.world.classes) - 1
            for name in material.splits:
                rows = cohort.train[name]
                flipped[name] = self.folder / f"flipped-{number}" / name
                write_table(flipped[name], self.setting.task, replace(rows, y=last - rows.y), rows)
        return Real(
            folder=self.folder / f"federation-{number}",
            faults=scenario.fault,
            seed=material.seed,
            patience=Patience(scenario.devices.stage_deadline_s, scenario.devices.deadline_s),
            flipped=flipped,
        )

    @property
    def _study(self) -> Path:
        return self.folder / "study"


def round_rows(row: TrainingRow, trained: Trained, clock: VirtualClock) -> list[RoundRow]:
    """The rows of a training's rounds."""
    seconds = seconds_by_round(clock)
    return [
        RoundRow(
            training=row.number,
            step=row.step,
            number=view.record.number,
            asked=row.sites,
            sites=view.record.sites,
            seconds=seconds.get(view.record.number, 0.0),
            bytes_down=sum(cost.bytes_down for cost in view.record.stages.values()),
            bytes_up=sum(cost.bytes_up for cost in view.record.stages.values()),
            accuracy=view.judged.everyone.get("accuracy"),
            loss=view.judged.everyone["loss"],
            sites_accuracy={name: scores.get("accuracy") for name, scores in view.judged.sites.items()},
        )
        for view in trained.rounds
    ]


def model_digest(model: Arrays) -> str:
    """SHA-256 of a model's bytes."""
    return hashlib.sha256(safetensors.numpy.save(model)).hexdigest()
