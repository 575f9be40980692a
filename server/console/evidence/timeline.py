"""Windows of a watched model as a picture: the smallest p-value of each, on a scale of powers of ten."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fedseal.privacy.inference.drift.multiplicity import Levels
from fedseal.server.console.evidence.fields import entry_page

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 920, 250, 64, 20, 44
# Smaller p-values are drawn at the upper edge: nothing is told by how much smaller.
STRONGEST = 12.0
# So many windows are drawn, the newest; a table has all.
DRAWN = 120


@dataclass(frozen=True, slots=True)
class Point:
    """A window to be drawn. ``p``: its smallest corrected p-value, None where it could not be evaluated."""

    window: int
    p: float | None
    alert: str
    said: str
    entry: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A window in the picture. Its shape follows from the alert, so that colour is never all there is."""

    x: float
    y: float
    alert: str
    said: str
    href: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A text on an axis, or a level with its line."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The picture. Higher is stronger evidence of drift; ``levels`` are where a window is suspicious, and alarms.

    ``left_out``: how many older windows are not drawn.
    """

    width: int
    height: int
    left: int
    right: int
    floor: int
    marks: tuple[Mark, ...]
    levels: tuple[Tick, ...]
    powers: tuple[Tick, ...]
    windows: tuple[Tick, ...]
    left_out: int


def timeline(points: Sequence[Point], levels: Levels | None) -> Timeline:
    """Draw windows, oldest first, on a scale that the strongest of them or of the levels fills."""
    drawn = points[-DRAWN:]
    lines = [] if levels is None else [("suspicious", levels.warning), ("alarm", levels.alarm)]
    strengths = [_strength(point.p) for point in drawn] + [_strength(p) for _, p in lines]
    top = max(2.0, math.ceil(max(strengths, default=0.0)))
    floor, right = HEIGHT - BOTTOM, WIDTH - 16

    def height(strength: float) -> float:
        return round(floor - (floor - TOP) * strength / top, 1)

    step = (right - LEFT) / max(len(drawn), 1)
    places = [round(LEFT + step * (number + 0.5), 1) for number in range(len(drawn))]
    marks = tuple(
        Mark(x, height(_strength(point.p)), point.alert, point.said, entry_page(point.entry))
        for x, point in zip(places, drawn, strict=True)
    )
    every = max(1, math.ceil(len(drawn) / 16))
    named = [Tick(x, str(p.window)) for x, p in list(zip(places, drawn, strict=True))[::every]]
    jump = 1 if top <= 6 else 2
    powers = tuple(Tick(height(float(n)), "1" if n == 0 else f"10⁻{_raised(n)}") for n in range(0, int(top) + 1, jump))
    shown = tuple(Tick(height(_strength(p)), f"{name} {p:.2g}") for name, p in lines)
    return Timeline(WIDTH, HEIGHT, LEFT, right, floor, marks, shown, powers, tuple(named), len(points) - len(drawn))


def _strength(p: float | None) -> float:
    """How many powers of ten a p-value is below 1."""
    return 0.0 if p is None else min(STRONGEST, -math.log10(max(p, 10.0**-STRONGEST)))


def _raised(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
