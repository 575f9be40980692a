"""The first page: how the federation stands."""

from dataclasses import dataclass

from fastapi import Request, Response

from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import OVERVIEW
from fedseal.server.console.runs import Run, list_runs
from fedseal.server.console.view import show
from fedseal.server.progress import Presence, read_presence

router = page_router(OVERVIEW)
REFRESH = 10


@dataclass(frozen=True, slots=True)
class SiteLine:
    """A site of the roster. ``online`` is None where no server says."""

    number: int
    name: str
    organisation: str
    persons: int
    online: bool | None
    seen: float | None


@dataclass(frozen=True, slots=True)
class OverviewFacts:
    """What the page says."""

    epoch: int
    simulated: bool
    presence: Presence | None
    running: bool
    sites: tuple[SiteLine, ...]
    recent: tuple[Run, ...]


@router.get("/")
def overview(request: Request, visitor: Admitted) -> Response:
    """The page."""
    console = console_of(request)
    roster, presence = console.roster(), read_presence(console.settings.runs)
    running = presence is not None and presence.runs(console.clock())
    sites = tuple(
        SiteLine(
            entry.site,
            entry.name,
            entry.organisation,
            entry.persons,
            entry.name in presence.online if presence is not None and running else None,
            None if presence is None else presence.seen.get(entry.name),
        )
        for entry in roster.sites
    )
    recent = tuple(list_runs(console.settings.runs)[:5])
    facts = OverviewFacts(roster.epoch, roster.simulated, presence, running, sites, recent)
    return show(request, visitor, OVERVIEW, "overview.html", facts, refresh=REFRESH)
