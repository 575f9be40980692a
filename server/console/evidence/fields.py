"""The fields of an entry's body, one row each, with where a page tells more of what they name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from fedseal.compliance.events.leaf import ENTITIES
from fedseal.config import Frozen

# Fields that hold indices of entries.
_ENTRIES = frozenset({"index", "by", "approvals", "gates", "first"})
# Of what a field names, what the lineage knows.
_THINGS = frozenset(ENTITIES) - {"aggregate", "request", "bundle"}
_EXACT = re.compile(r"(sha256|hmac):[0-9a-f]{64}|act_[0-9a-f]{32}|([0-9a-f]{2}){8,}")


@dataclass(frozen=True, slots=True)
class Field:
    """One row. ``href``: a page about the value, or empty; ``exact``: a value that is compared digit by digit."""

    name: str
    value: str
    href: str = ""
    exact: bool = False


def entry_page(index: int) -> str:
    """Where an entry's page is."""
    return f"/log/{index}"


def thing_page(name: str) -> str:
    """Where a thing's lineage is, by its digest or commitment."""
    return f"/lineage?thing={quote(name, safe='')}"


def lineage_page(model: str) -> str:
    """Where a model's lineage is."""
    return f"/lineage/model?model={quote(model, safe='')}"


def bundle_page(digest: str) -> str:
    """Where a bundle's page is."""
    return f"/models/{digest.removeprefix('sha256:')}"


def run_entries(run: str) -> str:
    """Where a run's entries are listed."""
    return f"/log?run={quote(run, safe='')}"


def fields_of(body: Frozen, before: str = "") -> Iterator[Field]:
    """The rows of a body: what is inside of a field stands in rows of its own, numbered where there are several."""
    for name in type(body).model_fields:
        value: object = getattr(body, name)
        shown = f"{before}{name.replace('_', ' ')}"
        if isinstance(value, tuple):
            if not value:
                yield Field(shown, "none")
            for number, one in enumerate(value, start=1):
                yield from _rows(name, one, f"{shown} {number}" if len(value) > 1 else shown)
        else:
            yield from _rows(name, value, shown)


def _rows(name: str, value: object, shown: str) -> Iterator[Field]:
    if isinstance(value, Frozen):
        yield from fields_of(value, f"{shown}: ")
        return
    text = _text(value)
    href = ""
    if name in _ENTRIES and isinstance(value, int):
        href = entry_page(value)
    elif name in _THINGS and isinstance(value, str):
        href = thing_page(value)
    elif name == "bundle" and isinstance(value, str):
        href = bundle_page(value)
    yield Field(shown, text, href, _EXACT.fullmatch(text) is not None)


def _text(value: object) -> str:
    if value is None:
        return "not stated"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value.value if isinstance(value, StrEnum) else str(value)
