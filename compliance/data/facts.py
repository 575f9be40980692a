"""What is written down about a version of a dataset: all of it at the site, and the little that the federation's log
gets.

`SharedDatasetFacts` has no count, no size and no bare hash of anything that could be guessed: its ids are keyed with
keys that stay at the site, everything else is a word of a closed list, a date, or the digest of something public.
"""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from fedseal.compliance.data.keys import DataKeys, population_pseudonym


class LegalBasis(StrEnum):
    """Articles 6(1) and 9(2) of the GDPR, by letter."""

    CONSENT = "6-1-a"
    CONTRACT = "6-1-b"
    LEGAL_OBLIGATION = "6-1-c"
    VITAL_INTERESTS = "6-1-d"
    PUBLIC_TASK = "6-1-e"
    LEGITIMATE_INTERESTS = "6-1-f"
    EXPLICIT_CONSENT = "9-2-a"
    EMPLOYMENT = "9-2-b"
    VITAL_INTERESTS_SPECIAL = "9-2-c"
    NON_PROFIT = "9-2-d"
    MADE_PUBLIC = "9-2-e"
    LEGAL_CLAIMS = "9-2-f"
    PUBLIC_INTEREST = "9-2-g"
    HEALTH_CARE = "9-2-h"
    PUBLIC_HEALTH = "9-2-i"
    RESEARCH = "9-2-j"

    @property
    def special(self) -> bool:
        """Whether it is one of Article 9(2), for special categories of data."""
        return self.value.startswith("9")


class SpecialCategory(StrEnum):
    """The special categories of Article 9(1), and the data of Article 10."""

    ORIGIN = "racial-or-ethnic-origin"
    POLITICS = "political-opinions"
    BELIEFS = "religious-or-philosophical-beliefs"
    TRADE_UNION = "trade-union-membership"
    GENETIC = "genetic"
    BIOMETRIC = "biometric"
    HEALTH = "health"
    SEX_LIFE = "sex-life-or-orientation"
    CRIMINAL = "criminal-convictions"


class Purpose(StrEnum):
    """What the data is used for."""

    RESEARCH = "research"
    CARE_QUALITY = "care-quality"
    DIAGNOSIS_SUPPORT = "diagnosis-support"
    RISK_MODEL = "risk-model"
    FRAUD_DETECTION = "fraud-detection"
    OPERATIONS = "operations"
    SAFETY_MONITORING = "safety-monitoring"


class SourceSystem(StrEnum):
    """What kind of system the data came from."""

    HEALTH_RECORD = "electronic-health-record"
    REGISTRY = "registry"
    TRIAL = "clinical-trial"
    LABORATORY = "laboratory"
    IMAGING = "imaging-archive"
    WAREHOUSE = "data-warehouse"
    TRANSACTIONS = "transaction-system"
    SURVEY = "survey"
    DEVICE = "device"
    OTHER = "other"


class PrivacyUnit(StrEnum):
    """Whom the privacy promise is made to."""

    RECORD = "record"
    PERSON = "person"
    SITE = "site"


class Status(StrEnum):
    """Where a version stands."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Source:
    """Where the data came from. ``query_digest``: SHA-256 of the query that extracted it, in hex, or nothing."""

    system: SourceSystem
    query_digest: str
    extracted_at: date


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """How subjects were split. Both digests are keyed: HMAC-SHA256 under K_split, in hex."""

    name: str
    seed_commitment: str
    assignment_digest: str


@dataclass(frozen=True, slots=True)
class DatasetFacts:
    """A version in the site's own log. Never leaves the site. Digests are in hex."""

    name: str
    dsv_id: str
    content_root: str
    schema_digest: str
    shared_schema: bool
    contract_digest: str
    quality_report_digest: str
    preprocessing_digest: str
    rows: int
    subjects: int
    population: str
    privacy_unit: PrivacyUnit
    split: SplitFacts | None
    source: Source
    legal_basis: tuple[LegalBasis, ...]
    special_categories: tuple[SpecialCategory, ...]
    consent_scope_version: str
    purpose: Purpose
    retention_until: date
    parents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedDatasetFacts:
    """A version in the federation's log.

    ``schema_digest`` is there only where the schema was agreed by the federation: everyone knows what it hashes.
    """

    dsv_id: str
    population: str
    schema_digest: str | None
    preprocessing_digest: str
    legal_basis: tuple[LegalBasis, ...]
    purpose: Purpose
    retention_until: date
    parents: tuple[str, ...]


def shared(facts: DatasetFacts, keys: DataKeys) -> SharedDatasetFacts:
    """What the federation's log gets to know of a version."""
    return SharedDatasetFacts(
        dsv_id=facts.dsv_id,
        population=population_pseudonym(keys.population, facts.population).hex(),
        schema_digest=facts.schema_digest if facts.shared_schema else None,
        preprocessing_digest=facts.preprocessing_digest,
        legal_basis=facts.legal_basis,
        purpose=facts.purpose,
        retention_until=facts.retention_until,
        parents=facts.parents,
    )
