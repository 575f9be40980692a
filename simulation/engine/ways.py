"""How far sites' parameters came from where they began, written piece by piece as whoever rounds them asks.

As doubles a model's worth of them is more than a cache holds, so they are not kept: a piece is made of the trained
parameters when it is needed, by the operations of `client.release` in their order.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedseal.client.release import brought_within
from fedseal.client.trainer import Arrays

Real = NDArray[np.float64]
# Writes the values of a piece of the coordinates, shape (sites, length of the piece).
Source = Callable[[slice, Real], None]
# Numbers whose squares are summed at once: in single precision that errs by less than a hundredth.
SQUARED = 1 << 17
SURE, TINY = 1.01, 1e-15


class Start:
    """Where sites began.

    Args:
        received: the arrays they were sent, float32.
    """

    def __init__(self, received: Arrays) -> None:
        self.names = sorted(received)
        self.single = [torch.from_numpy(np.array(received[name]).reshape(-1)) for name in self.names]
        self.double: Real = torch.cat(self.single).double().numpy()
        ends = np.cumsum([len(array) for array in self.single])
        self.places = [slice(int(end) - len(a), int(end)) for end, a in zip(ends, self.single, strict=True)]


class Ways:
    """The ways of some sites, in the order of the parameters' names.

    Args:
        start: where they began.
        trained: where they are, by name, the first dimension sites.
        limit: the L2 norm that a way is scaled down to if it is longer.

    ``factors`` are what each way was multiplied by, shape (sites,); NaN where it is no number somewhere, and then it is
    nothing. ``shares`` are multiplied besides, once they are set.
    """

    def __init__(self, start: Start, trained: dict[str, Tensor], limit: float) -> None:
        self._start = start
        self._after = [trained[name].reshape(len(trained[name]), -1) for name in start.names]
        self.factors = np.ones(len(self._after[0]))
        self.shares: Real | None = None
        # The few that are not as they came.
        self._changed: dict[int, Real] = {}
        # Written so that NaN is looked at too.
        for k in np.flatnonzero(~(self._norms() * SURE + TINY <= limit)):
            self._bring_within(int(k), limit)

    def write(self, piece: slice, out: Real) -> None:
        """Write a piece of the ways, shape (sites, length of the piece)."""
        self._write_plain(piece, out)
        for k, changed in self._changed.items():
            out[k] = changed[piece]
        if self.shares is not None and (self.shares != 1.0).any():
            out *= self.shares[:, None]

    def _write_plain(self, piece: slice, out: Real, sites: slice = slice(None)) -> None:
        for after, place in zip(self._after, self._start.places, strict=True):
            first, last = max(piece.start, place.start), min(piece.stop, place.stop)
            if first < last:
                values = after.numpy()[sites, first - place.start : last - place.start]
                out[:, first - piece.start : last - piece.start] = values
        out -= self._start.double[piece]

    def _norms(self) -> NDArray[np.float64]:
        """Roughly, but no number where there is one that is none."""
        squares: Real = np.zeros(len(self.factors))
        for before, after in zip(self._start.single, self._after, strict=True):
            for start in range(0, len(before), SQUARED):
                end = start + SQUARED
                norms = torch.linalg.vector_norm(after[:, start:end] - before[start:end], dim=1)
                squares += np.square(norms.numpy(), dtype=np.float64)
        return np.sqrt(squares)

    def _bring_within(self, k: int, limit: float) -> None:
        way = np.empty((1, len(self._start.double)))
        self._write_plain(slice(0, way.shape[1]), way, slice(k, k + 1))
        factor = brought_within(way[0], limit)
        self.factors[k] = np.nan if factor is None else factor
        if factor is None:
            way[:] = 0.0
        if factor != 1.0:
            self._changed[k] = way[0]
