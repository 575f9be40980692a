"""What a person sees of a simulation while it runs. On a terminal a live table; elsewhere one line a round."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from fedseal.simulation.figures import score
from fedseal.simulation.flamby import Row as FlambyRow
from fedseal.simulation.population import Population
from fedseal.simulation.report import comparison_rows, label, metric_names, verdict
from fedseal.simulation.result import Evaluation, Result
from fedseal.simulation.training import RoundView
from fedseal.study import Contract


class Watcher:
    """Shows a simulation's progress; a context manager around it.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        # What a study measures is known with the first round's scores.
        self._metrics: list[str] = ["loss"]
        self._rows: list[tuple[str, ...]] = []
        self._note = "spreading the persons over the sites"
        self._title = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._note = ""
        if self._live is not None:
            self._refresh()
            self._live.stop()

    def begin(self, contract: Contract, population: Population, run: str) -> None:
        """The persons are spread."""
        promise = (
            f"epsilon {contract.privacy.epsilon:g} and delta {contract.privacy.delta:g} to every person"
            if contract.privacy.plan != "none"
            else "no privacy plan"
        )
        self._title = f"{contract.title or contract.name}: {len(population.sites)} sites, {promise}"
        self._note = f"round 1 of {contract.training.rounds}"
        if self._live is None:
            self._console.print(self._title, markup=False)
        self._refresh()

    def phase(self, title: str) -> None:
        """Something else begins."""
        self._note = title
        if self._live is None:
            self._console.print(f"... {title}")
        self._refresh()

    def round(self, view: RoundView) -> None:
        """A round is over."""
        scores = view.judged.everyone
        if not self._rows:
            self._metrics = [label(name) for name in scores]
            if self._live is None:
                header = self._line(self._columns) + f"   ({', '.join(self._metrics)}: oracle values)"
                self._console.print(header, markup=False)
        row = (
            str(view.record.number),
            *(score(value) for value in scores.values()),
            str(view.record.sites),
            f"{view.record.seconds:.2f}",
            "unbounded" if view.epsilon is None else f"{view.epsilon:.2f}",
        )
        self._rows.append(row)
        self._note = f"round {view.record.number + 1}"
        if self._live is None:
            self._console.print(self._line(row), markup=False)
        self._refresh()

    @property
    def _columns(self) -> tuple[str, ...]:
        return ("round", *self._metrics, "sites", "seconds", "epsilon")

    def _line(self, cells: Sequence[str]) -> str:
        """A row of the table where there is no live one."""
        return "  ".join(f"{cell:>{max(8, len(name))}}" for cell, name in zip(cells, self._columns, strict=True))

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._picture(), refresh=True)

    def _picture(self) -> RenderableType:
        table = Table(title=escape(self._title), title_justify="left", caption_justify="left")
        metrics = escape(", ".join(self._metrics))
        table.caption = f"{metrics}: oracle values on all sites' test persons; only a simulation has them"
        for name in self._columns:
            table.add_column(escape(name), justify="right", overflow="fold")
        for row in self._rows:
            table.add_row(*row)
        return Group(table, Text(self._note, style="dim")) if self._note else table


def comparison_table(result: Result) -> Table:
    """The run beside everything it is compared with."""
    table = Table(title="Compared on the same test persons (oracle values)", title_justify="left")
    table.add_column("model")
    names = metric_names(result)
    for name in names:
        table.add_column(escape(label(name)), justify="right", overflow="fold")
    for row in comparison_rows(result):
        table.add_row(row.name, *row.cells(names), style="bold green" if row.own else None)
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """The private evaluation beside what only the oracle knows."""
    table = Table(
        title=f"Private evaluation of the final model (pure epsilon {evaluation.epsilon:.3g} for test persons)",
        title_justify="left",
    )
    table.add_column("what")
    for name in ("private", "95 % noise interval", "oracle"):
        table.add_column(name, justify="right")
    for name, e in evaluation.estimates.items():
        table.add_row(escape(label(name)), score(e.value), f"{score(e.low)} to {score(e.high)}", score(e.oracle))
    return table


def group_table(evaluation: Evaluation) -> Table | None:
    """The private evaluation by subgroup; None if the study asked for none."""
    groups = None if evaluation.card is None else evaluation.card.subgroups
    if groups is None:
        return None
    table = Table(
        title=f"By {escape(groups.attribute)} (fewer than {groups.smallest} persons: hidden, and never one alone)",
        title_justify="left",
    )
    names = ("persons", "accuracy", "auc", "selection_rate", "tpr", "fpr")
    table.add_column("group")
    for name in names:
        table.add_column(label(name).replace("_", " "), justify="right")
    for name, group in groups.groups.items():
        cells = ["hidden"] * len(names) if group.hidden else [score(group.estimates[n].value) for n in names]
        table.add_row(escape(name), *cells)
    return table


def flamby_table(rows: Sequence[FlambyRow]) -> Table:
    """FLamby's methods: what was found here, mean and deviation over five seeds, beside what was published."""
    table = Table(
        title="Fed-Heart-Disease: accuracy (sd) over five seeds",
        caption="hospitals: mean over four; pooled: all test patients; federated: normalised by sealed sums",
    )
    for column in ("method", "hospitals", "published", "pooled", "published", "in 1 sd"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        found, spread, known = row.mean, row.deviation, row.published
        table.add_row(
            row.name,
            _with_spread(found.centres, spread.centres),
            "" if known is None else _with_spread(known.centres, known.centres_sd),
            _with_spread(found.pooled, spread.pooled),
            "" if known is None else _with_spread(known.pooled, known.pooled_sd),
            {True: "yes", False: "no", None: ""}[row.reproduced],
        )
    return table


def _with_spread(mean: float, deviation: float) -> str:
    return f"{mean:.3f} ({deviation:.3f})".replace("0.", ".")


def log_line(result: Result) -> str:
    """What the run's log came to; empty where there is none."""
    found = result.log
    if found is None:
        return ""
    quorum = "a quorum" if found.final else "no quorum"
    return f"Log: {found.entries} entries, checked; {found.cosigned} of {found.witnesses} sites cosigned it, {quorum}."


def summary(result: Result) -> str:
    """The honest sentence."""
    return verdict(result)
