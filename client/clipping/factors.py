"""What clipping is, in one place: by what each person's gradient is multiplied."""

import math

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import ConfigError

# Norms and sums are in float32: the bound that is applied is a little lower than the plan's, so that rounding never
# lets a person exceed it.
MARGIN = 2.0**-16


class NotPerPersonError(ConfigError):
    """A model uses a layer in a way for which this path has no gradient of each person."""


def clip_factors(squares: NDArray[np.float64], clip: float) -> NDArray[np.float64]:
    """min(1, C / ||g_i||) (Abadi et al. 2016, Algorithm 1), and 0 where a norm is no number.

    A person whose gradient is no number somewhere would turn the whole sum into something that is no number: a bit
    about one person that no noise covers.

    Args:
        squares: of each person's whole gradient the squared norm in L2, shape (persons,).
        clip: the plan's bound C.
    """
    factors = np.minimum(clip * (1 - MARGIN) / np.sqrt(np.maximum(squares, 1e-300)), 1.0)
    return factors if math.isfinite(squares.sum()) else np.where(np.isfinite(squares), factors, 0.0)
