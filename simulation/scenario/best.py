"""The best that a scenario's kind of model can do at a step: what regret is measured from."""

import numpy as np
import torch
from torch import nn

from fedseal.client.tabular import Tabular
from fedseal.client.trainer import Arrays, trainable
from fedseal.simulation.scenario.material import Rows

ITERATIONS = 60
# Keeps a separable window from sending weights to infinity; far below what a federation's few steps reach.
PENALTY = 1e-3


def best_model(task: Tabular, rows: Rows, initial: Arrays) -> Arrays:
    """The task's model fitted to these persons by L-BFGS on the penalised mean loss, from a first model.

    No learning rate, no batches: it depends on the persons alone, not on how the federation is trained.
    """
    module = task.model()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(initial[name])))
    inputs, labels = torch.from_numpy(task.scaled(rows.x)), torch.from_numpy(rows.y.astype(np.int64))
    optimizer = torch.optim.LBFGS(module.parameters(), max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        size = sum((p**2).sum() for p in module.parameters())
        loss = nn.functional.cross_entropy(module(inputs), labels) + PENALTY * size
        torch.autograd.backward(loss)
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return trainable(module)
