"""Every rule of a data contract catches what breaks it, names column and rule, and quotes nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.datasets import CONTRACT, TODAY, contract, people, write

from fedseal.client.datasets.checks import quality_report
from fedseal.client.datasets.encoding import subjects_of
from fedseal.client.datasets.table import read_typed
from fedseal.compliance.data.contract import DataContract, read_contract
from fedseal.compliance.data.quality import QualityReport, in_words
from fedseal.errors import ConfigError


def report(folder: Path, rules: DataContract, table: pd.DataFrame | None = None) -> QualityReport:
    write(people() if table is None else table, folder)
    typed = read_typed(folder, rules)
    return quality_report(typed, subjects_of(typed, rules.schema_of_rows), rules, TODAY)


def columns(**changes: dict[str, Any]) -> DataContract:
    return contract(columns={name: {**CONTRACT["columns"][name], **rules} for name, rules in changes.items()})


def test_what_keeps_its_contract_has_no_failures(tmp_path: Path) -> None:
    found = report(tmp_path, contract())
    assert found.failures == ()
    assert (found.rows, found.subjects, found.repeated_rows) == (5, 4, 0)
    age = next(c for c in found.columns if c.name == "age")
    assert (age.missing, age.distinct) == (1, 4)
    assert QualityReport.model_validate_json(found.model_dump_json()) == found
    assert found.digest() != report(tmp_path, columns(age={"high": 119})).digest()


Broken = tuple[DataContract, Callable[[pd.DataFrame], pd.DataFrame], tuple[str, str, int | None]]


def same(table: pd.DataFrame) -> pd.DataFrame:
    return table


RULES: dict[str, Broken] = {
    "nullable": (columns(age={"nullable": False}), same, ("age", "nullable", 1)),
    "range, low": (columns(age={"low": 10}), same, ("age", "range", 1)),
    "range, high": (columns(pressure={"high": 0.3}), same, ("pressure", "range", 3)),
    "allowed": (columns(sex={"allowed": ["f"]}), same, ("sex", "allowed", 3)),
    "most_missing": (columns(at={"most_missing": 0.19}), same, ("at", "most_missing", None)),
    "unique": (columns(person={"unique": True}), same, ("person", "unique", 2)),
    "newest_at_most_days": (columns(seen={"newest_at_most_days": 0}), same, ("seen", "newest_at_most_days", None)),
    "future": (
        columns(seen={"future": False}),
        lambda t: t.assign(seen=[TODAY.replace(day=2), *t["seen"].dt.date[1:]]),
        ("seen", "future", 1),
    ),
    "rows.least": (contract(rows={"least": 6}), same, ("", "rows.least", None)),
    "rows.most": (contract(rows={"most": 4}), same, ("", "rows.most", None)),
    "rows.most_of_a_subject": (contract(rows={"most_of_a_subject": 1}), same, ("", "rows.most_of_a_subject", 2)),
    "rows.repeated": (contract(), lambda t: pd.concat([t, t.tail(1)]), ("", "rows.repeated", 2)),
    "balance, largest": (
        contract(balance=[{"column": "ill", "largest_share": 0.59}]),  # type: ignore[arg-type]
        same,
        ("ill", "balance", None),
    ),
    "balance, smallest": (
        contract(balance=[{"column": "sex", "smallest_share": 0.41}]),  # type: ignore[arg-type]
        same,
        ("sex", "balance", None),
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_catches_what_breaks_it_and_nothing_else(tmp_path: Path, rule: str) -> None:
    rules, change, expected = RULES[rule]
    found = report(tmp_path, rules, change(people()))
    assert [(f.column, f.rule, f.rows) for f in found.failures] == [expected]


# At the limit, each of them holds: otherwise they would catch everything.
KEPT: dict[str, DataContract] = {
    "range": columns(age={"low": 7, "high": 90}),
    "most_missing": columns(at={"most_missing": 0.2}),
    "newest_at_most_days": columns(seen={"newest_at_most_days": 1}),
    "future": columns(seen={"future": False}),
    "rows": contract(rows={"least": 5, "most": 5, "most_of_a_subject": 2}),
    "balance": contract(balance=[{"column": "sex", "smallest_share": 0.4, "largest_share": 0.6}]),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("rule", KEPT)
def test_every_rule_holds_at_its_limit(tmp_path: Path, rule: str) -> None:
    assert report(tmp_path, KEPT[rule]).failures == ()


def test_a_report_quotes_nothing(tmp_path: Path) -> None:
    table = people().assign(sex=["planted-canary"] * 5, age=[4711] * 5, person=["planted-canary"] * 5)
    rules = columns(person={"unique": True}, sex={"allowed": ["f"]}, age={"high": 100})
    found = report(tmp_path, rules, table)
    assert len(found.failures) == 3
    text = found.model_dump_json() + in_words(found.failures)
    assert "canary" not in text
    assert "4711" not in text
    assert in_words(found.failures) == "column 'age': range; column 'person': unique; column 'sex': allowed"


TEXT = """\
[dataset]
name = "heart"
subject = "person"
purpose = "research"
legal_basis = ["6-1-e"]
retention_until = 2036-01-01
[dataset.source]
system = "registry"
extracted_at = 2026-01-31
[columns.person]
type = "integer"
"""
WRONG = {
    "an unknown key": (TEXT + "uniqe = true\n", "data.toml:12.*uniqe"),
    "no 6(1)": (TEXT.replace('"6-1-e"', '"9-2-j"'), "6-1-a to 6-1-f"),
    "special categories without 9(2)": (
        TEXT.replace("retention", 'special_categories = ["health"]\nretention'),
        "9-2-a",
    ),
    "consent to nothing": (TEXT.replace('"6-1-e"', '"6-1-a"'), "consent_scope_version"),
    "a subject that is no column": (TEXT.replace('subject = "person"', 'subject = "id"'), "dataset.subject"),
    "subjects by reals": (TEXT.replace('"integer"', '"real"'), "dataset.subject"),
    "a range of texts": (TEXT + '[columns.a]\ntype = "text"\nlow = 1\n', "low and high"),
    "a range upside down": (TEXT + '[columns.a]\ntype = "real"\nlow = 1\nhigh = 0\n', "at most high"),
    "allowed of another type": (TEXT + '[columns.a]\ntype = "text"\nallowed = [1]\n', "allowed"),
    "freshness of numbers": (TEXT + '[columns.a]\ntype = "real"\nfuture = false\n', "newest_at_most_days and future"),
    "balance of nothing": (TEXT + '[[balance]]\ncolumn = "b"\n', "balance names"),
    "a purpose in free text": (TEXT.replace('"research"', '"whatever"'), "purpose"),
}


def test_a_contract_is_read() -> None:
    assert read_contract(TEXT).dataset.population.value == "train"
    commented = "# a comment\n" + TEXT
    assert read_contract(commented).digest() == read_contract(TEXT).digest()
    assert read_contract(TEXT + "low = 0\n").digest() != read_contract(TEXT).digest()


@pytest.mark.parametrize("what", WRONG)
def test_a_contract_that_makes_no_sense_is_refused_with_its_line(what: str) -> None:
    text, message = WRONG[what]
    with pytest.raises(ConfigError, match=message):
        read_contract(text)
