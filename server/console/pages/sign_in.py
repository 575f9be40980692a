"""Signing in. Whatever goes wrong, the answer and the work behind it are the same."""

import threading
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Query, Request, Response
from fastapi.responses import RedirectResponse

from fedseal.server.console.admission import cookie_name, from_here, local, token_of
from fedseal.server.console.context import console_of
from fedseal.server.console.users import LONGEST_SECRET, NAME, typed
from fedseal.server.console.view import show_outside

router = APIRouter()
# scrypt takes 32 MB: one try at a time, however many come.
_one_try = threading.Lock()
WRONG = "Name and secret do not match, or there were too many wrong tries. Wait a minute before you try again."


@dataclass(frozen=True, slots=True)
class SignInFacts:
    """What the page says: what went wrong before, and where to go afterwards."""

    wrong: str
    next: str


@router.get("/sign-in")
def form(request: Request, next_page: Annotated[str, Query(alias="next", max_length=500)] = "/") -> Response:
    """The form."""
    return show_outside(request, console_of(request), "sign_in.html", SignInFacts("", local(next_page)))


@router.post("/sign-in")
def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=200)] = "",
    secret: Annotated[str, Form(max_length=2 * LONGEST_SECRET)] = "",
    next_page: Annotated[str, Form(alias="next", max_length=500)] = "/",
) -> Response:
    """A try."""
    console = console_of(request)
    if not from_here(request):
        raise HTTPException(403, "This form is not one of ours.")
    address = "" if request.client is None else request.client.host
    if not console.tries.admit(address):
        raise HTTPException(429, "Too many tries from this address. Wait a minute.")
    asked = name.strip().lower()
    asked = asked if NAME.fullmatch(asked) else ""
    with _one_try:
        locked = console.tries.locked(asked)
        user = console.users.check(asked, typed(secret))
        if user is None and not locked:
            console.tries.wrong(asked)
    known = "" if console.users.find(asked) is None else asked
    if user is None or locked:
        console.users.record(known, "sign-in", "/sign-in", "denied: locked" if locked else "denied")
        return show_outside(request, console, "sign_in.html", SignInFacts(WRONG, local(next_page)), 401)
    console.tries.right(asked, address)
    old = token_of(request, console)
    if old is not None:
        console.sessions.end(old)
    token = console.sessions.begin(user)
    console.users.record(user.name, "sign-in", "/sign-in", "done")
    answer = RedirectResponse(local(next_page), 303)
    answer.set_cookie(
        cookie_name(console),
        token.reveal().decode("ascii"),
        path="/",
        secure=console.settings.secure,
        httponly=True,
        samesite="strict",
    )
    return answer
