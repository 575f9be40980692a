"""Stops process groups when whoever named them is gone, however it went. Run as a program of its own.

Standard input: lines ``+NUMBER`` (watch this process group) and ``-NUMBER`` (it has been stopped). When the input
ends, all groups that are still watched are killed. A launcher that was killed by force cannot clean up; its input to
this program ends all the same. Imports nothing of fedseal, so that it starts at once.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple


class Listed(NamedTuple):
    """A process as the system lists it."""

    number: int
    state: str
    parent: int
    group: int

    @property
    def has_ended(self) -> bool:
        """It is listed only until somebody fetches its exit code; in a container perhaps for ever."""
        return self.state in "ZX"


def listed() -> Iterator[Listed]:
    """All processes, where /proc lists them."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Behind the program's name, which may hold anything: state, parent, group, ...
            state, parent, group = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        yield Listed(int(stat.parent.name), state, int(parent), int(group))


def with_descendants(groups: Iterable[int]) -> set[int]:
    """These process groups and those of everything that their processes have started.

    A SuperLink starts its SuperExec, and with it the ServerApp, in a session of its own.
    """
    found, rows = set(groups), [row for row in listed() if not row.has_ended]
    members: set[int] = set()
    while new := [r for r in rows if r.number not in members and (r.group in found or r.parent in members)]:
        members |= {row.number for row in new}
        found |= {row.group for row in new}
    return found


def send(groups: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to process groups; to those that are gone, nothing."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)


def main() -> None:
    """Watch until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    send(with_descendants(groups), signal.SIGKILL)


if __name__ == "__main__":
    main()
