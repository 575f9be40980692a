"""What a training of a scenario is made of: a world's windows as the persons of a study that runs like any other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.utils.data import TensorDataset

from fedseal.client.tabular import LABEL, PART, TEST, TRAIN, Tabular
from fedseal.client.task import Split
from fedseal.client.trainer import Arrays
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.training import Material
from fedseal.simulation.worlds.window import Window
from fedseal.simulation.worlds.world import World
from fedseal.study import Contract, Study, Training

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Rows:
    """Some persons: values of shape (n, features) with NaN where one is missing, classes, and who they are."""

    x: Reals
    y: NDArray[np.intp]
    persons: NDArray[np.int64]


def rows_of(windows: Sequence[Window], step: int, gone: NDArray[np.int64], *, truth: bool, forewarned: bool) -> Rows:
    """The persons of one site's windows who may be trained on at a step.

    Args:
        windows: of the site.
        step: now; labels that are known later are not there yet.
        gone: who has withdrawn by now.
        truth: with the true labels, as only an oracle has them.
        forewarned: count every label as known: what a federation begins with was labelled before it began.
    """
    parts = []
    for window in windows:
        kept = window.consent & ~np.isin(window.persons, gone)
        if not forewarned and window.ready > step:
            kept &= False
        labels = window.y if truth else window.observed
        parts.append(Rows(window.x[kept], labels[kept], window.persons[kept]))
    return Rows(
        np.concatenate([p.x for p in parts]),
        np.concatenate([p.y for p in parts]),
        np.concatenate([p.persons for p in parts]),
    )


def public_figures(world: World) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The centre and scale of every feature, to two digits: what a data dictionary says of them.

    Taken from all sites' first windows. A real federation has them from such a dictionary, or releases them.
    """
    x = np.concatenate([world.window(site, 0).x for site in range(len(world.sites))])
    known = ~np.isnan(x)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, x, 0.0).sum(axis=0) / count
    deviation = np.sqrt((np.where(known, x - mean, 0.0) ** 2).sum(axis=0) / count)
    centre = tuple(_two_digits(float(m)) for m in mean)
    return centre, tuple(_two_digits(float(d)) or 1.0 for d in deviation)


def _two_digits(value: float) -> float:
    return float(f"{value:.2g}")


def tabular(scenario: Scenario, world: World) -> Tabular:
    """The scenario's task."""
    centre, scale = public_figures(world)
    hidden = scenario.run.hidden if scenario.run.model == "mlp" else 0
    return Tabular(tuple(world.features), len(world.classes), centre, scale, hidden)


def write_study(folder: Path, task: Tabular) -> None:
    """The study's folder, from which every simulated site loads the task as a real one would."""
    folder.mkdir(parents=True)
    text = f'"""The task of a simulated scenario."""\n\nfrom fedseal.client.tabular import Tabular\n\ntask = {task!r}\n'
    (folder / "task.py").write_text(text, encoding="utf-8")


def contract_of(scenario: Scenario, rounds: int) -> Contract:
    """What one training of the scenario promises and does."""
    run = scenario.run
    settings = {name: getattr(run, name) for name in Training.model_fields if name != "rounds"}
    return Contract(
        version=1,
        name=scenario.scenario.name,
        title=scenario.scenario.title,
        task="task:task",
        training=Training.model_validate(settings | {"rounds": rounds}),
        privacy=run.privacy,
        cohort=run.cohort,
    )


def training_seed(seed: int, number: int) -> int:
    """The seed of a scenario's training of this number: no two draw the same coins."""
    return int(KeyedRandomness(seed, "scenario").stream("training", number).words64(1)[0] >> np.uint64(1))


def split_of(task: Tabular, train: Rows, test: Rows) -> Split:
    """Persons as the task's own data() would give them."""
    return Split(
        dataset(task, train), dataset(task, Rows(test.x[:0], test.y[:0], test.persons[:0])), dataset(task, test)
    )


def dataset(task: Tabular, rows: Rows) -> TensorDataset:
    """Rows as the model sees them."""
    return TensorDataset(torch.from_numpy(task.scaled(rows.x)), torch.from_numpy(rows.y.astype(np.int64)))


def make_material(
    study: Study,
    task: Tabular,
    train: Mapping[str, Rows],
    test: Mapping[str, Rows],
    *,
    seed: int,
    initial: Arrays | None,
    tables: Path | None,
) -> Material:
    """A training's material.

    Args:
        study: folder and contract.
        task: the study's.
        train: persons by site; sites without any are left out of the cohort.
        test: held-out persons of all sites, for the oracle.
        seed: the training's.
        initial: the model to begin with; None for the seed's own.
        tables: a new folder for the sites' tables, for sites that read them; None if nobody does.
    """
    everyone = {name: split_of(task, train[name], test[name]) for name in train}
    splits = {name: split for name, split in everyone.items() if len(train[name].y)}
    data = {name: Path() if tables is None else tables / name for name in splits}
    if tables is not None:
        for name, folder in data.items():
            write_table(folder, task, train[name], test[name])
    return Material(study, task, splits, data, Oracle(task, everyone), seed, initial)


def write_table(folder: Path, task: Tabular, train: Rows, test: Rows) -> None:
    """One site's table, as `Tabular.data` reads it."""
    table = pd.DataFrame(np.concatenate([train.x, test.x]), columns=list(task.features))
    table[LABEL] = np.concatenate([train.y, test.y])
    table[PART] = np.repeat([TRAIN, TEST], [len(train.y), len(test.y)])
    folder.mkdir(parents=True)
    table.to_parquet(folder / "persons.parquet", index=False)
