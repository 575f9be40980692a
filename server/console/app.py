"""The application of the console: every page's router, and what becomes of errors."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from fedseal.compliance.log.database import LOG_VARIABLE
from fedseal.errors import FedsealError
from fedseal.server.console.admission import WATCH, NotSignedIn, check_routers, way_back
from fedseal.server.console.context import Console, console_of
from fedseal.server.console.guard import Guard
from fedseal.server.console.pages import (
    access,
    account,
    approvals,
    budgets,
    drift,
    lineage,
    log,
    models,
    overview,
    runs,
    sign_in,
)
from fedseal.server.console.sessions import Sessions
from fedseal.server.console.settings import ConsoleSettings
from fedseal.server.console.tries import Tries
from fedseal.server.console.users import UserFile
from fedseal.server.console.view import FOLDER, show_outside, status_text
from fedseal.server.store import roster_at

ROUTERS = (
    sign_in.router,
    overview.router,
    runs.router,
    budgets.router,
    models.router,
    lineage.router,
    drift.router,
    approvals.router,
    approvals.files,
    log.router,
    access.router,
    account.router,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What an error's page says."""

    code: int
    title: str
    text: str
    next_step: str


def console_app(settings: ConsoleSettings, clock: Callable[[], float] = time.time) -> ASGIApp:
    """The guarded application.

    Args:
        settings: what the server's file says.
        clock: seconds since 1970.

    Raises:
        ConfigError: there are no users, or no server's store.
    """
    roster_at(settings.store)
    console = Console(
        settings,
        UserFile.open(settings.users, clock=clock),
        Sessions(settings.limits),
        Tries(),
        lambda: roster_at(settings.store),
        os.environ.get(LOG_VARIABLE) or str(settings.store),
        clock,
    )
    return Guard(application(console), settings.names, secure=settings.secure)


def application(console: Console) -> FastAPI:
    """The application without what guards it; LocalError if one of its routes lets everybody in."""
    check_routers(ROUTERS)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, title="fedseal console")
    app.state.console = console
    for router in ROUTERS:
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"), name="static")
    app.add_exception_handler(NotSignedIn, _to_sign_in)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _not_understood)
    app.add_exception_handler(FedsealError, _not_available)
    return app


def _to_sign_in(request: Request, error: Exception) -> Response:
    if WATCH in request.query_params:
        return PlainTextResponse("signed out", 401)
    return RedirectResponse(f"/sign-in{way_back(request)}", 303)


def _refused(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 500
    said = str(error.detail) if isinstance(error, HTTPException) else ""
    text = "" if said == status_text(code) else said
    if code == 404:
        text = text or "There is nothing at this address."
    return _page(request, Problem(code, status_text(code), text, ""))


def _not_understood(request: Request, error: Exception) -> Response:
    return _page(
        request, Problem(400, "Bad request", "The address or the form holds something that cannot be read.", "")
    )


def _not_available(request: Request, error: Exception) -> Response:
    if not isinstance(error, FedsealError):
        raise error
    return _page(request, Problem(503, "Not available", error.message, error.next_step))


def _page(request: Request, problem: Problem) -> Response:
    return show_outside(request, console_of(request), "error.html", problem, problem.code)
