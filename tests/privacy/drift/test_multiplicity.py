"""Few false alarms over many tests and windows."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.multiplicity import (
    Alert,
    Levels,
    PersistenceState,
    expected_warnings,
    holm,
    judge,
    spend,
)


def test_holms_p_values() -> None:
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == ()
    assert holm([0.7, 0.9]) == (1.0, 1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0.001, 0.3))
def test_holm_rejects_as_the_step_down_procedure_does(p: list[float], alpha: float) -> None:
    adjusted = holm(p)
    rejected, order = set(), sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        if (len(p) - rank) * p[i] > alpha:
            break
        rejected.add(i)
    assert {i for i, a in enumerate(adjusted) if a <= alpha} == rejected
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))


@given(st.floats(1, 5000), st.floats(0.01, 12), st.floats(0.01, 12))
def test_levels_spend_what_a_year_may_have(windows: float, alarms: float, warnings: float) -> None:
    levels = spend(windows, alarms, warnings)
    assert levels.alarm * windows <= alarms * (1 + 1e-9)
    assert expected_warnings(levels.warning, windows) <= warnings * (1 + 1e-9)
    assert levels.alarm in (pytest.approx(alarms / windows), 0.2)


def test_a_simulated_century_of_quiet_windows() -> None:
    levels, rng = spend(52, 1.0, 1.0), np.random.default_rng(1)
    state, alerts = PersistenceState(), []
    for p in rng.random((5200, 5)):
        state, verdict = judge(levels, state, {f"feature {i}": float(v) for i, v in enumerate(p)})
        alerts.append(verdict)
    alarms = sum(v.alert is Alert.ALARM for v in alerts) / 100
    warnings = sum(bool(v.warning) for v in alerts) / 100
    assert alarms == pytest.approx(1.0, abs=0.3)
    assert warnings <= 1.0
    # The twin: p-values compared one by one with .05 alarm a dozen times a year.
    assert (rng.random((5200, 5)) <= 0.05).any(axis=1).sum() / 100 > 10


def run(levels: Levels, *windows: dict[str, float]) -> list[Alert]:
    state, found = PersistenceState(), []
    for p in windows:
        state, verdict = judge(levels, state, p)
        found.append(verdict.alert)
    return found


def test_a_warning_is_two_suspicious_windows_of_three() -> None:
    levels, quiet, odd = Levels(0.001, 0.05), {"a": 0.5}, {"a": 0.04}
    assert run(levels, odd, quiet, odd) == [Alert.NONE, Alert.NONE, Alert.WARNING]
    assert run(levels, odd, odd) == [Alert.NONE, Alert.WARNING]
    assert run(levels, odd, quiet, quiet, odd) == [Alert.NONE] * 4
    assert run(levels, odd, odd, quiet, quiet)[-2:] == [Alert.WARNING, Alert.NONE]


def test_two_features_that_are_odd_by_turns_are_no_warning() -> None:
    levels = Levels(0.001, 0.05)
    assert run(levels, {"a": 0.01, "b": 0.9}, {"a": 0.9, "b": 0.01}) == [Alert.NONE, Alert.NONE]


def test_an_alarm_comes_at_once_and_names_its_feature() -> None:
    state, verdict = judge(Levels(0.02, 0.08), PersistenceState(), {"a": 0.0001, "b": 0.015})
    assert verdict.alert is Alert.ALARM
    assert verdict.alarming == {"a", "b"}
    assert dict(verdict.adjusted) == pytest.approx({"a": 0.0002, "b": 0.015})
    assert state.recent == (frozenset({"a", "b"}),)


def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(LocalError):
        judge(Levels(0.02, 0.08), PersistenceState(), {"a": math.nan})
    with pytest.raises(LocalError):
        spend(0, 1, 1)
