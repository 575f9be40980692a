"""The federation's log: its entries, what proves each, who has witnessed it, and copies to check elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from fedseal.compliance.events.fields import public_name
from fedseal.compliance.events.leaf import SERVER_ORG
from fedseal.compliance.events.registry import EVENTS, Book
from fedseal.errors import ConfigError
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import attached, evidence_of, opened, sentence, show_evidence
from fedseal.server.console.evidence.logs import (
    EntryPage,
    LogList,
    Wanted,
    leaf_and_proof,
    list_entries,
    read_entry,
)
from fedseal.server.console.evidence.place import Evidence, View
from fedseal.server.console.evidence.witnessed import (
    CheckpointPage,
    Extension,
    copy_of,
    extends,
    policy_text,
    read_checkpoint_page,
)
from fedseal.server.console.evidence.words import title
from fedseal.server.console.permissions import LOG

router = page_router(LOG)
Index = Annotated[int, Path(ge=0, lt=1 << 40)]
Text = Annotated[str, Query(max_length=200)]
# What may stand in the federation's log, for the list to be narrowed down to.
TYPES = tuple(
    sorted((kind.name.partition("/")[0], title(kind.name)) for kind in EVENTS.values() if Book.FEDERATION in kind.books)
)


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What the list says. ``orgs`` and ``types`` are what it can be narrowed down to."""

    found: LogList
    wanted: Wanted
    orgs: tuple[str, ...]
    types: tuple[tuple[str, str], ...]
    newest: bool


@dataclass(frozen=True, slots=True)
class CheckpointFacts:
    """What the page of a checkpoint says. ``asked``: whether somebody asked if the log extends a state of it."""

    checkpoint: CheckpointPage
    size: str
    root: str
    asked: bool
    extension: Extension | None
    wrong: str


@router.get("/log")
def entries(
    request: Request,
    visitor: Admitted,
    type: Text = "",  # noqa: A002 - the name in the address
    org: Text = "",
    run: Text = "",
    before: Annotated[int | None, Query(ge=0, lt=1 << 40)] = None,
) -> Response:
    """The list."""
    wanted = Wanted(type, org, run.strip())

    def read(view: View) -> LogFacts:
        orgs = (SERVER_ORG, *(public_name(site.name) for site in view.roster.sites))
        return LogFacts(list_entries(view, wanted, before), wanted, orgs, TYPES, before is None)

    return show_evidence(request, visitor, LOG, "log.html", read)


@router.get("/log/checkpoint")
def checkpoint(
    request: Request,
    visitor: Admitted,
    at: Annotated[int | None, Query(ge=0, lt=1 << 40)] = None,
    size: Text = "",
    root: Text = "",
) -> Response:
    """A checkpoint, its witnesses, and whether the log extends a state that somebody noted."""

    def read(view: View) -> CheckpointFacts:
        found, wrong, extension = read_checkpoint_page(view, at), "", None
        asked = bool(size.strip() or root.strip())
        if asked:
            try:
                extension = extends(view, size, root)
            except ConfigError as error:
                wrong = sentence(error)
        return CheckpointFacts(found, size, root, asked, extension, wrong)

    return show_evidence(request, visitor, LOG, "checkpoint.html", read)


@router.get("/log/checkpoint.note")
def note(request: Request, at: Annotated[int | None, Query(ge=0, lt=1 << 40)] = None) -> Response:
    """A checkpoint as it stands, to keep."""
    with opened(request) as view:
        found = read_checkpoint_page(view, at)
    return attached(found.note.encode("utf-8"), f"checkpoint-{found.size}.note")


@router.get("/log/policy.txt")
def policy(request: Request) -> Response:
    """Whose signatures count: the keeper's own word, to be compared."""
    with opened(request) as view:
        found = policy_text(view)
    return attached(found.encode("utf-8", "surrogateescape"), "policy.txt")


@router.get("/log/copy.zip")
def copy(request: Request) -> Response:
    """The whole log as files."""
    evidence = evidence_of(request)
    with opened(request) as view:
        size = read_checkpoint_page(view).size
    headers = {"content-disposition": f'attachment; filename="log-{size}.zip"'}
    return StreamingResponse(_copied(evidence), media_type="application/zip", headers=headers)


@router.get("/log/{index}")
def entry(request: Request, visitor: Admitted, index: Index) -> Response:
    """One entry, and what proves it."""

    def read(view: View) -> EntryPage:
        return read_entry(view, index)

    return show_evidence(request, visitor, LOG, "entry.html", read)


@router.get("/log/{index}/entry.json")
def leaf(request: Request, index: Index) -> Response:
    """An entry, byte for byte."""
    with opened(request) as view:
        found = _leaf(view, index)
    return attached(found, f"{index}.json", "application/json")


@router.get("/log/{index}/proof")
def proof(request: Request, index: Index) -> Response:
    """The file that proves an entry without the log."""
    with opened(request) as view:
        _, found = leaf_and_proof(view, index)
    return attached(str(found).encode("utf-8"), f"{index}.tlog-proof")


def _leaf(view: View, index: int) -> bytes:
    if index >= view.log.size:
        raise HTTPException(404, f"The log has {view.log.size} entries, and none with the index {index}.")
    return view.log.leaf(index)


def _copied(evidence: Evidence) -> Iterator[bytes]:
    with evidence.opened() as view:
        yield from copy_of(view)
