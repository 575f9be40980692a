"""What one site needs to train and measure: its task, its persons, its trainer, kept from round to round."""

from collections.abc import Mapping
from typing import cast

from fedseal.client.gradient_sum import GradientSum
from fedseal.client.normalise import Normalisation, normalised
from fedseal.client.task import Split, Task, size
from fedseal.client.trainer import Trainer
from fedseal.errors import ConfigError

Settings = Mapping[str, object]


class SiteWork:
    """What one site needs to train and measure: its task, its persons, its trainer.

    Args:
        task: the study's task.
        split: the site's persons.
        persons: the roster's rounded number of training persons, public.
    """

    def __init__(self, task: Task, split: Split, persons: int) -> None:
        self.task = task
        self.split = split
        self.public_persons = persons
        self._trainers: dict[Normalisation | None, Trainer] = {}
        self._sums: dict[Normalisation | None, GradientSum] = {}

    @property
    def persons(self) -> int:
        """How many training persons there are."""
        return size(self.split.train)

    def trainer(self, normalisation: Normalisation | None) -> Trainer:
        """The trainer on this site's persons, normalised as the federation agreed."""
        if normalisation not in self._trainers:
            persons = normalised(self.split.train, normalisation)
            self._trainers = {normalisation: Trainer(self.task, persons, public_persons=self.public_persons)}
        return self._trainers[normalisation]

    def gradient_sum(self, normalisation: Normalisation | None) -> GradientSum:
        """Sums of clipped gradients over this site's persons, normalised as the federation agreed."""
        if normalisation not in self._sums:
            self._sums = {normalisation: GradientSum(self.task, normalised(self.split.train, normalisation))}
        return self._sums[normalisation]


def normalisation_of(settings: Settings) -> Normalisation | None:
    """The federation's normalisation in a task's settings, if it has one."""
    if "feature-mean" not in settings:
        return None
    mean, deviation = cast(list[float], settings["feature-mean"]), cast(list[float], settings["feature-deviation"])
    return Normalisation(tuple(mean), tuple(deviation))


def number(settings: Settings, key: str) -> float:
    """A number of a task's settings; ConfigError if it is missing."""
    value = settings.get(key)
    if not isinstance(value, int | float):
        raise ConfigError(f"the task's settings lack {key!r}")
    return float(value)
