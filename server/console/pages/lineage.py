"""Lineage: what made a model, what a thing has reached, two models side by side."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Query, Request, Response

from fedseal.compliance.lineage.answers import Difference
from fedseal.errors import ConfigError
from fedseal.server.console.admission import Admitted, page_router
from fedseal.server.console.asking import evidence_of, sentence, show_evidence
from fedseal.server.console.evidence.lineages import ImpactPage, LineagePage, read_impact, read_lineage
from fedseal.server.console.evidence.models import BundleLine, read_models
from fedseal.server.console.evidence.place import View
from fedseal.server.console.permissions import LINEAGE

router = page_router(LINEAGE)
Text = Annotated[str, Query(max_length=200)]


@dataclass(frozen=True, slots=True)
class LineageFacts:
    """What the first page says: what there is to ask, and the answer about a thing, or why there is none."""

    bundles: tuple[BundleLine, ...]
    thing: str
    impact: ImpactPage | None
    wrong: str


@dataclass(frozen=True, slots=True)
class DifferenceFacts:
    """Two models side by side, or why not."""

    first: str
    second: str
    found: Difference | None
    wrong: str


@router.get("/lineage")
def things(request: Request, visitor: Admitted, thing: Text = "") -> Response:
    """What to ask, and what a thing has reached."""
    evidence = evidence_of(request)

    def read(view: View) -> LineageFacts:
        bundles, asked = read_models(view, None).bundles, thing.strip()
        if not asked:
            return LineageFacts(bundles, "", None, "")
        try:
            with evidence.questions() as questions:
                return LineageFacts(bundles, asked, read_impact(questions, asked), "")
        except ConfigError as error:
            return LineageFacts(bundles, asked, None, sentence(error))

    return show_evidence(request, visitor, LINEAGE, "lineage.html", read)


@router.get("/lineage/model")
def model(request: Request, visitor: Admitted, model: Text, run: Text = "", apart: Text = "") -> Response:
    """What made a model, as a picture and as tables."""
    evidence = evidence_of(request)

    def read(view: View) -> LineagePage:
        with evidence.questions() as questions:
            return read_lineage(questions, view, model.strip(), run=run, apart=apart == "yes")

    return show_evidence(request, visitor, LINEAGE, "lineage_model.html", read)


@router.get("/lineage/difference")
def difference(request: Request, visitor: Admitted, first: Text = "", second: Text = "") -> Response:
    """What two models were made of, side by side."""
    evidence = evidence_of(request)

    def read(view: View) -> DifferenceFacts:
        try:
            with evidence.questions() as questions:
                return DifferenceFacts(first, second, questions.diff(first.strip(), second.strip()), "")
        except ConfigError as error:
            return DifferenceFacts(first, second, None, sentence(error))

    return show_evidence(request, visitor, LINEAGE, "difference.html", read)
