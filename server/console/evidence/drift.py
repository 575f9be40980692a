"""Watched models as pages: by which rules, what every window showed, what it led to, and whether that follows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from fedseal.compliance.events.bodies import Genesis
from fedseal.compliance.events.fields import Alias
from fedseal.compliance.events.monitoring import (
    MonitorDecided,
    MonitorPolicySet,
    ShadowCompared,
    WindowEvaluated,
)
from fedseal.compliance.events.subjects import GateChecked, Promoted, RolledBack
from fedseal.compliance.registry.aliases import RETIRED, SUSPENDED
from fedseal.compliance.registry.entries import Entry, names_of
from fedseal.privacy.inference.drift.multiplicity import Alert, Levels, holm
from fedseal.server.console.evidence.place import View
from fedseal.server.console.evidence.timeline import Point, Timeline, timeline
from fedseal.server.monitoring.facts import rules_of
from fedseal.server.monitoring.replay import Finding, replay

# What decisions follow from.
_READ = (
    *names_of(Genesis, MonitorPolicySet, WindowEvaluated, MonitorDecided, ShadowCompared),
    *names_of(GateChecked, Promoted, RolledBack),
    SUSPENDED,
    RETIRED,
)


@dataclass(frozen=True, slots=True)
class RulesLine:
    """Rules that were set, and the levels that follow: of one test's p-value."""

    index: int
    time: str
    policy: str
    rule: str
    alpha: str
    windows_per_year: str
    min_sites: int
    warn: str
    alarm: str
    concept: str
    cooldown: int
    alarm_level: float
    warning_level: float


@dataclass(frozen=True, slots=True)
class TestLine:
    """One test of a window, with its p-value as it stands. ``speaks``: the decision names it."""

    name: str
    p: float
    statistic: str
    speaks: bool

    @property
    def shown(self) -> str:
        """The p-value with two digits that count."""
        return f"{self.p:.2g}" if self.p >= 1e-3 or not self.p else f"{self.p:.1e}".replace("e-0", "e-")


@dataclass(frozen=True, slots=True)
class WindowLine:
    """A window: what was tested, what it led to, and the entries that say so. ``decided`` is None where none does."""

    window: int
    time: str
    sites: int
    rows: str
    epsilon: str | None
    tests: tuple[TestLine, ...]
    alert: str
    action: str
    target: str | None
    kinds: tuple[str, ...]
    obstacle: str
    compared: str | None
    evaluated: int
    decided: int | None
    wrong: tuple[str, ...]

    @property
    def smallest(self) -> float | None:
        """The smallest p-value after Holm's correction for the number of tests; None where nothing was tested."""
        return min(holm([test.p for test in self.tests]), default=None)


@dataclass(frozen=True, slots=True)
class Watched:
    """One model that was watched, by one run of windows. ``current``: it is in use now."""

    model: str
    run: str | None
    current: bool
    windows: tuple[WindowLine, ...]
    timeline: Timeline

    @property
    def alarms(self) -> int:
        """How many windows alarmed."""
        return sum(line.alert == Alert.ALARM for line in self.windows)


@dataclass(frozen=True, slots=True)
class DriftPage:
    """All that is watched, newest first. ``faults``: what of it does not follow from the log, by its entry."""

    rules: tuple[RulesLine, ...]
    watched: tuple[Watched, ...]
    windows: int
    faults: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class _Series:
    """The windows of a model and a run while the log is read, oldest first, and the levels of their rules."""

    windows: list[WindowLine] = field(default_factory=list)
    levels: Levels | None = None


def read_drift(view: View) -> DriftPage:
    """Everything that the log says of watched models, and every decision made again."""
    entries = [entry for entry in view.entries.of(_READ) if view.parties.by_server(entry.event)]
    again = replay((entry.index, entry.event) for entry in entries)
    binding = view.state().aliases.get(Alias.PRODUCTION)
    current = None if binding is None else binding.model
    watched = [
        Watched(model, run, model == current, tuple(reversed(one.windows)), _drawn(one))
        for (model, run), one in _series(entries, again.findings).items()
    ]
    watched.sort(key=lambda one: (one.current, one.windows[0].evaluated), reverse=True)
    faults = tuple((one.index, one.fault.value) for one in again.findings)
    return DriftPage(tuple(reversed(list(_rules(entries)))), tuple(watched), again.windows, faults)


