"""A table has the same content whatever its file looks like, and the fast encoding is the slow one."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.datasets import KEYS, contract, people, write

from fedseal.client.datasets.encoding import content_of, row_matrix
from fedseal.client.datasets.table import read_typed
from fedseal.compliance.data.content import Content, leaf, subject_tag
from fedseal.compliance.data.contract import DataContract
from fedseal.compliance.data.rows import Kind, Schema, Value, row, subject_text
from fedseal.errors import DataError


def root(folder: Path, rules: DataContract | None = None) -> bytes:
    found = contract() if rules is None else rules
    return content_of(read_typed(folder, found), found.schema_of_rows, KEYS).root


def python_value(value: Any, kind: Kind) -> Value:
    """A cell of a typed table as the slow encoding takes it."""
    if pd.isna(value):
        return None
    match kind:
        case Kind.BOOLEAN:
            return bool(value)
        case Kind.INTEGER:
            return int(value)
        case Kind.REAL:
            return float(value)
        case Kind.TEXT:
            return str(value)
    moment: datetime = value.to_pydatetime().replace(tzinfo=UTC)
    return moment.date() if kind is Kind.DATE else moment


def slow_content(table: pd.DataFrame, columns: Schema) -> Content:
    """The page's definition, a cell at a time."""
    rows: dict[str, list[bytes]] = {}
    for _, record in table.iterrows():
        values = [python_value(record[c.name], c.kind) for c in columns.values]
        rows.setdefault(subject_text(record[columns.subject]), []).append(row(columns, values))
    return Content.of(leaf(subject_tag(KEYS.subject, s), KEYS.rows, columns, r) for s, r in rows.items())


def test_csv_and_parquet_have_the_same_content(tmp_path: Path) -> None:
    write(people(), tmp_path / "a", "csv")
    write(people(), tmp_path / "b", "parquet")
    assert root(tmp_path / "a") == root(tmp_path / "b")


SAME: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "persons in another order": lambda t: t.sort_values("person", ascending=False, kind="stable"),
    "columns in another order": lambda t: t[list(reversed(t.columns))],
    "a name in another spelling": lambda t: t.replace({"person": {"Zoë": "Zoe\u0308"}}),
    "integers with gaps as floats": lambda t: t.assign(age=t["age"].astype("float64")),
    "times with a zone": lambda t: t.assign(at=t["at"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
    "dates as texts": lambda t: t.assign(seen=t["seen"].dt.strftime("%Y-%m-%d")),
    "dates as dates": lambda t: t.assign(seen=t["seen"].dt.date),
    "a category": lambda t: t.assign(sex=t["sex"].astype("category")),
    "reals written otherwise": lambda t: t.assign(
        pressure=[
            "+0.30000000000000004",
            " 0 ",
            "1E-300",
            "120",
            "0.333333333333333314829616256247390992939472198486328",
        ]
    ),
    "an index": lambda t: t.set_axis([9, 8, 7, 6, 5]),
    "another zero": lambda t: t.assign(pressure=t["pressure"].abs()),
}
DIFFERENT: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "a value": lambda t: t.assign(age=t["age"].replace(44, 45)),
    "the last bit of a float": lambda t: t.assign(pressure=[0.3, *t["pressure"][1:]]),
    "a gap": lambda t: t.assign(age=t["age"].replace(44, pd.NA)),
    "a person less": lambda t: t[t["person"] != "d"],
    "a row less": lambda t: t.drop(index=2),
    "rows of one person in another order": lambda t: t.iloc[[0, 2, 1, 3, 4]],
    "another id": lambda t: t.replace({"person": {"007": "7"}}),
    "another owner of a row": lambda t: t.assign(person=["007", "b", "d", "Zoë", "d"]),
}


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("what", SAME)
def test_what_is_no_content(tmp_path: Path, what: str, form: str) -> None:
    write(people(), tmp_path / "a")
    write(SAME[what](people()), tmp_path / "b", form)
    assert root(tmp_path / "a") == root(tmp_path / "b")


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_is_content(tmp_path: Path, what: str) -> None:
    write(people(), tmp_path / "a")
    write(DIFFERENT[what](people()), tmp_path / "b")
    assert root(tmp_path / "a") != root(tmp_path / "b")


