"""The console's own access log."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request, Response

from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import ACCESS
from fedseal.server.console.users import Access
from fedseal.server.console.view import show

router = page_router(ACCESS)
SHOWN = 50


@dataclass(frozen=True, slots=True)
class AccessFacts:
    """What the page says. ``older``: before which entry the next page begins; None on the last."""

    entries: tuple[Access, ...]
    older: int | None
    newest: bool


@router.get("/access")
def access(
    request: Request, visitor: Admitted, before: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None
) -> Response:
    """The page."""
    found = console_of(request).users.accesses(before, SHOWN + 1)
    entries = tuple(found[:SHOWN])
    older = entries[-1].id if len(found) > SHOWN else None
    return show(request, visitor, ACCESS, "access.html", AccessFacts(entries, older, before is None))
