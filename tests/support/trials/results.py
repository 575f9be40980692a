"""What trials found: kept after each, so that whoever was interrupted goes on, and as a table for people."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.trials.oracle import Findings

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a part that is run in one go.

    ``least``: seconds that have to be left for it to begin; ``run`` takes a new folder and the seconds left, and gives
    the columns of rows.
    """

    name: str
    least: float
    run: Callable[[Path, float], list[dict[str, Any]]]


class Results:
    """Rows in a file, in the order in which they were found.

    Args:
        path: of the file; made with its folder when there is a first row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: list[Row] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else []

    def has(self, part: str, name: str) -> bool:
        """Whether that chunk was run."""
        return any((row["part"], row["name"]) == (part, name) for row in self.rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Keep the rows of a chunk, on disk."""
        self.rows.extend(rows)
        self._write()

    def forget(self, parts: Iterable[str]) -> None:
        """Drop all rows of some parts."""
        dropped = set(parts)
        self.rows = [row for row in self.rows if row["part"] not in dropped]
        self._write()

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps({"schema_version": 1, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        part.replace(self._path)


def row_of(injected: str, times: int, happened: str, findings: Findings, figures: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row: what was done, how often, what came of it, what was looked at, and figures."""
    return {
        "injected": injected,
        "times": times,
        "happened": happened,
        "checks": {invariant.value: count for invariant, count in findings.checks.items()},
        "breaches": [[invariant.value, what] for invariant, what in findings.breaches],
        "figures": dict(figures),
    }


def markdown(rows: Iterable[Row]) -> str:
    """A table of all trials, those of one kind together."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["part"], row["injected"]), []).append(row)
    lines = ["| injected | how often | what happened | checks | breaches |", "|---|---|---|---|---|"]
    for (_, injected), same in kinds.items():
        times = sum(row["times"] for row in same)
        happened = "; ".join(dict.fromkeys(row["happened"] for row in same))
        checks = sum((Counter(row["checks"]) for row in same), Counter[str]())
        breaches = sum(len(row["breaches"]) for row in same)
        lines.append(f"| {injected} | {times} | {happened} | {sum(checks.values())} | {breaches} |")
    total = sum((Counter(row["checks"]) for same in kinds.values() for row in same), Counter[str]())
    lines += ["", "Checks: " + ", ".join(f"{name} {count}" for name, count in total.items()) + "."]
    return "\n".join(lines)
