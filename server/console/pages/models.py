"""Models: what is registered, where aliases point, and a bundle with its figures, gates, signatures and history."""

from typing import Annotated

from fastapi import Path, Request, Response

from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import evidence_of, names_for, show_evidence
from fedseal.server.console.evidence.models import BundlePage, ModelsPage, read_bundle_page, read_models
from fedseal.server.console.evidence.place import View
from fedseal.server.console.permissions import MODELS

router = page_router(MODELS)


@router.get("/models")
def models(request: Request, visitor: Admitted) -> Response:
    """All aliases and bundles."""
    evidence = evidence_of(request)

    def read(view: View) -> ModelsPage:
        return read_models(view, evidence.asked())

    return show_evidence(request, visitor, MODELS, "models.html", read)


@router.get("/models/{digest}")
def bundle(request: Request, visitor: Admitted, digest: Annotated[str, Path(pattern=r"^[0-9a-f]{6,64}$")]) -> Response:
    """One bundle."""
    evidence = evidence_of(request)

    def read(view: View) -> BundlePage:
        return read_bundle_page(evidence, view, digest, evidence.asked(), names_for(request, visitor))

    return show_evidence(request, visitor, MODELS, "bundle.html", read)