def test_a_type_is_content(tmp_path: Path) -> None:
    write(people(), tmp_path)
    as_real = contract(columns={"age": {"type": "real", "nullable": True}})
    assert root(tmp_path) != root(tmp_path, as_real)


def test_the_fast_encoding_is_the_slow_one(tmp_path: Path) -> None:
    write(people(), tmp_path)
    table, columns = read_typed(tmp_path, contract()), contract().schema_of_rows
    assert content_of(table, columns, KEYS).leaves == slow_content(table, columns).leaves
    assert row_matrix(table, columns).shape == (5, columns.row_width)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 40))
def test_on_any_table(seed: int, size: int) -> None:
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    texts = ["", "ä", "a\u0308", "x" * 300, "\U0001f600", "0"]
    table = pd.DataFrame(
        {
            "age": pd.array([draw.choice([None, 0, -1, 2**62, -(2**63)]) for _ in range(size)], dtype="Int64"),
            "at": pd.Series(rng.integers(-(2**55), 2**55, size)).astype("datetime64[us]"),
            "ill": pd.array([draw.choice([True, False, None]) for _ in range(size)], dtype="boolean"),
            "person": pd.Series([str(v) for v in rng.integers(0, 9, size)], dtype="str"),
            "pressure": [draw.choice([-0.0, 5e-324, float("nan"), -float("inf"), 1 / 3]) for _ in range(size)],
            "seen": pd.to_datetime(pd.Series(rng.integers(-20_000, 20_000, size)), unit="D").astype("datetime64[us]"),
            "sex": pd.Series([draw.choice([*texts, None]) for _ in range(size)], dtype="str"),
        }
    )
    columns = contract().schema_of_rows
    assert content_of(table, columns, KEYS).leaves == slow_content(table, columns).leaves


CANARY = "planted-canary"
MISFITS: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "a word among integers": (lambda t: t.assign(age=[CANARY, *t["age"].astype("str")[1:]]), "'age'.*no integer"),
    "a fraction among integers": (lambda t: t.assign(age=[1.5, *t["age"][1:].fillna(1)]), "'age'.*no integer"),
    "an integer too large": (lambda t: t.assign(age=["99999999999999999999"] * 5), "'age'.*no integer"),
    "a float that is no longer exact": (lambda t: t.assign(age=["9007199254740993.0"] * 5), "'age'.*no integer"),
    "a word among reals": (lambda t: t.assign(pressure=[CANARY, *t["pressure"][1:].astype("str")]), "no real"),
    "a word among dates": (lambda t: t.assign(seen=[CANARY, *t["seen"][1:].astype("str")]), "'seen'.*no date"),
    "an ambiguous date": (lambda t: t.assign(seen=["03/04/2024"] * 5), "'seen'.*no date"),
    "a time among dates": (lambda t: t.assign(seen=["2024-01-01T10:00:00"] * 5), "'seen'.*no date"),
    "nanoseconds": (lambda t: t.assign(at=["2024-01-01T00:00:00.123456789"] * 5), "'at'.*no timestamp"),
    "a word among truth values": (lambda t: t.assign(ill=[CANARY, "true", "false", "true", "true"]), "no boolean"),
    "a column more": (lambda t: t.assign(extra=CANARY), "undeclared column 'extra'"),
    "a column less": (lambda t: t.drop(columns="age"), "lacks column 'age'"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_is_not_as_declared_is_refused_and_not_quoted(tmp_path: Path, what: str) -> None:
    change, message = MISFITS[what]
    write(change(people()), tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_typed(tmp_path, contract())
    assert CANARY not in caught.value.explain()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_numbers_are_no_texts_in_parquet(tmp_path: Path, form: str) -> None:
    """In a CSV everything is text; a number in parquet could be written 7, 7.0 or 07."""
    write(people().assign(person=[1, 2, 2, 3, 4]), tmp_path, form)
    if form == "csv":
        assert list(read_typed(tmp_path, contract())["person"]) == ["1", "2", "2", "3", "4"]
    else:
        with pytest.raises(DataError, match=r"'person'.*no text"):
            read_typed(tmp_path, contract())
