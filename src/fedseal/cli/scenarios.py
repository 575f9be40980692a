"""`fedseal simulate SCENARIO` and `fedseal simulate verify RUN`."""

import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedseal.cli.simulating import need_packages
from fedseal.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fedseal.simulation.scenario.compared import Comparison
    from fedseal.simulation.scenario.execute import Sources
    from fedseal.simulation.scenario.language import Scenario
    from fedseal.simulation.scenario.outcome import GateRow, ScenarioResult, StepRow


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks of a scenario."""

    name: str
    seed: int | None
    strategy: str | None
    epsilon: float | None
    rounds: int | None
    data: Path | None
    baselines: bool
    gate: bool
    junit: Path | None
    workers: int
    out: Path
    as_json: bool


class Bar:
    """A progress bar over the steps of a run, and a line a step where there is no terminal."""

    def __init__(self, console: Console, steps: int) -> None:
        self._console = console
        self._steps = steps
        self._progress = _progress_bar(console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
            self._task = self._progress.add_task("steps", total=self._steps)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def step(self, row: "StepRow") -> None:
        """A step is over."""
        if self._task is not None:
            self._progress.advance(self._task)
            return
        accuracy = row.metrics.get("accuracy.global")
        said = "no model" if accuracy is None else f"accuracy {accuracy:.3f}"
        alarm = "" if row.alarm in (None, "quiet") else f"  {row.alarm}"
        decisions = f"  {', '.join(row.decisions)}" if row.decisions else ""
        self._console.print(f"step {row.step:3d}  {said}{alarm}{decisions}", markup=False)

    def phase(self, title: str) -> None:
        """Something else begins."""
        if self._task is not None:
            self._progress.update(self._task, description=title)
        else:
            self._console.print(f"... {title}", markup=False)


def run_asked(asked: Asked) -> int:
    """Run a scenario or its sweep, show what came of it, and say where the files are; the exit code."""
    need_packages()
    from fedseal.simulation.folders import remove_leftovers
    from fedseal.simulation.scenario.execute import Sources, execute
    from fedseal.simulation.scenario.files import find, load
    from fedseal.simulation.scenario.language import changed, changes_from

    _quiet()

    scenario = load(asked.name)
    changes = changes_from(seed=asked.seed, strategy=asked.strategy, epsilon=asked.epsilon, rounds=asked.rounds)
    scenario = changed(scenario, changes)
    sources = Sources(find(asked.name).parent, asked.data)
    console = _console(asked.as_json)
    if removed := remove_leftovers(asked.out):
        console.print(f"Removed what {removed} killed run{'s' if removed > 1 else ''} had left in {asked.out}.")
    if scenario.swept:
        return _sweep(scenario, sources, asked, console)
    with Bar(console, scenario.scenario.steps) as bar:
        finished = execute(scenario, sources, asked.out, bar, workers=asked.workers, baselines=asked.baselines)
    result = finished.result
    _say(console, result)
    console.print(f"Report: {finished.folder / 'report.html'}", soft_wrap=True)
    console.print(f"Numbers: {finished.folder / 'result.json'}", soft_wrap=True)
    _write_junit(asked.junit, {result.scenario: result.gates}, result.seconds)
    if asked.as_json:
        sys.stdout.write((finished.folder / "result.json").read_text(encoding="utf-8"))
    return _code(result.gates, gate=asked.gate)


def verify_run(folder: Path, data: Path | None, workers: int) -> int:
    """Run a finished run again, and say what is not the same; the exit code."""
    need_packages()
    from fedseal.simulation.scenario.verify import rerun

    _quiet()
    console = _console(as_json=False)
    found = rerun(folder, data, workers)
    if not found.differences:
        console.print(f"The same in every number: digest {found.digest}", soft_wrap=True)
        return ExitCode.OK
    for line in found.differences[:20]:
        console.print(line, markup=False, soft_wrap=True)
    if len(found.differences) > 20:
        console.print(f"... and {len(found.differences) - 20} more")
    for line in found.versions:
        console.print(f"Other versions: {line}", markup=False, soft_wrap=True)
    console.print("[bold red]The run does not come out the same.[/bold red]")
    return ExitCode.FALSIFIED


def _quiet() -> None:
    """Flower logs every step on the console; a progress bar and a log do not share one. Its import sets its level."""
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _console(as_json: bool) -> Console:
    return Console(stderr=as_json, highlight=False, soft_wrap=not as_json and not Console().is_terminal)


def _sweep(scenario: "Scenario", sources: "Sources", asked: Asked, console: Console) -> int:
    """Run a sweep and show its groups; the exit code."""
    from fedseal.simulation.scenario.page_compare import sentence
    from fedseal.simulation.scenario.sweeping import COMPARE, PAGE, run_sweep

    with Cells(console) as bar:
        swept = run_sweep(scenario, sources, asked.out, bar.progress, workers=asked.workers, baselines=asked.baselines)
    if swept.resumed:
        console.print(f"{swept.resumed} runs were there already.")
    # Wider than a narrow terminal, rather than with numbers cut off.
    wide = Console(file=console.file, width=max(console.width, 120), highlight=False)
    wide.print(groups_table(swept.comparison))
    console.print(sentence(swept.comparison), markup=False)
    for name, gates in swept.gates.items():
        if gates:
            console.print(name, style="bold", markup=False)
            say_gates(console, gates)
    console.print(f"Report: {swept.folder / PAGE}", soft_wrap=True)
    _write_junit(asked.junit, swept.gates, 0.0)
    if asked.as_json:
        sys.stdout.write((swept.folder / COMPARE).read_text(encoding="utf-8"))
    return _code([gate for gates in swept.gates.values() for gate in gates], gate=asked.gate)


class Cells:
    """A progress bar over the runs of a sweep, and a line a run where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = _progress_bar(console)
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._progress.stop()

    def progress(self, there: int, wanted: int, name: str) -> None:
        """So many runs are there, of so many; the last was this one."""
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._progress.add_task("runs", total=wanted)
            self._progress.update(self._task, completed=there)
        elif name:
            self._console.print(f"{there:3d} of {wanted}  {name}", markup=False)


