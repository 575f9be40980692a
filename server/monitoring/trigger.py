"""What a window leads to: a state machine, pure. (policy, state, window, models) -> (state, decision).

It reads nothing but a policy, what windows measured and which models there are, all of it in the log: whoever holds
the log makes the same decisions again, see `replay`.
"""

import math
from dataclasses import dataclass, field, replace

from scipy.stats import norm

from fedseal.compliance.events.fields import MonitorAction
from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.classify import DriftKind, Obstacle, classify
from fedseal.privacy.inference.drift.cusum import Chart, CusumState
from fedseal.privacy.inference.drift.cusum import step as follow
from fedseal.privacy.inference.drift.multiplicity import Alert, PersistenceState, Verdict, judge
from fedseal.server.monitoring.outcome import ERROR, LABEL_GIVEN_SCORE, Measured, evidence_of
from fedseal.server.monitoring.policy import MonitorTable

# As whoever decides calls it.
Action = MonitorAction
CHART = Chart()


# After these the model is another one, or about to be: what windows before had to say is not about it.
_CHANGING = (MonitorAction.PROPOSE_RETRAINING, MonitorAction.RETRAIN, MonitorAction.ROLL_BACK)


@dataclass(frozen=True, slots=True)
class Models:
    """Digests: the model in use, and the last one before it whose gold set still passes, if there is one."""

    current: str
    fallback: str | None = None


@dataclass(frozen=True, slots=True)
class TriggerState:
    """What windows so far had to say. ``cooldown``: how many windows still pass before the next action."""

    suspicious: PersistenceState = field(default_factory=PersistenceState)
    errors: CusumState = field(default_factory=CusumState)
    cooldown: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What one window leads to.

    Attributes:
        window: its number.
        action: what is done. WAIT: an alert, and the cooldown is not over.
        alert: what the window amounts to under the policy's rule; NONE also where it is not evaluable.
        obstacle: why it is not evaluable; None if it is. No drift is something else.
        kinds: the kinds of drift that it shows.
        speaking: the tests that say so, in order; "errors-chart" where the chart signals.
        model: the model in use.
        fallback: the model there was to go back to.
        target: the model that is gone back to.
    """

    window: int
    action: MonitorAction
    alert: Alert
    obstacle: Obstacle | None
    kinds: frozenset[DriftKind]
    speaking: tuple[str, ...]
    model: str
    fallback: str | None = None
    target: str | None = None


CHART_SIGNAL = "errors-chart"
# What speaks for a model that is wrong, and not merely asked about others.
_CONCEPT = frozenset({LABEL_GIVEN_SCORE, ERROR})


def step(table: MonitorTable, state: TriggerState, measured: Measured, models: Models) -> tuple[TriggerState, Decision]:
    """The state after a window, and what it leads to.

    A window that is not evaluable changes nothing but the cooldown.

    Raises:
        LocalError: a p-value that is no number.
    """
    rested = replace(state, cooldown=max(state.cooldown - 1, 0))
    obstacle = _obstacle(table, measured)
    if obstacle is not None:
        where = (obstacle, frozenset[DriftKind](), (), models.current, models.fallback)
        return rested, Decision(measured.window, MonitorAction.NOTHING, Alert.NONE, *where)
    suspicious, verdict = judge(table.levels, state.suspicious, {test.name: test.p for test in measured.tests})
    errors, signal = state.errors, None
    if measured.errors is not None:
        errors, signal = follow(CHART, state.errors, measured.errors)
    moved = _speaking(table, verdict)
    evidence = evidence_of(measured, moved)
    if signal is not None:
        # One window's test of what scores mean says nothing against small changes that last.
        evidence = replace(evidence, errors=True, label_given_score=evidence.label_given_score or None)
    kinds = classify(evidence, min_sites=table.min_sites, min_rows=table.min_rows).kinds
    alert = Alert.ALARM if signal is not None else _alert(table, verdict)
    # A model is not taken back on the word of a test that is merely suspicious.
    plain = signal is not None or not _CONCEPT.isdisjoint(_alarming(table, verdict))
    action, target = _action(table, alert, models, concept=plain and DriftKind.CONCEPT in kinds)
    if state.cooldown > 0 and action is not MonitorAction.NOTHING:
        action, target = MonitorAction.WAIT, None
    speaking = (*sorted(moved), *((CHART_SIGNAL,) if signal is not None else ()))
    about = (kinds, speaking, models.current, models.fallback, target)
    decision = Decision(measured.window, action, alert, None, *about)
    if action in _CHANGING:
        return TriggerState(cooldown=table.triggers.cooldown), decision
    return replace(rested, suspicious=suspicious, errors=errors), decision


def _obstacle(table: MonitorTable, measured: Measured) -> Obstacle | None:
    if measured.sites < table.min_sites:
        return Obstacle.TOO_FEW_SITES
    if measured.rows < table.min_rows:
        return Obstacle.TOO_FEW_ROWS
    return None if measured.tests else Obstacle.NOTHING_TESTED


def _suspicious(table: MonitorTable, verdict: Verdict) -> frozenset[str]:
    return frozenset(name for name, p in verdict.adjusted if p <= table.levels.warning)


def _alarming(table: MonitorTable, verdict: Verdict) -> frozenset[str]:
    """The tests that make an alarm under the policy's rule."""
    return verdict.alarming | (verdict.warning if table.rule == "2of3" else frozenset())


