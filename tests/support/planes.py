"""Federations of the study `linear` that run fedseal's own app, and the same training in doubles on a page.

`Planes` trains sealed, with deterministic rounding. The functions below it know neither Flower nor fedseal.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
from flwr.app import Message
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from support.flower import Federation, make_federation

from fedseal.client.app import client_app
from fedseal.client.first_model import first_arrays
from fedseal.client.mod import DATA_KEY, STUDY_KEY
from fedseal.client.task import Task, build_model
from fedseal.client.trainer import trainable
from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.quantize import Rounding, mean_error
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import VALUES
from fedseal.server.app import build_strategy, task_settings
from fedseal.server.grid import SealedGrid
from fedseal.server.rounds import Plan, RoundRecord, run_rounds
from fedseal.server.sealing import CohortRules
from fedseal.simulation.grid import Deliver, LocalGrid
from fedseal.study import Training, load_study
from fedseal.study_code import load_task

Vector = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[1] / "studies" / "linear"
LARGEST = 64
EQUAL = (16, 16, 16, 16)
UNEQUAL = (8, 24, 12, 40)


@dataclass
class Points:
    """One site's rows, with a column of ones for the bias first."""

    rows: Vector
    targets: Vector

    def gradient(self, w: Vector) -> Vector:
        """Of the mean of (row w - target)^2 / 2."""
        return np.asarray(self.rows.T @ (self.rows @ w - self.targets) / len(self.targets))


def points(sizes: Sequence[int]) -> list[Points]:
    """Sites that disagree: each has a plane of its own."""
    rng = np.random.default_rng(11)
    found = []
    for size in sizes:
        rows = rng.normal(size=(size, 3)).round(3) + rng.normal(size=3).round(3)
        targets = (rows @ rng.normal(size=3) + rng.normal() + 0.1 * rng.normal(size=size)).round(3)
        found.append(Points(np.column_stack([np.ones(size), rows]), targets))
    return found


NEEDED: dict[str, dict[str, Any]] = {
    "fedrep": {"personal_layers": ["bias"]},
    "fedbn": {"batch_level": True},
    "clustered": {"cluster_minimum": 2},
}


def training(strategy: str, **changes: Any) -> Training:
    """The study's settings for a strategy."""
    table = load_study(FOLDER).contract.training.model_dump()
    return Training.model_validate({**table, "strategy": strategy, **NEEDED.get(strategy, {}), **changes})


def flat(arrays: Mapping[str, NDArray[Any]]) -> Vector:
    """A model as one vector, in the order of names: of a plane bias, weights."""
    return np.concatenate([arrays[name].ravel() for name in sorted(arrays)]).astype(np.float64)


START = {"bias": np.array([0.25], np.float32), "weight": np.array([[0.5, -0.25, 0.125]], np.float32)}


def drawn(number: int) -> dict[str, NDArray[Any]]:
    """A plane to begin with."""
    move = np.array([0.5, -1.0, 0.25], np.float32)
    return {name: array + np.float32(number) * move[: array.size] for name, array in START.items()}


def start_of(how: Training) -> dict[str, NDArray[Any]]:
    """What the server begins with under a strategy."""
    task = cast(Task, load_task(task_of(how), FOLDER))
    draw = (lambda _: trainable(build_model(task))) if how.strategy == "fedbn" else drawn
    return first_arrays(task, how, draw, KeyedRandomness(1, "start").stream())


def task_of(how: Training) -> str:
    """Which task of the study a strategy trains, if a test does not say."""
    return "task:Normed" if how.strategy == "fedbn" else "task:Plane"


