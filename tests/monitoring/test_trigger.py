"""The trigger policy as a table of what windows lead to, and the shadow test against McNemar's textbook example."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from fedseal.compliance.events.fields import MonitorAction
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.inference.drift.classify import DriftKind, Obstacle
from fedseal.privacy.inference.drift.cusum import Excess
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable, Triggers, plan_of, read_policy, watch_of
from fedseal.server.monitoring.trigger import (
    Compared,
    Decision,
    Models,
    TriggerState,
    judge_shadow,
    mcnemar,
    step,
)

OLD, NEW = Models("a"), Models("b", "a")
TABLE = MonitorTable(windows_per_year=50, alpha=1.0, warnings=2.0, min_sites=3)
QUIET = {"score": 0.5, "label": 0.6, "label-given-score": 0.7, "score-given-label": 0.8, "error": 0.4}


def window(number: int, p: Mapping[str, float] | None = None, **facts: Any) -> Measured:
    """A quiet window but for some p-values, by test."""
    sites, rows, errors = facts.get("sites", 5), facts.get("rows", 900.0), facts.get("errors")
    changed = QUIET | dict(p or {})
    tests = tuple(Found(name, 1.0, 4, value) for name, value in changed.items())
    return Measured(number, sites, 1.0, rows, tests, errors)


def run(table: MonitorTable, *windows: Measured, models: Models = OLD) -> list[Decision]:
    state, found = TriggerState(), []
    for one in windows:
        state, decision = step(table, state, one, models)
        found.append(decision)
    return found


def policy(rule: str = "2of3", **triggers: Any) -> MonitorTable:
    return TABLE.model_copy(update={"rule": rule, "triggers": Triggers(**triggers)})


SUSPICIOUS = {"score": 0.004}
STRIKING = {"score": 1e-6}


def test_the_levels_spend_what_a_year_may_have() -> None:
    patient = TABLE.levels
    assert patient.alarm == pytest.approx(0.5 / 50)
    # 3 a^2 - 2 a^3 is the chance of two suspicious windows of three.
    assert 3 * patient.warning**2 - 2 * patient.warning**3 == pytest.approx(0.5 / 50)
    holm = policy("holm").levels
    assert holm.alarm == pytest.approx(1 / 50)


def test_a_quiet_window_leads_to_nothing() -> None:
    (found,) = run(TABLE, window(0))
    assert found == Decision(0, MonitorAction.NOTHING, Alert.NONE, None, frozenset(), (), "a")


def test_one_suspicious_window_is_a_warning_and_two_of_three_an_alarm() -> None:
    between = window(1)
    found = run(TABLE, window(0, SUSPICIOUS), between, window(2, SUSPICIOUS))
    # 0.004 by Holm for five tests is 0.02: above the alarm's level, below the other.
    assert [d.action for d in found] == [MonitorAction.SHADOW, MonitorAction.NOTHING, MonitorAction.PROPOSE_RETRAINING]
    assert [d.alert for d in found] == [Alert.WARNING, Alert.NONE, Alert.ALARM]
    assert found[2].kinds == {DriftKind.COVARIATE}
    # The twin: with two quiet ones between them it is two warnings.
    apart = run(TABLE, window(0, SUSPICIOUS), between, window(2), window(3, SUSPICIOUS))
    assert apart[3].alert is Alert.WARNING


def test_under_holm_alone_two_of_three_is_a_warning() -> None:
    calm = policy("holm").model_copy(update={"alpha": 0.1})
    found = run(calm, window(0, SUSPICIOUS), window(1, SUSPICIOUS), window(2, STRIKING))
    assert [d.alert for d in found] == [Alert.NONE, Alert.WARNING, Alert.ALARM]


@pytest.mark.parametrize(
    ("alarm", "action"),
    [("none", MonitorAction.NOTHING), ("propose", MonitorAction.PROPOSE_RETRAINING), ("auto", MonitorAction.RETRAIN)],
)
def test_an_alarm_leads_to_what_the_policy_says(alarm: str, action: MonitorAction) -> None:
    (found,) = run(policy(alarm=alarm), window(0, STRIKING))
    assert (found.alert, found.action, found.speaking) == (Alert.ALARM, action, ("score",))


@pytest.mark.parametrize(
    ("p", "kinds"),
    [
        ({"score": 1e-6, "score-given-label": 0.9}, {DriftKind.COVARIATE}),
        ({"label": 1e-6}, {DriftKind.LABEL}),
        ({"label-given-score": 1e-6}, {DriftKind.CONCEPT}),
        ({"label-given-score": 1e-6, "error": 1e-6}, {DriftKind.CONCEPT}),
        ({"feature-3": 1e-6}, {DriftKind.COVARIATE}),
        ({"feature-3-missing": 1e-6}, {DriftKind.SCHEMA}),
        ({"feature-3-unseen": 1e-6}, {DriftKind.SCHEMA}),
        ({"feature-3-out-of-range": 1e-6}, {DriftKind.SCHEMA}),
    ],
)
def test_tests_say_what_kind_of_drift_it_is(p: dict[str, float], kinds: set[DriftKind]) -> None:
    (found,) = run(TABLE, window(0, p))
    assert found.kinds == kinds


def test_concept_drift_goes_back_to_a_model_that_still_passes() -> None:
    table, concept = policy(concept="roll_back"), window(0, {"label-given-score": 1e-6})
    (back,) = run(table, concept, models=NEW)
    assert (back.action, back.target, back.fallback) == (MonitorAction.ROLL_BACK, "a", "a")
    # Without one, and for any other drift, it is as any alarm.
    (none,) = run(table, concept, models=OLD)
    (other,) = run(table, window(0, STRIKING), models=NEW)
    # Nor does a test that is merely suspicious take a model back: both kinds are named, one is the alarm's.
    (mixed,) = run(table, window(0, STRIKING | {"label-given-score": 0.005}), models=NEW)
    assert mixed.kinds >= {DriftKind.CONCEPT}
    assert mixed.action is MonitorAction.PROPOSE_RETRAINING
    assert (none.action, none.target) == (MonitorAction.PROPOSE_RETRAINING, None)
    assert (other.action, other.target) == (MonitorAction.PROPOSE_RETRAINING, None)


def test_small_errors_that_last_are_an_alarm_of_the_chart() -> None:
    small = [window(n, errors=Excess(1.6, 1.0)) for n in range(5)]
    found = run(TABLE, *small)
    assert [d.alert for d in found] == [Alert.NONE] * 3 + [Alert.ALARM, Alert.NONE]
    assert found[3].speaking == ("errors-chart",)
    assert found[3].kinds == {DriftKind.CONCEPT}


def test_after_an_action_some_windows_pass() -> None:
    found = run(policy(cooldown=2), *[window(n, STRIKING) for n in range(5)])
    change, wait = MonitorAction.PROPOSE_RETRAINING, MonitorAction.WAIT
    assert [d.action for d in found] == [change, wait, wait, change, wait]
    assert all(d.alert is Alert.ALARM for d in found)


def test_a_warning_costs_no_cooldown() -> None:
    found = run(policy(cooldown=5), window(0, SUSPICIOUS), window(1, STRIKING))
    assert [d.action for d in found] == [MonitorAction.SHADOW, MonitorAction.PROPOSE_RETRAINING]


@pytest.mark.parametrize(
    ("bad", "obstacle"),
    [
        (window(1, STRIKING, sites=2), Obstacle.TOO_FEW_SITES),
        (window(1, STRIKING, rows=99.0), Obstacle.TOO_FEW_ROWS),
        (Measured(1, 5, 1.0, 900.0, (), None), Obstacle.NOTHING_TESTED),
    ],
)
def test_a_window_that_cannot_be_judged_is_no_quiet_one(bad: Measured, obstacle: Obstacle) -> None:
    first = window(0, SUSPICIOUS)
    state, _ = step(TABLE, TriggerState(), first, OLD)
    after, found = step(TABLE, state, bad, OLD)
    assert (found.obstacle, found.action) == (obstacle, MonitorAction.NOTHING)
    assert after == state
    # It does not break a row of suspicious ones either.
    _, third = step(TABLE, after, window(2, SUSPICIOUS), OLD)
    assert third.alert is Alert.ALARM


def test_a_p_value_that_is_no_number_is_our_fault() -> None:
    with pytest.raises(LocalError):
        run(TABLE, window(0, {"score": math.nan}))


# The shadow test


def test_mcnemars_textbook_example() -> None:
    """Agresti, Categorical Data Analysis, 2nd ed., table 10.1: 150 against 86 of 1600, z = 4.17 (there squared: 17.36)
    and a 95 % interval of the difference of 0.025 to 0.055 by the unrestricted variance.
    """
    found = mcnemar(Compared(150, 86, 1600, 0.0), confidence=0.975)
    assert found.z == pytest.approx(4.166, abs=1e-3)
    assert found.difference == pytest.approx(0.04)
    assert found.low == pytest.approx(0.0212, abs=1e-3)


def test_noise_widens_the_interval_by_what_it_is() -> None:
    """The size of the noise-aware test over 4,000 draws is the level; the textbook's is not."""
    rng = np.random.default_rng(3)
    variance = 40.0
    found, naive = 0, 0
    for _ in range(4000):
        b, c = rng.poisson(40, 2) + np.rint(rng.normal(0, math.sqrt(variance), 2))
        found += abs(mcnemar(Compared(b, c, 1000, variance), confidence=0.95).z) > 1.96
        naive += abs(mcnemar(Compared(b, c, 1000, 0.0), confidence=0.95).z) > 1.96
    assert 0.035 < found / 4000 < 0.065
    assert naive / 4000 > 0.12


