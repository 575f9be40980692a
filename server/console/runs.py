"""Runs as their folders tell of them: what was ordered, what has happened, where a run stands now.

Everything here was written by the server for its coordinator, and is read as if it were not: a line that cannot be
read is left out, and a name is a name.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedseal.privacy.releases import VALIDATION_RATIO
from fedseal.server.app import CONTRACT_KEY, RESUME_KEY
from fedseal.server.coordination import ORDER
from fedseal.server.progress import Progress, read_progress
from fedseal.server.recording import EVENTS

# A run's events are read up to here; a run that has written more is shown up to there.
LARGEST_EVENTS = 32 << 20
LARGEST_NUMBER = 1e300
Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StageTime:
    """One of a round's exchanges: its seconds, and what came back of all sites, in bytes."""

    name: str
    seconds: float
    up: int


@dataclass(frozen=True, slots=True)
class Loss:
    """How many sites fell out of a round at a stage."""

    stage: str
    sites: int


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round. ``asked`` is 0 where nobody wrote it down; ``metrics`` are means over the sites of the sum."""

    number: int
    time: float
    seconds: float
    sites: int
    asked: int
    attempts: int
    stages: tuple[StageTime, ...]
    lost: tuple[Loss, ...]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of a private evaluation, and its interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run's folder. ``state``: ordered, running, finished or failed. Times are seconds since 1970, or None."""

    name: str
    study: str
    state: str
    plan: str
    number: str
    planned_rounds: int
    began: float | None
    ended: float | None
    rounds: tuple[Round, ...]
    restarts: int
    estimates: tuple[Estimate, ...]
    personalised: Mapping[str, float]
    model: str
    error: str
    message: str
    next_step: str
    progress: Progress | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("finished", "failed")

    @property
    def mark(self) -> str:
        """How the state is marked: see the macro ``badge``."""
        return {"running": "busy", "finished": "good", "failed": "bad"}.get(self.state, "idle")


def list_runs(folder: Path) -> list[Run]:
    """All runs that were ordered, the newest first."""
    return [found for name in _names(folder) if (found := read_run(folder, name)) is not None]


def read_run(folder: Path, name: str) -> Run | None:
    """A run by the name of its folder; None if there is none of that name."""
    if name not in _names(folder):
        return None
    place = folder / name
    told = _Told()
    for event in _events(place / EVENTS):
        told.take(event)
    config = _config(place / ORDER)
    contract = _object(config.get(CONTRACT_KEY))
    training = contract.get("training")
    planned = training.get("rounds") if isinstance(training, dict) else None
    state = told.state or "ordered"
    return Run(
        name=name,
        study=_text(contract.get("name")),
        state=state,
        plan=told.plan,
        number=_text(config.get(RESUME_KEY)) or told.number,
        planned_rounds=planned if isinstance(planned, int) else 0,
        began=told.began,
        ended=told.ended,
        rounds=tuple(told.rounds[number] for number in sorted(told.rounds)),
        restarts=max(0, told.starts - 1),
        estimates=tuple(told.estimates),
        personalised=told.personalised,
        model=told.model,
        error=told.error,
        message=told.message,
        next_step=told.next_step,
        progress=read_progress(place) if state == "running" else None,
    )


@dataclass(slots=True)
class _Told:
    """What a run's events have said so far."""

    state: str = ""
    plan: str = ""
    number: str = ""
    starts: int = 0
    began: float | None = None
    ended: float | None = None
    rounds: dict[int, Round] = field(default_factory=dict)
    estimates: list[Estimate] = field(default_factory=list)
    personalised: dict[str, float] = field(default_factory=dict)
    model: str = ""
    error: str = ""
    message: str = ""
    next_step: str = ""

    def take(self, event: Event) -> None:
        """One event; what has another form than it should is left out."""
        time = _number(event.get("time"))
        match event.get("event"):
            case "started":
                self.state, self.starts = "running", self.starts + 1
                self.began = self.began or time
            case "planned":
                self.plan, self.number = _text(event.get("plan")), _text(event.get("run"))
            case "round":
                self._round(event, time)
            case "evaluated":
                found = _mapping(event.get("estimates"))
                self.estimates = [_estimate(name, one) for name, one in found.items() if isinstance(one, dict)]
            case "personalised":
                self.personalised = _figures(event.get("means"))
            case "finished":
                self.state, self.ended, self.model = "finished", time, _text(event.get("model_sha256"))
            case "failed":
                self.state, self.ended, self.error = "failed", time, _text(event.get("error"))
                self.message, self.next_step = _text(event.get("message")), _text(event.get("next_step"))

    def _round(self, event: Event, time: float | None) -> None:
        number = event.get("number")
        if not isinstance(number, int):
            return
        stages = tuple(
            StageTime(name, _number(cost.get("seconds")) or 0.0, int(_number(cost.get("up")) or 0))
            for name, cost in _mapping(event.get("stages")).items()
            if isinstance(cost, dict)
        )
        lost = tuple(Loss(name, int(_number(count) or 0)) for name, count in _mapping(event.get("lost")).items())
        self.rounds[number] = Round(
            number,
            time or 0.0,
            _number(event.get("seconds")) or 0.0,
            int(_number(event.get("sites")) or 0),
            int(_number(event.get("asked")) or 0),
            int(_number(event.get("attempts")) or 0),
            stages,
            lost,
            _of_validation(_figures(event.get("metrics"))),
        )


def _names(folder: Path) -> list[str]:
    found = [path.parent.name for path in folder.glob(f"*/{ORDER}") if not path.parent.name.startswith(".")]
    return sorted(found, reverse=True)


def _events(path: Path) -> list[Event]:
    try:
        with path.open("rb") as file:
            lines = file.read(LARGEST_EVENTS).rpartition(b"\n")[0].splitlines()
    except OSError:
        return []
    return [found for line in lines if (found := _object(line))]


def _config(path: Path) -> Mapping[str, Any]:
    try:
        return _mapping(_object(path.read_bytes()).get("run_config"))
    except OSError:
        return {}


def _object(raw: object) -> Mapping[str, Any]:
    """A JSON object; empty if it is none."""
    if not isinstance(raw, str | bytes):
        return {}
    try:
        return _mapping(json.loads(raw))
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST_NUMBER:
        return None
    return float(value) if math.isfinite(value) else None


def _figures(value: object) -> dict[str, float]:
    return {name: number for name, one in _mapping(value).items() if (number := _number(one)) is not None}


def _of_validation(metrics: Mapping[str, float]) -> Mapping[str, float]:
    """Means over validation persons: a sum weighs by training persons, and each site sends its metrics times how many
    validation persons it has for each of these.
    """
    ratio = metrics.get(VALIDATION_RATIO)
    if ratio is None:
        return metrics
    return {name: value / ratio for name, value in metrics.items() if name != VALIDATION_RATIO} if ratio > 0 else {}


def _estimate(name: str, found: Mapping[str, Any]) -> Estimate:
    value, low, high = (_number(found.get(key)) or 0.0 for key in ("value", "low", "high"))
    return Estimate(name, value, low, high)