@dataclass
class Planes:
    """A federation whose sites have so many rows each, and what one training of it came to."""

    folder: Path
    sizes: Sequence[int] = EQUAL
    plan: PrivacyPlan | None = None
    deliver: Deliver | None = None
    app: ClientApp = field(default_factory=client_app)
    task: str | None = None
    start: dict[str, NDArray[Any]] | None = None
    models: list[Vector] = field(default_factory=list)
    records: list[RoundRecord] = field(default_factory=list)
    error: float = 0.0

    def __post_init__(self) -> None:
        self.sites = points(self.sizes)
        self.federation: Federation = make_federation(self.folder, len(self.sizes))
        for number, site in enumerate(self.sites, start=1):
            where = self.folder / f"data-{number}"
            where.mkdir()
            table = pd.DataFrame(site.rows[:, 1:], columns=["a", "b", "c"]).assign(y=site.targets)
            table.to_csv(where / "persons.csv", index=False)

    @property
    def weights(self) -> Vector:
        """Each site's share of all rows."""
        return np.array(self.sizes) / sum(self.sizes)

    def local_grid(self, how: Training) -> LocalGrid:
        """The nodes."""
        nodes = self.federation.nodes(**{STUDY_KEY: str(FOLDER)})
        for config in nodes.values():
            config[DATA_KEY] = str(self.folder / f"data-{config['number']}")
        return LocalGrid(self.app, nodes, run_config=self.run_config(how), deliver=self.deliver)

    def run_config(self, how: Training) -> dict[str, str]:
        """What every app is told of the run."""
        return {"fedseal-task": self.task or task_of(how)}

    def grid(self, strategy: FedAvg, how: Training, run: bytes | None = None) -> SealedGrid:
        """The nodes behind a sealed grid."""
        return SealedGrid(
            self.local_grid(how),
            strategy,
            store=self.federation.server,
            max_examples=LARGEST,
            plan=self.plan,
            update_range=how.update_range,
            cohort=CohortRules(minimum=3, colluders=0, retries=1, stage_timeout=0.0),
            rounding=Rounding.NEAREST,
            run_config=self.run_config(how),
            run=run,
        )

    def train(
        self,
        how: Training,
        *,
        strategy: FedAvg | None = None,
        run: bytes | None = None,
        watch: Callable[[SealedGrid, FedAvg], object] = lambda *_: None,
        stop_after: int | None = None,
    ) -> bytes:
        """Train, keep the model after every round, and return the run's id.

        Raises:
            KeyboardInterrupt: after the round it was told to stop after, once its checkpoint is on disk.
        """
        made = strategy or build_strategy(how, len(self.sizes), dict(enumerate(self.sizes, start=1)))
        sealed = self.grid(made, how, run)
        self.run = sealed.run_id
        watch(sealed, made)

        def observe(record: RoundRecord) -> None:
            self.records.append(record)
            self.models.append(flat(record.model))
            if sealed.last_sum is not None:
                total = sealed.last_sum
                share = total.weight / LARGEST
                self.error = mean_error(total.layout.segment(VALUES), Rounding.NEAREST, total.sites, share)
            if record.number == stop_after:
                raise KeyboardInterrupt

        # Nobody waits for sites that a test makes silent.
        plan = Plan(how.rounds, task_settings(how, None), timeout=1e-3)
        run_rounds(sealed, made, dict(self.start or start_of(how)), plan, observe)
        return sealed.run_id


def lots(planes: Planes, site: int, how: Training, number: int) -> list[NDArray[np.intp]]:
    """The rows of each local step of a site in a round, where every release is an update whose first attempt
    succeeded: everyone, or batches in the order that the site's keyed randomness draws for each pass.
    """
    count = planes.sizes[site - 1]
    if how.batch_size is None:
        return [np.arange(count)] * how.local_steps
    batches, found = -(-count // how.batch_size), list[NDArray[np.intp]]()
    randomness = planes.federation.site(site).identity.randomness()
    for step in range(0, how.steps_over(count), batches):
        order = randomness.stream("sampling", step, number, 0).permutation(count)
        found += [order[i * how.batch_size : (i + 1) * how.batch_size] for i in range(batches)]
    return found[: how.steps_over(count)]


def steps(x: Vector, site: Points, how: Training, *, mu: float = 0.0, shift: Vector | float = 0.0) -> Vector:
    """K steps of gradient descent from x."""
    w = x.copy()
    for _ in range(how.local_steps):
        w = w - how.learning_rate * (site.gradient(w) + mu * (w - x) + shift)
    return w


def silent(when: Callable[[int, Message], bool], *, heard: bool = True) -> Deliver:
    """A network that loses a node's answer to some messages; with ``heard`` the node has worked all the same."""

    def deliver(app: ClientApp, message: Message, context: Any) -> Message | None:
        lost = when(int(context.node_config["number"]), message)
        if lost and not heard:
            return None
        answer = app(message, context)
        return None if lost else answer

    return deliver
