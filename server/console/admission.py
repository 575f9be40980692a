"""The one place that lets people in: who they are, whether the page is theirs, whether a form is one of ours.

`page_router` puts it before everything of a page; `check_routers` refuses a router that lacks it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.routing import APIRoute

from fedseal.errors import LocalError
from fedseal.privacy.secret import Secret
from fedseal.server.console.context import Console, Visitor, console_of
from fedseal.server.console.permissions import WATCHED, Page

# What everybody may reach beside the static files, and nothing else without a page.
PUBLIC = frozenset({"/sign-in"})
COOKIE_SECURE, COOKIE_CLEAR = "__Host-fedseal", "fedseal-console"
# In the query of what a page asks for by itself, to show what is new: nobody has done anything.
WATCH = "watch"
CSRF_FIELD = "csrf"
SAFE = frozenset({"GET", "HEAD"})


class NotSignedIn(Exception):  # noqa: N818 - what is next, not what went wrong
    """Nobody is signed in here, or no longer."""


def visitor_of(request: Request) -> Visitor:
    """Who is looking; a dependency.

    Raises:
        NotSignedIn: nobody, or their session or account has ended.
    """
    console = console_of(request)
    token = token_of(request, console)
    session = None if token is None else console.sessions.find(token, touch=WATCH not in request.query_params)
    if session is None or token is None:
        raise NotSignedIn
    user = console.users.find(session.user)
    if user is None or user.credential != session.credential or not user.valid(console.clock()):
        console.sessions.end(token)
        raise NotSignedIn
    return Visitor(user, token, session.csrf)


Admitted = Annotated[Visitor, Depends(visitor_of)]


async def sent_token(request: Request, visitor: Admitted) -> Secret:
    """The token that a form carries; empty if it carries none, or is none."""
    if request.method in SAFE:
        return Secret(b"")
    found = (await request.form()).get(CSRF_FIELD)
    return Secret(found.encode("utf-8", "replace") if isinstance(found, str) else b"")


@dataclass(frozen=True, slots=True)
class Admission:
    """The dependency of everything under a page's path. Denials are recorded, as is what auditors open."""

    page: Page

    def __call__(self, request: Request, visitor: Admitted, sent: Annotated[Secret, Depends(sent_token)]) -> None:
        """Let somebody in, or raise HTTPException 403."""
        users, reading, page = console_of(request).users, request.method in SAFE, self.page
        where, who = request.url.path, visitor.user.name
        if not (visitor.reads(page) if reading else visitor.writes(page)):
            users.record(who, page.title, where, "denied")
            raise HTTPException(403, "Your roles do not open this page.")
        if not reading and (not from_here(request) or sent != visitor.csrf):
            users.record(who, page.title, where, "denied: not one of our forms")
            raise HTTPException(
                403, "This form is too old, or not one of ours. Go back, reload the page and try again."
            )
        if not reading or (visitor.user.roles & WATCHED and WATCH not in request.query_params):
            users.record(who, page.title, where, "opened" if reading else "sent")


def page_router(page: Page) -> APIRouter:
    """A router for everything of a page; its routes' paths are whole, and begin with the page's."""
    return APIRouter(dependencies=[Depends(Admission(page))])


def check_routers(routers: Iterable[APIRouter]) -> None:
    """LocalError if one of them would let everybody in, or has addresses that are not its page's."""
    for router in routers:
        pages = [d.dependency.page for d in router.dependencies if isinstance(d.dependency, Admission)]
        for route in router.routes:
            path = route.path if isinstance(route, APIRoute) else ""
            if path not in PUBLIC and not any(_under(path, page) for page in pages):
                raise LocalError(f"a route without a page: {path or route}")


def _under(path: str, page: Page) -> bool:
    return path == page.path or (page.path != "/" and path.startswith(page.path + "/"))


def from_here(request: Request) -> bool:
    """Whether a form was sent by a page of this console. Browsers say where from; what does not say is refused."""
    console = console_of(request)
    scheme = "https" if console.settings.secure else "http"
    origin = request.headers.get("origin", "")
    return origin.lower() == f"{scheme}://{request.headers.get('host', '').lower()}"


def token_of(request: Request, console: Console) -> Secret | None:
    """What the session's cookie holds; None if there is none."""
    found = request.cookies.get(cookie_name(console))
    return Secret(found.encode("utf-8", "replace")) if found else None


def cookie_name(console: Console) -> str:
    """The session's cookie. The prefix has browsers refuse one that another host or a page in clear has set."""
    return COOKIE_SECURE if console.settings.secure else COOKIE_CLEAR


def way_back(request: Request) -> str:
    """Where to go on after signing in, as a query; empty for the first page."""
    return "" if request.url.path == "/" or request.method not in SAFE else f"?next={quote(request.url.path)}"


def local(path: str) -> str:
    """A path of this console; the first page's if it is anything else."""
    parts = urlsplit(path)
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    return path if plain and not parts.scheme and not parts.netloc else "/"