def _progress_bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def groups_table(comparison: "Comparison") -> Table:
    """A sweep's groups."""
    table = Table(box=None, pad_edge=False)
    columns = ("group", "accuracy", "sd", "beside the first", "95 % interval", "rank", "epsilon", "MB", "seconds")
    for column in columns:
        table.add_column(column, justify="left" if column == "group" else "right", no_wrap=True)
    for group in comparison.groups:
        against = group.against
        interval = "" if against is None or against.low is None else f"{against.low:+.3f} to {against.high:+.3f}"
        cells = (
            "-" if group.accuracy is None else f"{group.accuracy:.3f}",
            "" if group.deviation is None else f"{group.deviation:.3f}",
            "" if against is None else f"{against.mean:+.3f}",
            interval,
            "" if group.rank is None else f"{group.rank:.2f}",
            "unbounded" if group.epsilon_spent is None else f"{group.epsilon_spent:.2f}",
            f"{group.bytes_total / 1e6:.2f}",
            f"{group.seconds:.1f}",
        )
        table.add_row(escape(group.name), *cells)
    return table


def _say(console: Console, result: "ScenarioResult") -> None:
    """The run in a few lines."""
    from fedseal.simulation.scenario.page import comparison_rows, verdict

    for row in comparison_rows(result):
        value = "-" if row.accuracy is None else f"{row.accuracy:.3f}"
        console.print(f"  {row.name:28s} {value}", style="bold" if row.own else None, markup=False)
    console.print(verdict(result), markup=False)
    say_gates(console, result.gates)
    console.print(f"Digest: {result.digest}", soft_wrap=True)


def say_gates(console: Console, gates: "Sequence[GateRow]") -> None:
    """Every gate and how it ended."""
    from fedseal.simulation.scenario.junit import outcome

    for gate in gates:
        word, style = ("passed", "green") if gate.passed else ("FAILED", "bold red")
        console.print(f"[{style}]{word}[/{style}]", end=" ")
        console.print(f"{gate.gate}: {outcome(gate)}", markup=False)


def _write_junit(path: Path | None, suites: "Mapping[str, Sequence[GateRow]]", seconds: float) -> None:
    if path is None:
        return
    from fedseal.simulation.scenario.junit import junit

    try:
        path.write_text(junit(suites, seconds), encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path} cannot be written: {reason}", next_step="Give another --junit.") from None


def _code(gates: "Sequence[GateRow]", *, gate: bool) -> int:
    return ExitCode.GATE if gate and not all(row.passed for row in gates) else ExitCode.OK
