"""What an entry of the log means, for people: a title and a sentence for each type, a line for each entry."""

from collections.abc import Mapping
from types import MappingProxyType

from fedseal.compliance.events import bodies, monitoring, subjects
from fedseal.compliance.events.leaf import Event
from fedseal.compliance.registry.bundle import short

# By type without its version: a title, and what such an entry says.
MEANINGS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "log.genesis": ("Log begun", "Whose log this is, by which roster, and how many cosignatures make it final."),
        "log.policy_changed": ("Witnesses changed", "Another roster or another quorum holds from here on."),
        "log.successor": ("Log continued", "This log goes on where another one ended."),
        "log.shared": ("Entry shared", "In a site's own log: the site signed an entry for the federation's."),
        "party.joined": ("Site joined", "A site says that it takes part, under which number and key."),
        "party.left": ("Site left", "A site says that it takes part no more."),
        "actor.added": (
            "Person added",
            "An organisation gives a person a key and roles. The log has a pseudonym only.",
        ),
        "actor.removed": ("Person removed", "The person signs no more; signatures that led to nothing yet are void."),
        "anchor.foreign": ("Other log seen", "This log has seen that one at this size with this root."),
        "code.registered": ("Code registered", "A folder of code, by the digest of its files."),
        "env.recorded": ("Environment recorded", "The packages that a run's server ran on."),
        "dataset.registered": (
            "Dataset registered",
            "A version of a site's data, under a commitment only it can open.",
        ),
        "dataset.superseded": ("Dataset superseded", "Another version takes this version's place."),
        "dataset.withdrawn": ("Dataset withdrawn", "The version is used no more."),
        "dataset.details": ("Dataset details", "In a site's own log: what the version holds."),
        "data.accessed": ("Data read", "In a site's own log: data was read for this release, by this code."),
        "data.shredded": ("Data made unreadable", "In a site's own log: the key of sealed fields was destroyed."),
        "label.guideline": (
            "Guideline registered",
            "A version of the guideline that annotators follow, by its digest.",
        ),
        "label.set": ("Labels registered", "A version of a dataset's labels, under a commitment."),
        "label.corrected": ("Labels corrected", "Another version takes this version's place; the old one stays."),
        "label.details": ("Label details", "In a site's own log: counts and agreement of a label set."),
        "run.created": ("Run created", "What will run: which code, from which model, under which privacy plan."),
        "run.accepted": ("Run accepted", "A site takes part, with which data and labels, by which of its rules."),
        "policy.set": ("Site's rules set", "By these rules a site answers from here on, under a commitment."),
        "run.refused": ("Run refused", "A site did not take part in a round, by one of its rules."),
        "outbox.decided": ("Outbox decided", "In a site's own log: what became of a release that waited for a person."),
        "run.finished": ("Run finished", "The last round is over, and which model came of it."),
        "run.aborted": ("Run aborted", "The run ended before its last round."),
        "round.contributed": ("Contribution", "A site sent its masked vector, and where its own log stood."),
        "round.dropped": ("Dropout", "A site did not take part in a round to the end, and where it fell out."),
        "round.aggregated": ("Sum unmasked", "Over which sites a sum was taken, and from which model."),
        "dp.budget_set": ("Budget promised", "What a population was promised, over everything that is ever charged."),
        "dp.spent": ("Budget charged", "A release was charged to a population's budget, before it was computed."),
        "model.registered": ("Model registered", "A model, what it came from, and the bundle it is used as."),
        "eval.recorded": ("Figures recorded", "How good a model was found to be."),
        "gate.checked": ("Gate checked", "Whether a model passes one gate on its way to an alias."),
        "model.approved": ("Signature", "A person signs a bundle for an alias, and what that means."),
        "model.promoted": ("Promotion", "An alias points to a model from here on, and what allowed it."),
        "model.rolled_back": ("Rollback", "An alias points to an earlier bundle again."),
        "model.suspended": ("Model suspended", "The model may not be used for now."),
        "model.retired": ("Model retired", "The model is never used again."),
        "monitor.policy_set": ("Monitoring rules", "By these rules windows are decided about from here on."),
        "monitor.evaluated": ("Window tested", "What the sealed sum of a window showed of a model in use."),
        "monitor.decided": ("Window decided", "What a window led to, by the rules."),
        "monitor.compared": ("Candidate compared", "A candidate beside the model in use, on a window's persons."),
        "subject_request.received": ("Request received", "A person asked something of a site; only it knows who."),
        "subject_request.assessed": ("Request assessed", "Which datasets and models a request touches."),
        "subject_request.closed": ("Request answered", "How a person's request was answered."),
        "incident.recorded": ("Incident", "Something went wrong, and how bad it is."),
        "audit.reviewed": ("Log reviewed", "Somebody has read these entries, and whether they found anything."),
        "audit.exported": ("Log handed out", "A copy of the log up to a size was handed out."),
        "correction": ("Correction", "An earlier entry is wrong, and which one stands in its place."),
        "redaction": ("Redaction", "The key of a sealed field was destroyed; root and proofs stay as they are."),
    }
)


def title(kind: str) -> str:
    """What a type is called, such as ``run.created/v1``; its name where there are no words for it yet."""
    name = kind.partition("/")[0]
    return MEANINGS.get(name, (name, ""))[0]


