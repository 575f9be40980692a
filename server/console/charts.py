"""Charts as values: every place in pixels, every text ready, so that a template only writes them down.

Lines are told apart by their dashes and the names at their ends, columns by their order and their names in the legend;
colour is never alone. Every chart has a table beside it that says the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

# Pixels around what is drawn, for the axes' texts.
LEFT, TOP, BOTTOM = 56, 16, 40
# Names at the ends of lines keep this far apart.
APART = 15
# A chart with more marks than this shows every n-th round only, and the last.
MOST_COLUMNS = 60
TINTS = 5
MOST_PLACES = 7


@dataclass(frozen=True, slots=True)
class Size:
    """How large a chart is, and the room for names on its right, in pixels."""

    width: int
    height: int
    names: int


WIDE, SMALL = Size(720, 260, 132), Size(460, 220, 96)


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: where, and what it says."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line: its name, which of the `TINTS` it has, its points as SVG has them, its dots, where its name stands."""

    name: str
    tint: int
    points: str
    dots: tuple[tuple[float, float], ...]
    end: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a column."""

    tint: int
    x: float
    y: float
    width: float
    height: float
    says: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart. ``limit`` is a line that is not to be crossed, None if there is none."""

    name: str
    says: str
    x_name: str
    y_name: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    blocks: tuple[Block, ...] = ()
    legend: tuple[str, ...] = ()
    limit: Tick | None = None
    size: Size = WIDE

    @property
    def left(self) -> int:
        """Where the drawing begins."""
        return LEFT

    @property
    def right(self) -> int:
        """Where it ends."""
        return self.size.width - self.size.names

    @property
    def top(self) -> int:
        """Its upper edge."""
        return TOP

    @property
    def bottom(self) -> int:
        """Its lower edge."""
        return self.size.height - BOTTOM


@dataclass(frozen=True, slots=True)
class Scale:
    """Values on an axis: ``low`` lies at ``start`` pixels, ``high`` at ``stop``."""

    low: float
    high: float
    start: float
    stop: float

    def at(self, value: float) -> float:
        """The pixel of a value."""
        span = (self.high - self.low) or 1.0
        return round(self.start + (value - self.low) / span * (self.stop - self.start), 1)


def line_chart(
    name: str,
    says: str,
    axes: tuple[str, str],
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    limit: tuple[float, str] | None = None,
    from_zero: bool = False,
    size: Size = WIDE,
) -> Chart | None:
    """Lines over whole numbers, such as rounds; None if there is no point.

    Args:
        name, says: its title, and what a reader learns who does not see it.
        axes: the names of both.
        series: names and points, of which the first `TINTS` are drawn.
        limit: a value that is not to be crossed, and its name.
        from_zero: begin the vertical axis at 0.
        size: of the chart.
    """
    shown = [(label, points) for label, points in series if points][:TINTS]
    if not shown:
        return None
    xs = [x for _, points in shown for x, _ in points]
    ys = [y for _, points in shown for _, y in points] + ([limit[0]] if limit is not None else [])
    steps = nice(0.0 if from_zero else min(ys), max(ys))
    y_scale = Scale(steps[0], steps[-1], size.height - BOTTOM, TOP)
    low, high = min(xs), max(xs)
    pad, right = (0 if high > low else 1), size.width - size.names
    x_scale = Scale(low - pad, high + pad, LEFT, right)
    lines = []
    for tint, (label, points) in enumerate(shown, start=1):
        places = tuple((x_scale.at(x), y_scale.at(y)) for x, y in points)
        dots = places if len(places) <= MOST_COLUMNS else places[-1:]
        lines.append(Line(label, tint, " ".join(f"{x:g},{y:g}" for x, y in places), dots, places[-1]))
    mark = None if limit is None else Tick(y_scale.at(limit[0]), limit[1])
    return Chart(
        name,
        says,
        *axes,
        tuple(Tick(x_scale.at(x), f"{x:g}") for x in whole_ticks(low, high)),
        tuple(Tick(y_scale.at(y), label_of(y, steps)) for y in steps),
        lines=tuple(_spread(lines, size.height - BOTTOM)),
        limit=mark,
        size=size,
    )


def column_chart(
    name: str, says: str, axes: tuple[str, str], parts: Sequence[str], columns: Sequence[tuple[int, Sequence[float]]]
) -> Chart | None:
    """Columns of parts over whole numbers; the last `MOST_COLUMNS` of them; None if there is none.

    Args:
        name, says, axes: as of `line_chart`.
        parts: the names of the parts, from the bottom up.
        columns: a number, and the value of each part.
    """
    shown = columns[-MOST_COLUMNS:]
    if not shown:
        return None
    steps = nice(0.0, max(sum(values) for _, values in shown) or 1.0)
    y_scale = Scale(0.0, steps[-1], WIDE.height - BOTTOM, TOP)
    pitch = (WIDE.width - WIDE.names - LEFT) / max(len(shown), 6)
    width = round(min(pitch * 0.7, 36.0), 1)
    blocks, ticks = [], []
    every = max(1, math.ceil(len(shown) / 12))
    for place, (number, values) in enumerate(shown):
        middle = LEFT + pitch * (place + 0.5)
        if place % every == 0:
            ticks.append(Tick(round(middle, 1), str(number)))
        below = 0.0
        for tint, (part, value) in enumerate(zip(parts, values, strict=True), start=1):
            top, bottom = y_scale.at(below + value), y_scale.at(below)
            says_so = f"{part} {value:.3g} s"
            blocks.append(Block(tint, round(middle - width / 2, 1), top, width, round(bottom - top, 1), says_so))
            below += value
    return Chart(
        name,
        says,
        *axes,
        tuple(ticks),
        tuple(Tick(y_scale.at(y), label_of(y, steps)) for y in steps),
        blocks=tuple(blocks),
        legend=tuple(parts),
    )


def nice(low: float, high: float, count: int = 5) -> list[float]:
    """About so many round values that enclose a range."""
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-3):
        pad = abs(high) * 0.1 or 1.0
        low, high = low - (pad if low else 0.0), high + pad
    raw = (high - low) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1.0, 2.0, 2.5, 5.0, 10.0) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{step * n:.12g}") for n in range(first, last + 1)]


def whole_ticks(low: float, high: float, count: int = 8) -> list[int]:
    """Whole numbers of a range, not more than so many."""
    first, last = math.ceil(low), math.floor(high)
    raw = max(1.0, (last - first) / count)
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    begin = -(-first // step) * step
    found = list(range(begin, last + 1, step))
    return found if first in found or begin - first < step / 2 else [first, *found]


def label_of(value: float, steps: Sequence[float]) -> str:
    """A value of an axis, with as many places as its steps need."""
    step = min((b - a for a, b in pairwise(steps)), default=1.0)
    exact = (p for p in range(MOST_PLACES) if all(abs(round(one, p) - one) < step / 100 for one in steps))
    places = next(exact, None)
    return f"{value:.4g}" if places is None else f"{value:,.{places}f}"


def _spread(lines: list[Line], bottom: float) -> list[Line]:
    """The same lines; the names at their ends do not cover each other."""
    below, moved = -math.inf, {}
    for line in sorted(lines, key=lambda one: one.end[1]):
        y = max(line.end[1], below + APART)
        moved[line.name], below = y, y
    over = max(0.0, below - bottom)
    return [Line(l.name, l.tint, l.points, l.dots, (l.end[0], round(moved[l.name] - over, 1))) for l in lines]
