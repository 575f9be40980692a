"""A study in numpy alone, and a federation of resident nodes for it: as many as a machine holds.

Logistic regression on a few columns. Under plan none a site takes local steps, everybody in every step; under plan
distributed it sums clipped gradients, and fedseal adds the noise. Each site's table has values and a name that occur
nowhere else, by which its rows would be known again in anything that leaves.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from support.trials.task import CLIP, COLUMNS, PERSONS, RATE, STEPS, TABLE, person_of, rows_of

from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.shared_planning import Extent
from fedseal.server.app import (
    CONTRACT_KEY,
    METRICS_KEY,
    MODEL_KEY,
    ROUNDING_KEY,
    SITES_KEY,
    STORE_KEY,
)
from fedseal.server.coordination import Order, ordered
from fedseal.simulation.deployed.processes import free_ports
from fedseal.simulation.deployed.residence import Residence, settle
from fedseal.study import Contract, Study, load_study

Plan = Literal["none", "distributed"]
PLANS: tuple[Plan, ...] = ("none", "distributed")
Arrays = dict[str, NDArray[np.float32]]

STUDY = """\
[project]
name = "fedseal-trial"
version = "1.0.0"
dependencies = []

[tool.fedseal]
version = 1
name = "trial"
title = "A trial"
task = "task:Trial"

[tool.fedseal.training]
rounds = {rounds}
local_steps = {steps}
sample_rate = 1.0
learning_rate = {rate}
strategy = "fedavg"

[tool.fedseal.privacy]
plan = "{plan}"
epsilon = 60.0
delta = 1e-5
clip_norm = {clip}
retries = {retries}

[tool.fedseal.cohort]
minimum = {minimum}
colluders = 1
largest_site = 100
"""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a federation is, and what it does. ``minimum``: sites in a sum at least; ``width``: numbers in the
    model besides the logistic ones, which ride along and stay zero.
    """

    sites: int = 3
    rounds: int = 4
    plan: Plan = "none"
    minimum: int = 3
    retries: int = 3
    width: int = 0

    @property
    def names(self) -> list[str]:
        """The sites' names."""
        return [f"ward-{number:02d}" for number in range(1, self.sites + 1)]


def contract_of(shape: Shape) -> Contract:
    """The contract, as the study's file has it."""
    return Contract.model_validate(
        {
            "version": 1,
            "name": "trial",
            "title": "A trial",
            "task": "task:Trial",
            "training": {"rounds": shape.rounds, "local_steps": STEPS, "sample_rate": 1.0, "learning_rate": RATE},
            "privacy": {
                "plan": shape.plan,
                "epsilon": 60.0,
                "delta": 1e-5,
                "clip_norm": CLIP,
                "retries": shape.retries,
            },
            "cohort": {"minimum": shape.minimum, "colluders": 1, "largest_site": 100},
        }
    )


def write_study(folder: Path, shape: Shape) -> Study:
    """The study's folder, whose code every site approves."""
    folder.mkdir(parents=True)
    text = STUDY.format(
        rounds=shape.rounds,
        steps=STEPS,
        rate=RATE,
        plan=shape.plan,
        clip=CLIP,
        retries=shape.retries,
        minimum=shape.minimum,
    )
    (folder / "pyproject.toml").write_text(text, encoding="utf-8")
    (folder / "task.py").write_text('"""The node of a trial has its task built in."""\n', encoding="utf-8")
    return load_study(folder)


def write_tables(folder: Path, names: list[str]) -> dict[str, Path]:
    """Every site's folder of data."""
    found = {}
    for number, name in enumerate(names, start=1):
        found[name] = folder / name
        found[name].mkdir(parents=True)
        lines = [f"{person_of(name, i)}," + ",".join(map(repr, row.tolist())) for i, row in enumerate(rows_of(number))]
        (found[name] / TABLE).write_text("\n".join(lines) + "\n", encoding="ascii")
    return found


def first_model(width: int) -> Arrays:
    """What everybody begins with."""
    model = {"weight": np.zeros(COLUMNS, dtype=np.float32), "bias": np.zeros(1, dtype=np.float32)}
    return model | ({"ballast": np.zeros(width, dtype=np.float32)} if width else {})


@dataclass(frozen=True, slots=True)
class Federation:
    """Everything on disk: the study, the sites' data, and what the sites and the server were made of."""

    shape: Shape
    study: Study
    plans: RunPlans
    data: dict[str, Path]
    files: Residence

    @property
    def runs(self) -> Path:
        """The server's folder of runs."""
        return self.files.server.parent / "runs"

    def order(self) -> Order:
        """Order a run."""
        with ordered(self.runs, "trial") as (folder, order):
            return order(run_config(self.shape, self.files.enrolled.server_store, folder, self.study.contract))


def run_config(shape: Shape, store: Path, folder: Path, contract: Contract) -> dict[str, str | int]:
    """A run's configuration; writes the first model into ``folder``."""
    model = folder / "initial.safetensors"
    model.write_bytes(safetensors.numpy.save(dict(first_model(shape.width))))
    return {
        "fedseal-task": contract.task,
        STORE_KEY: str(store),
        CONTRACT_KEY: contract.model_dump_json(exclude={"simulation"}),
        MODEL_KEY: str(model),
        METRICS_KEY: json.dumps({}),
        SITES_KEY: shape.sites,
        ROUNDING_KEY: Rounding.NEAREST.name.lower(),
    }


def make_federation(folder: Path, shape: Shape) -> Federation:
    """Enrol a federation for a trial, in a new folder, with the server at a free port of the loopback address."""
    study = write_study(folder / "study", shape)
    data = write_tables(folder / "data", shape.names)
    size = sum(array.size for array in first_model(shape.width).values())
    plans = plan_run(study.contract, Extent(size, shape.sites))
    (port,) = free_ports(1)
    files = settle(folder / "made", study, plans, dict.fromkeys(shape.names, PERSONS), data, port)
    return Federation(shape, study, plans, data, files)
