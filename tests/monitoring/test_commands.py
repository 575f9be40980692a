"""`fedseal monitor check` and `replay`, as a person or a script calls them."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from support.registry import World, bundle
from typer.testing import CliRunner

from fedseal.cli.monitor import monitor
from fedseal.errors import ConfigError, ExitCode
from fedseal.privacy.inference.drift.multiplicity import Alert
from fedseal.server.monitoring.facts import decision_fact, logged, policy_digest, window_fact
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.recording import begin, record_window
from fedseal.server.monitoring.trigger import Models, TriggerState, step

TABLE = MonitorTable(min_sites=3)
MODEL = bundle(1).model_digest


def call(*arguments: str) -> Result:
    return CliRunner().invoke(monitor, list(arguments))


def window(number: int, p: float) -> Measured:
    return Measured(number, 3, 1.0, 901.0, (Found("score", 3.3, 4, p),), None)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    begin(made.journal, TABLE)
    state = TriggerState()
    for number, p in enumerate((0.5, 1e-9)):
        state, _ = record_window(made.journal, None, TABLE, state, window(number, p), Models(MODEL))
    return made


def test_a_policy_is_told_what_it_comes_to(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text("[monitor]\nepsilon = 2.0\nwindows_per_year = 12\nwindows_per_person = 3\n", encoding="utf-8")
    found = json.loads(call("check", str(file), "--json").stdout)
    assert found["strata"] == ["score", "outcome"]
    assert (found["epsilon_of_a_year"], found["epsilon_of_a_person"]) == (24.0, 6.0)
    assert found["units_a_person_moves"] == 2 * 16 + 2 * (1 + 3)
    shown = call("check", str(file))
    assert "epsilon of a person" in shown.stdout
    file.write_text("[monitor]\nepsilonn = 2.0\n", encoding="utf-8")
    wrong = call("check", str(file))
    assert isinstance(wrong.exception, ConfigError)
    assert "Did you mean 'epsilon'" in wrong.exception.explain()


def test_a_policy_that_no_noise_table_covers_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "monitor.toml"
    file.write_text("[monitor]\nepsilon = 0.02\nshare = 64\n", encoding="utf-8")
    wrong = call("check", str(file))
    assert isinstance(wrong.exception, ConfigError)


def test_a_log_whose_decisions_follow(world: World) -> None:
    store = str(world.folder / "server.sqlite")
    done = call("replay", "--log", store)
    assert done.exit_code == 0, done.output
    assert "2 windows, 2 decisions: every decision follows" in done.stdout
    found = json.loads(call("replay", "--log", store, "--json").stdout)
    assert [d["action"] for d in found["decisions"]] == ["nothing", "propose-retraining"]
    assert found["holds"]


def test_a_decision_that_does_not_follow_ends_with_its_code(world: World) -> None:
    policy = policy_digest(TABLE)
    measured = logged(window(2, 1e-9))
    _, decision = step(TABLE, TriggerState(), measured, Models(MODEL))
    fact = decision_fact(decision, policy=policy).model_copy(update={"alert": Alert.NONE})
    world.server_says(window_fact(measured, model=MODEL, policy=policy))
    world.server_says(fact)
    done = call("replay", "--log", str(world.folder / "server.sqlite"))
    assert done.exit_code == ExitCode.FALSIFIED
    assert "another decision" in done.stdout
