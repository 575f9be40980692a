"""Studies that train a part of a model: what is frozen, what is trained, and what leaves a site of it."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from support.doors import walk
from torch import Tensor

from fedseal.client.task import SiteData, Split, Task, build_model
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.population import gather
from fedseal.simulation.training import Material
from fedseal.study import Contract, Study, load_study
from fedseal.study_code import load_task

# In a vector beside the values of a private update: its weight, and whether it was scaled down.
BESIDE = 2
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def changed(name: str, task: str, **changes: dict[str, object]) -> Study:
    """An example's study with another task and parts of its contract changed."""
    study = load_study(EXAMPLES / name)
    tables = study.contract.model_dump()
    tables["task"] = task
    for table, values in changes.items():
        tables[table] |= values
    return Study(study.folder, Contract.model_validate(tables))


def small_material(study: Study, folder: Path, persons: int) -> Material:
    """The first persons of each of the study's sites."""
    population = gather(study, data=None, sites=None, seed=1)
    task = cast(Task, load_task(study.contract.task, study.folder))
    data: dict[str, Path] = {}
    splits: dict[str, Split] = {}
    for site in population.sites:
        data[site.name] = folder / site.name
        data[site.name].mkdir(parents=True)
        site.table.head(persons).to_csv(data[site.name] / "persons.csv", index=False)
        splits[site.name] = task.data(SiteData(site.name, data[site.name]))
    return Material(study, task, splits, data, Oracle(task, splits), 1)


def frozen_digest(module: torch.nn.Module) -> str:
    """A hash over the names and bytes of everything that is not trained, buffers too.

    As float32: a copy in doubles, as a site makes to look at rounding, holds the same numbers.
    """
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name not in trained:
            found.update(name.encode() + tensor.float().numpy().tobytes())
    return found.hexdigest()


def sizes(task: object) -> tuple[int, int]:
    """How many numbers of the task's model are trained, and how many are frozen."""
    module = build_model(cast(Task, task))
    trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
    return trained, sum(p.numel() for p in module.parameters()) - trained


class Remembering:
    """A task that remembers every module it has made. What is asked of it, it asks the task."""

    def __init__(self, inner: Task) -> None:
        self.made: list[torch.nn.Module] = []
        self.data, self.loss, self.metrics, self._inner = inner.data, inner.loss, inner.metrics, inner

    def model(self) -> torch.nn.Module:
        self.made.append(self._inner.model())
        return self.made[-1]


@dataclass
class Vectors:
    """Delivers messages, walks every reply, and keeps the lengths of all vectors that left a site."""

    lengths: set[int]
    bytes: list[bytes]

    def __call__(self, app: ClientApp, message: Message, context: Context) -> Message:
        reply = app(message, context)
        walk(reply)
        for record in reply.content.array_records.values():
            for array in record.values():
                self.lengths.add(int(array.shape[0]))
                self.bytes.append(array.data)
        return reply


def holds_any(raw: Sequence[bytes], tensors: Sequence[Tensor]) -> bool:
    """Whether the first bytes of any tensor occur in what left."""
    return any(t.numpy().tobytes()[:16] in one for one in raw for t in tensors if np.any(t.numpy()))


def copied(name: str, folder: Path) -> Path:
    """An example's files in a folder of the test's own."""
    return Path(shutil.copytree(EXAMPLES / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")))


def simulated(folder: Path, out: Path, *options: str) -> Any:
    """`fedseal simulate` on a folder; result.json."""
    program = Path(sys.executable).with_name("fedseal")
    command = [str(program), "simulate", str(folder), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    (made,) = (p for p in out.iterdir() if not p.name.startswith("."))
    assert (made / "report.html").is_file()
    return json.loads((made / "result.json").read_text(encoding="utf-8"))
