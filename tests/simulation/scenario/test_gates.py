"""Gates: every way to pass has a twin that fails."""

import math
from xml.etree.ElementTree import fromstring

import pytest
from scipy import stats
from support.scenarios import made

from fedseal.errors import ConfigError
from fedseal.simulation.scenario.gates import Golden, judge, sentence, value_of
from fedseal.simulation.scenario.junit import junit
from fedseal.simulation.scenario.outcome import Compared, GateRow
from fedseal.simulation.scenario.tables import Gate

RESULT = made([0.5, 0.9, 0.7, 0.8], alarms=2.0)


def gate(op: str, value: float, **rest: object) -> Gate:
    return Gate.model_validate({"metric": "accuracy.global", "op": op, "value": value, **rest})


@pytest.mark.parametrize(
    ("condition", "passes"),
    [
        (gate(">=", 0.8), True),
        (gate(">=", 0.81), False),
        (gate(">", 0.8), False),
        (gate("<=", 0.8), True),
        (gate("<", 0.8), False),
        (gate("==", 0.8), True),
        (gate("==", 0.7), False),
        (gate(">=", 0.9, at=1), True),
        (gate(">=", 0.9, at=2), False),
        (gate("<=", 0.5, at="min"), True),
        (gate(">=", 0.9, at="max"), True),
        (gate(">=", 0.725, at="mean"), True),
        (gate(">=", 0.73, at="mean"), False),
        (Gate(metric="alarms", op="<=", value=2), True),
        (Gate(metric="alarms", op="<=", value=1), False),
    ],
)
def test_a_gate_on_one_run(condition: Gate, passes: bool) -> None:
    assert judge([condition], [RESULT], None)[0].passed is passes


def test_a_metric_without_a_value_does_not_pass() -> None:
    (row,) = judge([Gate(metric="drift.delay", op="<=", value=100)], [RESULT], None)
    assert not row.passed
    assert row.reason


def test_over_seeds_the_worst_run_decides_without_confidence() -> None:
    results = [made([0.8], seed=1), made([0.9], seed=2), made([0.7], seed=3)]
    (row,) = judge([gate(">=", 0.75)], results, None)
    assert (row.passed, row.value) == (False, 0.7)
    (row,) = judge([gate("<=", 0.9)], results, None)
    assert (row.passed, row.value) == (True, 0.9)


def test_with_confidence_the_interval_decides() -> None:
    accuracies = [0.8, 0.9, 0.7, 0.85]
    results = [made([a], seed=i) for i, a in enumerate(accuracies)]
    mean, deviation = sum(accuracies) / 4, math.sqrt(sum((a - 0.8125) ** 2 for a in accuracies) / 3)
    bound = mean - stats.t.ppf(0.95, 3) * deviation / 2
    (row,) = judge([gate(">=", 0.75, confidence=0.95)], results, None)
    assert row.value == pytest.approx(mean)
    assert row.bound == pytest.approx(bound)
    assert bound < 0.75
    assert not row.passed
    assert judge([gate(">=", 0.7, confidence=0.95)], results, None)[0].passed
    with pytest.raises(ConfigError, match="one seed"):
        judge([gate(">=", 0.7, confidence=0.95)], results[:1], None)


def test_baselines() -> None:
    compared = (Compared(name="local", accuracy=0.82, loss=None, sites={}),)
    result = RESULT.model_copy(update={"compared": compared})
    assert judge([gate("drop<=", 0.03, baseline="local")], [result], None)[0].passed
    (row,) = judge([gate("drop<=", 0.01, baseline="local")], [result], None)
    assert not row.passed
    assert row.value == pytest.approx(-0.02)
    golden = Golden({"accuracy.global": 0.75})
    assert judge([gate("rise<=", 0.06, baseline="golden")], [result], golden)[0].passed
    assert not judge([gate("rise<=", 0.04, baseline="golden")], [result], golden)[0].passed
    with pytest.raises(ConfigError, match="no golden figure"):
        judge([gate("drop<=", 0.04, baseline="golden")], [result], None)


def test_values_of_steps_and_of_the_whole() -> None:
    assert value_of(RESULT, "accuracy.global") == 0.8
    assert value_of(RESULT, "accuracy.global", 7) is None
    assert value_of(RESULT, "alarms") == 2.0
    assert value_of(made([None]), "accuracy.global", "mean") is None
    assert sentence(gate(">=", 0.7, at=3, confidence=0.9)) == "accuracy.global >= 0.7 at step 3 with confidence 0.9"


def test_junit() -> None:
    rows = [
        GateRow(gate='a <b> "c"', metric="alarms", passed=True, value=1.0),
        GateRow(gate="d\x00", metric="alarms", passed=False, value=None, reason="the metric has no value"),
    ]
    root = fromstring(junit({"one": rows, "two": rows[:1]}, 1.5))  # noqa: S314 - our own text
    assert (root.attrib["tests"], root.attrib["failures"]) == ("3", "1")
    cases = root.findall(".//testcase")
    assert [case.attrib["name"] for case in cases] == ['a <b> "c"', "d", 'a <b> "c"']
    assert [case.find("failure") is None for case in cases] == [True, False, True]
