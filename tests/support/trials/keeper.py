"""Keeps programs running as a service manager does, and kills them on demand: no program outlives the block."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from support.trials.study import Federation

from fedseal.simulation.deployed import guard
from fedseal.simulation.deployed.guard import send, with_descendants

MAIN = "from fedseal.cli.main import main; main()"
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
LIGHT = [sys.executable, "-m", "support.trials.light"]
# Where the nodes' program is found.
TESTS = Path(__file__).resolve().parents[2]
SERVER, FORKED = "server", "forked"
LOOK = 0.05


@dataclass(slots=True)
class Service:
    """One program that is kept running: what it is started with, and how often it was.

    ``delay`` is how many seconds after its end it is started again, as systemd's RestartSec.
    """

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.3
    kept: bool = True
    starts: int = 0
    started: float = 0.0
    process: "subprocess.Popen[bytes] | None" = None
    ended: float | None = None
    codes: list[int] = field(default_factory=list)


class Keeper:
    """A service manager for one trial: what ends is started again, until the block ends.

    Args:
        folder: for the logs; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._services: dict[str, Service] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._guard: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._guard = subprocess.Popen(
            [sys.executable, "-I", guard.__file__], stdin=subprocess.PIPE, start_new_session=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        running = {s.process.pid for s in self._services.values() if s.process and s.process.poll() is None}
        # What a node has started has a session of its own, perhaps.
        groups = with_descendants(running) if running else running
        send(groups, signal.SIGTERM)
        end = time.monotonic() + 5
        while time.monotonic() < end and any(s.process and s.process.poll() is None for s in self._services.values()):
            time.sleep(LOOK)
        send(with_descendants(groups) if groups else groups, signal.SIGKILL)
        for service in self._services.values():
            if service.process is not None:
                service.process.wait()
        if self._guard is not None:
            self._guard.communicate()

    def _tell_guard(self, line: str) -> None:
        """So that nothing is left if this process is killed by force."""
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.write(f"{line}\n".encode())
            self._guard.stdin.flush()

    @property
    def names(self) -> list[str]:
        """All services."""
        return list(self._services)

    def log(self, name: str) -> Path:
        """Where a service's output is."""
        return self._services[name].log

    def add(self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start a service."""
        service = Service(command, self._folder / f"{name}.log", dict(environment or {}))
        with self._lock:
            self._services[name] = service
            self._start(service)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL, *, down: float | None = None) -> int | None:
        """Send a service a signal; it is started again after ``down`` seconds.

        Returns:
            The process's number; None where it was not running.
        """
        with self._lock:
            service = self._services[name]
            if down is not None:
                service.delay = down
            process = service.process
            if process is None or process.poll() is not None:
                return None
            # Its children too, as a service manager kills a control group.
            groups = with_descendants({process.pid})
            process.send_signal(number)
            if number is signal.SIGKILL:
                process.wait()
                send(groups, signal.SIGKILL)
        return process.pid

    def hold(self, name: str) -> None:
        """From now on a service that ends stays ended."""
        with self._lock:
            self._services[name].kept = False

    def release(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        """Keep it running again, from now on with this environment besides, where one is given."""
        with self._lock:
            service = self._services[name]
            service.kept = True
            if environment is not None:
                service.environment = dict(environment)

    def pid(self, name: str) -> int | None:
        """The running process of a service."""
        with self._lock:
            process = self._services[name].process
            return process.pid if process is not None and process.poll() is None else None

    def starts(self, name: str) -> int:
        """How often it was started."""
        return self._services[name].starts

    def started(self, name: str) -> float:
        """When it was started last, by the monotonic clock."""
        return self._services[name].started

    def codes(self, name: str) -> list[int]:
        """With which codes its processes have ended."""
        return list(self._services[name].codes)

    def said(self, name: str, text: str) -> int:
        """How often a service's log holds a text."""
        path = self.log(name)
        return path.read_bytes().count(text.encode()) if path.is_file() else 0

    def _start(self, service: Service) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        with service.log.open("ab") as log:
            service.process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**environment, **QUIET, "PYTHONPATH": str(TESTS), **service.environment},
                start_new_session=True,
            )
        self._tell_guard(f"+{service.process.pid}")
        service.starts += 1
        service.started, service.ended = time.monotonic(), None

    def _keep(self) -> None:
        while not self._over.wait(LOOK):
            with self._lock:
                for service in self._services.values():
                    self._look_after(service)

    @staticmethod
    def _due(service: Service) -> bool:
        return service.ended is not None and time.monotonic() - service.ended >= service.delay

    def _look_after(self, service: Service) -> None:
        if service.process is None or service.process.poll() is None:
            return
        if service.ended is None:
            service.ended = time.monotonic()
            service.codes.append(service.process.returncode)
            self._tell_guard(f"-{service.process.pid}")
        if service.kept and self._due(service):
            self._start(service)


def serve(
    keeper: Keeper, federation: Federation, environment: Mapping[str, str] | None = None, *, before: str = ""
) -> None:
    """Start the federation's server; in its process some lines of Python may stand before it."""
    command = [sys.executable, "-c", before + MAIN, "server", "up", "--config", str(federation.files.server)]
    keeper.add(SERVER, command, environment)


def join(
    keeper: Keeper,
    federation: Federation,
    notes: Path,
    names: Sequence[str] | None = None,
    environment: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Path]:
    """Start nodes of sites, all of them if not told which, each writing down its answers.

    Args:
        keeper: keeps them.
        federation: whose sites.
        notes: a folder.
        names: the sites'.
        environment: what some of them find in their environment besides, by name.

    Returns:
        The files of notes by name.
    """
    notes.mkdir(parents=True, exist_ok=True)
    found = {name: notes / f"{name}.notes" for name in names or federation.shape.names}
    for name, note in found.items():
        file = federation.files.nodes[name]
        command = [*LIGHT, "--config", str(file), "--note", str(note)]
        keeper.add(name, command, (environment or {}).get(name))
    return found


def join_forked(keeper: Keeper, federation: Federation, notes: Path, names: Sequence[str]) -> dict[str, Path]:
    """As `join`, but as one service whose processes are forked from one that has loaded the program."""
    notes.mkdir(parents=True, exist_ok=True)
    found = {name: notes / f"{name}.notes" for name in names}
    files = [str(federation.files.nodes[name]) for name in names]
    keeper.add(FORKED, [*LIGHT, "--config", *files, "--note", *map(str, found.values())])
    return found
