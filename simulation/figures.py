"""The report's pictures, as SVG that takes its colours from the page: readable in light and dark, self-contained."""

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Stand-ins that are replaced by the page's own colours once the picture is drawn.
INK, LINE, ACCENT, SECOND, THIRD = "#010203", "#010204", "#010205", "#010206", "#010207"
COLOURS = {
    INK: "currentColor",
    LINE: "var(--line)",
    ACCENT: "var(--accent)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
}


@contextmanager
def style() -> Iterator[None]:
    """All pictures of reports are drawn in this style."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "fedseal",
        "font.family": "sans-serif",
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": LINE,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": LINE,
        "grid.linewidth": 0.8,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "lines.linewidth": 2.0,
        "legend.frameon": False,
        # Names of sites and classes are text, whatever dollars are in them.
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        yield


def svg(figure: Figure, label: str) -> str:
    """The figure as an inline SVG element with a label for screen readers."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, colour in COLOURS.items():
        text = text.replace(stand_in, colour)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def score(value: float | None) -> str:
    """A score for people: three digits behind the point, fewer for large numbers; a dash where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value) or abs(value) >= 1e7 or 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.0f}"


def curves(numbers: Sequence[int], series: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Scores by round, one line each, named at their ends."""
    with style():
        figure = Figure(figsize=(6.4, 2.9))
        axes = figure.subplots()
        colours = (ACCENT, SECOND, THIRD)
        places = _spread([float(values[-1] or 0.0) for values in series.values()], 0.06)
        low = min((v for values in series.values() for v in values if v is not None), default=0.0)
        axes.set_ylim(max(0.0, low - 0.08), 1.02)
        for (name, values), colour, place in zip(series.items(), colours, places, strict=False):
            known = [float("nan") if v is None else v for v in values]
            axes.plot(numbers, known, color=colour, marker="o", markersize=3)
            axes.annotate(
                f"{name} {score(values[-1])}",
                (numbers[-1], place),
                xytext=(8, 0),
                textcoords="offset points",
                color=colour,
                va="center",
                annotation_clip=False,
            )
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        axes.grid(axis="x", visible=False)
        return svg(figure, title)


def _spread(places: list[float], gap: float) -> list[float]:
    """Move labels apart that would lie on one another."""
    order = sorted(range(len(places)), key=places.__getitem__)
    moved = list(places)
    for below, above in pairwise(order):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved


