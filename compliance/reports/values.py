"""What a field of an entry says, in words; and which entries say the same."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedseal.compliance.data.facts import LegalBasis
from fedseal.compliance.events.bodies import Package, PlanValue
from fedseal.compliance.events.subjects import Measure
from fedseal.compliance.reports.history import Entry
from fedseal.compliance.reports.template import Fact


@dataclass(frozen=True, slots=True)
class Value:
    """A statement, and the entries that it rests on."""

    text: str
    entries: tuple[int, ...]


def values_of(fact: Fact, entries: Iterable[Entry]) -> list[Value]:
    """What entries say for a fact: each different statement once, with all entries that make it."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        parts = [text for name in fact.fields if (text := _part(entry, name)) != ""]
        if parts:
            said = ", ".join(parts)
            found.setdefault(f"{entry.event.org}: {said}" if fact.by_org else said, []).append(entry.index)
    return [Value(text, tuple(indices)) for text, indices in found.items()]


def words(value: Any) -> str:
    """A value for people; empty where nothing is said."""
    match value:
        case None | () | "":
            return ""
        case bool():
            return "yes" if value else "no"
        case LegalBasis():
            article, paragraph, letter = value.value.split("-")
            return f"GDPR {article}({paragraph})({letter})"
        case StrEnum():
            return value.value
        case PlanValue():
            return f"{value.name} {value.value}"
        case Package():
            return f"{value.name} {value.version}"
        case Measure():
            return f"{value.name} {value.value}" + ("" if value.margin == "0" else f" ± {value.margin}")
        case tuple():
            return ", ".join(words(one) for one in value)
    return str(value)


def _part(entry: Entry, spec: str) -> str:
    """A field's words; ``limit:at least`` is the field ``limit``, with "at least" before it."""
    name, _, before = spec.partition(":")
    text = words(_field(entry, name))
    return f"{before} {text}" if before and text else text


def _field(entry: Entry, name: str) -> Any:
    match name:
        case "@org":
            return entry.event.org
        case "@actor":
            return entry.event.actor
        case "@time":
            return f"{entry.event.time[:19].replace('T', ' ')} UTC"
    value: Any = entry.body
    for part in name.split("."):
        value = getattr(value, part)
    return value
