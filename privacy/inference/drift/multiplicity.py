"""Many features, many windows, few false alarms.

An *alarm* is one window in which a feature is rejected after Holm's correction at a level that spends a year's budget
of false alarms evenly over its windows. A *warning* is a feature that is suspicious in two of three windows in a row,
at a larger level: chance seldom strikes the same feature twice, so rare warnings see smaller changes that last.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedseal.errors import LocalError

WINDOWS = 3
SUSPICIOUS = 2


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Adjusted p-values in the order given: the chance of any false rejection is at most the level (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return tuple(adjusted)


@dataclass(frozen=True, slots=True)
class Levels:
    """The levels of one window, for all its tests together: of an ``alarm``, and of being suspicious (``warning``)."""

    alarm: float
    warning: float


def spend(windows_per_year: float, false_alarms: float, false_warnings: float) -> Levels:
    """Levels that keep the expected number of false alarms, and of windows with a false warning, of a year.

    windows * alpha is what alarms are expected. A window is in two suspicious ones of three by chance with probability
    at most 3 a^2 - 2 a^3 at level a, from which a follows. Neither level is above 0.2.

    Raises:
        LocalError: a number that is not positive.
    """
    if min(windows_per_year, false_alarms, false_warnings) <= 0:
        raise LocalError("windows and false alarms a year have to be positive")
    return Levels(min(0.2, false_alarms / windows_per_year), min(0.2, _twice(false_warnings / windows_per_year)))


def expected_warnings(level: float, windows_per_year: float) -> float:
    """How many windows of a year have a false warning, at most."""
    return windows_per_year * _persistent(level)


def _persistent(level: float) -> float:
    return 3 * level**2 - 2 * level**3


def _twice(target: float) -> float:
    low, high = 0.0, 0.5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _persistent(middle) < target else (low, middle)
    return low


class Alert(StrEnum):
    """What a window says."""

    NONE = "none"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class PersistenceState:
    """Which tests were suspicious in the last windows, newest last; at most two windows are kept."""

    recent: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A window judged as a whole.

    ``adjusted`` are Holm's p-values by test, ``alarming`` and ``warning`` the tests that speak for either.
    """

    alert: Alert
    adjusted: tuple[tuple[str, float], ...]
    alarming: frozenset[str]
    warning: frozenset[str]


def judge(levels: Levels, state: PersistenceState, p_values: Mapping[str, float]) -> tuple[PersistenceState, Verdict]:
    """The state after a window that could be judged, and its verdict. A window that could not changes no state.

    Raises:
        LocalError: a p-value that is no number.
    """
    names = sorted(p_values)
    if any(math.isnan(p_values[name]) for name in names):
        raise LocalError("a p-value is no number", next_step="Call the window not evaluable.")
    adjusted = tuple(zip(names, holm([p_values[name] for name in names]), strict=True))
    suspicious = frozenset(name for name, p in adjusted if p <= levels.warning)
    alarming = frozenset(name for name, p in adjusted if p <= levels.alarm)
    windows = (*state.recent, suspicious)[-WINDOWS:]
    warning = frozenset(name for name in names if sum(name in window for window in windows) >= SUSPICIOUS)
    alert = Alert.ALARM if alarming else Alert.WARNING if warning else Alert.NONE
    return PersistenceState(windows[-(WINDOWS - 1) :]), Verdict(alert, adjusted, alarming, warning)
