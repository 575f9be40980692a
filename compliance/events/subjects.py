"""The bodies of events about data, labels, models, persons and what went wrong."""

from fedseal.compliance.data.facts import LegalBasis, PrivacyUnit, Purpose, SourceSystem, SpecialCategory
from fedseal.compliance.data.occurrences import ErasureReason
from fedseal.compliance.events.fields import (
    Alias,
    Authority,
    Commitment,
    CorrectionReason,
    Count,
    Day,
    Decimal,
    Digest,
    EventName,
    GateKind,
    IncidentKind,
    Meaning,
    ModelKind,
    Name,
    RequestKind,
    RequestOutcome,
    ReviewOutcome,
    Role,
    RollbackReason,
    Severity,
)
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.facts import Reason, Tool
from fedseal.compliance.labels.quality import NoiseMethod
from fedseal.compliance.labels.scale import Level
from fedseal.config import Frozen

# Data


class DatasetRegistered(Frozen):
    """``dataset.registered``: a version of a site's data, under a commitment only the site can open.

    No count and no size: how many persons a site holds is protected too. ``data_schema`` is there only where the
    federation has agreed on it.
    """

    dataset: Commitment
    population: Commitment
    unit: PrivacyUnit
    data_schema: Digest | None
    preprocessing: Digest | None
    legal_basis: tuple[LegalBasis, ...]
    special_categories: tuple[SpecialCategory, ...]
    purpose: Purpose
    retention_until: Day
    parents: tuple[Commitment, ...]


class DatasetSuperseded(Frozen):
    """``dataset.superseded``: another version takes a version's place."""

    dataset: Commitment
    by: Commitment


class DatasetWithdrawn(Frozen):
    """``dataset.withdrawn``: a version is used no more."""

    dataset: Commitment
    reason: ErasureReason


class DatasetDetails(Frozen):
    """``dataset.details``, in a site's own log only: what the registered version holds, in counts and digests.

    Under ``split`` and ``assignment`` stand keyed digests of the split's seed and of who went where.
    """

    dataset: Commitment
    content_root: Digest
    data_schema: Digest
    data_contract: Digest
    quality_report: Digest
    rows: Count
    subjects: Count
    split: Commitment | None
    assignment: Commitment | None
    source: SourceSystem
    query: Digest | None
    extracted_on: Day
    consent_scope: Name | None


# Labels


class Guideline(Frozen):
    """``label.guideline``: a version of the guideline that annotators follow, by the digest of its text.

    ``replaces`` is the one that this site worked by before.
    """

    guideline: Digest
    replaces: Digest | None


class LabelSetRegistered(Frozen):
    """``label.set``: a version of the labels of a dataset.

    How many labels, by how many persons and how well they agree stays at the site.
    """

    label_set: Commitment
    dataset: Commitment | None
    guideline: Digest
    label_schema: Digest
    adjudication: Adjudication
    tool: Tool
    parents: tuple[Commitment, ...]


class LabelSetCorrected(Frozen):
    """``label.corrected``: a version takes another one's place; the old one stays on record."""

    label_set: Commitment
    by: Commitment


class Corrections(Frozen):
    """How many labels were corrected for one reason."""

    count: Count
    reason: Reason


class LabelSetDetails(Frozen):
    """``label.details``, in a site's own log only: counts, agreement, gold set and noise of a label set."""

    label_set: Commitment
    items: Count
    items_with_several: Count
    annotators: Count
    coefficient: Coefficient | None
    level: Level | None
    agreement: Decimal | None
    agreement_low: Decimal | None
    agreement_high: Decimal | None
    gold: Digest | None
    gold_items: Count | None
    gold_accuracy: Decimal | None
    noise_method: NoiseMethod | None
    noise: Decimal | None
    corrections: tuple[Corrections, ...]


# Models


class ModelRegistered(Frozen):
    """``model.registered``: a model and what it came from. ``bundle`` is the digest of model, recipe and schema."""

    model: Digest
    parent: Digest | None
    kind: ModelKind
    round: Count
    bundle: Digest | None


class Measure(Frozen):
    """One figure of an evaluation: its value, and how far noise may have moved it (0: exact)."""

    name: Name
    value: Decimal
    margin: Decimal = "0"


class Evaluated(Frozen):
    """``eval.recorded``: figures of a model. ``simulated``: an oracle that no deployment has gave them.

    ``report`` is the digest of the document they stand in.
    """

    model: Digest
    measures: tuple[Measure, ...]
    simulated: bool
    report: Digest | None


class Signature(Frozen):
    """``model.approved``: a person signs a model, and what that means. The event carries that person's signature.

    ``bundle`` binds it to the recipe and schema that the model was signed with.
    """

    model: Digest
    alias: Alias
    meaning: Meaning
    role: Role
    bundle: Digest | None = None


class GateChecked(Frozen):
    """``gate.checked``: a gate on the way to an alias, its limit, what was found."""

    model: Digest
    alias: Alias
    gate: GateKind
    name: Name | None
    limit: Decimal | None
    found: Decimal | None
    passed: bool
    bundle: Digest | None = None


class Promoted(Frozen):
    """``model.promoted``: an alias points to a model from here on.

    ``approvals`` and ``gates`` are indices of the entries that allow it, ``final_size`` the size of the checkpoint that
    a quorum had cosigned, ``rules`` the digest of the rules that were asked.
    """

    model: Digest
    alias: Alias
    replaces: Digest | None
    approvals: tuple[Count, ...]
    gates: tuple[Count, ...]
    final_size: Count
    bundle: Digest | None = None
    rules: Digest | None = None


class RolledBack(Frozen):
    """``model.rolled_back``: an alias points to an earlier bundle again."""

    model: Digest
    alias: Alias
    replaces: Digest
    reason: RollbackReason
    bundle: Digest | None = None


class ModelStatus(Frozen):
    """``model.suspended`` and ``model.retired``."""

    model: Digest
    reason: RollbackReason


# Persons and what went wrong


class RequestReceived(Frozen):
    """``subject_request.received``: a person asked; who is known to the site alone."""

    request: Commitment
    kind: RequestKind


class RequestAssessed(Frozen):
    """``subject_request.assessed``: what it touches: datasets of the site, models of the federation."""

    request: Commitment
    datasets: tuple[Commitment, ...]
    models: tuple[Digest, ...]


class RequestClosed(Frozen):
    """``subject_request.closed``: how it was answered."""

    request: Commitment
    outcome: RequestOutcome


class Incident(Frozen):
    """``incident.recorded``: something went wrong. ``evidence`` is the digest of what its author keeps."""

    kind: IncidentKind
    severity: Severity
    evidence: Digest | None
    model: Digest | None = None


class Reviewed(Frozen):
    """``audit.reviewed``: a person read the entries from ``first`` to before ``end``."""

    first: Count
    end: Count
    outcome: ReviewOutcome


class Exported(Frozen):
    """``audit.exported``: a copy of the log up to a size was handed out."""

    size: Count
    root: Digest


class Correction(Frozen):
    """``correction``: the entry at ``index`` is wrong; ``by`` is the index of the one that stands in its place."""

    index: Count
    by: Count | None
    reason: CorrectionReason


class Redaction(Frozen):
    """``redaction``: the key of a sealed field was destroyed. Root and proofs stay as they are."""

    index: Count
    authority: Authority


class Shared(Frozen):
    """``log.shared``, in a site's own log: the site signed this entry for the federation's log."""

    leaf: Digest
    event_type: EventName
