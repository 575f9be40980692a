"""What the registry holds, read off the federation's log and nothing else: a pure replay of its events.

An event counts if its author may say it and it fits what stands before it. A promotion counts if the gates and
approvals that it names are there, were given for this bundle and alias, and passed; so an alias cannot be moved by
writing into a database, and a mirror replays to the same aliases as the server's log.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal as Number
from enum import StrEnum

from fedseal.compliance.events.bodies import Genesis, PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import Alias, GateKind
from fedseal.compliance.events.leaf import Event
from fedseal.compliance.events.subjects import (
    Correction,
    Evaluated,
    GateChecked,
    ModelRegistered,
    ModelStatus,
    Promoted,
    RolledBack,
    Signature,
)
from fedseal.compliance.registry.entries import Entry, names_of
from fedseal.compliance.registry.people import Approval, Parties, People, Person

SUSPENDED, RETIRED = "model.suspended/v1", "model.retired/v1"
TYPES = (
    *names_of(Genesis, PersonAdded, PersonRemoved, ModelRegistered, Evaluated, Signature, GateChecked),
    *names_of(Promoted, RolledBack, Correction),
    SUSPENDED,
    RETIRED,
)


class Status(StrEnum):
    """Whether a model may be used."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Registration:
    """A registered bundle. ``run`` is the run that made the model, in hex."""

    index: int
    model: str
    bundle: str
    body: ModelRegistered
    run: str | None


@dataclass(frozen=True, slots=True)
class Binding:
    """What an alias points to since the entry at ``index``."""

    model: str
    bundle: str
    index: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation that counts: signed by the server or a site, and not taken back."""

    index: int
    by_server: bool
    body: Evaluated


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry that counts for nothing, and why."""

    index: int
    type: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """The registry after the last entry.

    ``stacks`` holds for each alias the bundles that a rollback goes back through, the current one last; ``held``
    everything that it ever pointed to. ``owners`` says whose a key is or was.
    """

    simulated: bool
    registered: Mapping[str, Registration]
    aliases: Mapping[Alias, Binding]
    stacks: Mapping[Alias, tuple[Binding, ...]]
    held: Mapping[Alias, tuple[Binding, ...]]
    statuses: Mapping[str, Status]
    persons: Mapping[str, Person]
    owners: Mapping[bytes, str]
    approvals: tuple[Approval, ...]
    evaluations: tuple[Evaluation, ...]
    gates: Mapping[int, GateChecked]
    refused: tuple[Refused, ...]

    def status(self, model: str) -> Status:
        """Whether a model may be used."""
        return self.statuses.get(model, Status.ACTIVE)


def replay(entries: Iterable[Entry], parties: Parties) -> State:
    """The registry that a log's entries of `TYPES` make, from the log's first on."""
    replayed = _Replay(People(parties))
    for entry in entries:
        reason = replayed.take(entry)
        if reason is not None:
            replayed.refused.append(Refused(entry.index, entry.event.kind.name, reason))
    return replayed.state()


