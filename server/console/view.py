"""From facts to a page: Jinja templates that escape everything, and how times, numbers and digests are written."""

from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse

from fedseal import __version__
from fedseal.server.console.context import Console, Visitor, console_of
from fedseal.server.console.permissions import Page

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLDER = Path(__file__).parent
LOOK_COOKIE = "fedseal-look"
LOOKS = ("auto", "light", "dark")


def show(
    request: Request,
    visitor: Visitor,
    page: Page,
    template: str,
    facts: "DataclassInstance",
    *,
    refresh: int | None = None,
    status: int = 200,
) -> HTMLResponse:
    """A page for somebody who is signed in.

    Args:
        request: what was asked for.
        visitor: by whom.
        page: which one is marked in the navigation.
        template: the file; it extends base.html and finds ``facts``, ``page`` and ``visitor``.
        facts: a frozen dataclass with everything that the page says.
        refresh: seconds after which the page shows what is new; None if it does not. ``?live=off`` stops it.
        status: of the answer.
    """
    live = refresh if refresh is not None and request.query_params.get("live") != "off" else None
    text = (
        environment()
        .get_template(template)
        .render(
            facts=facts,
            page=page,
            visitor=visitor,
            look=look_of(request),
            path=request.url.path,
            can_refresh=refresh is not None,
            refresh=live,
            federation=console_of(request).roster().federation,
            now=console_of(request).clock(),
            version=__version__,
        )
    )
    return HTMLResponse(text, status)


def show_outside(
    request: Request, console: Console, template: str, facts: "DataclassInstance", status: int = 200
) -> HTMLResponse:
    """A page for somebody who is not signed in; it says nothing of the federation."""
    text = environment().get_template(template).render(facts=facts, look=look_of(request), version=__version__)
    return HTMLResponse(text, status)


def look_of(request: Request) -> str:
    """Which of `LOOKS` a visitor has chosen."""
    chosen = request.cookies.get(LOOK_COOKIE, "")
    return chosen if chosen in LOOKS else LOOKS[0]


@cache
def environment() -> jinja2.Environment:
    """The templates of the console."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"day": day, "moment": moment, "iso": iso, "digest": digest, "figure": figure, "span": span}
    made.filters["number_column"] = number_column
    return made


def moment(seconds: float) -> str:
    """A time of day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def day(seconds: float) -> str:
    """A day in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def iso(seconds: float) -> str:
    """For a `time` element."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(text: str, digits: int = 12) -> str:
    """A digest, shortened so that it can still be compared at a glance."""
    kind, colon, value = text.rpartition(":")
    return text if len(value) <= digits else f"{kind}{colon}{value[:digits]}…"


def figure(value: float, places: int = 3) -> str:
    """A number with so many significant digits and no more; ``∞`` where there is no bound."""
    if value == float("inf"):
        return "∞"
    text = f"{value:.{places}g}"
    if "e" not in text:
        return text
    if 1 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    mantissa, _, power = text.partition("e")
    return f"{mantissa}e{int(power)}"


def span(seconds: float) -> str:
    """How long something took or is ago, in one unit or two."""
    if seconds < 0:
        return "0 s"
    if seconds < 10:
        return f"{seconds:.2g} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h" if whole < 172_800 else f"{whole // 86_400} days"


def number_column(name: str) -> tuple[str, str]:
    """A table's column of numbers, as the macro ``table`` wants it."""
    return name, "num"


def status_text(code: int) -> str:
    """What an HTTP status is called."""
    return HTTPStatus(code).phrase
