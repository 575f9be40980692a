"""Decisions in the federation's log: made again from it alone, found where somebody changed one; a closed loop."""

from pathlib import Path
from typing import Any

import pytest
from support.keys import SERVER
from support.registry import World, bundle

from fedseal.compliance.events.fields import Alias, GateKind, MonitorAction
from fedseal.compliance.events.leaf import Event, Place, read_event, sign_event
from fedseal.compliance.events.monitoring import MonitorDecided, MonitorPolicySet, WindowEvaluated
from fedseal.compliance.events.subjects import GateChecked
from fedseal.compliance.registry.entries import Entries
from fedseal.privacy.inference.drift.classify import Obstacle
from fedseal.privacy.inference.drift.cusum import Excess
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.server.monitoring.facts import logged, policy_digest, policy_fact, rules_of, window_fact
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable, Triggers
from fedseal.server.monitoring.recording import begin, carry_out, models_in, record_shadow, record_window
from fedseal.server.monitoring.replay import Fault, replay
from fedseal.server.monitoring.trigger import Compared, Decision, Models, TriggerState

RUN = 16 * b"m"
TABLE = MonitorTable(
    windows_per_year=50, alpha=1.0, min_sites=3, triggers=Triggers(alarm="auto", concept="roll_back", cooldown=1)
)
FIRST, SECOND = bundle(1), bundle(2)
RULES = """
version = 1
[production]
"""


def window(number: int, *, sites: int = 3, concept: float = 0.4, score: float = 0.5) -> Measured:
    tests = (
        Found("score", 3.3, 4, score),
        Found("label", 1 / 3, 1, 0.61),
        Found("label-given-score", 1e30, 2, concept),
        Found("score-given-label", 2.0, 8, 0.3),
        Found("error", 0.1, None, 1 / 7),
    )
    return Measured(number, sites, 1.0, 901.0, tests, Excess(1 / 3, 97.3))


class Loop:
    """A federation whose production model is watched, with a model before it to go back to."""

    def __init__(self, folder: Path) -> None:
        self.world = World(folder)
        for made in (FIRST, SECOND):
            self.world.register(made)
            self.world.server_says(self.gold(made))
            self.world.witness()
            self.world.promote(made, text=RULES)
        begin(self.world.journal, TABLE)
        self.state = TriggerState()

    @staticmethod
    def gold(made: Any, *, passed: bool = True) -> GateChecked:
        return GateChecked(
            model=made.model_digest,
            alias=Alias.PRODUCTION,
            gate=GateKind.GOLD_SET,
            name="gold",
            limit="0.8",
            found="0.9" if passed else "0.7",
            passed=passed,
            bundle=made.digest,
        )

    @property
    def models(self) -> Models:
        found = models_in(self.world.registry.state())
        assert found is not None
        return found

    def watch(self, measured: Measured) -> Decision:
        self.state, decision = record_window(self.world.journal, RUN, TABLE, self.state, measured, self.models)
        return decision

    def events(self) -> list[tuple[int, Event]]:
        entries = Entries(self.world.engine, self.world.journal.origin)
        with entries._engine.begin() as connection:
            from fedseal.compliance.log.store import Log

            log = Log(connection, entries.origin)
            return [(i, read_event(leaf)) for i, leaf in enumerate(log.leaves(0, log.size))]


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path)


def test_a_closed_loop_follows_from_the_log_alone(loop: Loop) -> None:
    """Quiet, alarm, retrained; too few sites; concept drift, back to the model before; a candidate in its place."""
    made = [loop.watch(window(0)), loop.watch(window(1, score=1e-9)), loop.watch(window(2, sites=2))]
    assert [d.action for d in made] == [MonitorAction.NOTHING, MonitorAction.RETRAIN, MonitorAction.NOTHING]
    assert loop.models == Models(SECOND.model_digest, FIRST.model_digest)
    bad = loop.watch(window(3, concept=1e-9))
    assert (bad.action, bad.target) == (MonitorAction.ROLL_BACK, FIRST.model_digest)
    carry_out(loop.world.registry, bad)
    assert loop.world.current() == FIRST.digest
    # The model that was left has passed its gold set too: it is what one could go back to now.
    assert loop.models == Models(FIRST.model_digest, SECOND.model_digest)
    loop.state = TriggerState()
    loop.watch(window(4))
    candidate = bundle(3).model_digest
    _, kept = record_shadow(
        loop.world.journal,
        RUN,
        TABLE,
        5,
        Compared(50.0, 20.0, 900.0, 3.5),
        loop.models,
        candidate=candidate,
        epsilon=1.0,
        gates_pass=True,
    )
    assert (kept.action, kept.target) == (MonitorAction.PROMOTE, candidate)
    found = replay(loop.events())
    assert found.holds, found.findings
    assert (found.windows, len(found.decisions)) == (5, 6)
    assert [d.action for d in found.decisions] == [
        *(d.action for d in made),
        bad.action,
        MonitorAction.NOTHING,
        kept.action,
    ]


def test_nothing_is_done_where_nothing_was_decided(loop: Loop) -> None:
    assert carry_out(loop.world.registry, loop.watch(window(0))) is None


