"""What a fact can be made of: digests, keyed commitments, ids, decimals, enumerations. No free text anywhere.

Every string has a closed form. A value that a person could type (a name, a path, a diagnosis) fits none of them, except
the public names of a federation's parties, studies and aliases, which are `Name`.
"""

import hashlib
import math
from decimal import Decimal as DecimalNumber
from enum import StrEnum
from typing import Annotated
from urllib.parse import quote

from pydantic import Field, StringConstraints

# SHA-256 of something that nobody can guess or that is public: code, a model, a signed document.
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
# HMAC-SHA256 under a key that stays at the site: of anything that could be guessed, such as a table.
Commitment = Annotated[str, StringConstraints(pattern=r"^hmac:[0-9a-f]{64}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
# A pseudonym; who it is stands in a directory of the organisation, not in a log.
Actor = Annotated[str, StringConstraints(pattern=r"^act_[0-9a-f]{32}$")]
KeyId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}$")]
PublicKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A real number: a string, since a log has no floats.
Decimal = Annotated[str, StringConstraints(pattern=r"^-?(0|[1-9][0-9]{0,23})(\.[0-9]{1,24})?$")]
# UTC with six decimals.
Time = Annotated[
    str, StringConstraints(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\.[0-9]{6}Z$")
]
Day = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}-[01][0-9]-[0-3][0-9]$")]
# A public name that the federation gave: a party, a study, a metric. See `public_name`.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9%][A-Za-z0-9%._~-]{0,127}$")]
# The name of a log: c2sp.org/tlog-checkpoint's origin, as compliance.log.checkpoint makes it.
Origin = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9%._~/-]{1,512}$")]
# A type of the registry of events.
EventName = Annotated[str, StringConstraints(pattern=r"^[a-z_]{1,32}(\.[a-z_]{1,32})?/v[1-9][0-9]{0,2}$")]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+!-]{0,31}$")]
Hex = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2}){1,512}$")]
Count = Annotated[int, Field(ge=0, le=(1 << 53) - 1, strict=True)]


def public_name(text: str) -> str:
    """A name of a roster or a study as a log writes it: percent-encoded where it has other characters."""
    return quote(text, safe="").lstrip("._~-")[:128] or "%00"


def decimal(value: float) -> str:
    """A finite number as a decimal string with at most 24 places, exact for what a double prints as.

    Raises:
        ValueError: it is not finite, or too large for a log.
    """
    text = format(DecimalNumber(repr(value)), "f")
    whole, _, fraction = text.partition(".")
    fraction = fraction[:24].rstrip("0")
    text = f"{whole}.{fraction}" if fraction else whole
    if not math.isfinite(value) or len(whole) > 24:
        raise ValueError("no number that a log can hold")
    return "0" if text in ("-0", "") else text


