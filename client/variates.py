"""SCAFFOLD at a site: its own control variate, kept in its store from round to round.

The equations are those of Karimireddy et al. 2020, Algorithm 1, option II; `server/scaffold.py` has the server's side.
Control variates are flat vectors in the order of the arrays' names, in doubles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedseal.client.release import brought_within
from fedseal.client.remembered import VARIATE_PREFIX
from fedseal.client.trainer import Arrays
from fedseal.errors import ConfigError

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ControlVariates:
    """What a site goes by in one round: the server's ``c`` and its own ``c_i``, as arrays of the model's shapes."""

    server: Real
    own: Real

    def shift(self, model: Mapping[str, NDArray[Any]]) -> Arrays:
        """What is added to every gradient: c - c_i, in the shapes and types of the model."""
        return _cut(self.server - self.own, model)

    def renewed(self, way: Real, *, steps: int, learning_rate: float) -> Real:
        """The site's next control variate.

        Args:
            way: y_i - x, as it was released.
            steps: K, the local steps of the round.
            learning_rate: eta_l, their size.
        """
        # c_i+ = c_i - c + (x - y_i) / (K eta_l)
        return self.own - self.server - way / (steps * learning_rate)


def divide(received: Mapping[str, NDArray[Any]]) -> tuple[Arrays, Arrays]:
    """The received arrays as the model and the server's control variate; the second is empty but in SCAFFOLD.

    Raises:
        ConfigError: the control variate has other names or shapes than the model.
    """
    model = {name: a for name, a in received.items() if not name.startswith(VARIATE_PREFIX)}
    beside = {n.removeprefix(VARIATE_PREFIX): a for n, a in received.items() if n.startswith(VARIATE_PREFIX)}
    if beside and {n: a.shape for n, a in beside.items()} != {n: a.shape for n, a in model.items()}:
        raise ConfigError("the received control variate has not the model's arrays")
    return model, beside


def control_variates(beside: Mapping[str, NDArray[Any]], kept: bytes | None) -> ControlVariates:
    """The control variates of a round.

    Args:
        beside: the server's.
        kept: what the site's store holds; None is zero, with which SCAFFOLD begins.

    Raises:
        ConfigError: the store holds the control variate of another model.
    """
    server = _flat(beside)
    own = np.zeros_like(server) if kept is None else np.frombuffer(kept, dtype="<f8")
    if own.shape != server.shape:
        raise ConfigError("the site's control variate belongs to another model", next_step="Start a new run.")
    return ControlVariates(server, own)


def released_way(
    start: Mapping[str, NDArray[Any]], trained: Mapping[str, NDArray[Any]], limit: float, *, private: bool
) -> Real | None:
    """y_i - x as the sealed sum gets it, so that the site and the server speak of the same vector.

    None if it does not get there: what is no number somewhere has no weight under plan none, and is a zero under a
    private plan, where weights are public.
    """
    way = _flat(trained) - _flat(start)
    if brought_within(way, limit) is not None:
        return way
    return np.zeros_like(way) if private else None


def _flat(arrays: Mapping[str, NDArray[Any]]) -> Real:
    return np.concatenate([arrays[name].astype(np.float64).ravel() for name in sorted(arrays)])


def _cut(flat: Real, like: Mapping[str, NDArray[Any]]) -> Arrays:
    """A flat vector in arrays of the shapes and types of ``like``."""
    arrays, begin = {}, 0
    for name in sorted(like):
        arrays[name] = flat[begin : begin + like[name].size].reshape(like[name].shape).astype(like[name].dtype)
        begin += like[name].size
    return arrays