# Tampering: a server that writes another log, under its own valid signature.


def rewritten(events: list[tuple[int, Event]], place: int, **changes: Any) -> list[tuple[int, Event]]:
    """The log with one body changed, and signed as if it had always been so."""
    index, event = events[place]
    body = event.body.model_copy(update=changes)
    leaf = sign_event(body, SERVER, Place(), org="server", time=event.time, run=event.run)
    return [*events[:place], (index, read_event(leaf)), *events[place + 1 :]]


def places(events: list[tuple[int, Event]], form: type) -> list[int]:
    return [i for i, (_, event) in enumerate(events) if isinstance(event.body, form)]


@pytest.fixture
def events(loop: Loop) -> list[tuple[int, Event]]:
    loop.watch(window(0))
    loop.watch(window(1, concept=1e-9))
    found = loop.events()
    assert replay(found).holds
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"action": MonitorAction.NOTHING, "target": None},
        {"action": MonitorAction.RETRAIN, "target": None},
        {"target": SECOND.model_digest},
        {"alert": Alert.WARNING},
        {"kinds": ()},
        {"speaking": ()},
        {"obstacle": Obstacle.TOO_FEW_SITES},
        {"window": 7},
        {"fallback": None},
    ],
)
def test_a_decision_that_does_not_follow_is_found(events: list[tuple[int, Event]], changes: dict[str, Any]) -> None:
    decided = places(events, MonitorDecided)[-1]
    found = replay(rewritten(events, decided, **changes))
    assert [f.fault for f in found.findings] == [Fault.OTHER_DECISION]
    assert found.findings[0].index == events[decided][0]
    expected = found.findings[0].expected
    assert expected is not None
    if "fallback" not in changes:
        assert expected == events[decided][1].body


@pytest.mark.parametrize("changes", [{"sites": 2}, {"errors": "90"}, {"rows": "50"}])
def test_a_window_that_leads_elsewhere_is_found(events: list[tuple[int, Event]], changes: dict[str, Any]) -> None:
    place = places(events, WindowEvaluated)[0]
    assert next(f.fault for f in replay(rewritten(events, place, **changes)).findings) is Fault.OTHER_DECISION


def test_missing_and_invented_entries_are_found(events: list[tuple[int, Event]]) -> None:
    def faults(changed: list[tuple[int, Event]]) -> list[Fault]:
        return [f.fault for f in replay(changed).findings]

    def without(form: type, which: int) -> list[tuple[int, Event]]:
        place = places(events, form)[which]
        return [*events[:place], *events[place + 1 :]]

    assert faults(without(MonitorDecided, 0)) == [Fault.NO_DECISION]
    assert faults(without(MonitorDecided, 1)) == [Fault.NO_DECISION]
    assert faults(without(WindowEvaluated, 1)) == [Fault.NO_WINDOW]
    assert faults(without(MonitorPolicySet, 0)) == [Fault.NO_POLICY] * 2
    again = places(events, WindowEvaluated)[1]
    assert Fault.WINDOW_AGAIN in faults(rewritten(events, again, window=0))
    other = FIRST.model_digest
    assert Fault.OTHER_MODEL in faults(rewritten(events, places(events, WindowEvaluated)[0], model=other))


def test_a_model_to_go_back_to_has_to_have_been_there_and_good(loop: Loop) -> None:
    loop.world.server_says(loop.gold(FIRST, passed=False))
    assert loop.models.fallback is None
    # A server that says so all the same.
    claimed = Models(SECOND.model_digest, FIRST.model_digest)
    record_window(loop.world.journal, RUN, TABLE, loop.state, window(0, concept=1e-9), claimed)
    found = replay(loop.events())
    assert [f.fault for f in found.findings] == [Fault.NO_FALLBACK]


def test_a_rule_that_was_set_later_decides_nothing_before(loop: Loop) -> None:
    other = TABLE.model_copy(update={"min_sites": 4})
    digest = policy_digest(other)
    journal = loop.world.journal
    record_window(journal, RUN, other, TriggerState(), window(0), loop.models)
    begin(journal, other)
    record_window(journal, RUN, other, TriggerState(), window(1), loop.models)
    found = replay(loop.events())
    assert digest != policy_digest(TABLE)
    assert [f.fault for f in found.findings] == [Fault.NO_POLICY]
    assert found.decisions[0].obstacle is not None


# Numbers as a log has them


def test_rules_survive_the_log() -> None:
    assert rules_of(policy_fact(TABLE)).levels == TABLE.levels
    assert policy_fact(rules_of(policy_fact(TABLE))).model_dump(exclude={"policy"}) == policy_fact(TABLE).model_dump(
        exclude={"policy"}
    )


def test_what_is_decided_on_is_what_the_log_says() -> None:
    measured = window(0, score=1e-300)
    once = logged(measured)
    assert logged(once) == once
    assert once.tests[0].p == 0.0
    assert window_fact(once, model=FIRST.model_digest, policy=policy_digest(TABLE)).tests[0].p == "0"
    assert once.errors == measured.errors
