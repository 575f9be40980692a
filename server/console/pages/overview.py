"""The first page: the three promises with what stands behind them today, who is connected, what runs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import Request, Response
from sqlalchemy import select

from fedseal.compliance.events.bodies import Aggregated, Dropped
from fedseal.compliance.events.fields import DropReason
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.journal.tables import TYPES
from fedseal.config import Frozen
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.membership.standing import SERVER_MOVES, said, standing
from fedseal.privacy.roster import Roster
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import evidence_of
from fedseal.server.console.context import Console, console_of
from fedseal.server.console.evidence.place import NotBegun, View
from fedseal.server.console.evidence.witnessed import read_checkpoint_page
from fedseal.server.console.pages.budgets import spending_of
from fedseal.server.console.permissions import OVERVIEW
from fedseal.server.console.runs import Run, list_runs
from fedseal.server.console.spending import Population
from fedseal.server.console.view import show
from fedseal.server.progress import Presence, read_presence
from fedseal.server.store import known_at

B = TypeVar("B", bound=Frozen)
router = page_router(OVERVIEW)
REFRESH = 10
# How many of the newest sums are looked at, and of the newest refusals are shown.
SUMS, REFUSALS = 200, 8


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
class Holds:
    """Until when the membership holds, and what is to be done; ``until`` is empty where it does not hold now."""

    until: str
    days: int
    warning: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """What stands behind the first promise: sums, and over how many sites they were."""

    sums: int
    looked_at: int
    smallest: int
    newest: int
    threshold: int
    colluders: int
    idx: int


@dataclass(frozen=True, slots=True)
class Bounded:
    """What stands behind the second: charges, the population that has spent most of its promise, the
    one that was charged most, and how many were charged for releases without any protection."""

    charges: int
    populations: int
    over: int
    unbounded: int
    unpromised: int
    tightest: Population | None
    largest: Population | None


@dataclass(frozen=True, slots=True)
class Proven:
    """What stands behind the third: entries, and who has cosigned the newest checkpoint."""

    entries: int
    size: int
    cosigned: int
    witnesses: int
    needed: int
    final_size: int
    wrong: str


@dataclass(frozen=True, slots=True)
class RefusalLine:
    """A site's refusal, by the log."""

    idx: int
    time: str
    site: str
    stage: str
    reason: str
    run: str


@dataclass(frozen=True, slots=True)
class OverviewFacts:
    """What the page says; the promises are None where the log has not begun, ``holds`` where there is no membership."""

    epoch: int
    holds: Holds | None
    simulated: bool
    presence: Presence | None
    running: bool
    sites: tuple[SiteLine, ...]
    recent: tuple[Run, ...]
    sealed: Sealed | None
    bounded: Bounded | None
    proven: Proven | None
    refusals: tuple[RefusalLine, ...]

    @property
    def online(self) -> int:
        """How many sites are connected."""
        return sum(site.online is True for site in self.sites)


@router.get("/")
def overview(request: Request, visitor: Admitted) -> Response:
    """The page."""
    console = console_of(request)
    roster, presence = console.roster(), read_presence(console.settings.runs)
    running = presence is not None and presence.runs(console.clock())
    sealed, proven, refusals = _by_the_log(request)
    facts = OverviewFacts(
        epoch=roster.epoch,
        holds=_holds(console),
        simulated=roster.simulated,
        presence=presence,
        running=running,
        sites=_sites(roster, presence, running=running),
        recent=tuple(list_runs(console.settings.runs)[:5]),
        sealed=sealed,
        bounded=None if proven is None else _bounded(spending_of(console.log) or ()),
        proven=proven,
        refusals=refusals,
    )
    return show(request, visitor, OVERVIEW, "overview.html", facts, refresh=REFRESH)


def _holds(console: Console) -> Holds | None:
    epoch = known_at(console.settings.store)[1]
    if epoch is None:
        return None
    try:
        found = standing(epoch, datetime.fromtimestamp(console.clock(), UTC), moves=SERVER_MOVES)
    except ConfigError as error:
        return Holds("", 0, f"{error.message}. {error.next_step}")
    return Holds(said(found.until), found.days, found.warning or "")


def _sites(roster: Roster, presence: Presence | None, *, running: bool) -> tuple[SiteLine, ...]:
    return tuple(
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


def _by_the_log(request: Request) -> tuple[Sealed | None, Proven | None, tuple[RefusalLine, ...]]:
    try:
        with evidence_of(request).opened() as view:
            return _sealed(view), _proven(view), tuple(_refusals(view))
    except NotBegun:
        return None, None, ()


def _sealed(view: View) -> Sealed | None:
    indices = _indices(view, Aggregated)
    bodies = [_body(view, index, Aggregated) for index in indices[-SUMS:]]
    if not bodies:
        return None
    newest = bodies[-1]
    smallest = min(len(body.sites) for body in bodies)
    return Sealed(
        len(indices), len(bodies), smallest, len(newest.sites), newest.threshold, newest.colluders, indices[-1]
    )


def _bounded(populations: tuple[Population, ...]) -> Bounded:
    shares = [(one.share, one) for one in populations if one.share is not None]
    return Bounded(
        charges=sum(one.releases for one in populations),
        populations=len(populations),
        over=sum(share > 1 for share, _ in shares),
        unbounded=sum(math.isinf(one.epsilon) for one in populations),
        unpromised=sum(one.share is None and one.releases > 0 for one in populations),
        tightest=max(shares, key=lambda pair: pair[0])[1] if shares else None,
        largest=max(populations, key=lambda one: one.epsilon, default=None),
    )


def _proven(view: View) -> Proven | None:
    if view.log.checkpoint() is None:
        return None
    page = read_checkpoint_page(view)
    return Proven(page.entries, page.size, page.cosigned, len(page.witnesses), page.needed, page.final_size, page.wrong)


def _refusals(view: View) -> Iterator[RefusalLine]:
    """The newest refusals; silence is none."""
    names = {entry.site: entry.name for entry in view.roster.sites}
    shown = 0
    for index in reversed(_indices(view, Dropped)):
        event = read_event(view.log.leaf(index))
        if not isinstance(event.body, Dropped) or event.body.reason is DropReason.SILENT:
            continue
        body = event.body
        site = names.get(body.site, f"site {body.site}")
        yield RefusalLine(index, event.time, site, body.stage.value, body.reason.value, event.run or "")
        shown += 1
        if shown == REFUSALS:
            return


def _indices(view: View, form: type[Frozen]) -> list[int]:
    """The indices of the entries of a type, by the index that the log's writer keeps."""
    kind = type_of_form(form).name
    query = select(TYPES.c.idx).where(TYPES.c.origin == view.log.origin, TYPES.c.type == kind)
    return list(view.connection.execute(query.order_by(TYPES.c.idx)).scalars())


def _body(view: View, index: int, form: type[B]) -> B:
    body = read_event(view.log.leaf(index)).body
    if not isinstance(body, form):
        raise LocalError("a log whose index names another entry")
    return body
