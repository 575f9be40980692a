"""A data contract as a pandera schema, and what the data has of it: a report of counts that names columns and rules.

pandera's own failure cases quote values; they are counted here and go no further.
"""

from datetime import date
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaError, SchemaErrorReason, SchemaErrors

from fedseal.client.datasets.encoding import Subjects
from fedseal.compliance.data.contract import Balance, ColumnRules, DataContract
from fedseal.compliance.data.quality import ColumnQuality, Failure, QualityReport, Rule
from fedseal.compliance.data.rows import normal

Series: TypeAlias = "pd.Series[Any]"
_BUILT_IN: dict[SchemaErrorReason | None, Rule] = {
    SchemaErrorReason.SERIES_CONTAINS_NULLS: "nullable",
    SchemaErrorReason.SERIES_CONTAINS_DUPLICATES: "unique",
    SchemaErrorReason.DUPLICATES: "rows.repeated",
}


def quality_report(table: pd.DataFrame, subjects: Subjects, contract: DataContract, as_of: date) -> QualityReport:
    """Check a typed table against its contract.

    Args:
        table: as `read_typed` gives it.
        subjects: its subjects.
        contract: the rules.
        as_of: the day on which freshness is judged.
    """
    rules = {normal(name): r for name, r in contract.columns.items()}
    return QualityReport(
        as_of=as_of,
        contract_digest=contract.digest().hex(),
        rows=len(table),
        subjects=len(subjects.ids),
        repeated_rows=int(table.duplicated().sum()),
        columns=tuple(
            ColumnQuality(
                name=name, type=rules[name].type, missing=int(table[name].isna().sum()), distinct=table[name].nunique()
            )
            for name in table.columns
        ),
        failures=_failures(table, contract, as_of) + _of_subjects(subjects, contract),
    )


def pandera_schema(contract: DataContract, as_of: date) -> pa.DataFrameSchema:
    """The contract's rules on columns and rows, for tables that `read_typed` gives."""
    columns = {normal(name): _column(rules, as_of) for name, rules in contract.columns.items()}
    rows = contract.rows
    whole = [
        pa.Check(lambda table: len(table) >= rows.least, name="rows.least"),
        pa.Check(lambda table: len(table) <= rows.most, name="rows.most"),
    ]
    for balance in contract.balance:
        columns[normal(balance.column)].checks.append(_balanced(balance))
    unique = None if rows.repeated else list(columns)
    return pa.DataFrameSchema(columns, checks=whole, unique=unique, strict=True)


def _column(rules: ColumnRules, as_of: date) -> pa.Column:
    checks = []
    if rules.low is not None or rules.high is not None:
        checks.append(_within(rules.low, rules.high))
    if rules.allowed:
        checks.append(pa.Check.isin(rules.allowed, name="allowed"))
    if rules.most_missing < 1:
        limit = rules.most_missing
        # The whole column, with its gaps: they are what is counted.
        checks.append(
            pa.Check(lambda s: s.isna().mean() <= limit if len(s) else True, name="most_missing", ignore_na=False)
        )
    if rules.newest_at_most_days is not None:
        oldest = pd.Timestamp(as_of) - pd.Timedelta(days=rules.newest_at_most_days)
        checks.append(pa.Check(lambda s: bool(s.max() >= oldest), name="newest_at_most_days"))
    if not rules.future:
        tomorrow = pd.Timestamp(as_of) + pd.Timedelta(days=1)
        checks.append(pa.Check(lambda s: s < tomorrow, name="future"))
    # Types were declared when the table was read; a second conversion would only be able to disagree.
    return pa.Column(None, checks=checks, nullable=rules.nullable, unique=rules.unique)


def _within(low: float | None, high: float | None) -> pa.Check:
    def inside(values: Series) -> Series:
        return (values >= (-np.inf if low is None else low)) & (values <= (np.inf if high is None else high))

    return pa.Check(inside, name="range")


def _balanced(balance: Balance) -> pa.Check:
    def fair(values: Series) -> bool:
        shares = values.value_counts(normalize=True)
        return bool(((shares >= balance.smallest_share) & (shares <= balance.largest_share)).all())

    return pa.Check(fair, name="balance")


def _failures(table: pd.DataFrame, contract: DataContract, as_of: date) -> tuple[Failure, ...]:
    try:
        pandera_schema(contract, as_of).validate(table, lazy=True)
    except SchemaErrors as error:
        found = [(_column_of(e), _rule_of(e), _rows_of(e)) for e in error.schema_errors]
    else:
        found = []
    return tuple(Failure(column=c, rule=r, rows=n) for c, r, n in sorted(found, key=lambda f: f[:2]))


def _column_of(error: SchemaError) -> str:
    return str(error.schema.name) if isinstance(error.schema, pa.Column) else ""


def _rule_of(error: SchemaError) -> Rule:
    if error.reason_code in _BUILT_IN:
        return _BUILT_IN[error.reason_code]
    # Checks of ours are named after their rules.
    return cast(Rule, error.check.name) if isinstance(error.check, pa.Check) else "type"


def _rows_of(error: SchemaError) -> int | None:
    """In how many rows, if the rule is one on rows: a check that returned one truth value has no index."""
    cases = error.failure_cases
    return int(cases["index"].nunique()) if isinstance(cases, pd.DataFrame) and "index" in cases else None


def _of_subjects(subjects: Subjects, contract: DataContract) -> tuple[Failure, ...]:
    most = contract.rows.most_of_a_subject
    over = int(subjects.counts[subjects.counts > most].sum()) if len(subjects.ids) else 0
    return (Failure(column="", rule="rows.most_of_a_subject", rows=over),) if over else ()
