"""How a site trains in a round, by the task's settings, and FedNova's normalisation of steps that differ."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedseal.client.trainer import Arrays, TrainSettings
from fedseal.client.work import Settings, number

# As the server names them; neither side imports the other.
EPOCHS = "local-epochs"
NOVA_STEPS, NOVA_MOST = "nova-steps", "nova-most-steps"
# Beside an update under plan none: the site's local steps in multiples of the reference's.
NOVA_METRIC = "nova-steps"


def train_settings(settings: Settings, persons: int) -> TrainSettings:
    """What the server asks for.

    Args:
        settings: the task's.
        persons: by how many persons ``local-epochs`` counts its batches; not used without it.

    Raises:
        ConfigError: a number is missing.
    """
    return TrainSettings(
        learning_rate=number(settings, "learning-rate"),
        sample_rate=number(settings, "sample-rate"),
        local_steps=_steps(settings, persons),
        batch_size=int(number(settings, "batch-size")) if "batch-size" in settings else None,
        # Flower's FedProx puts it there.
        proximal_mu=number(settings, "proximal-mu") if "proximal-mu" in settings else 0.0,
        batch_level=bool(settings.get("batch-level", False)),
    )


def _steps(settings: Settings, persons: int) -> int:
    """The local steps, tau_i: as many for everyone, or so many passes over the site's persons in batches."""
    steps = int(number(settings, "local-steps"))
    if EPOCHS in settings:
        batches = max(1, -(-persons // int(number(settings, "batch-size"))))
        steps = int(number(settings, EPOCHS)) * batches
    return min(steps, int(number(settings, NOVA_MOST))) if NOVA_MOST in settings else steps


@dataclass(frozen=True, slots=True)
class NovaSteps:
    """FedNova (Wang, Liu, Liang, Joshi and Poor 2020): what is sent is the mean step, d_i = (x - y_i) / tau_i.

    It is sent times the federation's ``reference`` number of steps, so that it has the size of an update and keeps a
    quantiser's precision and a clip norm's meaning. Plain gradient descent has ||a_i||_1 = tau_i (their section 4.1).
    """

    taken: int
    reference: int

    def normalised(self, start: Mapping[str, NDArray[Any]], trained: Mapping[str, NDArray[Any]]) -> Arrays:
        """Where the site would have come with the reference's number of steps of its mean size, in doubles."""
        factor = self.reference / self.taken
        found: Arrays = {}
        for name, array in trained.items():
            begin = start[name].astype(np.float64)
            found[name] = begin + factor * (array - begin)
        return found

    @property
    def ratio(self) -> float:
        """tau_i in multiples of the reference; the server learns the weighted mean, p_i tau_i summed over sites."""
        return self.taken / self.reference


def nova_steps(settings: Settings, taken: int) -> NovaSteps | None:
    """FedNova's normalisation of so many local steps; None with another strategy."""
    return NovaSteps(taken, int(number(settings, NOVA_STEPS))) if NOVA_STEPS in settings else None
