"""Windows and decisions as facts of the federation's log, and back.

A log has no floats. What is decided is decided on the numbers as the log writes them: `logged` first, `step` after.
"""

import json
import math

from fedseal.compliance.events.fields import decimal, sha256
from fedseal.compliance.events.monitoring import (
    MonitorDecided,
    MonitorPolicySet,
    ShadowCompared,
    WindowEvaluated,
    WindowTest,
)
from fedseal.privacy.inference.drift.cusum import Excess
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable, Triggers
from fedseal.server.monitoring.trigger import Compared, Decision, Models

# Statistics of exact sums can be astronomical; a log's decimals have 24 digits.
_LARGEST = 1e18


def policy_digest(table: MonitorTable) -> str:
    """The digest of a whole policy: SHA-256 over its canonical JSON."""
    text = json.dumps(table.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return sha256(text.encode("utf-8"))


def policy_fact(table: MonitorTable) -> MonitorPolicySet:
    """A policy as the log writes it."""
    triggers = table.triggers
    return MonitorPolicySet(
        policy=policy_digest(table),
        windows_per_year=decimal(table.windows_per_year),
        alpha=decimal(table.alpha),
        warnings=decimal(table.warnings),
        rule=table.rule,
        min_sites=table.min_sites,
        min_rows=table.min_rows,
        warn=triggers.warn,
        alarm=triggers.alarm,
        concept=triggers.concept,
        cooldown=triggers.cooldown,
        margin=decimal(triggers.margin),
        confidence=decimal(triggers.confidence),
    )


def rules_of(fact: MonitorPolicySet) -> MonitorTable:
    """A policy with the rules of a fact: as good as the whole one for deciding, and for nothing else."""
    triggers = Triggers(
        warn=fact.warn,
        alarm=fact.alarm,
        concept=fact.concept,
        cooldown=fact.cooldown,
        margin=float(fact.margin),
        confidence=float(fact.confidence),
    )
    return MonitorTable(
        windows_per_year=float(fact.windows_per_year),
        alpha=float(fact.alpha),
        warnings=float(fact.warnings),
        rule=fact.rule,
        min_sites=fact.min_sites,
        min_rows=fact.min_rows,
        triggers=triggers,
    )


def window_fact(measured: Measured, *, model: str, policy: str, aggregate: str | None = None) -> WindowEvaluated:
    """What a window showed, as the log writes it.

    Args:
        measured: the window.
        model: digest of the model in use.
        policy: digest of the policy.
        aggregate: digest of the sum's integers.
    """
    errors = measured.errors
    return WindowEvaluated(
        model=model,
        policy=policy,
        window=measured.window,
        sites=measured.sites,
        rows=decimal(measured.rows),
        epsilon=None if math.isinf(measured.epsilon) else decimal(measured.epsilon),
        tests=tuple(
            WindowTest(name=t.name, statistic=_bounded(t.statistic), degrees=t.degrees, p=decimal(t.p))
            for t in measured.tests
        ),
        errors=None if errors is None else decimal(errors.value),
        errors_variance=None if errors is None else decimal(errors.variance),
        aggregate=aggregate,
    )


def measured_of(fact: WindowEvaluated) -> Measured:
    """The window that a fact is about."""
    errors = None
    if fact.errors is not None and fact.errors_variance is not None:
        errors = Excess(float(fact.errors), float(fact.errors_variance))
    return Measured(
        fact.window,
        fact.sites,
        math.inf if fact.epsilon is None else float(fact.epsilon),
        float(fact.rows),
        tuple(Found(t.name, float(t.statistic), t.degrees, float(t.p)) for t in fact.tests),
        errors,
    )


def logged(measured: Measured) -> Measured:
    """A window with its numbers as the log has them."""
    nowhere = sha256(b"")
    return measured_of(window_fact(measured, model=nowhere, policy=nowhere))


def decision_fact(decision: Decision, *, policy: str) -> MonitorDecided:
    """A decision as the log writes it."""
    return MonitorDecided(
        model=decision.model,
        policy=policy,
        window=decision.window,
        action=decision.action,
        alert=decision.alert,
        obstacle=decision.obstacle,
        kinds=tuple(sorted(decision.kinds)),
        speaking=decision.speaking,
        fallback=decision.fallback,
        target=decision.target,
    )


def shadow_fact(
    compared: Compared, models: Models, *, window: int, policy: str, candidate: str, epsilon: float, gates_pass: bool
) -> ShadowCompared:
    """A comparison as the log writes it."""
    return ShadowCompared(
        model=models.current,
        policy=policy,
        window=window,
        candidate=candidate,
        candidate_only=decimal(compared.candidate_only),
        current_only=decimal(compared.current_only),
        rows=decimal(compared.rows),
        variance=decimal(compared.variance),
        epsilon=None if math.isinf(epsilon) else decimal(epsilon),
        gates_pass=gates_pass,
    )


def compared_of(fact: ShadowCompared) -> Compared:
    """The comparison that a fact is about."""
    return Compared(float(fact.candidate_only), float(fact.current_only), float(fact.rows), float(fact.variance))


def _bounded(value: float) -> str:
    return decimal(min(max(value, -_LARGEST), _LARGEST))
