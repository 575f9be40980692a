"""Commands as people at different seats type them, each a process of its own, counted and timed."""

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.launched import COMMAND

from fedseal.simulation.deployed.processes import free_ports

DIGITS = re.compile(r"(?:\d{5} ){7}\d{5}")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
COORDINATOR = "coordinator"
SITES = ("north", "south", "east")
# Makes tables for three sites from the made-up patients of the study that `fedseal new` writes.
TABLES = """
import sys
sys.path.insert(0, "readmission")
from task import population
table = population()
for place, name in enumerate(("north", "south", "east")):
    table[table["patient"] % 3 == place].to_csv(f"{name}-data/patients.csv", index=False)
"""


@dataclass(frozen=True)
class Step:
    """One command: whose, what, and how many seconds until it was over, or for one that stays until it was ready."""

    seat: str
    command: str
    seconds: float


@dataclass
class Walk:
    """A federation of three sites in an empty folder, enrolled and run by commands alone."""

    folder: Path
    steps: list[Step] = field(default_factory=list)
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    fingerprints: list[str] = field(default_factory=list)

    def type(self, seat: str, command: str, *more: str) -> str:
        """Type a command that ends; what it said."""
        begun = time.monotonic()
        done = subprocess.run(
            [*COMMAND, *shlex.split(command), *more],
            cwd=self.folder,
            env={**os.environ, **QUIET, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        self.steps.append(Step(seat, command, time.monotonic() - begun))
        return done.stdout

    def ask(self, seat: str, command: str) -> None:
        """Type a command that makes a request, whose fingerprint is then read out."""
        (found,) = DIGITS.findall(self.type(seat, command))
        self.fingerprints.append(found)

    def admit(self, command: str) -> str:
        """The root lets in whose fingerprints were read out; the bundle's."""
        options = [part for one in self.fingerprints for part in ("--fingerprint", one)]
        self.fingerprints.clear()
        (found,) = DIGITS.findall(self.type(COORDINATOR, command, *options))
        return str(found)

    def start(self, seat: str, command: str, ready: str, within: float = 180.0) -> None:
        """Type a command that stays, and wait until it says that it is ready."""
        begun = time.monotonic()
        with self.log(seat).open("wb") as log:
            self.running[seat] = subprocess.Popen(
                [*COMMAND, *shlex.split(command)],
                cwd=self.folder,
                env={**os.environ, **QUIET},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not re.search(ready, self.said(seat)):
            assert self.running[seat].poll() is None, self.said(seat)
            assert time.monotonic() - begun < within, self.said(seat)
            time.sleep(0.05)
        self.steps.append(Step(seat, command, time.monotonic() - begun))

    def log(self, seat: str) -> Path:
        return self.folder / f"{seat}.log"

    def said(self, seat: str) -> str:
        return self.log(seat).read_text(encoding="utf-8", errors="replace")

    def stop(self, seat: str) -> None:
        process = self.running.pop(seat)
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    def events(self) -> list[Mapping[str, Any]]:
        """Of the newest run."""
        (*_, newest) = sorted(self.folder.glob("server/runs/2*/events.jsonl"))
        return [json.loads(line) for line in newest.read_text(encoding="utf-8").splitlines()]

    # The walk

    def prepare(self) -> None:
        """What is there before anybody types: a study that somebody has sent round, and each site's table."""
        subprocess.run([*COMMAND, "new", "readmission"], cwd=self.folder, check=True, capture_output=True)
        for name in SITES:
            (self.folder / f"{name}-data").mkdir()
        subprocess.run([COMMAND[0], "-c", TABLES], cwd=self.folder, check=True, capture_output=True)

    def enrol(self) -> None:
        """From empty folders to an epoch that everybody has joined."""
        (port,) = free_ports(1)
        self.type(COORDINATOR, f"federation init town --address 127.0.0.1:{port}")
        self.ask(COORDINATOR, "server init --federation town")
        for name in SITES:
            self.ask(
                name,
                f"site init {name} --federation town --data {name}-data --study readmission --persons 533 "
                f"--folder {name}",
            )
        requests = " ".join(f"{name}/{name}.request" for name in SITES)
        self.move(f"federation admit server/server.request {requests}", 1, SITES)

    def move(self, command: str, epoch: int, names: tuple[str, ...]) -> None:
        """Make an epoch, and let the server and these sites take it."""
        fingerprint, bundle = self.admit(command), f"federation/epochs/{epoch:04}.bundle"
        self.type(COORDINATOR, f"server adopt {bundle}", "--fingerprint", fingerprint)
        for name in names:
            self.type(name, f"site join {bundle} --folder {name}", "--fingerprint", fingerprint)

    def start_server(self) -> None:
        self.start(COORDINATOR, "server up --config server/server.toml", "listening at")

    def start_site(self, name: str) -> None:
        self.start(name, f"site run --config {name}/site.toml", "connected to|as node")


@contextmanager
def walking(folder: Path) -> Iterator[Walk]:
    """A walk whose processes are gone when the block ends."""
    walk = Walk(folder)
    try:
        yield walk
    finally:
        for process in walk.running.values():
            process.kill()
            process.wait(60)
