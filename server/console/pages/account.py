"""One's own account: roles, sessions, appearance, signing out."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, HTTPException, Request, Response
from fastapi.responses import RedirectResponse

from fedseal.server.console.admission import Admitted, cookie_name, local, page_router
from fedseal.server.console.context import console_of
from fedseal.server.console.permissions import ACCOUNT, ROLE_NOTES, Page
from fedseal.server.console.settings import Limits
from fedseal.server.console.view import LOOK_COOKIE, LOOKS, show

router = page_router(ACCOUNT)
A_YEAR = 365 * 86400


@dataclass(frozen=True, slots=True)
class RoleLine:
    """A role, and what it is there for."""

    name: str
    note: str


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the page says."""

    roles: tuple[RoleLine, ...]
    pages: tuple[Page, ...]
    sessions: int
    limits: Limits


@router.get("/account")
def account(request: Request, visitor: Admitted) -> Response:
    """The page."""
    console = console_of(request)
    roles = tuple(RoleLine(role.value, ROLE_NOTES[role]) for role in sorted(visitor.user.roles))
    facts = AccountFacts(roles, visitor.pages, console.sessions.count(visitor.user.name), console.settings.limits)
    return show(request, visitor, ACCOUNT, "account.html", facts)


@router.post("/account/sign-out")
def sign_out(request: Request, visitor: Admitted, everywhere: Annotated[bool, Form()] = False) -> Response:
    """End this session, or all of one's sessions."""
    console = console_of(request)
    if everywhere:
        console.sessions.end_all(visitor.user.name)
    console.sessions.end(visitor.token)
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(
        cookie_name(console), path="/", secure=console.settings.secure, httponly=True, samesite="strict"
    )
    return answer


@router.post("/account/look")
def look(
    request: Request,
    visitor: Admitted,
    chosen: Annotated[str, Form(alias="look")],
    back: Annotated[str, Form(max_length=500)] = "/",
) -> Response:
    """Choose light, dark, or what the browser prefers."""
    if chosen not in LOOKS:
        raise HTTPException(400, "There is no such appearance.")
    answer = RedirectResponse(local(back), 303)
    secure = console_of(request).settings.secure
    answer.set_cookie(LOOK_COOKIE, chosen, max_age=A_YEAR, secure=secure, httponly=True, samesite="strict")
    return answer
