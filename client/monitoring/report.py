"""What a site finds out about its own window, exactly, and keeps to itself.

One drifting site of fifty is lost in the sum of all, and plain at the site. These tests have no noise and cost nobody
anything, because nothing of them leaves: they are written beside the site's store, one file a window, for the site's
own people.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import norm

from fedseal.errors import DataError
from fedseal.privacy.counts import OUTSIDE, Axis, Real, Source, Tables, Whole, counted
from fedseal.privacy.inference.drift.cusum import Chart, CusumState, Excess, step
from fedseal.privacy.inference.drift.difference import Histogram, two_sample
from fedseal.privacy.inference.drift.local import categories, ks
from fedseal.privacy.inference.drift.multiplicity import holm
from fedseal.privacy.inference.drift.smooth import smooth_test
from fedseal.privacy.watch import Stratum, Watch, wrong_cells

VERSION = 1
LEVEL = 0.05
# Fewer persons have no distribution.
FEWEST = 5
Numbers = Callable[[Axis], Real]


@dataclass(frozen=True, slots=True)
class LocalTest:
    """One exact test of this site's window against its own past. ``adjusted``: after Holm's correction for all."""

    name: str
    method: str
    statistic: float
    p: float
    adjusted: float


@dataclass(frozen=True, slots=True)
class SiteReport:
    """One window at one site.

    Attributes:
        version: of this form.
        window: its number.
        persons: how many came.
        contributed: whether the sums had anything of them: more came than are held back.
        tests: exact tests.
        outside: per stratum of a feature: persons below its range, above it, and without a value.
        alarms: names of tests whose adjusted p-value is at most ``level``, and the chart if it signals.
        errors: the chart of errors after this window; None where no labels are watched.
    """

    version: int
    window: int
    persons: int
    contributed: bool
    tests: tuple[LocalTest, ...]
    outside: dict[str, tuple[int, int, int]]
    alarms: tuple[str, ...]
    errors: CusumState | None
    level: float = LEVEL


def site_report(
    watch: Watch, window: int, past: Numbers, now: Numbers, persons: int, errors: CusumState | None
) -> SiteReport:
    """The exact tests of a window.

    Args:
        watch: what is watched.
        window: its number.
        past: numbers of the site's training persons.
        now: numbers of the window's.
        persons: how many came.
        errors: the chart before.
    """
    found: list[tuple[str, str, float, float]] = []
    outside: dict[str, tuple[int, int, int]] = {}
    chart, signal = errors, False
    for stratum in watch.strata:
        before = counted(Tables((stratum.table,)), past)
        counts = counted(Tables((stratum.table,)), now)
        found += _tests(stratum, before, counts)
        if len(stratum.table.axes) == 1 and stratum.table.axes[0].outside:
            below, above, missing = (int(n) for n in counts[-OUTSIDE:])
            outside[stratum.name] = (below, above, missing)
        if len(stratum.table.axes) == 1 and stratum.ordered:
            found += _shape(stratum, past(stratum.table.axes[0]), now(stratum.table.axes[0]))
        excess = _excess(stratum, before, counts)
        if excess is not None:
            chart, side = step(Chart(), errors or CusumState(), excess)
            signal = side is not None
            found.append(("error", "normal", excess.deviations, float(norm.sf(excess.deviations))))
    adjusted = holm([p for *_, p in found])
    tests = tuple(LocalTest(*test, adjusted=p) for test, p in zip(found, adjusted, strict=True))
    alarms = (*(t.name for t in tests if t.adjusted <= LEVEL), *(("errors-chart",) if signal else ()))
    return SiteReport(VERSION, window, persons, persons > watch.hold_back, tests, outside, alarms, chart)


def _tests(stratum: Stratum, before: Whole, counts: Whole) -> list[tuple[str, str, float, float]]:
    """The smooth test of what has an order, Pearson's of what has none; nothing where there is nothing to compare."""
    first, second = before.astype(np.float64), counts.astype(np.float64)
    if stratum.ordered and stratum.table.axes[0].outside:
        first, second = first[:-OUTSIDE], second[:-OUTSIDE]
    if min(first.sum(), second.sum()) < FEWEST:
        return []
    if stratum.ordered:
        result = smooth_test(two_sample(Histogram(second), Histogram(first)), alpha=LEVEL)
        return [(stratum.name, "smooth", result.statistic, result.p)]
    try:
        result = categories(second, first, alpha=LEVEL)
    except DataError:
        return []
    return [(stratum.name, "chi2", result.statistic, result.p)]


def _shape(stratum: Stratum, before: Real, values: Real) -> list[tuple[str, str, float, float]]:
    """Kolmogorov and Smirnov's test of the values themselves."""
    known = [v[~np.isnan(v)] for v in (before, values)]
    if min(len(v) for v in known) < FEWEST:
        return []
    result = ks(known[1], known[0], alpha=LEVEL)
    return [(f"{stratum.name}-ks", "ks", result.statistic, result.p)]


def _excess(stratum: Stratum, before: Whole, counts: Whole) -> Excess | None:
    """Errors beyond those that the past expects of so many persons."""
    axes = stratum.table.axes
    if len(axes) != 2 or axes[0].source != Source.LABEL or min(before.sum(), counts.sum()) < FEWEST:
        return None
    wrong = wrong_cells(stratum)
    rate = (float(before[wrong].sum()) + 0.5) / (float(before.sum()) + 1.0)
    n, n0 = float(counts.sum()), float(before.sum())
    return Excess(float(counts[wrong].sum()) - n * rate, n * (1 + n / n0) * rate * (1 - rate))


def write_report(folder: Path, report: SiteReport) -> Path:
    """Write a window's report, whole or not at all; an attempt that is repeated writes the same file again."""
    folder.mkdir(parents=True, exist_ok=True)
    path, new = folder / f"window-{report.window:06d}.json", folder / f".window-{report.window:06d}.new"
    new.write_text(json.dumps(asdict(report), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    new.replace(path)
    return path


def chart_before(folder: Path, window: int) -> CusumState | None:
    """The chart of errors after the latest window before this one; None if there is none of this form."""
    earlier = sorted(p for p in folder.glob("window-*.json") if p.stem < f"window-{window:06d}")
    if not earlier:
        return None
    try:
        kept = json.loads(earlier[-1].read_text(encoding="utf-8"))
        chart = kept["errors"] if kept["version"] == VERSION else None
        return None if chart is None else CusumState(**chart)
    except (OSError, ValueError, KeyError, TypeError):
        return None
