"""A data contract to start from: a table's columns with the types they seem to have, and facts to be filled in."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from fedseal.client.task import SiteData, columns, read_table
from fedseal.compliance.data.contract import ColumnRules, DataContract, Dataset, RowRules
from fedseal.compliance.data.facts import LegalBasis, Purpose, SourceSystem
from fedseal.compliance.data.rows import normal

_FACTS = """\
# What this site says of its data. Every column of the table has to be declared: what is not declared is not checked
# and not hashed. All keys: docs/data.md. Fill in what says FILL IN.
version = 1

[dataset]
name = "FILL IN"                  # small letters, digits and hyphens; the same for every version
subject = {subject}
population = "train"              # the ledger whose budget these persons have
privacy_unit = "person"           # record, person or site
purpose = "FILL IN"               # {purposes}
legal_basis = ["FILL IN"]         # GDPR 6(1) and, for special categories, 9(2): {bases}
special_categories = []           # health, genetic, biometric, ... (GDPR 9(1))
consent_scope_version = ""        # which consent text, where the basis is consent
retention_until = "FILL IN"       # a date, without quotation marks
shared_schema = false             # true: the federation agreed on these columns

[dataset.source]
system = "FILL IN"                # {systems}
extracted_at = "FILL IN"          # a date, without quotation marks
query = ""                        # only its digest is kept in the facts

[rows]
repeated = false                  # whether two rows may be the same in every column
"""


def template(folder: Path, subject: str) -> str:
    """The text of a contract for the folder's table; no value of the table is in it.

    Raises:
        DataError: there is not one readable table, or it lacks the column of subjects.
    """
    table = read_table(SiteData("", folder).path())
    columns(table, [subject])
    facts = _FACTS.format(
        subject=_quoted(normal(subject)),
        purposes=", ".join(Purpose),
        bases=", ".join(LegalBasis),
        systems=", ".join(SourceSystem),
    )
    return facts + "".join(_column(str(name), table[name], str(name) == subject) for name in table.columns)


def contract_of(table: pd.DataFrame, dataset: Dataset) -> DataContract:
    """A contract that asks of a table only that it stays as it is: its columns, with the types they seem to have.

    For a simulation, whose data nobody looks after. A site's own contract says what its values may be.
    """
    rules = {
        normal(str(name)): ColumnRules.model_validate(
            {"type": _type(table[name]), "nullable": str(name) != dataset.subject}
        )
        for name in table.columns
    }
    return DataContract(dataset=dataset, columns=rules, rows=RowRules(repeated=True))


def _column(name: str, values: "pd.Series[Any]", is_subject: bool) -> str:
    lines = [f"\n[columns.{_quoted(normal(name))}]", f'type = "{_type(values)}"']
    if values.isna().any() and not is_subject:
        lines.append("nullable = true")
    return "\n".join(lines) + "\n"


def _type(values: "pd.Series[Any]") -> str:
    present = values.dropna()
    if pd.api.types.is_bool_dtype(values.dtype):
        return "boolean"
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return "date" if (present == present.dt.normalize()).all() else "timestamp"
    if pd.api.types.is_integer_dtype(values.dtype):
        return "integer"
    if pd.api.types.is_float_dtype(values.dtype):
        # A column of integers with gaps reads as floats.
        whole = len(present) < len(values) and len(present) > 0 and bool((present % 1 == 0).all())
        return "integer" if whole else "real"
    if present.map(lambda v: isinstance(v, bool)).all() and len(present):
        return "boolean"
    return "date" if len(present) and _all_dates(present) else "text"


def _all_dates(values: "pd.Series[Any]") -> bool:
    return bool(values.astype("str").str.fullmatch(r"\d{4}-\d{2}-\d{2}").all())


def _quoted(name: str) -> str:
    """A TOML basic string: JSON's, but for DEL, which JSON does not escape."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
