"""What some strategies add to every gradient at a site: FedProx's and Ditto's pull, SCAFFOLD's control variates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Correction:
    """Terms that depend on the parameters and on what was released before, on no person's data beyond that.

    So under a private plan they are added after clipping and noise and cost nothing: the received model and c are
    the server's, and c_i is made from noisy updates that were charged when they were released (post-processing).

    ``mu`` times the way from ``anchor``, the received parameters, is the gradient of FedProx's mu/2 ||w - w^t||^2
    (Li et al. 2020, equation 2), and of Ditto's lambda/2 ||v - w^t||^2, whose v begins elsewhere; ``shift`` is
    SCAFFOLD's c - c_i. Both in the order of the parameters.
    """

    mu: float
    anchor: tuple[Tensor, ...]
    shift: tuple[Tensor, ...] | None

    def add_to(self, parameters: Iterable[Tensor]) -> None:
        """Add the terms to the parameters' gradients; one that is missing counts as zeros."""
        with torch.no_grad():
            for i, parameter in enumerate(parameters):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                if self.mu:
                    parameter.grad.add_(parameter - self.anchor[i], alpha=self.mu)
                if self.shift is not None:
                    parameter.grad.add_(self.shift[i])


def correction(
    module: nn.Module,
    mu: float,
    shift: Mapping[str, NDArray[Any]] | None,
    anchor: Mapping[str, NDArray[Any]] | None = None,
) -> Correction | None:
    """The correction of one round, or None if there is nothing to add.

    Args:
        module: holds the parameters that training begins with.
        mu: FedProx's, or Ditto's lambda.
        shift: SCAFFOLD's, by the parameters' names.
        anchor: what ``mu`` pulls towards, by name; the module's own parameters if None.
    """
    if not mu and shift is None:
        return None
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    pulled = [p.detach().clone() if anchor is None else torch.from_numpy(np.array(anchor[n])) for n, p in trained]
    return Correction(
        mu,
        tuple(pulled),
        None if shift is None else tuple(torch.from_numpy(np.array(shift[name])).to(p.dtype) for name, p in trained),
    )
