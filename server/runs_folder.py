"""What stands in the folder of runs, read again and again without reading everything again."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from fedseal.server.coordination import ORDER
from fedseal.server.recording import EVENTS

STATES = ("ordered", "running", "finished", "failed")
_AFTER = {"started": "running", "finished": "finished", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Happened:
    """A round that was finished: its seconds, how many attempts it took, the seconds of its stages by name."""

    run: str
    number: int
    seconds: float
    attempts: int
    stages: tuple[tuple[str, float], ...]


@dataclass(slots=True)
class _Followed:
    """A run's events as far as they were read."""

    read: int = 0
    state: str = "ordered"
    rounds: int = 0


@dataclass(slots=True)
class RunsFolder:
    """The runs of a server.

    Args:
        folder: the folder of runs; it may not be there yet.
    """

    folder: Path
    _runs: dict[str, _Followed] = field(default_factory=dict)

    def new(self) -> list[Happened]:
        """The rounds that were finished since the last call."""
        found: list[Happened] = []
        present = {p.parent.name for p in self.folder.glob(f"*/{ORDER}") if not p.parent.name.startswith(".")}
        for name in self._runs.keys() - present:
            del self._runs[name]
        for name in sorted(present):
            found += self._follow(name, self._runs.setdefault(name, _Followed()))
        return found

    def states(self) -> dict[str, int]:
        """How many runs are in each state, as of the last call of `new`."""
        counts = dict.fromkeys(STATES, 0)
        for run in self._runs.values():
            counts[run.state] += 1
        return counts

    def under_way(self) -> list[tuple[str, str, int]]:
        """The runs that are not over, with state and finished rounds, as of the last call of `new`."""
        return [(n, r.state, r.rounds) for n, r in sorted(self._runs.items()) if r.state in STATES[:2]]

    def _follow(self, name: str, run: _Followed) -> list[Happened]:
        path = self.folder / name / EVENTS
        if not path.is_file() or path.stat().st_size < run.read:
            return []
        with path.open("rb") as file:
            file.seek(run.read)
            # A line that is being written is left for the next time.
            whole = file.read().rpartition(b"\n")
        run.read += len(whole[0]) + len(whole[1])
        found: list[Happened] = []
        for line in whole[0].splitlines():
            event = json.loads(line)
            run.state = _AFTER.get(event["event"], run.state)
            if event["event"] == "round":
                run.rounds = max(run.rounds, int(event["number"]))
                stages = tuple((stage, float(cost["seconds"])) for stage, cost in event["stages"].items())
                found.append(Happened(name, int(event["number"]), float(event["seconds"]), event["attempts"], stages))
        return found