def _speaking(table: MonitorTable, verdict: Verdict) -> frozenset[str]:
    """Tests that stand out now, or have in two of three windows."""
    return verdict.alarming | verdict.warning | _suspicious(table, verdict)


def _alert(table: MonitorTable, verdict: Verdict) -> Alert:
    """What a verdict amounts to under the policy's rule, see `MonitorTable`."""
    if _alarming(table, verdict):
        return Alert.ALARM
    suspicious = table.rule == "2of3" and _suspicious(table, verdict)
    return Alert.WARNING if verdict.warning or suspicious else Alert.NONE


def _action(table: MonitorTable, alert: Alert, models: Models, *, concept: bool) -> tuple[MonitorAction, str | None]:
    triggers = table.triggers
    if alert is Alert.NONE:
        return MonitorAction.NOTHING, None
    if alert is Alert.WARNING:
        return (MonitorAction.SHADOW if triggers.warn == "shadow" else MonitorAction.NOTHING), None
    if concept and triggers.concept == "roll_back" and models.fallback is not None:
        return MonitorAction.ROLL_BACK, models.fallback
    match triggers.alarm:
        case "none":
            return MonitorAction.NOTHING, None
        case "propose":
            return MonitorAction.PROPOSE_RETRAINING, None
        case "auto":
            return MonitorAction.RETRAIN, None


# A candidate beside the model in use


@dataclass(frozen=True, slots=True)
class Compared:
    """Two models on the same persons, sealed: who was right where only one was.

    Attributes:
        candidate_only: b, persons whom only the candidate got right, noise and all.
        current_only: c, persons whom only the model in use got right.
        rows: persons who were compared; a public or released number.
        variance: v, of the noise in b and in c; 0 under plan none.
    """

    candidate_only: float
    current_only: float
    rows: float
    variance: float


@dataclass(frozen=True, slots=True)
class ShadowResult:
    """McNemar's test of two models whose counts have noise.

    z = (b - c) / sqrt(b + c + 2v); ``difference`` is that of accuracies, (b - c) / n, ``low`` its lower bound.
    """

    z: float
    difference: float
    low: float


def mcnemar(compared: Compared, *, confidence: float) -> ShadowResult:
    """Is the candidate better? Under no difference b - c has variance b + c, and the noise adds 2v.

    Raises:
        LocalError: nobody was compared, or a confidence that is none.
    """
    if compared.rows <= 0 or not 0.5 < confidence < 1:
        raise LocalError("expected persons who were compared, and a confidence between 0.5 and 1")
    gain = compared.candidate_only - compared.current_only
    # With noise b + c may come out negative; without any disagreement one person is the least that is believed.
    spread = math.sqrt(max(compared.candidate_only + compared.current_only, 1.0) + 2 * compared.variance)
    difference = gain / compared.rows
    return ShadowResult(gain / spread, difference, difference - float(norm.ppf(confidence)) * spread / compared.rows)


def judge_shadow(
    table: MonitorTable, window: int, compared: Compared, models: Models, *, candidate: str, gates_pass: bool
) -> tuple[ShadowResult, Decision]:
    """Whether a candidate takes the place of the model in use: it is not worse by more than the margin, and every gate
    of the registry (gold set, worst subgroup) passes.
    """
    result = mcnemar(compared, confidence=table.triggers.confidence)
    good = gates_pass and result.low > -table.triggers.margin
    action, target = (MonitorAction.PROMOTE, candidate) if good else (MonitorAction.KEEP, None)
    about = (frozenset[DriftKind](), (), models.current, models.fallback, target)
    return result, Decision(window, action, Alert.NONE, None, *about)
