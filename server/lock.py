"""One server works in a folder of runs: a lock that the kernel gives back however its holder ends, and who holds it."""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from fedseal.errors import ConfigError

NAME = ".server.lock"
LOOK = 0.1


@contextmanager
def alone(runs: Path) -> Iterator[None]:
    """Hold the folder of runs for one server; ConfigError if another one holds it."""
    runs.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Not emptied before it is held: its number is the holder's.
    with (runs / NAME).open("a+", encoding="ascii") as lock:
        if not _held_by_us(lock, fcntl.LOCK_EX):
            raise ConfigError(f"another server works in {runs}", next_step="Stop it first: fedseal server stop.")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        try:
            yield
        finally:
            lock.truncate(0)


def holder(runs: Path) -> int | None:
    """The process that holds a folder of runs; None if nobody does.

    Raises:
        ConfigError: somebody holds it and does not say who, as while it starts.
    """
    held, number = _look(runs)
    if held and number is None:
        raise ConfigError(
            f"the server that works in {runs} does not say its process number",
            next_step="It may be starting: try again in a moment.",
        )
    return number if held else None


def stop_holder(
    runs: Path,
    number: int,
    patience: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask the process that holds a folder of runs to end (SIGTERM), and wait until it holds it no more.

    Args:
        runs: the folder.
        number: who `holder` said it is.
        patience: seconds to wait.
        clock, sleep: replaced in tests.

    Raises:
        ConfigError: it is no process of this machine that this account may stop, or it has not ended in time.
    """
    try:
        _terminate(runs, number)
    except ProcessLookupError:
        if holder(runs) is None:
            return
        raise ConfigError(
            f"process {number}, which works in {runs}, is not one that is seen from here",
            next_step="Stop it where it runs: a container with its own tool, another machine there.",
        ) from None
    except PermissionError:
        raise ConfigError(
            f"this account may not stop process {number}", next_step="Use the account that the server runs under."
        ) from None
    end = clock() + patience
    # Before it gives the folder back it takes its number out.
    while _look(runs) in ((True, number), (True, None)):
        if clock() > end:
            raise ConfigError(
                f"the server (process {number}) was asked to end and has not in {patience:g} seconds",
                next_step="Wait, or look at its log. A kill by force loses nothing that is on disk: kill -9.",
            )
        sleep(LOOK)


def _look(runs: Path) -> tuple[bool, int | None]:
    """Whether somebody holds a folder of runs, and the number that stands there."""
    try:
        with (runs / NAME).open("r", encoding="ascii") as lock:
            if _held_by_us(lock, fcntl.LOCK_SH):
                return False, None
            number = lock.read().strip()
    except FileNotFoundError:
        return False, None
    return True, int(number) if number.isdigit() else None


def _terminate(runs: Path, number: int) -> None:
    # By a handle: between a look and a signal a number may become another process'.
    if not hasattr(os, "pidfd_open"):
        os.kill(number, signal.SIGTERM)
        return
    process = os.pidfd_open(number)
    try:
        if holder(runs) == number:
            signal.pidfd_send_signal(process, signal.SIGTERM)
    finally:
        os.close(process)


def _held_by_us(lock: TextIO, how: int) -> bool:
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