def _rules(entries: Iterable[Entry]) -> Iterator[RulesLine]:
    for entry in entries:
        body = entry.event.body
        if isinstance(body, MonitorPolicySet):
            levels = rules_of(body).levels
            said = (body.policy, body.rule, body.alpha, body.windows_per_year, body.min_sites)
            done = (body.warn, body.alarm, body.concept, body.cooldown)
            yield RulesLine(entry.index, entry.event.time, *said, *done, levels.alarm, levels.warning)


def _series(entries: Iterable[Entry], findings: Iterable[Finding]) -> dict[tuple[str, str | None], _Series]:
    """Windows by model and run. A decision stands behind its window, or behind the comparison that it is about."""
    wrong: dict[int, list[str]] = {}
    for finding in findings:
        wrong.setdefault(finding.index, []).append(finding.fault.value)
    levels: dict[str, Levels] = {}
    found: dict[tuple[str, str | None], _Series] = {}
    for about, decided in _paired(entries):
        body = about.event.body
        if isinstance(body, MonitorPolicySet):
            levels[body.policy] = rules_of(body).levels
        elif isinstance(body, WindowEvaluated | ShadowCompared):
            series = found.setdefault((body.model, about.event.run), _Series())
            series.levels = levels.get(body.policy, series.levels)
            at = [about.index] if decided is None else [about.index, decided.index]
            series.windows.append(_window(about, decided, tuple(said for index in at for said in wrong.get(index, ()))))
    return found


def _paired(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Entry | None]]:
    """Rules, windows and comparisons in their order, each with the decision that follows it."""
    pending: Entry | None = None
    for entry in entries:
        body = entry.event.body
        if isinstance(body, MonitorDecided) and pending is not None:
            yield pending, entry
            pending = None
        elif isinstance(body, MonitorPolicySet):
            yield entry, None
        elif isinstance(body, WindowEvaluated | ShadowCompared):
            if pending is not None:
                yield pending, None
            pending = entry
    if pending is not None:
        yield pending, None


def _window(about: Entry, decided: Entry | None, wrong: tuple[str, ...]) -> WindowLine:
    body = about.event.body
    said = decided.event.body if decided is not None and isinstance(decided.event.body, MonitorDecided) else None
    speaking = () if said is None else said.speaking
    tests: tuple[TestLine, ...] = ()
    compared = None
    window, sites, rows, epsilon = 0, 0, "", None
    if isinstance(body, WindowEvaluated):
        window, sites, rows, epsilon = body.window, body.sites, body.rows, body.epsilon
        tests = tuple(TestLine(t.name, float(t.p), t.statistic, t.name in speaking) for t in body.tests)
    elif isinstance(body, ShadowCompared):
        window, rows, epsilon, compared = body.window, body.rows, body.epsilon, body.candidate
    return WindowLine(
        window=window,
        time=about.event.time,
        sites=sites,
        rows=rows,
        epsilon=epsilon,
        tests=tests,
        alert="undecided" if said is None else said.alert.value,
        action="" if said is None else said.action.value,
        target=None if said is None else said.target,
        kinds=() if said is None else tuple(kind.value for kind in said.kinds),
        obstacle="" if said is None or said.obstacle is None else said.obstacle.value,
        compared=compared,
        evaluated=about.index,
        decided=None if decided is None else decided.index,
        wrong=wrong,
    )


def _drawn(series: _Series) -> Timeline:
    points = [
        Point(
            line.window,
            None if line.obstacle else line.smallest,
            "not evaluable" if line.obstacle else line.alert,
            f"window {line.window}: {line.obstacle or line.alert}, {line.action or 'no decision'}",
            line.evaluated,
        )
        for line in series.windows
        if line.compared is None
    ]
    return timeline(points, series.levels)
