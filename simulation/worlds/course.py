"""A schedule at every site: how far something declared is, and since when."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.simulation.worlds.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Course:
    """When something holds at which site.

    Args:
        schedule: its times.
        delays: for each site that is meant, how many steps later it comes there.
        matrix: concepts by step and site, shape (steps, sites), if a matrix says them.
        weights: by site a factor on the level, 1 where it has none.
    """

    schedule: Schedule
    delays: Mapping[int, int]
    matrix: NDArray[np.intp] | None = None
    weights: NDArray[np.float64] | None = None

    def level(self, site: int, step: int) -> float:
        """From 0, not at all, to 1, fully."""
        if self.matrix is not None:
            return float(self.matrix[step, site] != 0)
        if site not in self.delays:
            return 0.0
        level = self.schedule.level(step, self.delays[site])
        return level if self.weights is None else level * float(self.weights[site])

    def onset(self, site: int, step: int) -> int:
        """The step at which what holds at ``step`` began; for a matrix, at which its entry last changed."""
        if self.matrix is not None:
            differs = np.flatnonzero(self.matrix[:step, site] != self.matrix[step, site])
            return int(differs[-1]) + 1 if len(differs) else 0
        begin = self.schedule.start + self.delays[site]
        if self.schedule.form == "recurring":
            return begin + (step - begin) // self.schedule.period * self.schedule.period
        return begin

    @property
    def by_rows(self) -> bool:
        """Whether a level between 0 and 1 is a share of rows, and not a degree for all."""
        return self.schedule.form == "gradual"
