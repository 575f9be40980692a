"""Programs that never outlive their starter: each in a process group of its own, all stopped when the block ends.

Ctrl-C, SIGTERM and errors end the block, and that stops the groups: an interrupt first, a kill after a grace period.
If this process itself is killed, the guard program stops them.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from fedseal.errors import ConfigError
from fedseal.simulation.deployed import guard
from fedseal.simulation.deployed.guard import listed, send, with_descendants

GUARD = Path(guard.__file__)
POLL = 0.05
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@dataclass(frozen=True, slots=True)
class Program:
    """A started program; its process group has its number. All it says is in its log."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path

    def failed(self, what: str) -> ConfigError:
        """The error to raise, with the place of the log and nothing of its content, which may quote a site's data."""
        return ConfigError(f"{self.name} {what}", next_step=f"Its own words are at the end of {self.log}.")


class Programs:
    """Starts programs; a context manager that stops them all.

    Args:
        logs: a folder for their output, made if it is missing.
        grace: seconds between asking them to stop and killing them.
        shown: what messages call the folder of the logs, where it will be moved.
    """

    def __init__(self, logs: Path, *, grace: float = 5.0, shown: Path | None = None) -> None:
        self._logs = logs
        self._shown = shown or logs
        self._grace = grace
        self._programs: list[Program] = []
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        with deferred_interrupts():
            self._guard = subprocess.Popen(  # noqa: S603 - our own file
                [sys.executable, "-I", str(GUARD)], stdin=subprocess.PIPE, start_new_session=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], folder: Path | None = None
    ) -> Program:
        """Start a program in a process group of its own.

        Args:
            name: what messages call it; its log is NAME.log.
            command: the program and its arguments.
            environment: all of its environment.
            folder: where it runs; here if not given.

        Raises:
            ConfigError: there is no such program.
        """
        path = self._logs / f"{name.replace(' ', '-')}.log"
        # Until it is on the list and known to the guard, an interrupt would leave it running.
        with deferred_interrupts(), path.open("ab") as log:
            try:
                process = subprocess.Popen(  # noqa: S603 - Flower's programs of this environment
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(environment),
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise ConfigError(f"{command[0]} cannot be started: {reason}") from None
            program = Program(name, process, self._shown / path.name)
            self._programs.append(program)
            self._tell_guard(f"+{process.pid}")
        return program

    def wait_until(self, ready: Callable[[], bool], programs: Sequence[Program], *, within: float, what: str) -> None:
        """Wait until something is the case.

        Args:
            ready: whether it is; asked often.
            programs: those it depends on. If one ends before, it will not come.
            within: seconds to wait at most.
            what: what one waits for, for the message.

        Raises:
            ConfigError: a program ended, or the time is over; names its log.
        """
        end = time.monotonic() + within
        while not ready():
            for program in programs:
                if program.process.poll() is not None:
                    raise program.failed(f"ended with code {program.process.returncode} before {what}")
            if time.monotonic() > end:
                raise programs[0].failed(f"is running, but after {within:.0f} seconds not {what}")
            time.sleep(POLL)

    def wait_for_end(self, programs: Sequence[Program], *, within: float) -> None:
        """Wait until programs have ended by themselves, well; ConfigError if one has not."""
        end = time.monotonic() + within
        for program in programs:
            while program.process.poll() is None:
                if time.monotonic() > end:
                    raise program.failed(f"has not finished after {within:.0f} seconds")
                time.sleep(POLL)
            if program.process.returncode != 0:
                raise program.failed(f"ended with code {program.process.returncode}")
            self._forget(program)

    def stop(self) -> None:
        """Stop all groups and the guard. Not cut short by further interrupts; takes the grace period at most twice."""
        with deferred_interrupts():
            groups = {program.process.pid for program in self._programs}
            for number in (signal.SIGINT, signal.SIGKILL):
                groups = with_descendants(groups) if groups else groups
                send(groups, number)
                end = time.monotonic() + self._grace
                while self._any_left(groups) and time.monotonic() < end:
                    time.sleep(POLL)
            for program in list(self._programs):
                self._forget(program)
            if self._guard is not None and self._guard.stdin is not None:
                with contextlib.suppress(BrokenPipeError):
                    self._guard.stdin.close()
                self._guard.wait()
                self._guard = None

    def _any_left(self, groups: set[int]) -> bool:
        for program in self._programs:
            program.process.poll()
        return any(map(group_lives, groups))

    def _forget(self, program: Program) -> None:
        """It has ended; from now on its number may be somebody else's."""
        self._tell_guard(f"-{program.process.pid}")
        self._programs.remove(program)

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            # A guard that somebody has killed guards nothing; the block's own end still does.
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(f"{line}\n".encode())
                self._guard.stdin.flush()


def group_lives(group: int) -> bool:
    """Whether any process of a group is left that is more than an entry whose exit code nobody has fetched."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    rows = list(listed())
    return any(row.group == group and not row.has_ended for row in rows) if rows else True


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Let interrupts that come during the block act after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    waiting = {number: handler for number, handler in before.items() if callable(handler)}
    for number in waiting:
        signal.signal(number, lambda *arguments: came.append(arguments))
    try:
        yield
    finally:
        for number, handler in waiting.items():
            signal.signal(number, handler)
    if came:
        number, frame = came[0]
        waiting[number](number, frame)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on at the loopback address right now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