@dataclass(slots=True)
class _Replay:
    """The registry while a log is read."""

    people: People
    simulated: bool = False
    registered: dict[str, Registration] = field(default_factory=dict)
    stacks: dict[Alias, list[Binding]] = field(default_factory=dict)
    held: dict[Alias, list[Binding]] = field(default_factory=dict)
    suspensions: dict[int, tuple[Event, str]] = field(default_factory=dict)
    retired: set[str] = field(default_factory=set)
    evaluations: dict[int, tuple[Event, Evaluation]] = field(default_factory=dict)
    gates: dict[int, GateChecked] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)

    def take(self, entry: Entry) -> str | None:
        """Read one entry; why it counts for nothing, or None."""
        event, body = entry.event, entry.event.body
        if isinstance(body, PersonAdded | PersonRemoved | Signature):
            return self.people.take(entry)
        if not self.people.parties.signed(event):
            return "not signed by the organisation that it names"
        match body:
            case Evaluated():
                by_server = self.people.parties.by_server(event)
                self.evaluations[entry.index] = (event, Evaluation(entry.index, by_server, body))
                return None
            case Correction():
                return self._correct(body, event)
        if not self.people.parties.by_server(event):
            return "not signed by the server"
        return self._of_server(entry)

    def _of_server(self, entry: Entry) -> str | None:
        body, event = entry.event.body, entry.event
        match body:
            case Genesis():
                self.simulated = body.simulated
            case ModelRegistered() if body.bundle is not None:
                registration = Registration(entry.index, body.model, body.bundle, body, event.run)
                self.registered.setdefault(body.bundle, registration)
            case GateChecked() if body.passed and not _consistent(body):
                return "a gate that was passed by other numbers than it says"
            case GateChecked():
                self.gates[entry.index] = body
            case ModelStatus() if event.kind.name == RETIRED:
                self.retired.add(body.model)
            case ModelStatus():
                self.suspensions[entry.index] = (event, body.model)
            case Promoted():
                return self._promote(body, entry.index)
            case RolledBack():
                return self._roll_back(body, entry.index)
        return None

    def _correct(self, body: Correction, event: Event) -> str | None:
        """Only an evaluation or a suspension can be taken back, and only by whoever said it."""
        found = self.evaluations.get(body.index) or self.suspensions.get(body.index)
        if found is None:
            return None
        if found[0].org != event.org:
            return "a correction of another organisation's entry"
        self.evaluations.pop(body.index, None)
        self.suspensions.pop(body.index, None)
        return None

    def _promote(self, body: Promoted, index: int) -> str | None:
        reason = self._movable(body.alias, body.model, body.bundle, body.replaces)
        if reason is not None:
            return reason
        if not body.gates:
            return "a promotion without gates"
        aim = (body.model, body.bundle, body.alias)
        for gate in (self.gates.get(i) for i in body.gates):
            if gate is None or not gate.passed or (gate.model, gate.bundle, gate.alias) != aim:
                return "a promotion by a gate that was not passed for it"
        for approval in (self.people.approvals.get(i) for i in body.approvals):
            if approval is None or (approval.model, approval.bundle, approval.alias) != aim:
                return "a promotion by a signature that was not given for it"
            if not self.people.stands(approval):
                return "a promotion by the signature of a person who was removed"
        self._bind(body.alias, Binding(body.model, str(body.bundle), index))
        return None

    def _roll_back(self, body: RolledBack, index: int) -> str | None:
        reason = self._movable(body.alias, body.model, body.bundle, body.replaces)
        if reason is not None:
            return reason
        if body.bundle not in {binding.bundle for binding in self.held.get(body.alias, [])}:
            return "a rollback to a bundle that the alias never pointed to"
        stack = self.stacks[body.alias]
        places = [i for i, binding in enumerate(stack) if binding.bundle == body.bundle]
        # Whatever was promoted after it is no longer something to go back to.
        del stack[places[-1] if places else len(stack) :]
        self._bind(body.alias, Binding(body.model, str(body.bundle), index))
        return None

    def _movable(self, alias: Alias, model: str, bundle: str | None, replaces: str | None) -> str | None:
        registration = self.registered.get(bundle or "")
        if registration is None or registration.model != model:
            return "a bundle that was not registered with this model"
        if self._status(model) is not Status.ACTIVE:
            return f"a model that is {self._status(model)}"
        stack = self.stacks.get(alias)
        if replaces != (stack[-1].model if stack else None):
            return "an alias that pointed elsewhere than it says"
        return None

    def _bind(self, alias: Alias, binding: Binding) -> None:
        self.stacks.setdefault(alias, []).append(binding)
        self.held.setdefault(alias, []).append(binding)

    def _status(self, model: str) -> Status:
        if model in self.retired:
            return Status.RETIRED
        suspended = any(named == model for _, named in self.suspensions.values())
        return Status.SUSPENDED if suspended else Status.ACTIVE

    def state(self) -> State:
        """What was read."""
        models = self.retired | {model for _, model in self.suspensions.values()}
        return State(
            simulated=self.simulated,
            registered=dict(self.registered),
            aliases={alias: stack[-1] for alias, stack in self.stacks.items()},
            stacks={alias: tuple(stack) for alias, stack in self.stacks.items()},
            held={alias: tuple(bindings) for alias, bindings in self.held.items()},
            statuses={model: self._status(model) for model in models},
            persons=dict(self.people.known),
            owners=dict(self.people.owners),
            approvals=tuple(a for a in self.people.approvals.values() if self.people.stands(a)),
            evaluations=tuple(evaluation for _, evaluation in self.evaluations.values()),
            gates=dict(self.gates),
            refused=tuple(self.refused),
        )


def _consistent(body: GateChecked) -> bool:
    """Whether the numbers of a gate that was passed let it be."""
    if body.found is None or body.limit is None:
        return False
    found, limit = Number(body.found), Number(body.limit)
    return found <= limit if body.gate is GateKind.EPSILON else found >= limit
