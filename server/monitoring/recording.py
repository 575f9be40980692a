"""Windows and decisions in the federation's log, and what a decision does to the registry's aliases.

models = models_in(registry.state())
state, decision = record_window(journal, run, table, state, measured, models)
carry_out(registry, decision)
"""

from fedseal.compliance.events.fields import Alias, GateKind, MonitorAction, RollbackReason
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.registry.aliases import Binding, State, Status
from fedseal.compliance.registry.promotion import Registry
from fedseal.server.monitoring.facts import decision_fact, logged, policy_digest, policy_fact, shadow_fact, window_fact
from fedseal.server.monitoring.outcome import Measured
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.trigger import (
    Compared,
    Decision,
    Models,
    ShadowResult,
    TriggerState,
    judge_shadow,
    step,
)


def models_in(state: State) -> Models | None:
    """The model in use, and the last one before it that was, may still be used, and has passed its latest check against
    the gold set. None if the alias production points to nothing.
    """
    binding = state.aliases.get(Alias.PRODUCTION)
    if binding is None:
        return None
    golden: set[str] = set()
    for _, gate in sorted(state.gates.items()):
        if gate.gate is GateKind.GOLD_SET:
            (golden.add if gate.passed else golden.discard)(gate.model)
    earlier = (held.model for held in reversed(state.held[Alias.PRODUCTION]))
    usable = (m for m in earlier if m != binding.model and m in golden and state.status(m) is Status.ACTIVE)
    return Models(binding.model, next(usable, None))


def begin(journal: FederationJournal, table: MonitorTable) -> str:
    """Write by which policy windows are decided about from here on; its digest."""
    journal.commit([Fact(policy_fact(table))])
    return policy_digest(table)


def record_window(
    journal: FederationJournal,
    run: bytes | None,
    table: MonitorTable,
    state: TriggerState,
    measured: Measured,
    models: Models,
    *,
    aggregate: str | None = None,
) -> tuple[TriggerState, Decision]:
    """Decide about a window on the numbers as the log has them, and write both, or neither.

    Args:
        journal: the federation's log.
        run: the monitoring run's id.
        table: the policy, which `begin` has written.
        state: of the windows before.
        measured: the window.
        models: see `models_in`.
        aggregate: digest of the sum's integers, as the log has it of the release.
    """
    policy = policy_digest(table)
    state, decision = step(table, state, logged(measured), models)
    shown = window_fact(measured, model=models.current, policy=policy, aggregate=aggregate)
    journal.commit([Fact(shown, run), Fact(decision_fact(decision, policy=policy), run)])
    return state, decision


def record_shadow(
    journal: FederationJournal,
    run: bytes | None,
    table: MonitorTable,
    window: int,
    compared: Compared,
    models: Models,
    *,
    candidate: str,
    epsilon: float,
    gates_pass: bool,
) -> tuple[ShadowResult, Decision]:
    """Decide about a candidate, and write what was compared and what came of it."""
    policy = policy_digest(table)
    result, decision = judge_shadow(table, window, compared, models, candidate=candidate, gates_pass=gates_pass)
    about = shadow_fact(
        compared,
        models,
        window=window,
        policy=policy,
        candidate=candidate,
        epsilon=epsilon,
        gates_pass=gates_pass,
    )
    journal.commit([Fact(about, run), Fact(decision_fact(decision, policy=policy), run)])
    return result, decision


def carry_out(registry: Registry, decision: Decision) -> Binding | None:
    """Go back to the model that a decision names. Whatever else it asks for is a training, and somebody's to start.

    Raises:
        PolicyRefused: the alias cannot be moved there any more.
        ConfigError: the bundle's files are not there, or were changed.
    """
    if decision.action is not MonitorAction.ROLL_BACK or decision.target is None:
        return None
    return registry.rollback(Alias.PRODUCTION, RollbackReason.DRIFT, to=decision.target)