def meaning(kind: str) -> str:
    """What an entry of a type says, in a sentence; empty where there are no words for it yet."""
    return MEANINGS.get(kind.partition("/")[0], ("", ""))[1]


def digits(value: str | None) -> str:
    """The first digits of a digest, a commitment, a run or a pseudonym; "none" where there is none."""
    return "none" if value is None else value.rpartition(":")[2].removeprefix("act_")[:12]


def line(event: Event) -> str:
    """What one entry says, in a line: public values only, as all that a log holds. Empty where its title says it."""
    body = event.body
    for part in (_of_runs, _of_models, _of_watching, _of_others):
        said = part(body)
        if said:
            return said
    return ""


def _of_runs(body: object) -> str:
    match body:
        case bodies.RunCreated():
            return (
                f"{body.study}, {body.strategy}, {body.rounds} rounds, {len(body.sites)} sites, plan {body.plan.kind}"
            )
        case bodies.RunAccepted():
            return f"with dataset {digits(body.dataset)}" if body.dataset else "with data that is not registered"
        case bodies.RunRefused():
            where = f"{body.release.value}, round {body.round}{_attempt(body.attempt)}"
            return f"{where}: {body.rule.value.replace('_', ' ')}"
        case bodies.RunFinished():
            return f"{body.rounds} rounds, model {digits(body.model)}"
        case bodies.RunAborted():
            return f"after {body.rounds} rounds: {body.reason.value}"
        case bodies.Contributed():
            return f"{body.release.value}, round {body.round}{_attempt(body.attempt)}"
        case bodies.Aggregated():
            return f"{body.release.value}, round {body.round}{_attempt(body.attempt)}, over {len(body.sites)} sites"
        case bodies.Dropped():
            where = f"{body.release.value}, round {body.round}{_attempt(body.attempt)}"
            return f"site {body.site}, {where}: {body.stage.value}, {body.reason.value}"
        case bodies.Charged():
            return f"{body.release.value} {body.sequence}{_attempt(body.attempt)}, plan {body.plan.kind}"
        case bodies.BudgetSet():
            return f"epsilon {body.epsilon} at delta {body.delta}"
    return ""


def _of_models(body: object) -> str:
    match body:
        case subjects.ModelRegistered():
            return f"{body.kind.value} model {short(body.model)}, bundle {digits(body.bundle)}"
        case subjects.Evaluated():
            shown = ", ".join(f"{m.name} {m.value}" for m in body.measures[:3])
            more = f" and {len(body.measures) - 3} more" if len(body.measures) > 3 else ""
            return f"model {short(body.model)}: {shown}{more}"
        case subjects.Signature():
            return f"bundle {digits(body.bundle)} for {body.alias.value}, as {body.meaning.value}, {body.role.value}"
        case subjects.GateChecked():
            name = f" {body.name}" if body.name else ""
            return f"{body.alias.value}, {body.gate.value}{name}: {'passed' if body.passed else 'not passed'}"
        case subjects.Promoted():
            return f"{body.alias.value} is model {short(body.model)} now"
        case subjects.RolledBack():
            return f"{body.alias.value} is model {short(body.model)} again: {body.reason.value}"
        case subjects.ModelStatus():
            return f"model {short(body.model)}: {body.reason.value}"
    return ""


def _of_watching(body: object) -> str:
    match body:
        case monitoring.MonitorPolicySet():
            return f"rule {body.rule}, {body.alpha} false alarms a year at most, alarm: {body.alarm}"
        case monitoring.WindowEvaluated():
            return f"window {body.window} of model {short(body.model)}, {body.sites} sites"
        case monitoring.MonitorDecided():
            found = body.alert.value if body.obstacle is None else f"not evaluable, {body.obstacle.value}"
            return f"window {body.window}: {found}, {body.action.value}"
        case monitoring.ShadowCompared():
            return f"window {body.window}: candidate {short(body.candidate)} beside {short(body.model)}"
    return ""


def _of_others(body: object) -> str:
    match body:
        case bodies.Genesis():
            return f"federation {body.federation}, quorum {body.quorum}{', simulated' if body.simulated else ''}"
        case bodies.PolicyChanged():
            return f"quorum {body.quorum}, {body.faulty} may be faulty"
        case bodies.Joined():
            return f"{body.name} as site {body.site}"
        case bodies.PersonAdded():
            return f"{digits(body.person)}: {', '.join(role.value for role in body.roles) or 'no role'}"
        case bodies.PersonRemoved():
            return digits(body.person)
        case bodies.EnvironmentRecorded():
            return f"Python {body.python}, {len(body.packages)} packages"
        case bodies.CodeRegistered():
            return f"{body.kind.value} {digits(body.code)}"
        case subjects.DatasetRegistered():
            return f"dataset {digits(body.dataset)}, kept until {body.retention_until}"
        case subjects.DatasetWithdrawn():
            return f"dataset {digits(body.dataset)}: {body.reason.value}"
        case subjects.LabelSetRegistered():
            return f"label set {digits(body.label_set)}"
        case subjects.Incident():
            return f"{body.kind.value}, {body.severity.value}"
        case subjects.Reviewed():
            return f"entries {body.first} to {body.end - 1}: {body.outcome.value}"
        case subjects.Correction():
            return f"entry {body.index}: {body.reason.value}"
    return ""


def _attempt(number: int) -> str:
    return f", attempt {number + 1}" if number else ""
