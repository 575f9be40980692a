"""A report: a template's items answered from a log, every answer with its entries, every gap named."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from fedseal.compliance.reports.derived import DERIVED
from fedseal.compliance.reports.documents import Documents
from fedseal.compliance.reports.history import Entry, History
from fedseal.compliance.reports.template import Fact, Item, Template
from fedseal.compliance.reports.values import Value, values_of


class State(Enum):
    """How a fact or an item stands. NONE: the log has no such entry, and that is no gap."""

    RECORDED = "recorded"
    DOCUMENT = "document, not in the log"
    PARTLY = "in part"
    NONE = "none in this log"
    MISSING = "NOT RECORDED"


@dataclass(frozen=True, slots=True)
class Answer:
    """What can be said for one fact."""

    label: str
    state: State
    values: tuple[Value, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """An item with its answers."""

    item: Item
    answers: tuple[Answer, ...]

    @property
    def state(self) -> State:
        """MISSING if every answer is, RECORDED if none is."""
        missing = sum(answer.state is State.MISSING for answer in self.answers)
        if missing == 0:
            return State.RECORDED
        given = any(a.state in (State.RECORDED, State.DOCUMENT) for a in self.answers)
        return State.PARTLY if given else State.MISSING


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that a page or a file says."""

    template: Template
    model: str
    items: tuple[Answered, ...]
    entries: tuple[Entry, ...]

    @property
    def answers(self) -> Iterator[Answer]:
        """All of them."""
        return (answer for item in self.items for answer in item.answers)

    def count(self, state: State) -> int:
        """How many facts stand so."""
        return sum(answer.state is state for answer in self.answers)

    def items_in(self, state: State) -> int:
        """How many items stand so."""
        return sum(item.state is state for item in self.items)

    @property
    def completeness(self) -> float:
        """The part of the facts asked for that is not missing, from 0 to 1."""
        total = sum(1 for _ in self.answers)
        return 1 - self.count(State.MISSING) / total if total else 1.0

    @property
    def percent(self) -> int:
        """The same in percent, rounded down: nothing that lacks something is shown as 100."""
        total = sum(1 for _ in self.answers)
        return 100 * (total - self.count(State.MISSING)) // total if total else 100

    @property
    def complete(self) -> bool:
        """Whether no fact of a mandatory item is missing."""
        return not any(
            answer.state is State.MISSING for item in self.items if item.item.mandatory for answer in item.answers
        )


def make_report(template: Template, history: History, documents: Documents) -> Report:
    """Answer a template from a log."""
    logged = _logged(history)
    items = tuple(
        Answered(item, tuple(_answer(fact, history, documents, logged) for fact in item.fact)) for item in template.item
    )
    named = {index for item in items for answer in item.answers for value in answer.values for index in value.entries}
    entries = tuple(entry for entry in history.entries if entry.index in named)
    return Report(template, history.model, items, entries)


def document_keys(template: Template) -> frozenset[str]:
    """The documents that a template asks for."""
    return frozenset(fact.document for item in template.item for fact in item.fact if fact.document)


def _answer(fact: Fact, history: History, documents: Documents, logged: dict[str, list[int]]) -> Answer:
    if fact.document:
        return _document(fact, documents, logged)
    values = DERIVED[fact.derive](history) if fact.derive else values_of(fact, history.of(fact.event, fact.scope))
    if values:
        return Answer(fact.label, State.RECORDED, tuple(values))
    if fact.none and history.knows(fact.scope if fact.event else "runs"):
        return Answer(fact.label, State.NONE, note=fact.none)
    return Answer(fact.label, State.MISSING)


def _document(fact: Fact, documents: Documents, logged: dict[str, list[int]]) -> Answer:
    named = documents.document.get(fact.document)
    if named is None:
        return Answer(fact.label, State.MISSING)
    entries = tuple(logged.get(named.sha256, ()))
    state = State.RECORDED if entries else State.DOCUMENT
    return Answer(fact.label, state, (Value(f"{named.title}: sha256:{named.sha256}", entries),))


def _logged(history: History) -> dict[str, list[int]]:
    """Every SHA-256 that stands in a body, by its hex digits, with the entries it stands in."""
    found: dict[str, list[int]] = {}
    for entry in history.entries:
        for value in set(_digests(entry.body.model_dump(mode="json"))):
            found.setdefault(value.removeprefix("sha256:"), []).append(entry.index)
    return found


def _digests(value: object) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("sha256:"):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _digests(one)
    elif isinstance(value, list):
        for one in value:
            yield from _digests(one)
