"""Builds with a defect: the real code with one thing wrong around its noise or its clipping, under every plan.

They exist in tests and benchmarks only. Nothing in the product knows of them.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedseal.client import gradient_sum, noise
from fedseal.client.clipping import factors
from fedseal.client.clipping.choice import Clipping
from fedseal.client.task import Batch, Task
from fedseal.privacy import shares, skellam
from fedseal.privacy.randomness import Stream
from fedseal.privacy.tabulated import Integers

Build = Callable[[], AbstractContextManager[None]]


@contextmanager
def correct() -> Iterator[None]:
    """The build as it is."""
    yield


@contextmanager
def _faint(factor: float) -> Iterator[None]:
    """Noise of so many times its deviation, at a site's own as in a share."""
    real, real_share = noise.Normals.draw, skellam.skellam

    def draw(self: noise.Normals) -> NDArray[np.float64]:
        return factor * real(self)

    def share(variance: int, stream: Stream, count: int) -> Integers:
        fainter: Integers = np.rint(factor * real_share(variance, stream, count)).astype(np.int64)
        return fainter

    with patch.object(noise.Normals, "draw", draw), patch.object(shares, "skellam", share):
        yield


@contextmanager
def noise_off() -> Iterator[None]:
    """No noise at all."""
    with _faint(0.0):
        yield


@contextmanager
def half_variance() -> Iterator[None]:
    """Noise of half the variance."""
    with _faint(0.5**0.5):
        yield


@contextmanager
def clip_times_three() -> Iterator[None]:
    """Persons are clipped at three times the plan's bound; the noise is the plan's."""
    real, real_factors = Clipping.clipped_sum, factors.clip_factors

    def clipped_sum(self: Clipping, task: Task, batch: Batch, clip: float) -> list[Tensor]:
        return real(self, task, batch, 3 * clip)

    def clip_factors(squares: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
        return real_factors(squares, 3 * clip)

    with (
        patch.object(Clipping, "clipped_sum", clipped_sum),
        patch.object(gradient_sum, "clip_factors", clip_factors),
    ):
        yield
