"""Every decision about a watched model made again, from the log alone.

The log has the rules, what every window showed, which models there were, and what was decided. Who holds it runs the
same state machine over the same numbers, and compares. A decision that does not follow, one that is missing, and one
that nobody's window led to are found; so is a model that was said to be there to go back to, and was not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fedseal.compliance.events.bodies import Genesis
from fedseal.compliance.events.fields import Alias, GateKind
from fedseal.compliance.events.leaf import SERVER_ORG, Event
from fedseal.compliance.events.monitoring import (
    MonitorDecided,
    MonitorPolicySet,
    ShadowCompared,
    WindowEvaluated,
)
from fedseal.compliance.events.subjects import GateChecked, ModelStatus, Promoted, RolledBack
from fedseal.server.monitoring.facts import compared_of, decision_fact, measured_of, rules_of
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.trigger import Models, TriggerState, judge_shadow, step


class Fault(StrEnum):
    """What is wrong with an entry."""

    NO_POLICY = "no policy of this digest was set"
    OTHER_DECISION = "the window leads to another decision"
    NO_DECISION = "the window led to no decision"
    NO_WINDOW = "a decision without a window"
    WINDOW_AGAIN = "a window that is not after the one before"
    OTHER_MODEL = "a window of another model than the one in use"
    NO_FALLBACK = "the model to go back to was not there, or its gold set had not passed"


@dataclass(frozen=True, slots=True)
class Finding:
    """An entry that does not hold. ``expected`` is the decision that follows, where there is one."""

    index: int
    fault: Fault
    expected: MonitorDecided | None = None


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a log says of windows. ``decisions`` are those that follow, in their order; ``findings`` what is wrong."""

    windows: int
    decisions: tuple[MonitorDecided, ...]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Whether every decision in the log is the one that follows."""
        return not self.findings


def replay(events: Iterable[tuple[int, Event]]) -> Replayed:
    """Make all decisions again.

    Args:
        events: entries of the federation's log with their indices, in their order: all, or at least those about
            monitoring and about aliases. Whether they are signed is for `fedseal audit verify` to say.
    """
    replayed = _Replay()
    for index, event in events:
        if event.org == SERVER_ORG:
            replayed.take(index, event)
    replayed.settle()
    return Replayed(replayed.windows, tuple(replayed.decisions), tuple(replayed.findings))


@dataclass(slots=True)
class _Replay:
    """The monitor while a log is read. A run's windows have a state of their own."""

    policies: dict[str, MonitorTable] = field(default_factory=dict)
    states: dict[tuple[str | None, str], TriggerState] = field(default_factory=dict)
    last: dict[str | None, int] = field(default_factory=dict)
    pending: tuple[int, WindowEvaluated | ShadowCompared, str | None] | None = None
    golden: set[str] = field(default_factory=set)
    held: list[str] = field(default_factory=list)
    watched: set[str] = field(default_factory=set)
    simulated: bool = False
    suspended: set[str] = field(default_factory=set)
    windows: int = 0
    decisions: list[MonitorDecided] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def take(self, index: int, event: Event) -> None:
        """Read one entry of the server's."""
        match event.body:
            case Genesis() as body:
                self.simulated = body.simulated
            case MonitorPolicySet() as body:
                self.policies[body.policy] = rules_of(body)
            case WindowEvaluated() | ShadowCompared() as body:
                self.settle()
                self.pending = (index, body, event.run)
            case MonitorDecided() as body:
                self._decided(index, body)
            case GateChecked() as body if body.gate is GateKind.GOLD_SET:
                (self.golden.add if body.passed else self.golden.discard)(body.model)
            case Promoted() as body if body.alias is Alias.PRODUCTION:
                self.held.append(body.model)
            case RolledBack() as body if body.alias is Alias.PRODUCTION:
                self.held.append(body.model)
            case ModelStatus() as body:
                self.suspended.add(body.model)

    def settle(self) -> None:
        """A window that was followed by no decision."""
        if self.pending is not None:
            self.findings.append(Finding(self.pending[0], Fault.NO_DECISION))
            self.pending = None

    def _decided(self, index: int, body: MonitorDecided) -> None:
        if self.pending is None:
            self.findings.append(Finding(index, Fault.NO_WINDOW))
            return
        (at, about, run), self.pending = self.pending, None
        table = self.policies.get(about.policy)
        if table is None:
            self.findings.append(Finding(at, Fault.NO_POLICY))
            return
        models = Models(about.model, body.fallback)
        if body.fallback is not None and not self._may_go_back(body.fallback, about.model):
            self.findings.append(Finding(index, Fault.NO_FALLBACK))
        expected = self._follows(at, table, about, models, run)
        self.decisions.append(expected)
        if expected != body:
            self.findings.append(Finding(index, Fault.OTHER_DECISION, expected))

    def _follows(
        self, index: int, table: MonitorTable, about: WindowEvaluated | ShadowCompared, models: Models, run: str | None
    ) -> MonitorDecided:
        if isinstance(about, ShadowCompared):
            of = (table, about.window, compared_of(about), models)
            _, decision = judge_shadow(*of, candidate=about.candidate, gates_pass=about.gates_pass)
            return decision_fact(decision, policy=about.policy)
        self.windows += 1
        if about.window <= self.last.get(run, -1):
            self.findings.append(Finding(index, Fault.WINDOW_AGAIN))
        self.last[run] = about.window
        if self.held and self.held[-1] != about.model:
            self.findings.append(Finding(index, Fault.OTHER_MODEL))
        self.watched.add(about.model)
        # Another model is another reference: what windows said of the one before is not about it.
        key = (run, about.model)
        state, decision = step(table, self.states.get(key, TriggerState()), measured_of(about), models)
        self.states[key] = state
        return decision_fact(decision, policy=about.policy)

    def _may_go_back(self, fallback: str, current: str) -> bool:
        # A simulation without a registry has no aliases and no gold sets: there a model that was watched was in use.
        bare = self.simulated and not self.held
        known = self.watched if bare else self.held
        good = bare or fallback in self.golden
        return fallback != current and fallback in known and good and fallback not in self.suspended
