"""A federation of resident nodes as processes of this machine, for tests and measurements."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.launched import COMMAND

from fedseal.client.task import size
from fedseal.privacy.planning import plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.server.coordination import Order, ordered
from fedseal.simulation.deployed.demo import PlanName, demo_contract
from fedseal.simulation.deployed.processes import free_ports
from fedseal.simulation.deployed.residence import settle
from fedseal.simulation.deployed.submission import Events, settings_of_run
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import prepared_material
from fedseal.study import Contract, load_study

DEMO = Path(__file__).resolve().parents[2] / "examples" / "breast-cancer"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
Event = Mapping[str, Any]


class Residents:
    """A server and three sites of the demo's study; `start` and `kill` are by name, the server is ``server``.

    Args:
        folder: a new folder for everything.
        plan: which promise.
        rounds: how many.
    """

    def __init__(self, folder: Path, plan: PlanName = "none", rounds: int = 2) -> None:
        self.folder = folder
        original = load_study(DEMO)
        tables = demo_contract(original.contract, plan).model_dump()
        tables["training"]["rounds"] = rounds
        contract = Contract.model_validate(tables)
        shutil.copytree(DEMO, folder / "study", ignore=shutil.ignore_patterns("__pycache__", "runs"))
        write_contract(folder / "study" / "pyproject.toml", contract)
        self.study = load_study(folder / "study")
        assert self.study.contract == contract
        seed = contract.simulation.seed
        population = gather(self.study, data=None, sites=None, seed=seed)
        self.material = prepared_material(self.study, population, folder / "data", seed)
        persons = {name: size(split.train) for name, split in self.material.splits.items()}
        (port,) = free_ports(1)
        self.files = settle(folder / "made", self.study, plan_run(contract), persons, self.material.data, port)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def runs(self) -> Path:
        return self.files.server.parent / "runs"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def start(self, *names: str) -> None:
        for name in names:
            verb = ["server", "up"] if name == "server" else ["site", "run"]
            file = self.files.server if name == "server" else self.files.nodes[name]
            with self.log(name).open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [*COMMAND, *verb, "--config", str(file)],
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **QUIET},
                    start_new_session=True,
                )

    def start_all(self) -> None:
        self.start("server", *self.files.nodes)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        process = self.processes[name]
        process.send_signal(number)
        return process.wait(60)

    def order(self) -> Order:
        with ordered(self.runs, "demo") as (folder, order):
            store, sites = self.files.enrolled.server_store, len(self.files.nodes)
            return order(settings_of_run(self.study, self.material.task, store, sites, folder, Rounding.NEAREST))

    def stop(self) -> dict[str, int]:
        for process in self.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        return {name: process.wait(60) for name, process in self.processes.items()}

    def said(self, name: str, text: str, *, times: int = 1, within: float = 120.0) -> None:
        """Wait until a log holds a text so many times."""
        end = time.monotonic() + within
        while self.log(name).read_text(encoding="utf-8").count(text) < times:
            assert time.monotonic() < end, f"{name} did not say {text!r}:\n{self.log(name).read_text()[-3000:]}"
            time.sleep(0.01)


def write_contract(file: Path, contract: Contract) -> None:
    """Change the demo's file so that it says what a contract says."""
    text = file.read_text(encoding="utf-8")
    values: dict[str, object] = {
        "rounds": contract.training.rounds,
        "sample_rate": contract.training.sample_rate,
        "plan": f'"{contract.privacy.plan}"',
        "minimum": contract.cohort.minimum,
        "colluders": contract.cohort.colluders,
        "sites": contract.simulation.sites,
    }
    for key, value in values.items():
        text, count = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
        assert count == 1, key
    file.write_text(text, encoding="utf-8")


@contextmanager
def residents(folder: Path, plan: PlanName = "none", rounds: int = 2) -> Iterator[Residents]:
    """Residents whose processes are all gone when the block ends."""
    made = Residents(folder, plan, rounds)
    try:
        yield made
    finally:
        for process in made.processes.values():
            if process.poll() is None:
                process.kill()
                process.wait(60)


def outcome(order: Order, within: float = 300.0) -> list[Event]:
    """All events of a run, once it is over."""
    events, found = Events(order.folder / "events.jsonl"), list[Event]()
    end = time.monotonic() + within
    while not any(event["event"] in {"finished", "failed"} for event in found):
        assert time.monotonic() < end, found
        found += events.new()
        time.sleep(0.05)
    return found
