"""Where things stand at this moment, in two small files for whoever looks from another process: which sites are
connected (in the folder of runs), and at which stage a run is (in the run's folder).

They are written whole and renamed into place, and hold what the coordinator knows anyhow. They decide nothing: what
has to survive a crash stands elsewhere.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PRESENCE = ".presence.json"
PROGRESS = "progress.json"
SCHEMA_VERSION = 1
LARGEST = 4 << 20
# Seconds between two looks at who is connected, and after which a file without news is written again.
LOOK = 2.0
BEAT = 15.0
# Seconds after which a server that has not written is taken for one that does not run.
STALE = 3 * BEAT


@dataclass(frozen=True, slots=True)
class Presence:
    """Which sites are connected. Times are seconds since 1970; ``seen`` has when each was last found connected."""

    time: float
    since: float
    online: tuple[str, ...]
    seen: Mapping[str, float]

    def runs(self, now: float) -> bool:
        """Whether the server that wrote this still runs, as far as can be told from here."""
        return now - self.time < STALE


@dataclass(frozen=True, slots=True)
class Progress:
    """The exchange that is under way. ``round`` is 0 before the first and for what is no round; ``asked``: sites."""

    time: float
    release: str
    round: int
    attempt: int
    stage: str
    asked: int


@contextmanager
def told_who_is_there(
    runs: Path, online: Callable[[], Iterable[str]], clock: Callable[[], float] = time.time, look: float = LOOK
) -> Iterator[None]:
    """Keep the file of connected sites up to date while the block runs, in a thread of its own.

    Args:
        runs: the folder of runs.
        online: gives the names of the sites that are connected.
        clock: seconds since 1970.
        look: seconds between two looks.
    """
    stop = threading.Event()

    def watch() -> None:
        since, before, written = clock(), None, 0.0
        seen: dict[str, float] = {}
        while not stop.is_set():
            now, there = clock(), tuple(sorted(online()))
            seen |= dict.fromkeys(there, now)
            if there != before or now - written >= BEAT:
                write_whole(runs / PRESENCE, asdict(Presence(now, since, there, seen)))
                before, written = there, now
            stop.wait(look)

    thread = threading.Thread(target=watch, name="presence", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
        with contextlib.suppress(FileNotFoundError):
            (runs / PRESENCE).unlink()


def read_presence(runs: Path) -> Presence | None:
    """Who was connected when the server last wrote it down; None if there is nothing that can be read."""
    found = _read(runs / PRESENCE)
    try:
        names, seen = found["online"], found["seen"]
        return Presence(
            float(found["time"]),
            float(found["since"]),
            tuple(str(name) for name in names),
            {str(name): float(when) for name, when in seen.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def write_progress(folder: Path, progress: Progress) -> None:
    """Say which exchange of a run is under way."""
    write_whole(folder / PROGRESS, asdict(progress))


def read_progress(folder: Path) -> Progress | None:
    """Which exchange of a run was last said to be under way; None if there is nothing that can be read."""
    found = _read(folder / PROGRESS)
    try:
        return Progress(
            float(found["time"]),
            str(found["release"]),
            int(found["round"]),
            int(found["attempt"]),
            str(found["stage"]),
            int(found["asked"]),
        )
    except (KeyError, TypeError, ValueError):
        return None


def write_whole(path: Path, facts: Mapping[str, object]) -> None:
    """Replace a file, mode 0600, so that a reader sees the old one or the new one. That it cannot be written is no
    reason to stop: whoever reads sees that it is old.
    """
    new = path.with_name(f".{path.name.lstrip('.')}.{os.getpid()}.new")
    with contextlib.suppress(OSError):
        with open(new, "w", encoding="utf-8", opener=_private) as file:
            json.dump({"schema_version": SCHEMA_VERSION, **facts}, file)
        new.replace(path)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) and found.get("schema_version") == SCHEMA_VERSION else {}