@pytest.mark.parametrize(
    ("b", "c", "gates", "action"),
    [
        (60, 40, True, MonitorAction.PROMOTE),
        (60, 40, False, MonitorAction.KEEP),
        (40, 80, True, MonitorAction.KEEP),
        # Not worse than by the margin, though no better.
        (40, 41, True, MonitorAction.PROMOTE),
    ],
)
def test_a_candidate_is_promoted_if_it_is_not_worse_and_passes(
    b: int, c: int, gates: bool, action: MonitorAction
) -> None:
    compared = Compared(b, c, 1000, 2.0)
    _, found = judge_shadow(TABLE, 4, compared, OLD, candidate="n", gates_pass=gates)
    assert (found.action, found.target) == (action, "n" if action is MonitorAction.PROMOTE else None)


def test_nobody_compared_is_no_comparison() -> None:
    with pytest.raises(LocalError):
        mcnemar(Compared(0, 0, 0, 0), confidence=0.95)
    assert mcnemar(Compared(0, 0, 10, 0), confidence=0.95).difference == 0


# The file


FILE = """
version = 1
[monitor]
tests = ["score", "label", "error", "features"]
epsilon = 2.0
rule = "holm"

[[monitor.features]]
number = 3
low = 0.0
high = 10.0

[[monitor.features]]
number = 5
codes = 4

[monitor.triggers]
alarm = "auto"
concept = "roll_back"
"""


