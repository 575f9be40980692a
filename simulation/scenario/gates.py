"""Gates: conditions on what was measured, judged one run at a time or over a sweep's seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy import stats

from fedseal.errors import ConfigError
from fedseal.simulation.scenario.metrics import KINDS, Kind
from fedseal.simulation.scenario.outcome import GateRow, ScenarioResult
from fedseal.simulation.scenario.tables import Gate

_LOWER = {">=", ">", "drop<="}


@dataclass(frozen=True, slots=True)
class Golden:
    """A scenario's recorded figures, by metric."""

    values: Mapping[str, float]


def sentence(gate: Gate) -> str:
    """A gate as people read it: ``accuracy.global >= 0.7 at end``."""
    at = "" if KINDS[gate.metric] is Kind.WHOLE else f" at {gate.at if isinstance(gate.at, str) else f'step {gate.at}'}"
    against = f" against {gate.baseline}" if gate.baseline else ""
    sure = f" with confidence {gate.confidence:g}" if gate.confidence else ""
    return f"{gate.metric} {gate.op} {gate.value:g}{at}{against}{sure}"


def value_of(result: ScenarioResult, metric: str, at: int | str = "end") -> float | None:
    """A metric's value; None where it is not defined, as the delay of a drift nobody noticed."""
    if KINDS[metric] is Kind.WHOLE:
        return result.whole.get(metric)
    known = [v for v in result.series(metric) if v is not None]
    if isinstance(at, int):
        return result.steps[at].metrics.get(metric) if 0 <= at < len(result.steps) else None
    if not known:
        return None
    match at:
        case "mean":
            return mean(known)
        case "min":
            return min(known)
        case "max":
            return max(known)
        case _:
            return result.series(metric)[-1]


def judge(gates: Sequence[Gate], results: Sequence[ScenarioResult], golden: Golden | None) -> list[GateRow]:
    """Judge gates on runs that differ in their seed only.

    A gate without confidence has to hold in every one of the runs, and the one in which it is worst is shown; a gate
    with it holds for their mean.

    Raises:
        ConfigError: a gate asks for a confidence and there is one run, or for a golden figure that is not recorded.
    """
    return [_judge(gate, results, golden) for gate in gates]


def _judge(gate: Gate, results: Sequence[ScenarioResult], golden: Golden | None) -> GateRow:
    found = [_judged_value(gate, result, golden) for result in results]
    text = sentence(gate)
    values = [v for v in found if v is not None]
    if len(values) < len(found):
        return GateRow(gate=text, metric=gate.metric, passed=False, value=None, reason="the metric has no value")
    if gate.confidence is None:
        worst = min(values) if gate.op in _LOWER else max(values)
        if gate.op == "==":
            worst = max(values, key=lambda v: abs(v - gate.value))
        return GateRow(gate=text, metric=gate.metric, passed=_holds(gate, worst), value=worst)
    if len(values) < 2:
        raise ConfigError(
            f"the gate {text!r} asks for a confidence, and there is one seed",
            next_step="Give several in [sweep]: seed = [1, 2, 3, 4, 5].",
        )
    margin = float(stats.t.ppf(gate.confidence, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    bound = mean(values) - margin if gate.op in _LOWER else mean(values) + margin
    return GateRow(gate=text, metric=gate.metric, passed=_holds(gate, bound), value=mean(values), bound=bound)


def _judged_value(gate: Gate, result: ScenarioResult, golden: Golden | None) -> float | None:
    value = value_of(result, gate.metric, gate.at)
    if gate.baseline is None or value is None:
        return value
    against = _baseline(gate, result, golden)
    return None if against is None else value - against


def _baseline(gate: Gate, result: ScenarioResult, golden: Golden | None) -> float | None:
    match gate.baseline:
        case "golden":
            if golden is None or gate.metric not in golden.values:
                raise ConfigError(
                    f"no golden figure of {gate.metric} is recorded for scenario {result.scenario!r}",
                    next_step="Record them with: fedseal scenario record RUN",
                )
            return golden.values[gate.metric]
        case "oracle" | "kept":
            return value_of(result, f"accuracy.{gate.baseline}", gate.at)
        case _:
            return next((c.accuracy for c in result.compared if c.name == gate.baseline), None)


def _holds(gate: Gate, value: float) -> bool:
    # A mean of a thousand floats is not exact; a gate is not about the last bit.
    slack = 1e-9 * max(1.0, abs(gate.value))
    match gate.op:
        case ">=":
            return value >= gate.value - slack
        case ">":
            return value > gate.value
        case "<=" | "rise<=":
            return value <= gate.value + slack
        case "<":
            return value < gate.value
        case "drop<=":
            return value >= -gate.value - slack
        case _:
            return abs(value - gate.value) <= slack
