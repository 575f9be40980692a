"""A report as one self-contained page without scripts, and as JSON."""

import re
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from fedseal.compliance.audit.verify import Verdict
from fedseal.compliance.reports.report import Answer, Report, State

_DIGEST = re.compile(r"(?:sha256|hmac):[0-9a-f]{64}|act_[0-9a-f]{32}|\b[0-9a-f]{32}\b")
# So many references stand beside a statement; the others open below it.
SHOWN = 4


def render(report: Report, verdict: Verdict, *, made: str, own_word: bool = False) -> str:
    """The page.

    Args:
        report: what it says.
        verdict: what a check of the log found, just before.
        made: when, as text.
        own_word: whether the copy of the log itself has said whose signatures count.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["digests"] = digests
    return environment.get_template("report.html.j2").render(
        report=report,
        template=report.template,
        verdict=verdict,
        made=made,
        own_word=own_word,
        State=State,
        shown=SHOWN,
        percent=report.percent,
    )


def digests(text: str) -> Markup:
    """A text, escaped, whose digests are set in a type in which they can be compared."""
    parts, end = [], 0
    for found in _DIGEST.finditer(text):
        parts += [escape(text[end : found.start()]), Markup("<code>"), escape(found[0]), Markup("</code>")]
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


def as_json(report: Report, verdict: Verdict, *, made: str, own_word: bool = False) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "version": 1,
        "report": report.template.name,
        "source": report.template.source,
        "status": report.template.status,
        "model": report.model,
        "made": made,
        "log": {
            "origin": verdict.origin,
            "entries": verdict.size,
            "root": verdict.root.hex(),
            "cosigned": list(verdict.cosigned),
            "witnesses": verdict.witnesses,
            "final": verdict.final,
            "policy_of_the_copy": own_word,
        },
        "completeness": round(report.completeness, 4),
        "complete": report.complete,
        "items": [
            {
                "number": one.item.number,
                "title": one.item.title,
                "mandatory": one.item.mandatory,
                "state": one.state.value,
                "facts": [_fact(answer) for answer in one.answers],
            }
            for one in report.items
        ],
        "entries": [
            {
                "index": entry.index,
                "type": entry.event.kind.name,
                "org": entry.event.org,
                "actor": entry.event.actor,
                "time": entry.event.time,
                "leaf_hash": entry.leaf_hash.hex(),
            }
            for entry in report.entries
        ],
    }


def _fact(answer: Answer) -> dict[str, Any]:
    values = [{"text": value.text, "entries": list(value.entries)} for value in answer.values]
    return {"label": answer.label, "state": answer.state.value, "values": values, "note": answer.note}
