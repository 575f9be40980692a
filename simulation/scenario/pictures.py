"""The pictures of a scenario's pages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedseal.simulation.figures import ACCENT, INK, LINE, SECOND, THIRD, score, style, svg


@dataclass(frozen=True, slots=True)
class Marks:
    """What a timeline shows beside its curves, by step."""

    changed: tuple[int, ...]
    alarms: tuple[int, ...]
    trainings: tuple[int, ...]
    rollbacks: tuple[int, ...]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if v is None else v for v in values]


def timeline(
    series: Mapping[str, Sequence[float | None]], below: Mapping[str, Sequence[float | None]], marks: Marks, title: str
) -> str:
    """Accuracies by step over regret and epsilon; changes shaded, alarms, trainings and returns marked.

    Args:
        series: accuracies by name, the model's in use first.
        below: what has a scale of its own, one strip each; strips without a number are left out.
        marks: what happened when.
        title: for screen readers.
    """
    strips = {name: values for name, values in below.items() if any(v is not None for v in values)}
    steps = range(len(next(iter(series.values()))))
    with style():
        figure = Figure(figsize=(7.2, 3.0 + 0.9 * len(strips)), layout="constrained")
        heights = [3.0, *(0.9 for _ in strips)]
        axes = list(figure.subplots(1 + len(strips), 1, sharex=True, squeeze=False, height_ratios=heights).flat)
        _accuracies(axes[0], steps, series)
        for strip, (name, values) in zip(axes[1:], strips.items(), strict=True):
            strip.plot(steps, _numbers(values), color=SECOND, drawstyle="steps-post")
            last = next((v for v in reversed(values) if v is not None), None)
            strip.set_title(f"{name} {score(last)}", loc="left", fontsize=9, color=SECOND)
            strip.tick_params(labelsize=8)
        for each in axes:
            _shade(each, marks.changed)
            each.grid(axis="x", visible=False)
        _mark(axes[0], marks)
        axes[-1].set_xlabel("step")
        axes[-1].xaxis.get_major_locator().set_params(integer=True)
        return svg(figure, title)


def _accuracies(axes: Axes, steps: range, series: Mapping[str, Sequence[float | None]]) -> None:
    looks = ((ACCENT, "-", 2.4), (SECOND, "-", 1.2), (THIRD, "-", 1.2), (INK, "--", 1.2), (INK, ":", 1.2))
    for (name, values), (colour, line, width) in zip(series.items(), looks, strict=False):
        axes.plot(steps, _numbers(values), color=colour, linestyle=line, linewidth=width, label=name)
    known = [v for values in series.values() for v in values if v is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    axes.set_ylim(max(0.0, low - 0.05), min(1.06, high + 0.1))
    axes.set_ylabel("accuracy")
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=5, borderaxespad=0.0, fontsize=8, handlelength=1.4)


def _shade(axes: Axes, changed: Sequence[int]) -> None:
    """One rectangle for every run of consecutive steps."""
    for _, group in groupby(enumerate(changed), key=lambda pair: pair[1] - pair[0]):
        run = [step for _, step in group]
        axes.axvspan(run[0] - 0.5, run[-1] + 0.5, color=SECOND, alpha=0.1, linewidth=0)


def _mark(axes: Axes, marks: Marks) -> None:
    """Alarms on top, trainings and returns at the bottom."""
    top, bottom = axes.get_ylim()[1], axes.get_ylim()[0]
    rows = (
        (marks.alarms, top, "v", SECOND, "alarm"),
        (marks.trainings, bottom, "^", ACCENT, "training"),
        (marks.rollbacks, bottom, "<", THIRD, "rolled back"),
    )
    for steps, height, marker, colour, name in rows:
        if steps:
            axes.plot(
                steps,
                [height] * len(steps),
                marker,
                color=colour,
                markersize=8,
                clip_on=False,
                label=name,
                linestyle="none",
            )
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=4, borderaxespad=0.0, fontsize=8, handlelength=1.4)


def heat(names: Sequence[str], accuracies: Sequence[Sequence[float | None]], title: str) -> str:
    """Accuracy by site and step: pale is low."""
    grid = np.array([_numbers(row) for row in accuracies])
    known = grid[np.isfinite(grid)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    spread = max(high - low, 1e-9)
    with style():
        figure = Figure(figsize=(7.2, 0.24 * len(names) + 1.0))
        axes = figure.subplots()
        for (row, column), value in np.ndenumerate(grid):
            if np.isfinite(value):
                axes.fill_between(
                    [column - 0.48, column + 0.48],
                    row - 0.46,
                    row + 0.46,
                    color=ACCENT,
                    linewidth=0,
                    alpha=0.08 + 0.9 * float((value - low) / spread),
                )
        axes.set_yticks(range(len(names)), list(names), fontsize=8)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(-0.5, grid.shape[1] - 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
        axes.grid(visible=False)
        axes.set_xlabel("step")
        axes.set_title(f"accuracy by site: pale {score(low)}, full {score(high)}", loc="left", fontsize=9)
        return svg(figure, title)


def pareto(points: Sequence[tuple[str, float, float, bool]], across: str, title: str) -> str:
    """Accuracy against a cost, one point for each group; those that no other beats in both are full.

    Args:
        points: name, cost, accuracy, and whether no other group is better in one and no worse in the other.
        across: what the cost is.
        title: for screen readers.
    """
    with style():
        figure = Figure(figsize=(6.4, 3.0))
        axes = figure.subplots()
        for name, cost, accuracy, best in points:
            axes.plot(cost, accuracy, "o", color=ACCENT if best else LINE, markersize=8)
            axes.annotate(
                name,
                (cost, accuracy),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=8,
                color=ACCENT if best else INK,
            )
        axes.margins(0.16)
        axes.set_xlabel(across)
        axes.set_ylabel("accuracy")
        return svg(figure, title)


def differences(rows: Sequence[tuple[str, float, float, float]], title: str) -> str:
    """Mean differences with their intervals beside a line at none: name, mean, low and high end."""
    with style():
        figure = Figure(figsize=(6.4, 0.42 * len(rows) + 0.9))
        axes = figure.subplots()
        axes.axvline(0.0, color=INK, linewidth=1)
        for place, (_, middle, low, high) in enumerate(reversed(rows)):
            colour = THIRD if low <= 0.0 <= high else ACCENT if low > 0 else SECOND
            axes.plot([low, high], [place, place], color=colour, alpha=0.5, linewidth=5, solid_capstyle="round")
            axes.plot(middle, place, "o", color=colour, markersize=8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference in accuracy")
        return svg(figure, title)