def panels(numbers: Sequence[int], series: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Scores by round, a small picture each: what they measure has no scale in common."""
    columns = min(3, len(series))
    rows = -(-len(series) // columns)
    with style():
        figure = Figure(figsize=(6.4, 1.9 * rows), layout="constrained")
        grid = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axes, (name, values) in zip(grid, series.items(), strict=False):
            known = [float("nan") if v is None or not math.isfinite(v) else v for v in values]
            axes.plot(numbers, known, color=ACCENT, marker="o", markersize=3)
            caption = textwrap.fill(f"{name} {score(values[-1])}", 66 // columns)
            axes.set_title(caption, loc="left", fontsize=9, color=ACCENT)
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(axis="x", visible=False)
            axes.tick_params(labelsize=8)
        for axes in grid[len(series) :]:
            axes.remove()
        figure.supxlabel("round", fontsize=10)
        return svg(figure, title)


def comparison(
    rows: Sequence[tuple[str, float | None, bool]], dots: Mapping[str, Sequence[float]], title: str, *, loss: bool
) -> str:
    """Scores as dots on a common axis, the run's own marked; under a row, what it is the median of.

    Args:
        rows: name, score, and whether it is the run's own.
        dots: further scores by the row's name.
        title: for screen readers.
        loss: whether they are losses, of any size and the lower the better, instead of accuracies.
    """
    with style():
        figure = Figure(figsize=(6.4, 0.42 * len(rows) + 0.7))
        axes = figure.subplots()
        rows = [(name, None if v is None or not math.isfinite(v) else v, own) for name, v, own in rows]
        dots = {name: [v for v in values if math.isfinite(v)] for name, values in dots.items()}
        found = [v for _, v, _ in rows if v is not None] + [v for values in dots.values() for v in values]
        _scale(axes, min(found, default=0.0), max(found, default=1.0), loss=loss)
        for place, (name, value, own) in enumerate(reversed(rows)):
            for dot in dots.get(name, ()):
                axes.plot(dot, place, "o", color=LINE, markersize=6)
            if value is None:
                continue
            colour = ACCENT if own else INK
            axes.plot(value, place, "o", color=colour, markersize=10 if own else 7)
            axes.annotate(
                score(value),
                (value, place),
                xytext=(0, 9),
                textcoords="offset points",
                ha="center",
                color=colour,
                fontsize=9,
                fontweight="bold" if own else "normal",
            )
        axes.set_yticks(range(len(rows)), [name for name, _, _ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(
            "loss on the common test persons, lower is better" if loss else "accuracy on the common test persons"
        )
        return svg(figure, title)


def intervals(rows: Sequence[tuple[str, float, float, float, float | None]], title: str) -> str:
    """Private values with their noise intervals, and a ring where the oracle's value is.

    Args:
        rows: name, value, low and high end, and the oracle's value if there is one.
        title: for screen readers.
    """
    with style():
        figure = Figure(figsize=(6.4, 0.42 * len(rows) + 0.9))
        axes = figure.subplots()
        for place, (_, value, low, high, oracle) in enumerate(reversed(rows)):
            axes.plot([low, high], [place, place], color=ACCENT, alpha=0.5, linewidth=5, solid_capstyle="round")
            axes.plot(value, place, "o", color=ACCENT, markersize=8, label="private" if place == 0 else "_")
            if oracle is not None and math.isfinite(oracle):
                axes.plot(
                    oracle, place, "D", color=SECOND, markersize=6, label="oracle" if place == len(rows) - 1 else "_"
                )
        axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2)
        return svg(figure, title)


def reliability(rows: Sequence[tuple[float, float, float, float, float]], title: str) -> str:
    """Shares of class 1 by mean score, with noise intervals and the line of a calibrated model; a point's area is its
    share of the persons.

    Args:
        rows: mean score, share of class 1, low and high end of it, and persons.
        title: for screen readers.
    """
    with style():
        figure = Figure(figsize=(4.4, 3.6))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (4, 4)), alpha=0.6)
        most = max((row[4] for row in rows), default=1.0)
        for score_, share, low, high, persons in rows:
            axes.plot([score_, score_], [low, high], color=ACCENT, alpha=0.5, linewidth=4, solid_capstyle="round")
            axes.plot(score_, share, "o", color=ACCENT, markersize=3 + 8 * math.sqrt(max(persons, 0.0) / most))
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("mean score")
        axes.set_ylabel("share of class 1")
        return svg(figure, title)


def _scale(axes: Axes, low: float, high: float, *, loss: bool) -> None:
    """An axis for scores between two numbers. Losses that are far apart, as of a site that diverged, by their size."""
    if not loss:
        axes.set_xlim(max(0.0, low - 0.05), 1.0)
    elif low > 0 and high > 30 * low:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.3, high * 1.3)
    else:
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        axes.set_xlim(low - margin, high + margin)


def site_classes(names: Sequence[str], classes: Mapping[str, Sequence[int]], title: str) -> str:
    """Persons by site and class, stacked: label and quantity skew at a glance."""
    with style():
        figure = Figure(figsize=(6.4, 0.3 * len(names) + 0.9))
        axes = figure.subplots()
        left = [0] * len(names)
        colours = (SECOND, ACCENT, THIRD, INK, LINE)
        bars = []
        for place, counts in enumerate(classes.values()):
            # More classes than colours: the next turn is paler.
            turn, colour = divmod(place, len(colours))
            bars.append(
                axes.barh(range(len(names)), counts, left=left, color=colours[colour], alpha=0.55**turn, height=0.7)
            )
            left = [a + b for a, b in zip(left, counts, strict=True)]
        axes.set_yticks(range(len(names)), list(names))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("persons")
        # Above the bars, where no bar can lie under it.
        legend = axes.legend(
            bars,
            [str(i) for i in range(len(bars))],
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=min(len(bars), 4),
            borderaxespad=0.2,
        )
        # Set afterwards: matplotlib leaves out a label that begins with an underscore.
        for text, name in zip(legend.get_texts(), classes, strict=True):
            text.set_text(name)
        return svg(figure, title)


def budget(numbers: Sequence[int], epsilons: Sequence[float], promise: float, title: str) -> str:
    """Epsilon spent by round, against the promise."""
    with style():
        figure = Figure(figsize=(6.4, 2.0))
        axes: Axes = figure.subplots()
        axes.fill_between(numbers, epsilons, color=ACCENT, alpha=0.2, linewidth=0)
        axes.plot(numbers, epsilons, color=ACCENT)
        axes.plot([numbers[0], numbers[-1]], [promise, promise], color=SECOND, linestyle="--", linewidth=1.5)
        axes.annotate(
            f"promised {promise:g}",
            (numbers[-1], promise),
            xytext=(8, 0),
            textcoords="offset points",
            color=SECOND,
            va="center",
            annotation_clip=False,
        )
        axes.annotate(
            f"spent {epsilons[-1]:.2f}",
            (numbers[-1], epsilons[-1]),
            xytext=(8, -2),
            textcoords="offset points",
            color=ACCENT,
            va="top",
            annotation_clip=False,
        )
        axes.set_ylim(0, promise * 1.12)
        axes.set_xlabel("round")
        axes.set_ylabel("epsilon")
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        axes.grid(axis="x", visible=False)
        return svg(figure, title)
