"""Canaries are ordinary persons of an ordinary task: one whose loss has the gradient that the auditor wants.

The model is linear in 16384 parameters without a bias, and a person's loss is its output: the gradient of a person's
loss is the person's own vector, whatever the parameters are. So nothing of a site's code has to know of an audit;
drawing, clipping, noise, quantiser, masks and ledger are those of any study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.task import Batch, Metric, SiteData, Split, columns
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness

Real = NDArray[np.float64]

DIMENSION = 16384
# The last coordinates belong to nobody: what is released there is noise alone.
QUIET = 4096
MOST_CANARIES = 4096
# Of a person whose vector is zero: a site has to have somebody.
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Design:
    """Which direction each canary has. Public: an attacker may choose them.

    Each canary has a block of coordinates of its own, in which its vector has random signs and equal sizes. So all
    are orthogonal, and none adds noise to another's score.

    Attributes:
        count: how many canaries.
        seed: of the signs.
        length: the L2 norm of a canary's gradient before it is clipped.
    """

    count: int
    seed: int
    length: float

    @property
    def block(self) -> int:
        """How many coordinates each canary has."""
        return (DIMENSION - QUIET) // self.count

    def signs(self) -> Real:
        """The signs of each canary's coordinates, shape (count, block), -1 or 1."""
        stream = KeyedRandomness(self.seed, "audit").stream("directions")
        return np.where(stream.coins(0.5, self.count * self.block), 1.0, -1.0).reshape(self.count, self.block)

    def vectors(self, numbers: NDArray[np.intp]) -> Tensor:
        """The gradients of some canaries, float32, shape (len(numbers), DIMENSION); zeros for nobody."""
        dense = np.zeros((len(numbers), DIMENSION), dtype=np.float32)
        rows = np.flatnonzero(numbers != NOBODY)
        places = numbers[rows, None] * self.block + np.arange(self.block)
        dense[rows[:, None], places] = self.signs()[numbers[rows]] * (self.length / np.sqrt(self.block))
        return torch.from_numpy(dense)

    def scores(self, released: Real) -> Real:
        """The dot product of a vector with each canary's unit direction, shape (count,)."""
        blocks = released[: self.count * self.block].reshape(self.count, self.block)
        projected: Real = (blocks * self.signs()).sum(axis=1) / np.sqrt(self.block)
        return projected

    def write(self, folder: Path, numbers: NDArray[np.intp]) -> None:
        """Write a site's persons to its folder."""
        folder.mkdir(parents=True)
        table = pd.DataFrame({"canary": numbers, "count": self.count, "seed": self.seed, "length": self.length})
        table.to_csv(folder / "persons.csv", index=False, float_format="%.17g")


def quiet(released: Real) -> Real:
    """The coordinates in which nobody has a gradient, shape (QUIET,)."""
    return released[-QUIET:]


class Canaries:
    """The task. The table says which canaries a site holds; everyone is trained on."""

    def model(self) -> nn.Module:
        """One weight a coordinate."""
        return nn.Linear(DIMENSION, 1, bias=False)

    def data(self, site: SiteData) -> Split:
        """One row of the table is one canary."""
        table = columns(site.table(), ["canary", "count", "seed", "length"])
        if table.empty:
            raise ConfigError("a site of an audit holds nobody")
        numbers = table["canary"].to_numpy(dtype=np.intp)
        design = Design(int(table["count"].iloc[0]), int(table["seed"].iloc[0]), float(table["length"].iloc[0]))
        everyone = TensorDataset(design.vectors(numbers), torch.zeros(len(numbers)))
        noone = TensorDataset(torch.zeros(0, DIMENSION), torch.zeros(0))
        return Split(everyone, noone, noone)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The output itself: its gradient by the weights is the person's vector."""
        output: Tensor = model(batch[0])
        return output.squeeze(1)

    def metrics(self) -> Sequence[Metric]:
        """None."""
        return []