def sha256(data: bytes) -> str:
    """The digest of some bytes as a log writes it."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class ReleaseName(StrEnum):
    """The registry of releases, as a log names it."""

    UPDATE = "update"
    EVALUATION = "evaluation"
    MOMENTS = "moments"
    COUNTS = "counts"
    MEMBERS = "members"
    DRIFT = "drift"


class CorrectionReason(StrEnum):
    """Why labels or an entry were corrected."""

    ANNOTATION_ERROR = "annotation-error"
    GUIDELINE_CHANGE = "guideline-change"
    REVIEW = "review"
    DUPLICATE = "duplicate"
    ENTRY_ERROR = "entry-error"


class CodeKind(StrEnum):
    """What code is for."""

    STUDY = "study"
    PREPROCESSING = "preprocessing"
    RECIPE = "recipe"


class DropStage(StrEnum):
    """Where a site fell out of a round."""

    ADVERTISE = "advertise"
    SHARE = "share"
    MASK = "mask"
    CONSISTENCY = "consistency"
    UNMASK = "unmask"


class DropReason(StrEnum):
    """Why: silence, or the fixed code of a refusal."""

    SILENT = "silent"
    NOT_ENROLLED = "not_enrolled"
    POLICY = "policy"
    BUDGET = "budget"
    PROTOCOL = "protocol"
    TASK = "task"
    BAD_PEER = "bad_peer"
    INTERNAL = "internal"
    LOG = "log"
    LATER = "later"
    WAITING = "waiting"


class RefusedRule(StrEnum):
    """Which rule of a site forbade what was asked. Nothing else about a refusal is told."""

    COHORT = "cohort"
    THRESHOLD = "threshold"
    COLLUDERS = "colluders"
    RELEASE = "release"
    RANGE = "range"
    PRECISION = "precision"
    PURPOSE = "purpose"
    STRATEGY = "strategy"
    CODE = "code"
    DATA = "data"
    LABELS = "labels"
    HOURS = "hours"
    PERIOD = "period"
    LEDGER = "ledger"
    WAITING = "waiting"
    DENIED = "denied"


class Decision(StrEnum):
    """What a person, or a rule, says of a release that waited."""

    APPROVED = "approved"
    DENIED = "denied"


class DecisionScope(StrEnum):
    """What a decision is about: one release, all of a run, or what a rule fits."""

    RELEASE = "release"
    RUN = "run"
    RULE = "rule"


class AbortReason(StrEnum):
    """Why a run ended before its last round."""

    TOO_FEW_SITES = "too-few-sites"
    STOPPED = "stopped"
    FAILED = "failed"


class ModelKind(StrEnum):
    """What a model is to the federation."""

    INITIAL = "initial"
    GLOBAL = "global"
    PERSONALISED = "personalised"
    DISTILLED = "distilled"


class Meaning(StrEnum):
    """What a signature means (21 CFR 11.50)."""

    AUTHORED = "authored"
    REVIEWED = "reviewed"
    APPROVED = "approved"
    RESPONSIBLE = "responsible"


class Role(StrEnum):
    """What a person may do."""

    SITE_ADMIN = "site-admin"
    SITE_DPO = "site-dpo"
    DATA_STEWARD = "data-steward"
    ML_ENGINEER = "ml-engineer"
    APPROVER = "approver"
    COORDINATOR = "coordinator-ops"
    AUDITOR = "auditor"


class Alias(StrEnum):
    """Where a model stands on its way into use."""

    CANDIDATE = "candidate"
    VALIDATED = "validated"
    CANARY = "canary"
    PRODUCTION = "production"


class GateKind(StrEnum):
    """What a model has to pass before it gets an alias."""

    METRIC = "metric"
    WORST_SUBGROUP = "worst-subgroup"
    GOLD_SET = "gold-set"
    EPSILON = "epsilon"
    LOG_FINAL = "log-final"


class RollbackReason(StrEnum):
    """Why a model was taken back."""

    DRIFT = "drift"
    INCIDENT = "incident"
    QUALITY = "quality"
    DATA_WITHDRAWN = "data-withdrawn"
    OTHER = "other"


class MonitorAction(StrEnum):
    """What a window of a watched model leads to."""

    NOTHING = "nothing"
    WAIT = "wait"
    SHADOW = "shadow"
    PROPOSE_RETRAINING = "propose-retraining"
    RETRAIN = "retrain"
    ROLL_BACK = "roll-back"
    PROMOTE = "promote"
    KEEP = "keep"


class RequestKind(StrEnum):
    """What a data subject asked for (GDPR, articles 15 to 21)."""

    ACCESS = "access"
    RECTIFICATION = "rectification"
    ERASURE = "erasure"
    RESTRICTION = "restriction"
    OBJECTION = "objection"
    CONSENT_WITHDRAWAL = "consent-withdrawal"


class RequestOutcome(StrEnum):
    """How a request was answered."""

    RETRAIN = "retrain"
    UNLEARN = "unlearn"
    KEEP_WITH_ARGUMENT = "keep-with-argument"
    RETIRE = "retire"
    NO_INFLUENCE = "no-influence"
    REFUSED = "refused"


class IncidentKind(StrEnum):
    """What went wrong."""

    LOG_INCONSISTENT = "log-inconsistent"
    LOG_ROLLED_BACK = "log-rolled-back"
    DATA_CHANGED = "data-changed"
    LEDGER_BEHIND = "ledger-behind"
    REFUSAL = "refusal"
    BREACH = "breach"
    DRIFT = "drift"
    MODEL = "model"


class Severity(StrEnum):
    """How bad."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    SERIOUS = "serious"


class ReviewOutcome(StrEnum):
    """What a review of the log found."""

    NOTHING = "nothing"
    FINDINGS = "findings"


class Authority(StrEnum):
    """On whose word something was redacted."""

    SUBJECT = "subject"
    SUPERVISOR = "supervisory-authority"
    COURT = "court"
    CONTROLLER = "controller"
