"""Small changes that last: a cumulative sum over windows (Page 1954), as for errors of a model.

Each window gives an excess over what was expected, in standard deviations of sampling and noise together. A chart adds
up what exceeds its allowance and signals at its threshold. With allowance 0.5 and threshold 4.1 there are some 320
windows between false signals, and a shift of two standard deviations is seen in two to three windows.

Pure: (chart, state, excess) -> state. The state is what a server keeps and what a log replays.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.contrasts import Real

ALLOWANCE = 0.5
THRESHOLD = 4.1


class Side(StrEnum):
    """Where a chart signals."""

    RISE = "rise"
    FALL = "fall"


@dataclass(frozen=True, slots=True)
class Chart:
    """What signals: ``allowance`` k and ``threshold`` h in standard deviations; ``two_sided`` also watches for a fall.

    A two-sided chart signals falsely twice as often.
    """

    allowance: float = ALLOWANCE
    threshold: float = THRESHOLD
    two_sided: bool = False


@dataclass(frozen=True, slots=True)
class CusumState:
    """Both sums, 0 at first and after a signal, and how many windows were counted since."""

    rise: float = 0.0
    fall: float = 0.0
    windows: int = 0


@dataclass(frozen=True, slots=True)
class Excess:
    """A window's errors minus those expected, in persons, and the variance of that: sampling and noise."""

    value: float
    variance: float

    @property
    def deviations(self) -> float:
        """In standard deviations."""
        return self.value / math.sqrt(self.variance)


def error_excess(wrong: float, right: float, *, rate: float, noise: float = 0.0) -> Excess:
    """Of released counts of wrong and right answers over a known error rate.

    (1 - e) wrong - e right, with n e (1 - e) and, as each count has its own noise, v ((1 - e)^2 + e^2). Over sites
    whose rates differ it moves with the mix of sites that take part: there use `stratified_excess`.

    Raises:
        LocalError: a rate not between 0 and 1, or no persons.
    """
    if not 0 < rate < 1:
        raise LocalError("expected an error rate between 0 and 1")
    if wrong + right <= 0:
        raise LocalError("a window without persons has no errors to count", next_step="Call it not evaluable.")
    value = (1 - rate) * wrong - rate * right
    return Excess(value, (wrong + right) * rate * (1 - rate) + noise * ((1 - rate) ** 2 + rate**2))


def stratified_excess(difference: float, weights: tuple[float, float], *, noise: float = 0.0) -> Excess:
    """Of V = sum_i (wrong_i - n_i e_i), and W's cells for wrong and right as in `Strata`.

    The variance is W_wrong W_right / (W_wrong + W_right) + v, at least that of the sites one by one.

    Raises:
        LocalError: weights that are not positive.
    """
    wrong, right = weights
    if wrong <= 0 or right <= 0:
        raise LocalError("stratified sums over no persons cannot be tested", next_step="Call it not evaluable.")
    return Excess(difference, wrong * right / (wrong + right) + noise)


def advance(sums: Real | float, deviations: Real | float, allowance: float) -> Real:
    """max(0, S + z - k), by element."""
    return np.maximum(0.0, np.asarray(sums) + deviations - allowance)


def step(chart: Chart, state: CusumState, excess: Excess) -> tuple[CusumState, Side | None]:
    """The state after a window, and what it signals. After a signal the sums start at 0 again."""
    z = excess.deviations
    rise = float(advance(state.rise, z, chart.allowance))
    fall = float(advance(state.fall, -z, chart.allowance)) if chart.two_sided else 0.0
    if rise > chart.threshold:
        return CusumState(), Side.RISE
    if fall > chart.threshold:
        return CusumState(), Side.FALL
    return CusumState(rise, fall, state.windows + 1), None
