"""Runs, and one run as it goes."""

from dataclasses import dataclass

from fastapi import HTTPException, Request, Response

from fedseal.privacy.secagg.messages import Stage
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.charts import Chart, column_chart, line_chart
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import RUNS
from fedseal.server.console.runs import Run, list_runs, read_run
from fedseal.server.console.view import show

router = page_router(RUNS)
# Seconds between two looks at what goes on.
OFTEN, SELDOM = 2, 15
STAGES = tuple(stage.label for stage in Stage)
OTHER = "other"
STAGE_NOTES = {
    "advertise": "sites send fresh keys",
    "share": "secrets are shared for dropouts",
    "mask": "sites train, and send masked sums",
    "consistency": "sites agree who is in the sum",
    "unmask": "masks are taken off the sum",
}


@dataclass(frozen=True, slots=True)
class RunsFacts:
    """What the list says."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class StageLine:
    """One of the five exchanges: what it does, and whether it is ``done``, ``now`` or ``next``."""

    name: str
    note: str
    state: str


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's page says. ``now``: where the round stands, empty where nothing is under way; ``ago``: for so many
    seconds.
    """

    run: Run
    status: str
    now: tuple[StageLine, ...]
    ago: float
    curves: Chart | None
    times: Chart | None
    part_names: tuple[str, ...]
    parts: tuple[tuple[int, list[float]], ...]

    @property
    def share(self) -> float:
        """Which part of the rounds is done, from 0 to 1."""
        planned = self.run.planned_rounds
        return min(1.0, len(self.run.rounds) / planned) if planned else 0.0


@router.get("/runs")
def runs(request: Request, visitor: Admitted) -> Response:
    """The list."""
    found = tuple(list_runs(console_of(request).settings.runs))
    return show(request, visitor, RUNS, "runs.html", RunsFacts(found), refresh=SELDOM)


@router.get("/runs/{name}")
def run(request: Request, visitor: Admitted, name: str) -> Response:
    """One run."""
    console = console_of(request)
    found = read_run(console.settings.runs, name)
    if found is None:
        raise HTTPException(404, "There is no run of that name.")
    progress = found.progress
    facts = RunFacts(
        run=found,
        status=status_of(found),
        now=() if progress is None else _stages(progress.stage),
        ago=0.0 if progress is None else console.clock() - progress.time,
        curves=_curves(found),
        times=_times(found),
        part_names=(*STAGES, OTHER),
        parts=tuple(parts_of(found)),
    )
    return show(request, visitor, RUNS, "run.html", facts, refresh=None if found.over else OFTEN)


def status_of(found: Run) -> str:
    """Where a run stands, in one sentence; it is read out when it changes."""
    done, planned = len(found.rounds), found.planned_rounds
    of = f" of {planned}" if planned else ""
    match found.state:
        case "finished":
            return f"Finished after {done} round{'' if done == 1 else 's'}."
        case "failed":
            return f"Failed after {done} round{'' if done == 1 else 's'}."
        case "running" if found.progress is not None and found.progress.round > done:
            return f"Round {found.progress.round}{of} is under way."
        case "running":
            return f"{done}{of} rounds are done."
    return "Ordered; the server has not begun it."


def parts_of(found: Run) -> list[tuple[int, list[float]]]:
    """Of every round the seconds of its stages, and of what lies between them."""
    columns = []
    for one in found.rounds:
        spent = {stage.name: stage.seconds for stage in one.stages}
        parts = [spent.get(name, 0.0) for name in STAGES]
        columns.append((one.number, [*parts, max(0.0, one.seconds - sum(parts))]))
    return columns


def _stages(current: str) -> tuple[StageLine, ...]:
    place = STAGES.index(current) if current in STAGES else -1
    states = ("done" if at < place else "now" if at == place else "next" for at in range(len(STAGES)))
    return tuple(StageLine(name, STAGE_NOTES[name], state) for name, state in zip(STAGES, states, strict=True))


def _curves(found: Run) -> Chart | None:
    names = sorted({name for one in found.rounds for name in one.metrics})
    series = [
        (name, [(float(one.number), one.metrics[name]) for one in found.rounds if name in one.metrics])
        for name in names
    ]
    says = "; ".join(f"{name} {points[0][1]:.3g} to {points[-1][1]:.3g}" for name, points in series)
    return line_chart("Metrics by round", f"From the first round to the last: {says}.", ("round", "mean"), series)


def _times(found: Run) -> Chart | None:
    columns = parts_of(found)
    if not columns:
        return None
    mean = sum(sum(parts) for _, parts in columns) / len(columns)
    says = f"{len(columns)} rounds took {mean:.3g} seconds in the mean."
    return column_chart("Seconds by stage", says, ("round", "seconds"), (*STAGES, OTHER), columns)
