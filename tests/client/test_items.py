"""Records grouped by person: nobody is lost, nobody is split, the order of rows does not matter, and nobody has
more records than were asked for. And columns as numbers: what is missing or no number is said, and never quoted.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.client.items import days, numbers, person_items, scaled
from fedseal.client.split import by_hash, person_text
from fedseal.errors import DataError

CANARY = "canary-4711"
ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(-9, 9)), max_size=40)


def visits(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    """Person, day, and one value; the outcome is a person's."""
    table = pd.DataFrame(rows, columns=["person", "day", "value"], dtype=np.int64)
    return table.assign(outcome=10 * table["person"])


def twin(rows: list[tuple[int, int, int]], most: int) -> dict[str, list[float]]:
    """The newest records of each person, oldest first, in plain Python."""
    found: dict[str, list[float]] = {}
    for person in {row[0] for row in rows}:
        mine = sorted((day, value) for whose, day, value in rows if whose == person)
        found[str(person)] = [float(value) for _, value in mine[-most:]]
    return found


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_person_is_one_item_whatever_the_order_of_the_rows(
    rows: list[tuple[int, int, int]], most: int, random: Any
) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    one, two = (
        person_items(visits(r), person="person", features=["value"], most_records=most, newest_by="day")
        for r in (rows, shuffled)
    )
    assert one.ids.tolist() == two.ids.tolist() == sorted({str(row[0]) for row in rows})
    assert one.records.equal(two.records)
    assert one.mask.equal(two.mask)
    expected = twin(rows, most)
    for i, person in enumerate(one.ids):
        kept = int(one.lengths[i])
        assert 1 <= kept <= most
        assert one.records[i, :kept, 0].tolist() == expected[person]
        assert not one.records[i, kept:].any()
        assert one.mask[i].tolist() == [1.0] * kept + [0.0] * (most - kept)
    assert one.values(visits(rows), "outcome").tolist() == [10.0 * int(p) for p in one.ids]


@settings(max_examples=60, deadline=None)
@given(ROWS, st.integers(1, 6))
def test_without_a_time_the_first_rows_stay_in_their_order(rows: list[tuple[int, int, int]], most: int) -> None:
    items = person_items(visits(rows), person="person", features=["value"], most_records=most)
    for i, person in enumerate(items.ids):
        mine = [float(value) for whose, _, value in rows if str(whose) == person]
        assert items.records[i, : int(items.lengths[i]), 0].tolist() == mine[:most]


def test_a_person_is_one_whether_the_id_is_a_number_or_a_text() -> None:
    table = pd.DataFrame({"person": [7, "7", 7.0, "x"], "value": [1.0, 2.0, 3.0, 4.0]}, dtype=object)
    items = person_items(table, person="person", features=["value"], most_records=5)
    assert items.ids.tolist() == ["7", "x"]
    assert items.lengths.tolist() == [3, 1]
    # And so lies in the same part as everywhere else.
    assert [p.tolist() for p in by_hash(items.ids, study="s")] == [p.tolist() for p in by_hash([7, "x"], study="s")]
    assert person_text(7.0) == items.ids[0]


def test_dates_order_records_whatever_their_type() -> None:
    texts = pd.DataFrame({"p": ["a"] * 3, "when": ["2024-02-01", "2023-12-31", "2024-01-05"], "x": [3.0, 1.0, 2.0]})
    times = texts.assign(when=pd.to_datetime(texts["when"]))
    for table in (texts, times, texts.assign(when=texts["when"] + "T08:00:00Z")):
        items = person_items(table, person="p", features={"x": (0, 4)}, most_records=2, newest_by="when")
        assert items.records.tolist() == [[[0.0], [0.5]]]
    assert days(texts, "when", since="2024-01-01").tolist() == [31.0, -1.0, 4.0]


def test_public_ranges_scale_and_bound() -> None:
    table = pd.DataFrame({"age": [0, 50, 100, 200], "x": [1, 2, 3, None]})
    assert scaled(table, {"age": (0, 100)})[:, 0].tolist() == [-1.0, 0.0, 1.0, 1.0]
    assert scaled(table, {"x": (1, 3)}, fill_missing=True)[:, 0].tolist() == [-1.0, 0.0, 1.0, 0.0]
    for low, high in ((1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)):
        with pytest.raises(ValueError, match="finite range"):
            scaled(table, {"age": (low, high)})


def refused(table: pd.DataFrame, text: str, **changes: Any) -> None:
    arguments: dict[str, Any] = {"person": "p", "features": ["x"], "most_records": 3} | changes
    with pytest.raises(DataError) as caught:
        person_items(table, **arguments).values(table, "y")
    assert text in caught.value.message
    assert caught.value.next_step
    assert CANARY not in caught.value.explain()
    # Nor in a traceback, which a site keeps.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_an_outcome_that_is_missing_is_left_out_and_not_filled_in() -> None:
    table = pd.DataFrame({"p": ["a", "b"], "x": [1.0, 2.0], "y": [1.0, None]})
    with pytest.raises(DataError, match="column 'y' has missing values") as caught:
        person_items(table, person="p", features=["x"], most_records=1).values(table, "y")
    assert "dropna(subset=['y'])" in caught.value.next_step
    rest = table.dropna(subset=["y"])
    assert person_items(rest, person="p", features=["x"], most_records=1).values(rest, "y").tolist() == [1.0]


def test_what_is_wrong_with_a_table_is_said_by_column_and_never_quoted() -> None:
    whole = {"p": ["a", "a", "b"], "x": [1.0, 2.0, 3.0], "y": [1.0, 1.0, 0.0], "when": [1, 2, 3]}
    table = pd.DataFrame(whole)
    refused(pd.DataFrame(whole | {"p": ["a", None, "b"]}), "column 'p' has missing values")
    refused(pd.DataFrame(whole | {"x": [1.0, None, 3.0]}), "column 'x' has missing values")
    refused(pd.DataFrame(whole | {"x": ["1", CANARY, "3"]}), "column 'x' holds something that is no number")
    refused(pd.DataFrame(whole | {"y": [1.0, 2.0, 0.0]}), "column 'y' differs between the records of a person")
    refused(pd.DataFrame(whole | {"y": [1.0, 1.0, None]}), "column 'y' has missing values")
    refused(
        pd.DataFrame(whole | {"when": ["2024-01-01", "03/04/2024", CANARY]}), "no date written as", newest_by="when"
    )
    refused(pd.DataFrame(whole | {"when": [1.0, None, 2.0]}), "column 'when' has missing values", newest_by="when")
    refused(table, "lacks column 'height'", features=["height"])
    with pytest.raises(ValueError, match="at least 1"):
        person_items(table, person="p", features=["x"], most_records=0)


def test_numbers_of_nothing() -> None:
    assert numbers(pd.DataFrame({"a": [1, 2]}), []).shape == (2, 0)
    items = person_items(visits([]), person="person", features={"value": (0, 1)}, most_records=2, newest_by="day")
    assert (items.records.shape, items.mask.shape, len(items.ids)) == ((0, 2, 1), (0, 2), 0)
