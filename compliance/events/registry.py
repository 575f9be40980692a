"""The closed registry of events: a type's name, the form of its body, who may sign it, in which log it may stand.

A new fact is a new entry here. A type carries the version of its form; another form is another version.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from types import MappingProxyType

from fedseal.compliance.events import bodies, monitoring, subjects
from fedseal.config import Frozen


class Author(Enum):
    """Whose key signs an event."""

    SERVER = auto()
    SITE = auto()
    PERSON = auto()


class Book(Enum):
    """Which log an event may stand in."""

    FEDERATION = auto()
    SITE = auto()


@dataclass(frozen=True, slots=True)
class EventType:
    """An entry of the registry. ``name`` ends in the version of the body's form."""

    name: str
    body: type[Frozen]
    authors: frozenset[Author]
    books: frozenset[Book]


_SERVER, _SITE, _PERSON = frozenset({Author.SERVER}), frozenset({Author.SITE}), frozenset({Author.PERSON})
_PARTY, _ANYONE = _SERVER | _SITE, _SERVER | _SITE | _PERSON
_SHARED, _OWN, _BOTH = frozenset({Book.FEDERATION}), frozenset({Book.SITE}), frozenset(Book)

_TYPES = (
    EventType("log.genesis/v1", bodies.Genesis, _PARTY, _BOTH),
    EventType("log.policy_changed/v1", bodies.PolicyChanged, _SERVER, _SHARED),
    EventType("log.successor/v1", bodies.Successor, _PARTY, _BOTH),
    EventType("log.shared/v1", subjects.Shared, _SITE, _OWN),
    EventType("party.joined/v1", bodies.Joined, _SITE, _SHARED),
    EventType("party.left/v1", bodies.Left, _SITE, _SHARED),
    EventType("actor.added/v1", bodies.PersonAdded, _PARTY, _BOTH),
    EventType("actor.removed/v1", bodies.PersonRemoved, _PARTY, _BOTH),
    EventType("anchor.foreign/v1", bodies.ForeignAnchor, _PARTY, _BOTH),
    EventType("code.registered/v1", bodies.CodeRegistered, _PARTY, _BOTH),
    EventType("env.recorded/v1", bodies.EnvironmentRecorded, _PARTY, _BOTH),
    EventType("dataset.registered/v1", subjects.DatasetRegistered, _SITE, _SHARED),
    EventType("dataset.superseded/v1", subjects.DatasetSuperseded, _SITE, _SHARED),
    EventType("dataset.withdrawn/v1", subjects.DatasetWithdrawn, _SITE, _SHARED),
    EventType("dataset.details/v1", subjects.DatasetDetails, _SITE, _OWN),
    EventType("data.accessed/v1", bodies.Access, _SITE, _OWN),
    EventType("data.shredded/v1", bodies.Shredded, _SITE, _OWN),
    EventType("label.guideline/v1", subjects.Guideline, _SITE, _SHARED),
    EventType("label.set/v1", subjects.LabelSetRegistered, _SITE, _SHARED),
    EventType("label.corrected/v1", subjects.LabelSetCorrected, _SITE, _SHARED),
    EventType("label.details/v1", subjects.LabelSetDetails, _SITE, _OWN),
    EventType("run.created/v1", bodies.RunCreated, _SERVER, _SHARED),
    EventType("run.accepted/v1", bodies.RunAccepted, _SITE, _SHARED),
    EventType("policy.set/v1", bodies.PolicySet, _SITE, _BOTH),
    EventType("run.refused/v1", bodies.RunRefused, _SITE, _BOTH),
    EventType("outbox.decided/v1", bodies.OutboxDecided, _SITE, _OWN),
    EventType("run.finished/v1", bodies.RunFinished, _SERVER, _SHARED),
    EventType("run.aborted/v1", bodies.RunAborted, _SERVER, _SHARED),
    EventType("round.contributed/v1", bodies.Contributed, _SITE, _SHARED),
    EventType("round.dropped/v1", bodies.Dropped, _SERVER, _SHARED),
    EventType("round.aggregated/v1", bodies.Aggregated, _SERVER, _SHARED),
    EventType("dp.budget_set/v1", bodies.BudgetSet, _SITE, _SHARED),
    EventType("dp.spent/v1", bodies.Charged, _SITE, _SHARED),
    EventType("model.registered/v1", subjects.ModelRegistered, _SERVER, _SHARED),
    EventType("eval.recorded/v1", subjects.Evaluated, _SERVER, _SHARED),
    EventType("gate.checked/v1", subjects.GateChecked, _SERVER, _SHARED),
    EventType("model.approved/v1", subjects.Signature, _PERSON, _SHARED),
    EventType("model.promoted/v1", subjects.Promoted, _SERVER, _SHARED),
    EventType("model.rolled_back/v1", subjects.RolledBack, _SERVER, _SHARED),
    EventType("model.suspended/v1", subjects.ModelStatus, _SERVER, _SHARED),
    EventType("model.retired/v1", subjects.ModelStatus, _SERVER, _SHARED),
    EventType("monitor.policy_set/v1", monitoring.MonitorPolicySet, _SERVER, _SHARED),
    EventType("monitor.evaluated/v1", monitoring.WindowEvaluated, _SERVER, _SHARED),
    EventType("monitor.decided/v1", monitoring.MonitorDecided, _SERVER, _SHARED),
    EventType("monitor.compared/v1", monitoring.ShadowCompared, _SERVER, _SHARED),
    EventType("subject_request.received/v1", subjects.RequestReceived, _SITE, _BOTH),
    EventType("subject_request.assessed/v1", subjects.RequestAssessed, _SITE, _BOTH),
    EventType("subject_request.closed/v1", subjects.RequestClosed, _SITE, _BOTH),
    EventType("incident.recorded/v1", subjects.Incident, _PARTY, _BOTH),
    EventType("audit.reviewed/v1", subjects.Reviewed, _ANYONE, _BOTH),
    EventType("audit.exported/v1", subjects.Exported, _PARTY, _BOTH),
    EventType("correction/v1", subjects.Correction, _PARTY, _BOTH),
    EventType("redaction/v1", subjects.Redaction, _PARTY, _BOTH),
)
EVENTS: Mapping[str, EventType] = MappingProxyType({kind.name: kind for kind in _TYPES})
# A form may serve two types: the caller then says which.
_BY_BODY = {kind.body: kind for kind in reversed(_TYPES)}


def type_of(body: Frozen) -> EventType:
    """The first entry of the registry whose bodies have this form; KeyError if there is none."""
    return type_of_form(type(body))


def type_of_form(form: type[Frozen]) -> EventType:
    """The first entry of the registry with this form; KeyError if there is none."""
    return _BY_BODY[form]
