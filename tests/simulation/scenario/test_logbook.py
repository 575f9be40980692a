"""A scenario's closed loop in its log: replayed from it alone, found where it was changed, no part of the digest."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.keys import SERVER
from support.scenarios import run
from typer.testing import CliRunner

from fedseal.cli.monitor import monitor
from fedseal.client.trainer import Arrays
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.verify import AuditCode, verify
from fedseal.compliance.events.bodies import Genesis
from fedseal.compliance.events.fields import MonitorAction
from fedseal.compliance.events.leaf import Event, Place, read_event, sign_event
from fedseal.compliance.events.monitoring import MonitorDecided, ShadowCompared, WindowEvaluated
from fedseal.compliance.events.subjects import GateChecked, ModelRegistered, Promoted, RolledBack
from fedseal.compliance.journal.federation import Fact
from fedseal.compliance.lineage.opening import source_at
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.compliance.registry.description import bundle_of
from fedseal.compliance.registry.promotion import Origin
from fedseal.config import Frozen
from fedseal.errors import LocalError
from fedseal.server.monitoring.facts import decision_fact, policy_digest
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable, Triggers
from fedseal.server.monitoring.recording import models_in
from fedseal.server.monitoring.replay import Fault, Replayed, replay
from fedseal.server.monitoring.trigger import Compared, Models, TriggerState
from fedseal.simulation.scenario.execute import Finished, Sources, execute
from fedseal.simulation.scenario.files import library, load
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.logbook import Logbook
from fedseal.simulation.scenario.material import contract_of
from fedseal.simulation.scenario.runner import Silent, run_scenario
from fedseal.simulation.scenario.setting import setting_of
from fedseal.simulation.scenario.timeline import Timeline
from fedseal.simulation.scenario.trainings import Cohort, model_digest
from fedseal_verify.cli import main as verifier

Numbered = list[tuple[int, Event]]


def cut(name: str, steps: int) -> Scenario:
    """The first steps of a scenario of the library."""
    scenario = load(name)
    return scenario.model_copy(update={"scenario": scenario.scenario.model_copy(update={"steps": steps})})


PROMOTED, ROLLED_BACK = cut("shadow-then-promote", 7), cut("recurring-season", 9)


@dataclass(frozen=True)
class Done:
    """A finished run and what its log says."""

    finished: Finished
    events: Numbered
    replayed: Replayed

    def bodies(self, form: type[Frozen]) -> list[Any]:
        return [event.body for _, event in self.events if isinstance(event.body, form)]


def done(scenario: Scenario, folder: Path) -> Done:
    finished = execute(scenario, Sources(Path()), folder, Silent(), baselines=False)
    with source_at(str(finished.folder)) as (log, _):
        events = [(i, read_event(leaf)) for i, leaf in enumerate(log.leaves(0, log.size))]
    return Done(finished, events, replay(events))


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return done(PROMOTED, tmp_path_factory.mktemp("promoted"))


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return done(ROLLED_BACK, tmp_path_factory.mktemp("rolled-back"))


# The loop, from the log alone


@pytest.mark.slow
def test_drift_alarm_shadow_promotion(promoted: Done) -> None:
    found, result = promoted.replayed, promoted.finished.result
    assert found.holds, found.findings
    assert promoted.bodies(Genesis)[0].simulated
    assert [list(row.decisions) for row in result.steps if row.decisions] == [["retrain"], ["promote"]]
    models = [f"sha256:{t.model_sha256}" for t in result.trainings]
    (shadow,) = promoted.bodies(ShadowCompared)
    assert (shadow.model, shadow.candidate, shadow.gates_pass) == (*models, True)
    assert [b.model for b in promoted.bodies(ModelRegistered)] == models
    assert [b.parent for b in promoted.bodies(ModelRegistered)] == [None, models[0]]
    assert [(b.model, b.replaces) for b in promoted.bodies(Promoted)] == [(models[0], None), (models[1], models[0])]
    # All windows of the run, with what it did about each, and the comparison between them.
    windows = [d for d in found.decisions if d.action not in (MonitorAction.PROMOTE, MonitorAction.KEEP)]
    assert [(d.window, str(d.action)) for d in windows] == [(row.window, row.action) for row in result.windows]
    taken = next(d for d in found.decisions if d.action is MonitorAction.PROMOTE)
    assert (taken.model, taken.target) == (models[0], models[1])
    assert windows[-1].model == models[1]


@pytest.mark.slow
def test_drift_alarm_and_back_to_an_earlier_model(rolled_back: Done) -> None:
    found, result = rolled_back.replayed, rolled_back.finished.result
    assert found.holds, found.findings
    assert [list(row.decisions) for row in result.steps if row.decisions] == [["retrain"], ["roll back"]]
    first, second = (f"sha256:{t.model_sha256}" for t in result.trainings)
    (back,) = rolled_back.bodies(RolledBack)
    assert (back.model, back.replaces, str(back.reason)) == (first, second, "drift")
    taken = next(d for d in found.decisions if d.action is MonitorAction.ROLL_BACK)
    assert (taken.model, taken.fallback, taken.target) == (second, first, first)
    assert [(d.window, str(d.action)) for d in found.decisions] == [(row.window, row.action) for row in result.windows]
    assert found.decisions[-1].model == first
    # The gold set had passed, by the numbers that stand in the log.
    passed = [b for b in rolled_back.bodies(GateChecked) if b.name == "accuracy" and b.passed]
    assert {b.model for b in passed} == {first}
    assert all(float(b.found) > float(b.limit) for b in passed)


def test_every_program_accepts_the_log(promoted: Done, capsys: pytest.CaptureFixture[str]) -> None:
    folder = promoted.finished.folder
    with open_log(folder) as copy:
        verdict = verify(copy.leaves(), copy.log.checkpoint(), copy.policy)
    assert (verdict.code, len(verdict.cosigned), verdict.size) == (AuditCode.OK, 8, len(promoted.events))
    assert verifier(["log", str(folder / "log")]) == 0
    assert "verdict      OK" in capsys.readouterr().out
    told = CliRunner().invoke(monitor, ["replay", "--log", str(folder)])
    assert (told.exit_code, "every decision follows from the log" in told.output) == (0, True)
    # The models that the log names are there, and are what it says.
    store = BundleStore(folder / "bundles")
    assert [store.get(b.bundle).model_digest for b in promoted.bodies(ModelRegistered)] == [
        b.model for b in promoted.bodies(ModelRegistered)
    ]
    assert "monitor replay --log" in (folder / "report.html").read_text(encoding="utf-8")


# Changed logs


def rewritten(events: Numbered, form: type[Frozen], which: int, **changes: Any) -> Numbered:
    """The log with one body changed, and signed as if it had always been so."""
    place = [i for i, (_, event) in enumerate(events) if isinstance(event.body, form)][which]
    index, event = events[place]
    leaf = sign_event(
        event.body.model_copy(update=changes), SERVER, Place(), org="server", time=event.time, run=event.run
    )
    return [*events[:place], (index, read_event(leaf)), *events[place + 1 :]]


def test_a_decision_that_was_changed_is_found(promoted: Done, rolled_back: Done) -> None:
    taken = next(d for d in promoted.replayed.decisions if d.action is MonitorAction.PROMOTE)
    which = promoted.bodies(MonitorDecided).index(taken)
    kept = rewritten(promoted.events, MonitorDecided, which, action=MonitorAction.KEEP, target=None)
    (finding,) = replay(kept).findings
    assert (finding.fault, finding.expected) == (Fault.OTHER_DECISION, taken)
    back = [d.action for d in rolled_back.replayed.decisions].index(MonitorAction.ROLL_BACK)
    for changes in ({"action": MonitorAction.RETRAIN, "target": None}, {"action": MonitorAction.NOTHING}):
        changed = replay(rewritten(rolled_back.events, MonitorDecided, back, **changes))
        assert [f.fault for f in changed.findings] == [Fault.OTHER_DECISION]


def test_a_gold_set_or_window_that_was_changed_is_found(rolled_back: Done) -> None:
    places = [i for i, b in enumerate(rolled_back.bodies(GateChecked)) if b.name == "accuracy" and b.passed]
    faults = {f.fault for f in replay(rewritten(rolled_back.events, GateChecked, places[0], passed=False)).findings}
    assert faults == {Fault.NO_FALLBACK}
    alarm = [d.action for d in rolled_back.replayed.decisions].index(MonitorAction.RETRAIN)
    tests = tuple(t.model_copy(update={"p": "0.5"}) for t in rolled_back.bodies(WindowEvaluated)[alarm].tests)
    changed = replay(rewritten(rolled_back.events, WindowEvaluated, alarm, tests=tests))
    assert Fault.OTHER_DECISION in {f.fault for f in changed.findings}


def test_a_byte_that_was_changed_is_found(promoted: Done) -> None:
    with open_log(promoted.finished.folder) as copy:
        leaves = list(copy.leaves())
        place = next(i for i, (_, e) in enumerate(promoted.events) if isinstance(e.body, MonitorDecided))
        leaves[place] = leaves[place].replace(b'"nothing"', b'"retrain"', 1)
        assert verify(leaves, copy.log.checkpoint(), copy.policy).code is AuditCode.TAMPERED


# The digest


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [PROMOTED, ROLLED_BACK])
def test_the_log_is_no_part_of_the_digest(scenario: Scenario, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    fixture = "promoted" if scenario is PROMOTED else "rolled_back"
    with_log: Done = request.getfixturevalue(fixture)
    without, _ = run_scenario(
        setting_of(scenario, library()[scenario.scenario.name].parent),
        tmp_path,
        "run",
        Silent(),
        baselines=False,
        logged=False,
    )
    assert without.digest == with_log.finished.result.digest
    assert not (tmp_path / "log").exists()


@pytest.mark.slow
def test_nor_are_workers(promoted: Done, tmp_path: Path) -> None:
    assert run(PROMOTED, tmp_path / "two", workers=2, baselines=False).digest == promoted.finished.result.digest


# The log book alone

TABLE = MonitorTable(min_sites=3, min_rows=10, triggers=Triggers(alarm="auto", concept="roll_back", cooldown=0))


def arrays(seed: int) -> Arrays:
    return {"weight": np.random.default_rng(seed).normal(size=(2, 3)).astype(np.float32)}


def name_of(seed: int) -> str:
    return f"sha256:{model_digest(arrays(seed))}"


@pytest.fixture
def book(tmp_path: Path) -> Logbook:
    """The first of three registered models is in use."""
    book = Logbook.begin(tmp_path, "tiny", {"a": 10, "b": 20, "c": 30}, TABLE)
    for seed in range(3):
        book.trained(arrays(seed), contract_of(PROMOTED, 2), rounds=2, parent=None)
    book.put_to_use(name_of(0))
    return book


def quiet(number: int) -> Measured:
    return Measured(number, 3, 1.0, 60.0, (Found("error", 0.1, None, 0.5),), None)


def test_the_log_has_to_know_the_same_models(book: Logbook) -> None:
    state, decision = book.window(TriggerState(), quiet(1), Models(name_of(0)))
    assert decision.action is MonitorAction.NOTHING
    for wrong in (Models(name_of(1)), Models(name_of(0), name_of(1))):
        with pytest.raises(LocalError, match="other models"):
            book.window(state, quiet(2), wrong)


def test_the_newest_earlier_model_is_the_same_in_run_and_log(book: Logbook, tmp_path: Path) -> None:
    setting = replace(setting_of(PROMOTED, Path()), monitored=None)
    timeline = Timeline(setting, tmp_path / "work", logged=False)
    timeline.trainings.cohorts = {n: Cohort((0,), {}) for n in range(3)}
    for n in (0, 1, 0, 2):
        timeline._put_to_use(n)
        book.put_to_use(name_of(n))
    assert timeline._earlier == [1, 0]
    assert book.golden(name_of(0), found=0.9, current=0.8)
    assert book.golden(name_of(1), found=0.9, current=0.8)
    assert models_in(book.registry.state()) == Models(name_of(2), name_of(0))
    assert not book.golden(name_of(0), found=0.8, current=0.8)
    assert models_in(book.registry.state()) == Models(name_of(2), name_of(1))
    assert not book.golden(name_of(1), found=None, current=0.8)
    assert models_in(book.registry.state()) == Models(name_of(2))


@pytest.mark.parametrize("cosigned", [True, False])
def test_a_candidate_that_no_site_has_seen_is_not_promoted(book: Logbook, cosigned: bool) -> None:
    bundle = bundle_of(safetensors.numpy.save(arrays(7)), contract_of(PROMOTED, 2))
    book.registry.register(bundle, Origin(None, 2, None))
    if cosigned:
        book.witnesses.cosign(book.journal)
    better = Compared(50.0, 10.0, 200.0, 1.0)
    _, decision = book.shadow(3, better, Models(name_of(0)), name_of(7))
    assert decision.action is (MonitorAction.PROMOTE if cosigned else MonitorAction.KEEP)


def test_a_site_that_was_shown_another_log_does_not_cosign(book: Logbook, tmp_path: Path) -> None:
    other = Logbook.begin(tmp_path / "other", "tiny", {"a": 10, "b": 20, "c": 30}, TABLE)
    with pytest.raises(LocalError, match="does not cosign"):
        book.witnesses.cosign(other.journal)


def test_a_log_that_holds_is_closed(book: Logbook, tmp_path: Path) -> None:
    book.window(TriggerState(), quiet(1), Models(name_of(0)))
    assert book.close(tmp_path / "log").final


def test_a_site_that_has_not_cosigned_ends_the_run(book: Logbook, tmp_path: Path) -> None:
    book.window(TriggerState(), quiet(1), Models(name_of(0)))
    roster = book.witnesses.roster
    two = replace(book.witnesses, roster=replace(roster, sites=roster.sites[:2]))
    with pytest.raises(LocalError, match="has not cosigned the whole"):
        replace(book, witnesses=two).close(tmp_path / "log")


def test_a_decision_that_does_not_follow_ends_the_run(book: Logbook, tmp_path: Path) -> None:
    _, decision = book.window(TriggerState(), quiet(1), Models(name_of(0)))
    invented = decision_fact(replace(decision, window=2), policy=policy_digest(TABLE))
    book.journal.commit([Fact(invented)])
    with pytest.raises(LocalError, match="a decision without a window"):
        book.close(tmp_path / "log")
