"""The whole deployed demo, with Flower's own programs. Minutes, for those start a process for every message."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from support.launched import Process, gone, launch, listens, ports, processes, until

from fedseal.privacy.ledger import epsilon_spent
from fedseal.privacy.store import SiteStore
from fedseal.simulation.deployed.comparison import SEEDS
from fedseal.simulation.deployed.demo import demo_contract
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import prepared_material
from fedseal.study import Study, load_study

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find every process"),
]

Start = Callable[..., Process]
DEMO = Path(__file__).resolve().parents[2] / "examples" / "breast-cancer"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedseal` with its runs in the test's folder."""
    begun: list[Process] = []

    def run(*arguments: str) -> Process:
        begun.append(launch(*arguments, "--out", tmp_path / "out"))
        return begun[-1]

    yield run
    for process in begun:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def test_without_a_privacy_plan_the_model_is_the_simulations_byte_for_byte(start: Start, tmp_path: Path) -> None:
    process = start("demo", "--deployed", "--json")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["byte_identical"] is True
    assert [s["name"] for s in result["steps"] if s["name"].startswith("round")] == ["round 1", "round 2"]
    assert "byte-identical to the simulation: yes" in err
    assert "Stock SuperNodes run the code that the server ships" in err
    (run,) = (tmp_path / "out").iterdir()
    assert (run / "model.safetensors").is_file()
    assert not list(run.rglob("*.csv"))
    assert processes(tmp_path) == {}


def test_with_privacy_the_accuracy_is_one_that_simulations_let_expect(start: Start, tmp_path: Path) -> None:
    """A deployed site's noise is fresh, so this is a draw: by design it is outside one time in a hundred."""
    process = start("demo", "--deployed", "--plan", "local", "--json")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["byte_identical"] is None
    assert sorted(map(int, result["seeds"])) == list(SEEDS)
    low, high = result["expected"]
    assert low <= result["accuracy"] <= high, result
    assert f"accuracy {result['accuracy']:.3f} deployed" in err
    # The twin: a model that has learnt nothing is outside.
    (run,) = (tmp_path / "out").iterdir()
    model = safetensors.numpy.load_file(run / "model.safetensors")
    nothing = {name: np.zeros_like(array) for name, array in model.items()}
    assert not low <= judged(nothing, tmp_path) <= high
    # The sites were charged for what they did: two rounds, below the promise, and none of it without noise.
    contract = demo_contract(load_study(DEMO).contract, "local")
    for store in run.glob("federation/sites/*/site.sqlite"):
        with SiteStore.open(store).transaction() as transaction:
            spent = epsilon_spent(transaction.terms("train"), transaction.entries("train"))
        assert 0 < spent < contract.privacy.epsilon
    assert processes(tmp_path) == {}


def judged(model: dict[str, NDArray[Any]], folder: Path) -> float:
    """The accuracy of a model on the demo's test persons, as they are."""
    study = load_study(DEMO)
    changed = Study(study.folder, demo_contract(study.contract, "local"))
    seed = changed.contract.simulation.seed
    population = gather(changed, data=None, sites=None, seed=seed)
    material = prepared_material(changed, population, folder / "data", seed)
    accuracy = material.oracle.judge_arrays(model, None).everyone["accuracy"]
    assert accuracy is not None
    return accuracy


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_no_process_and_no_port_outlives_the_launcher(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    process = start("demo", "--deployed")
    until(process, "... round 1")
    running = processes(tmp_path / "out")
    open_ports = ports(running)
    assert len(open_ports) == 4
    assert all(map(listens, open_ports))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), err
    assert gone(tmp_path / "out"), processes(tmp_path / "out")
    end = time.monotonic() + 10
    while any(map(listens, open_ports)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(listens, open_ports))
    if number != signal.SIGKILL:
        assert "Traceback" not in err
        assert list((tmp_path / "out").iterdir()) == []
