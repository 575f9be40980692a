"""Approvals: what waits for whose signature; requests to sign elsewhere; signed files on their way into the log."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import File, HTTPException, Path, Query, Request, Response, UploadFile
from fastapi.responses import RedirectResponse, StreamingResponse

from fedseal.errors import ConfigError, PolicyRefused
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import attached, evidence_of, names_for, opened, sentence, show_evidence
from fedseal.server.console.context import console_of
from fedseal.server.console.evidence.approving import (
    LARGEST_FILE,
    ApprovalsPage,
    accept,
    bundle_files,
    read_approvals,
    request_for,
)
from fedseal.server.console.evidence.place import View
from fedseal.server.console.permissions import APPROVALS, BUNDLE_FILES

router = page_router(APPROVALS)
files = page_router(BUNDLE_FILES)
Text = Annotated[str, Query(max_length=100)]


@dataclass(frozen=True, slots=True)
class ApprovalsFacts:
    """What the page says. ``done``: the entry that a signature has just become; ``refused``: why one did not."""

    found: ApprovalsPage
    may_sign: bool
    done: int | None
    refused: str


@router.get("/approvals")
def approvals(
    request: Request, visitor: Admitted, done: Annotated[int | None, Query(ge=0, lt=1 << 40)] = None
) -> Response:
    """The page."""
    return _page(request, visitor, done, "")


@router.get("/approvals/request")
def ask(request: Request, bundle: Text, alias: Text, meaning: Text, person: Text, role: Text) -> Response:
    """What somebody is asked to sign: the file for `fedseal model sign`."""
    with opened(request) as view:
        try:
            asked = request_for(view, bundle, alias, meaning, person, role)
        except PolicyRefused as error:
            raise HTTPException(409, sentence(error)) from None
    name = f"request-{asked.body.alias.value}-{asked.body.meaning.value}-{asked.seq}.json"
    return attached(asked.model_dump_json(indent=2).encode("utf-8") + b"\n", name, "application/json")


@router.post("/approvals")
def take(request: Request, visitor: Admitted, signed: Annotated[UploadFile, File()]) -> Response:
    """Append a signed file to the log, if it counts; else the page, with the reason."""
    raw = signed.file.read(LARGEST_FILE + 1)
    roles = frozenset(role.value for role in visitor.user.roles)
    try:
        accepted = accept(evidence_of(request), raw, roles)
    except (ConfigError, PolicyRefused) as error:
        console_of(request).users.record(visitor.user.name, APPROVALS.title, request.url.path, "denied: not taken")
        return _page(request, visitor, None, sentence(error), 422)
    return RedirectResponse(f"/approvals?done={accepted.index}", 303)


@files.get("/bundle-files/{digest}")
def bundle(request: Request, digest: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$")]) -> Response:
    """A bundle's four files, for whoever signs it."""
    with opened(request) as view:
        name, pieces = bundle_files(evidence_of(request), view, digest)
    headers = {"content-disposition": f'attachment; filename="bundle-{name}.zip"'}
    return StreamingResponse(pieces, media_type="application/zip", headers=headers)


def _page(request: Request, visitor: Admitted, done: int | None, refused: str, status: int = 200) -> Response:
    evidence = evidence_of(request)

    def read(view: View) -> ApprovalsFacts:
        found = read_approvals(view, evidence.asked(), names_for(request, visitor))
        return ApprovalsFacts(found, visitor.writes(APPROVALS), done, refused)

    answer = show_evidence(request, visitor, APPROVALS, "approvals.html", read)
    answer.status_code = status
    return answer
