"""`data.toml`: what a site says of its data, and what the data has to keep.

Written by the data owner, checked before a version is registered. The model's JSON schema is published in docs/schemas.
"""

import hashlib
from datetime import date
from typing import Literal

from pydantic import Field, model_validator

from fedseal.compliance.data.facts import LegalBasis, PrivacyUnit, Purpose, SourceSystem, SpecialCategory
from fedseal.compliance.data.rows import Column, Kind, Schema, normal, schema
from fedseal.config import Frozen, parse_toml, validate
from fedseal.privacy.releases import Population

KindName = Literal["boolean", "integer", "real", "text", "date", "timestamp"]
_ORDERED = ("integer", "real")
_DATES = ("date", "timestamp")


class ColumnRules(Frozen):
    """One column: its type, and what its values may be.

    ``low`` and ``high`` are for numbers, ``allowed`` for integers and texts, ``newest_at_most_days`` and ``future`` for
    dates: how old the newest value may be, and whether one may lie in the future. ``most_missing`` is a share of rows.
    """

    type: KindName
    nullable: bool = False
    most_missing: float = Field(default=1.0, ge=0, le=1)
    unique: bool = False
    low: int | float | None = None
    high: int | float | None = None
    allowed: tuple[int, ...] | tuple[str, ...] = ()
    newest_at_most_days: int | None = Field(default=None, ge=0, le=36_500)
    future: bool = True

    @model_validator(mode="after")
    def _fitting(self) -> "ColumnRules":
        if (self.low is not None or self.high is not None) and self.type not in _ORDERED:
            raise ValueError(f"low and high go with a column of type {' or '.join(_ORDERED)}")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low has to be at most high")
        wanted = {"integer": int, "text": str}.get(self.type)
        if self.allowed and (wanted is None or not all(type(v) is wanted for v in self.allowed)):
            raise ValueError("allowed goes with type integer (a list of integers) or text (a list of texts)")
        if (self.newest_at_most_days is not None or not self.future) and self.type not in _DATES:
            raise ValueError(f"newest_at_most_days and future go with a column of type {' or '.join(_DATES)}")
        return self


class RowRules(Frozen):
    """The table as a whole. ``repeated``: whether two rows may be the same in every column."""

    least: int = Field(default=1, ge=1)
    most: int = Field(default=1_000_000_000, ge=1)
    most_of_a_subject: int = Field(default=1_000_000, ge=1)
    repeated: bool = False


class Balance(Frozen):
    """The share of rows that every class of a column has at least and at most."""

    column: str
    smallest_share: float = Field(default=0.0, ge=0, le=1)
    largest_share: float = Field(default=1.0, ge=0, le=1)


class SourceRules(Frozen):
    """Where the data came from. ``query`` is the text of the query that extracted it; only its digest is kept."""

    system: SourceSystem
    extracted_at: date
    query: str = ""


class SplitRules(Frozen):
    """How the study splits subjects: `fedseal.client.split.by_hash` with these arguments."""

    study: str = Field(min_length=1)
    validation: float = Field(default=0.1, ge=0, lt=1)
    test: float = Field(default=0.2, ge=0, lt=1)

    @model_validator(mode="after")
    def _something_left(self) -> "SplitRules":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test have to leave something to train on")
        return self


class Dataset(Frozen):
    """The facts of a version: what it is called, whom it is about, and why it may be used.

    ``subject`` names the column with ids of subjects. ``population`` is the ledger whose budget they have: the budget
    belongs to these persons and stays theirs from version to version. ``shared_schema``: the federation agreed on the
    columns, so the digest of their names and types may stand in its log.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    subject: str
    population: Population = Population.TRAIN
    privacy_unit: PrivacyUnit = PrivacyUnit.PERSON
    purpose: Purpose
    legal_basis: tuple[LegalBasis, ...] = Field(min_length=1)
    special_categories: tuple[SpecialCategory, ...] = ()
    consent_scope_version: str = Field(default="", max_length=64)
    retention_until: date
    shared_schema: bool = False
    source: SourceRules
    split: SplitRules | None = None

    @model_validator(mode="after")
    def _lawful_form(self) -> "Dataset":
        if all(basis.special for basis in self.legal_basis):
            raise ValueError("legal_basis needs one of Article 6(1), as 6-1-a to 6-1-f")
        if self.special_categories and not any(basis.special for basis in self.legal_basis):
            raise ValueError("special_categories need a legal_basis of Article 9(2) too, as 9-2-a to 9-2-j")
        consents = {LegalBasis.CONSENT, LegalBasis.EXPLICIT_CONSENT} & set(self.legal_basis)
        if consents and not self.consent_scope_version:
            raise ValueError("legal_basis is consent: say in consent_scope_version to which text persons consented")
        return self


class DataContract(Frozen):
    """The whole file."""

    version: Literal[1] = 1
    dataset: Dataset
    columns: dict[str, ColumnRules] = Field(min_length=1)
    rows: RowRules = RowRules()
    balance: tuple[Balance, ...] = ()

    @model_validator(mode="after")
    def _known_columns(self) -> "DataContract":
        if len({normal(name) for name in self.columns}) != len(self.columns):
            raise ValueError("two columns have one name once written in Unicode's normal form")
        subject = self.columns.get(self.dataset.subject)
        if subject is None or subject.type not in ("integer", "text"):
            raise ValueError("dataset.subject has to name a column of type integer or text")
        if subject.nullable:
            raise ValueError("the column of subjects cannot be nullable: every row is about somebody")
        if any(b.column not in self.columns for b in self.balance):
            raise ValueError("balance names a column that is not among the columns")
        return self

    @property
    def schema_of_rows(self) -> Schema:
        """Names and types of the columns, in canonical order."""
        columns = [Column(name, Kind[rules.type.upper()]) for name, rules in self.columns.items()]
        return schema(columns, self.dataset.subject)

    def digest(self) -> bytes:
        """SHA-256 of the contract: comments and the order of keys do not count."""
        return hashlib.sha256(b"fedseal/data/contract/1\x00" + self.model_dump_json().encode("utf-8")).digest()


def read_contract(text: str, source: str = "data.toml") -> DataContract:
    """Parse a contract; ConfigError says what is wrong with it, and where."""
    return validate(DataContract, parse_toml(text, source), text=text, source=source)
