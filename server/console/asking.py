"""How pages of evidence are read: where the evidence is, who may know names, and what is said where there is none."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request, Response

from fedseal.errors import ConfigError, FedsealError
from fedseal.server.console.admission import Admitted
from fedseal.server.console.context import Visitor, console_of
from fedseal.server.console.evidence.place import Evidence, NotBegun, View
from fedseal.server.console.permissions import INSIDERS, Page
from fedseal.server.console.view import show

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, slots=True)
class Nothing:
    """Why there is nothing to show yet, and what would make something appear."""

    text: str
    next_step: str


def evidence_of(request: Request) -> Evidence:
    """Where the log, the models and their rules are."""
    console = console_of(request)
    settings = console.settings
    home, store = settings.store.parent, str(settings.store)
    return Evidence(
        settings.store,
        settings.bundles or home / "bundles",
        settings.rules or home / "registry.toml",
        None if console.log == store else console.log,
    )


def names_for(request: Request, visitor: Visitor) -> Mapping[str, str]:
    """Who pseudonyms are, for those who work for the server's organisation; auditors and sites see pseudonyms only."""
    return evidence_of(request).names() if visitor.user.roles & INSIDERS else {}


@contextmanager
def opened(request: Request) -> Iterator[View]:
    """The log, to read; 404 where there is nothing of the name that was asked for."""
    try:
        with evidence_of(request).opened() as view:
            yield view
    except ConfigError as error:
        raise HTTPException(404, sentence(error)) from None


def show_evidence(
    request: Request, visitor: Admitted, page: Page, template: str, read: "Callable[[View], DataclassInstance]"
) -> Response:
    """A page that is read from the log: of one moment, and an empty one while the log has not begun.

    Raises:
        HTTPException: 404 where there is nothing of the name that was asked for.
    """
    try:
        with evidence_of(request).opened() as view:
            facts = read(view)
    except NotBegun as error:
        return show(request, visitor, page, "nothing.html", Nothing(error.message, error.next_step))
    except ConfigError as error:
        raise HTTPException(404, sentence(error)) from None
    return show(request, visitor, page, template, facts)


def sentence(error: FedsealError) -> str:
    """An error as one or two sentences of a page."""
    text = error.message[:1].upper() + error.message[1:]
    return f"{text.rstrip('.')}. {error.next_step}".rstrip()


def attached(content: bytes, name: str, kind: str = "application/octet-stream") -> Response:
    """A file to keep. ``name`` is of our own making: letters, digits, dots and dashes."""
    return Response(content, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})
