"""Runs, and one run as it goes."""

from dataclasses import dataclass

from fastapi import HTTPException, Request, Response

from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import RUNS
from fedseal.server.console.runs import Run, list_runs, read_run
from fedseal.server.console.view import show

router = page_router(RUNS)
# Seconds between two looks at what goes on.
OFTEN, SELDOM = 2, 15


@dataclass(frozen=True, slots=True)
class RunsFacts:
    """What the list says."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a run's page says."""

    run: Run


@router.get("/runs")
def runs(request: Request, visitor: Admitted) -> Response:
    """The list."""
    found = tuple(list_runs(console_of(request).settings.runs))
    return show(request, visitor, RUNS, "runs.html", RunsFacts(found), refresh=SELDOM)


@router.get("/runs/{name}")
def run(request: Request, visitor: Admitted, name: str) -> Response:
    """One run."""
    found = read_run(console_of(request).settings.runs, name)
    if found is None:
        raise HTTPException(404, "There is no run of that name.")
    return show(request, visitor, RUNS, "run.html", RunFacts(found), refresh=None if found.over else OFTEN)
