"""Apple's pfl in two processes that share the users of each round."""

import os
import socket
import subprocess
import sys

import torch
from measure import ROOT, Watch
from torch import nn
from workloads import WORKLOADS, Workload, user_data

PLACE = 10**6


def run(workload: Workload, rounds: int, watch: Watch) -> float | None:
    """The accuracy, in the process of rank 0. Called first in the process that starts both, where it is None."""
    if "RANK" not in os.environ:
        _start(watch)
        return None
    return _trained(workload, rounds, watch)


def _start(watch: Watch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "TORCHELASTIC_RUN_ID": "bench",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        ROOT: str(watch.root),
    }
    ranks = []
    for rank in range(2):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen([sys.executable, *sys.argv], env=environment))  # noqa: S603
    codes = [rank.wait() for rank in ranks]
    if any(codes):
        raise SystemExit("a rank failed")


class Adapter(nn.Module):
    """A module with the loss and the metrics that pfl asks it for."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """The module's outputs."""
        outputs: torch.Tensor = self.module(inputs)
        return outputs

    def loss(self, inputs: torch.Tensor, targets: torch.Tensor, eval: bool = False) -> torch.Tensor:  # noqa: A002
        """The loss."""
        return nn.functional.cross_entropy(self(inputs), targets)

    def metrics(self, inputs: torch.Tensor, targets: torch.Tensor, eval: bool = False) -> dict[str, object]:  # noqa: A002
        """Nothing: accuracy is measured at the end."""
        return {}


def _trained(workload: Workload, rounds: int, watch: Watch) -> float:
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    torch.set_num_threads(1)

    class Stamp(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(
            self, aggregate_metrics: Metrics, model: PyTorchModel, *, central_iteration: int
        ) -> tuple[bool, Metrics]:
            watch.round_over()
            return False, Metrics()

    # A user's name holds the round too: the order of its examples is the round's.
    names = [r * PLACE + u for r in range(1, rounds + 1) for u in workload.cohort_of(r)]
    upcoming = iter(names + names)

    def dataset(name: int) -> Dataset:
        fl_round, user = divmod(name, PLACE)
        inputs, targets = user_data(workload.name, user)
        order = workload.order(fl_round, user)
        return Dataset([inputs[order], targets[order]], user_id=name)

    module = Adapter(WORKLOADS[workload.name].first_model())
    model = PyTorchModel(module, torch.optim.SGD, central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0))
    data = FederatedDataset(dataset, lambda: next(upcoming))
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=10 * rounds,
            train_cohort_size=workload.cohort,
            val_cohort_size=0,
        ),
        SimulatedBackend(data, data, postprocessors=[WeightByUser()]),
        model,
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=workload.learning_rate, local_batch_size=workload.batch
        ),
        None,
        callbacks=[Stamp()],
    )
    return workload.accuracy(module)