def test_a_file_is_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text(FILE, encoding="utf-8")
    table = read_policy(path)
    assert table.triggers == Triggers(alarm="auto", concept="roll_back")
    watch = watch_of(table, classes=2)
    assert [(s.name, s.cells, s.ordered) for s in watch.strata] == [
        ("score", 10, True),
        ("outcome", 20, False),
        ("feature-3", 8 + 3, True),
        ("feature-5", 4 + 3, False),
    ]
    assert plan_of(table, watch, windows=52).cells == 4 * 2 * table.share + 2 * (1 + 3)
    paid = table.model_copy(update={"weights": "released"})
    assert watch_of(paid, classes=2).sensitivity == 4 * (2 * table.share + 3) + 2
    many = watch_of(table, classes=5)
    assert many.strata[1].table.shape == (5, 2)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ('rule = "holm"', 'rulez = "holm"', "monitor.toml:6.*rulez.*|rule"),
        ("epsilon = 2.0", "epsilon = 0", "monitor.toml:5"),
        ('alarm = "auto"', 'alarm = "page"', "alarm"),
        ("codes = 4", "codes = 4\nlow = 1.0", "low and high, or codes"),
        ("number = 5", "number = 3", "twice"),
        ('"error", "features"', '"error"', "goes with"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, before: str, after: str, words: str) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text(FILE.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        read_policy(path)


@pytest.mark.parametrize("change", [{"tests": ()}, {"tests": ("score", "score")}, {"bins": 5}, {"min_sites": 2}])
def test_a_table_without_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MonitorTable(**change)


def test_states_are_values() -> None:
    state, _ = step(TABLE, TriggerState(), window(0, SUSPICIOUS), OLD)
    assert replace(state) == state
    assert state != TriggerState()
