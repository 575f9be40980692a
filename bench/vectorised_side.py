"""Our side of the simulators' comparison: sites that train together, on the workloads of bench/simulation.py.

    python bench/vectorised_side.py W1m 8
    python bench/vectorised_side.py W2 8 --way one-by-one

Prints one line of JSON. CPU is that of the process per client and round, rounds after the first; start-up is the time
to the first round and what the first round takes more than the median one.

W1m: 1,000 users of 50 persons, 784-128-62 MLP, 50 users a round, batches of 10. W2: 10 users of 5,000 persons,
32-64-2 MLP, batches of 64. Both one pass a round, plain gradient descent with 0.1. Persons are drawn from blobs, one a
class, with a seed: the same for every engine that takes them from `workload`.
"""

import os

# BLAS on one thread, as torch: read when numpy is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedseal.client.metrics import accuracy
from fedseal.client.task import Batch, Metric, SiteData, Split
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.engine.splits import IndexedSplits
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.training import Material, RoundView
from fedseal.study import Contract, Study


@dataclass(frozen=True, slots=True)
class Workload:
    """What is simulated."""

    users: int
    persons: int
    widths: tuple[int, int, int]
    cohort: int
    batch: int
    spread: float

    @property
    def steps(self) -> int:
        """Of one pass over a user's persons."""
        return -(-self.persons // self.batch)


WORKLOADS = {
    "W1m": Workload(1000, 50, (784, 128, 62), 50, 10, 0.06),
    "W2": Workload(10, 5000, (32, 64, 2), 10, 64, 0.3),
}


class Classifier:
    """The workloads' task."""

    def __init__(self, widths: tuple[int, int, int]) -> None:
        self._widths = widths

    def model(self) -> nn.Module:
        inputs, hidden, classes = self._widths
        return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def data(self, site: SiteData) -> Split:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy()]


def persons(workload: Workload, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Blobs: a centre for each class, and noise."""
    inputs, _, classes = workload.widths
    centres = np.random.default_rng(11).normal(size=(classes, inputs)).astype(np.float32) * np.float32(workload.spread)
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    features = centres[labels] + rng.normal(size=(count, inputs)).astype(np.float32)
    return torch.from_numpy(features), torch.from_numpy(labels)


def material(workload: Workload, rounds: int) -> tuple[Material, Contract]:
    """The workload as a simulation's material."""
    pool = persons(workload, workload.users * workload.persons, 1)
    ends = np.arange(1, workload.users + 1) * workload.persons
    task = Classifier(workload.widths)
    nobody = torch.utils.data.TensorDataset(pool[0][:0], pool[1][:0])
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "workload",
            "training": {
                "rounds": rounds,
                "learning_rate": 0.1,
                "local_steps": workload.steps,
                "batch_size": workload.batch,
            },
            "privacy": {"plan": "none"},
            "cohort": {"largest_site": workload.persons},
        }
    )
    splits = IndexedSplits(pool, np.arange(len(pool[0])), ends)
    # Nobody is judged on the way: what is timed is training. `main` judges the last model.
    oracle = Oracle(task, {"nobody": Split(nobody, nobody, nobody)})
    return Material(Study(Path(), contract), task, splits, {}, oracle, 1), contract


def pss_mib() -> float:
    """This process's memory, shared pages by their share."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def main(name: str, rounds: int, way: Any = "batched") -> dict[str, float]:
    """Run a workload; its figures."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    workload = WORKLOADS[name]
    walls, cpus = [time.perf_counter()], [time.process_time()]

    def finished(_: RoundView) -> None:
        walls.append(time.perf_counter())
        cpus.append(time.process_time())

    gathered, contract = material(workload, rounds)
    walls[0], cpus[0] = time.perf_counter(), time.process_time()
    share = workload.cohort / workload.users
    trained = train_modelled(gathered, contract, finished, vectorised=way, fraction=share)
    test = torch.utils.data.TensorDataset(*persons(workload, 2000, 2))
    judged = Oracle(gathered.task, {"everyone": Split(test, test, test)}).judge_arrays(trained.model, None)
    seconds = np.diff(walls)
    later = statistics.median(seconds[1:])
    return {
        "cpu_ms_per_client": 1000 * (cpus[-1] - cpus[1]) / ((rounds - 1) * workload.cohort),
        "wall_clients_per_s": workload.cohort / later,
        "startup_s": float(seconds[0] - later),
        "pss_mib": pss_mib(),
        "accuracy": judged.everyone["accuracy"] or 0.0,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=WORKLOADS)
    parser.add_argument("rounds", type=int)
    parser.add_argument("--way", default="batched", choices=["batched", "vmap", "one-by-one"])
    given = parser.parse_args()
    print(json.dumps(main(given.workload, given.rounds, given.way)))
