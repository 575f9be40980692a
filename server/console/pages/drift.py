"""Drift alarms: watched models, window by window, and whether every decision follows from the log."""

from fastapi import Request, Response

from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import show_evidence
from fedseal.server.console.evidence.drift import read_drift
from fedseal.server.console.permissions import DRIFT

router = page_router(DRIFT)


@router.get("/drift")
def drift(request: Request, visitor: Admitted) -> Response:
    """The page."""
    return show_evidence(request, visitor, DRIFT, "drift.html", read_drift)
