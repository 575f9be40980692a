"""Resident nodes and their server as processes: the simulation's model byte for byte, whatever is killed on the way."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy
from support.launched import launch
from support.residents import Residents, outcome, residents

from fedseal.privacy.ledger import epsilon_spent
from fedseal.privacy.store import SiteStore
from fedseal.simulation.deployed.comparison import simulated_model

pytestmark = pytest.mark.slow

ROUNDS = 4


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a simulation of the same contract."""
    folder = tmp_path_factory.mktemp("simulated")
    made = Residents(folder / "federation", rounds=ROUNDS)
    return safetensors.numpy.save(simulated_model(made.material, made.study.contract, folder / "stores"))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Residents]:
    with residents(tmp_path / "federation", rounds=ROUNDS) as made:
        made.start_all()
        yield made


def test_the_model_is_the_simulations_and_everything_stops_when_asked(running: Residents, expected: bytes) -> None:
    order = running.order()
    events = outcome(order)
    assert [event["event"] for event in events] == ["started", "planned", *["round"] * ROUNDS, "finished"]
    assert (order.folder / "model.safetensors").read_bytes() == expected
    assert set(running.stop().values()) == {0}


def test_a_site_killed_in_every_stage_of_a_round_changes_nothing(running: Residents, expected: bytes) -> None:
    order = running.order()
    for stage in range(5):
        # Between the message of one stage and that of the next.
        running.said("hospital-1", "answered a message of group 1 ", times=stage + 1 if stage else 0)
        running.kill("hospital-1")
        running.start("hospital-1")
    events = outcome(order)
    assert events[-1]["event"] == "finished", events
    assert (order.folder / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("group", [1, 2, 3])
def test_a_killed_server_goes_on_where_it_was(running: Residents, expected: bytes, group: int) -> None:
    order = running.order()
    running.said("hospital-2", f"answered a message of group {group} ", times=2)
    running.kill("server")
    time.sleep(1)
    running.start("server")
    events = outcome(order)
    assert events[-1]["event"] == "finished", events
    assert (order.folder / "model.safetensors").read_bytes() == expected
    # The same run, of which the log and the stores know.
    assert len({event["run"] for event in events if event["event"] == "planned"}) == 1


def test_a_server_that_is_stopped_goes_on_at_its_next_start(running: Residents, expected: bytes) -> None:
    order = running.order()
    running.said("hospital-2", "answered a message of group 2 ")
    assert running.kill("server", signal.SIGTERM) == 0
    running.start("server")
    assert outcome(order)[-1]["event"] == "finished"
    assert (order.folder / "model.safetensors").read_bytes() == expected


def test_a_run_is_ordered_and_followed_from_the_command_line(tmp_path: Path) -> None:
    with residents(tmp_path / "federation", "local") as made:
        # One site loads the study and torch only when they are needed.
        file = made.files.nodes["hospital-3"]
        text = file.read_text(encoding="utf-8").replace("[site]\n", "[site]\npreload = false\n")
        file.write_text(text, encoding="utf-8")
        made.start_all()
        config = ("--config", made.files.server)
        process = launch("server", "run", made.study.folder, *config)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "round 2: 3 sites" in out
        (run,) = (path.parent for path in made.runs.glob("[!.]*/order.json"))
        assert f"Ordered: {run.name}" in out
        assert (run / "model.safetensors").is_file()
        process = launch("server", "status", *config, "--json")
        out, _ = process.communicate(timeout=60)
        assert json.loads(out)["runs"] == [{"run": run.name, "state": "finished", "rounds": 2}]
        # A second server on the same folder and port is refused, with the code of a configuration.
        process = launch("server", "up", *config)
        _, err = process.communicate(timeout=60)
        assert (process.returncode, "cannot listen" in err) == (3, True)


def test_a_site_whose_code_was_changed_does_not_start(tmp_path: Path) -> None:
    with residents(tmp_path / "federation") as made:
        (made.study.folder / "task.py").open("a", encoding="utf-8").write("\n")
        process = launch("site", "run", "--config", made.files.nodes["hospital-1"])
        _, err = process.communicate(timeout=60)
        assert process.returncode == 3
        assert "is not what was approved" in err


def test_under_privacy_a_killed_site_is_charged_once_for_a_round(tmp_path: Path) -> None:
    with residents(tmp_path / "killed", "local") as made:
        made.start_all()
        order = made.order()
        made.said("hospital-1", "answered a message of group 1 ", times=2)
        # While it trains: what it is charged is on disk, its answer is not.
        time.sleep(0.3)
        made.kill("hospital-1")
        made.start("hospital-1")
        events = outcome(order)
        assert events[-1]["event"] == "finished", events
        rounds = [event for event in events if event["event"] == "round"]
        assert [event["sites"] for event in rounds] == [3, 3]
        spent = {}
        for name, store in made.files.enrolled.site_stores.items():
            with SiteStore.open(store).transaction() as transaction:
                spent[name] = epsilon_spent(transaction.terms("train"), transaction.entries("train"))
        attempts = sum(event["attempts"] for event in rounds)
        if attempts == len(rounds):
            assert len(set(spent.values())) == 1, spent
