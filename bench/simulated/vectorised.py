"""fedseal's engine for studies: users of a round trained together in one process, the protocol modelled.

It draws users and the order of examples itself, so its accuracy is that of the same training with other draws.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from measure import Watch
from torch import Tensor, nn
from workloads import Workload, all_users, test_data

from fedseal.client.metrics import accuracy
from fedseal.client.task import Batch, Metric, SiteData, Split
from fedseal.client.trainer import trainable
from fedseal.simulation.engine.crew import Engine
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.engine.splits import IndexedSplits
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.training import Material, RoundView
from fedseal.study import Contract, Study


class Classifier:
    """A workload as a task."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def model(self) -> nn.Module:
        """The workload's."""
        return self._workload.model()

    def data(self, site: SiteData) -> Split:
        """Not from files."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross entropy of each person."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        """Accuracy."""
        return [accuracy()]


def run(workload: Workload, rounds: int, watch: Watch) -> float:
    """The accuracy."""
    torch.set_num_threads(1)
    pool = all_users(workload.name)
    nobody = torch.utils.data.TensorDataset(pool[0][:0], pool[1][:0])
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "workload",
            "training": {
                "rounds": rounds,
                "learning_rate": workload.learning_rate,
                "local_steps": -(-workload.examples // workload.batch),
                "batch_size": workload.batch,
            },
            "privacy": {"plan": "none"},
            "cohort": {"largest_site": workload.examples},
        }
    )
    task = Classifier(workload)
    splits = IndexedSplits(pool, np.arange(len(pool[0])), np.arange(1, workload.users + 1) * workload.examples)
    # Nobody is judged on the way: what is timed is training.
    oracle = Oracle(task, {"nobody": Split(nobody, nobody, nobody)})
    first = trainable(workload.first_model())
    material = Material(Study(Path(), contract), task, splits, {}, oracle, workload.seed, first)

    def finished(_: RoundView) -> None:
        watch.round_over()

    # The engine looks for the fastest way only where many sites train; ten, as in W2, are few.
    way: Engine = "auto" if workload.name == "W1c" else "batched"
    share = workload.cohort / workload.users
    trained = train_modelled(material, contract, finished, vectorised=way, fraction=share)
    test = torch.utils.data.TensorDataset(*test_data(workload.name))
    judged = Oracle(task, {"everyone": Split(test, test, test)}).judge_arrays(trained.model, None)
    return judged.everyone["accuracy"] or 0.0
