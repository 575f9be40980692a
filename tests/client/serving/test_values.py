"""A column's values as numbers, and each kind of wrong one by its name, from text as from parquet's own types."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.serving import COLUMNS, SCALED, recipe

from fedseal.client.serving.features import Reader
from fedseal.client.serving.tables import open_table
from fedseal.client.serving.values import Problem, values_of
from fedseal.client.tabular import Tabular
from fedseal.compliance.registry.inputs import Input, inputs_of
from fedseal.compliance.registry.recipe import Column, Feature, InputSchema
from fedseal.errors import ConfigError, DataError

NUMBER = Column(name="x", low=-5, high=5)
NONE, MISSING, WRONG, INFINITE, OUTSIDE, UNKNOWN = Problem


def problems(column: Column, values: Sequence[object], kind: pa.DataType | None = None) -> list[Problem]:
    found = values_of(column, pa.array(values, kind), clipped=False)
    return [Problem(p) for p in found.problems]


def test_numbers_in_text() -> None:
    texts = ["1", " -2.5 ", "+3", "5.", ".5", "1e0", "4E-1", "", "NA", None, "nan", "x", "1,5", "1_0", "0x1", "٣"]
    wanted = [1, -2.5, 3, 5, 0.5, 1, 0.4, *(9 * [math.nan])]
    found = values_of(NUMBER, pa.array(texts), clipped=False)
    np.testing.assert_array_equal(found.numbers, wanted)
    assert [Problem(p) for p in found.problems] == [*(7 * [NONE]), *(4 * [MISSING]), *(5 * [WRONG])]
    more = ["inf", "-Infinity", "1e999", "6", "-5.0001", "9" * 400, "1e-999", "0." + "3" * 500]
    assert problems(NUMBER, more) == [INFINITE, INFINITE, INFINITE, OUTSIDE, OUTSIDE, INFINITE, NONE, NONE]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(allow_infinity=False, width=64), min_size=1, max_size=20))
def test_a_number_that_was_written_comes_back(numbers: list[float]) -> None:
    column = Column(name="x")
    for array in (pa.array([repr(n) for n in numbers]), pa.array(numbers, pa.float64())):
        np.testing.assert_array_equal(values_of(column, array, clipped=False).numbers, numbers)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_text_is_a_number_or_has_a_problem(texts: list[str]) -> None:
    for column in (NUMBER, Column(name="x", type="boolean"), Column(name="x", type="category", categories=("a", "NA"))):
        found = values_of(column, pa.array(texts, pa.string()), clipped=False)
        assert (np.isnan(found.numbers) <= (found.problems != NONE)).all()
        assert np.isfinite(found.numbers[found.problems == NONE]).all()


def test_other_types() -> None:
    whole, flag = Column(name="x", type="integer"), Column(name="x", type="boolean")
    sex = Column(name="x", type="category", categories=("f", "m", "NA"))
    assert problems(whole, ["1", "1.5", "2.0", "y"]) == [NONE, WRONG, NONE, WRONG]
    assert problems(whole, [1, 2, None], pa.int32()) == [NONE, NONE, MISSING]
    assert problems(flag, ["1", "false", "True", "2", "yes", ""]) == [NONE, NONE, NONE, WRONG, WRONG, MISSING]
    assert problems(flag, [True, None, False]) == [NONE, MISSING, NONE]
    assert problems(sex, ["f", "m", "NA", "x", "", None]) == [NONE, NONE, NONE, UNKNOWN, MISSING, MISSING]
    assert problems(NUMBER, [1.0, math.nan, math.inf, 9.0], pa.float32()) == [NONE, MISSING, INFINITE, OUTSIDE]
    assert problems(NUMBER, [None, None], pa.null()) == [MISSING, MISSING]
    assert problems(Column(name="x", type="category", categories=("1", "2")), [1, 3], pa.int64()) == [NONE, UNKNOWN]
    table = pa.array(["f", "x"]).dictionary_encode()
    assert [Problem(p) for p in values_of(sex, table, clipped=False).problems] == [NONE, UNKNOWN]
    with pytest.raises(DataError, match="holds list"):
        problems(NUMBER, [[1.0]], pa.list_(pa.float64()))


def test_a_row_says_its_first_problem_and_all_are_counted() -> None:
    table = pd.DataFrame({"a": ["1", "99", "", "x"], "b": ["1", "", "2", ""], "c": ["1", "1", "1e39", "1"]})
    reader = Reader(tuple(Input(Feature(column=c.name), c) for c in COLUMNS))
    found = reader.read(pa.RecordBatch.from_pandas(table))
    assert [Problem(p) for p in found.problems] == [NONE, OUTSIDE, MISSING, WRONG]
    assert list(found.columns) == [-1, 0, 0, 0]
    wanted = {("a", "missing"): 1, ("a", "out-of-range"): 1, ("a", "wrong-type"): 1, ("b", "missing"): 2}
    assert reader.counts == wanted
    overflown = reader.read(pa.RecordBatch.from_pandas(table.assign(a="1", b="1")))
    assert [Problem(p) for p in overflown.problems] == [NONE, NONE, INFINITE, NONE]
    assert np.isfinite(overflown.features).all()


def test_features_are_what_a_tabular_task_makes() -> None:
    """Centre, scale, the widest place and what a missing value becomes, to the last bit."""
    task = Tabular(("a", "b"), classes=2, centre=(0.3, 7.1), scale=(1.7, 0.013))
    table = pd.DataFrame({"a": [0.1, np.nan, 4.7, -3.3], "b": [7.0, 9.9, np.nan, 7.11]})
    features = tuple(
        Feature(column=name, centre=centre, scale=scale, missing=0.0, furthest=10.0)
        for name, centre, scale in zip(task.features, task.centre, task.scale, strict=True)
    )
    inputs = inputs_of(
        recipe(features=features, normalisation=None),
        InputSchema(columns=(Column(name="a"), Column(name="b")), tensors=()),
    )
    found = Reader(inputs).read(pa.RecordBatch.from_pandas(table))
    np.testing.assert_array_equal(found.features, task.scaled(table.to_numpy()))
    assert not found.problems.any()


def test_functions_ranges_and_categories() -> None:
    columns = (
        Column(name="area", low=1, high=100),
        Column(name="ratio", low=0, high=4),
        Column(name="sex", type="category", categories=("f", "m")),
    )
    features = (
        Feature(column="area", clip=True, function="log", centre=0.0, scale=math.log(100)),
        Feature(column="ratio", clip=True, function="sqrt", scale=2.0),
        Feature(column="sex", category="m"),
        Feature(column="sex", category="f", missing=0.5),
    )
    inputs = inputs_of(recipe(features=features, normalisation=None), InputSchema(columns=columns, tensors=()))
    reader = Reader(inputs)
    table = pd.DataFrame({"area": [10, 1000, 0], "ratio": [1, 4, 9], "sex": ["m", "f", "x"]})
    found = reader.read(pa.RecordBatch.from_pandas(table))
    wanted = np.array([[0.5, 0.5, 1, 0], [1, 1, 0, 1]], dtype=np.float32)
    np.testing.assert_allclose(found.features[:2], wanted, rtol=1e-6)
    assert reader.clipped == {"area": 2, "ratio": 1}
    assert reader.counts == {("sex", "unknown-category"): 1}


BAD = {
    "no column": ((Feature(column="z"),), COLUMNS, "says nothing"),
    "no range": ((Feature(column="b", clip=True),), COLUMNS, "does not have"),
    "a logarithm of 0": ((Feature(column="b", function="log"),), COLUMNS, "does not allow"),
    "a root": ((Feature(column="a", function="sqrt"),), COLUMNS, "does not allow"),
    "no category": ((Feature(column="a", category="f"),), COLUMNS, "which number"),
    "text": ((Feature(column="t"),), (Column(name="t", type="text"),), "which number"),
    "no such category": (
        (Feature(column="s", category="x"),),
        (Column(name="s", type="category", categories=("f",)),),
        "category of",
    ),
    "twice": ((), (Column(name="a"), Column(name="a")), "twice"),
    "nothing": ((), (), "does not say which columns"),
    "an empty range": ((), (Column(name="a", low=2, high=1),), "empty"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bundle_that_does_not_say_how_is_refused(case: str) -> None:
    features, columns, says = BAD[case]
    with pytest.raises(ConfigError, match=says):
        inputs_of(recipe(features=features, normalisation=None), InputSchema(columns=columns, tensors=()))


def test_shapes_have_to_fit() -> None:
    with pytest.raises(ConfigError, match="normalises 3"):
        inputs_of(recipe(normalisation=SCALED), InputSchema(columns=COLUMNS[:2], tensors=()))
    with pytest.raises(ConfigError, match="shape"):
        inputs_of(recipe(), InputSchema(columns=COLUMNS, shape=(4,), tensors=()))


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no header"),
    "zero byte": (b"a,b\0,c\n1,2,3\n", "zero byte"),
    "not UTF-8": (b"a,b,c\n1,2,\xff\n", "cannot be read"),
    "UTF-16": ("a,b,c\n1,2,3\n".encode("utf-16"), "not UTF-8"),
    "two of one name": (b"a,b,c,a\n1,2,3,4\n", "two columns of one name: the second is column 4"),
    "short row": (b"a,b,c\n1,2,3\n1,2\n", "row 3, the header being 1, has 2 values and not 3"),
    "long row": (b"a,b,c\n1,2,3,4\n", "has 4 values"),
    "open quote": (b'a,b,c\n1,2,"' + 5_000_000 * b"x\n", "no row may be longer|cannot be read"),
    "open quote in header": (b'a,b,"c\n1,2,3\n', "quote in its header"),
    "a million columns": (b",".join(b"c%d" % i for i in range(10**6)) + b"\n", "no header"),
    "many short columns": (b",".join(b"%x" % i for i in range(20_000)) + b"\n", "more than 10000"),
    "one long value": (b"a,b,c\n1,2," + (9 << 20) * b"3" + b"\n", "cannot be read"),
    "no such columns": (b"x,y,z\n1,2,3\n", "lacks 3 of 3 columns"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_ends_with_a_named_error(case: str, tmp_path: Path) -> None:
    raw, says = HOSTILE[case]
    path = tmp_path / "in.csv"
    path.write_bytes(raw)
    reader = Reader(tuple(Input(Feature(column=c.name), c) for c in COLUMNS))
    with pytest.raises(DataError, match=says) as caught:
        table = open_table(path)
        reader.check(table)
        for piece in table.pieces(["a", "b", "c"]):
            reader.read(piece)
    # Never what is in the file: a person's data may stand in its first line.
    assert "1,2" not in caught.value.explain()
    assert "x" * 9 not in caught.value.explain()


def test_a_file_with_a_mark_and_quotes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbf"a","b",c,"note, with ""quotes"""\r\n"1","2",3,"one\r\ntwo"\r\n')
    table = open_table(path)
    assert table.columns[0] == "a"
    (piece,) = table.pieces(["a", "c"])
    assert piece.to_pydict() == {"a": ["1"], "c": ["3"]}


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    whole = path.read_bytes()
    for raw in (b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], whole[:4] + bytes(len(whole) - 8) + whole[-4:]):
        path.write_bytes(raw)
        with pytest.raises(DataError):
            list(open_table(path).pieces(["a"]))
