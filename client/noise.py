"""Gaussian noise from a stream of ours.

Opacus draws its noise from torch's generator, which is not cryptographic, and its secure mode needs a package nobody
maintains. Here every noisy sum is the clipped sum plus Gaussian noise from the operating system's generator, computed
in doubles and rounded to a grid, so that the low bits of a float betray nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.randomness import Stream

# The grid is this many bits finer than the noise's standard deviation: it changes nothing, but hides the float's last
# bits.
GRID_BITS = 16
# How many variates are drawn ahead where a step needs fewer, how many are computed at once, and how many words are
# drawn at once: all stay in the cache (measured, bench/README.md).
DRAWN, PIECE, WORDS = 2**14, 2**14, 2**13
# From here on memory counts for more: what is kept takes 128 bytes a variate.
LARGE = 2**20


class Normals:
    """What `Stream.normal` gives for several arrays in turn, over and over, drawn ahead for as many turns as fit.

    The same words of the same cryptographic stream through the same formula, but for the cosine's last bit, which is
    torch's. How far is drawn ahead changes nothing.

    Args:
        stream: where they come from; nothing else may draw from it.
        sizes: of the arrays.
        turns: how many there are going to be.
    """

    def __init__(self, stream: Stream, sizes: Sequence[int], turns: int = 1) -> None:
        self._stream = stream
        self._sizes = sizes
        self._count = sum(sizes)
        self._left = turns
        ahead = max(1, min(turns, DRAWN // max(self._count, 1)))
        kept = self._count if self._count < LARGE else 0
        # From turn to turn: mapping new memory costs more than AES does.
        self._words = np.empty((ahead, 8 * kept), dtype=np.uint64)
        self._uniform = np.empty((2, 4, ahead, kept))
        self._rows: list[NDArray[np.float64]] = []

    def draw(self) -> NDArray[np.float64]:
        """The next turn's variates, all arrays in a row; valid until the next call."""
        if self._count >= LARGE:
            return np.concatenate([self._stream.normal(size) for size in self._sizes])
        if not self._rows:
            ahead = min(self._left, len(self._words))
            self._left -= ahead
            self._rows = list(self._turns(max(ahead, 1)))[::-1]
        return self._rows.pop()

    def _turns(self, turns: int) -> NDArray[np.float64]:
        """The next turns, shape (turns, count)."""
        words = self._words[:turns]
        flat = words.reshape(-1)
        for begin in range(0, len(flat), WORDS):
            piece = flat[begin : begin + WORDS]
            np.right_shift(self._stream.words64(len(piece)), np.uint64(11), out=piece)
        # In the order in which `Stream.normal` draws: which of four, radius or angle, element.
        uniform, start = self._uniform[:, :, :turns], 0
        for size in self._sizes:
            block = words[:, 8 * start : 8 * (start + size)].reshape(turns, 4, 2, size)
            np.copyto(uniform[..., start : start + size], block.transpose(2, 1, 0, 3).view(np.int64))
            start += size
        radius, angle = uniform.reshape(2, 4, turns * self._count)
        for begin in range(0, turns * self._count, PIECE):
            _box_muller(radius[:, begin : begin + PIECE], angle[:, begin : begin + PIECE])
        found: NDArray[np.float64] = radius[0]
        for other in radius[1:]:
            found += other
        return found.reshape(turns, self._count)


def _box_muller(radius: NDArray[np.float64], angle: NDArray[np.float64]) -> None:
    """From whole numbers below 2^53 to half their normal variates, left in ``radius``; ``angle`` is used up.

    Powers of two are multiplied in wherever that is cheapest: it rounds nothing.
    """
    radius += 1.0
    radius *= 2.0**-53
    np.log(radius, out=radius)
    # Half of sqrt(-2 log u).
    radius *= -0.5
    np.sqrt(radius, out=radius)
    angle += 1.0
    angle *= 2.0**-53 * (2.0 * np.pi)
    cosine = torch.from_numpy(angle)
    torch.cos(cosine, out=cosine)
    radius *= angle


class StepNoise:
    """The noise of a release's steps.

    Args:
        stream: where it comes from; nothing else may draw from it.
        deviation: its standard deviation.
        sizes: of the arrays that a step makes noisy.
        steps: how many.
    """

    def __init__(self, stream: Stream, deviation: float, sizes: Sequence[int], steps: int) -> None:
        self._normals = Normals(stream, sizes, steps)
        self._deviation = deviation

    def added_to(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """The next step's values, all arrays in a row, with noise and on the grid."""
        return _on_grid(values, self._normals.draw(), self._deviation)


def add_gaussian(values: NDArray[np.float64], deviation: float, stream: Stream) -> NDArray[np.float64]:
    """``values`` plus independent Gaussian noise, rounded to a grid 2^-16 of the deviation."""
    return _on_grid(values, Normals(stream, (values.size,)).draw().reshape(values.shape), deviation)


def _on_grid(values: NDArray[np.float64], noise: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    grid = 2.0 ** (math.floor(math.log2(deviation)) - GRID_BITS)
    noisy = noise * deviation
    noisy += values
    # A power of two: multiplying by its inverse is dividing by it.
    noisy *= 1.0 / grid
    np.rint(noisy, out=noisy)
    noisy *= grid
    return noisy


def noisy_mean(rows: NDArray[np.float64], plan: LocalGaussian, *, persons: int, stream: Stream) -> NDArray[np.float64]:
    """The mean over persons under a plan with one step: the Gaussian mechanism on the sum of clipped rows.

    Args:
        rows: shape (persons here, k), one row a person.
        plan: sample_rate 1 and one step.
        persons: the public number to divide by.
        stream: where the noise comes from.
    """
    return add_gaussian(clipped_sum(rows, plan.clip_norm), plan.noise_multiplier * plan.clip_norm, stream) / persons


def clipped_sum(rows: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """The sum over persons of their rows, each clipped to ``clip`` in L2; one that is no number somewhere is zero."""
    rows = np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    clipped = rows * np.minimum(1.0, clip / np.maximum(norms, 1e-12))
    total: NDArray[np.float64] = clipped.sum(axis=0)
    return total


def clear_gradients(module: nn.Module) -> None:
    """Forget per-sample gradients, so that none is ever used twice."""
    for parameter in module.parameters():
        parameter.grad = None
        parameter.grad_sample = None  # type: ignore[attr-defined]
        parameter.summed_grad = None  # type: ignore[attr-defined]
