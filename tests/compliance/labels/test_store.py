"""Labels in a site's store: what an import adds, how corrections supersede, and what names a label set."""

from collections.abc import Iterator

import pytest
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, select, update
from sqlalchemy.exc import DatabaseError
from support.labels import KEYS, NOW, SCHEMA, SOURCE, add, given, holds, open_store

from fedseal.compliance.labels.content import LabelKeys
from fedseal.compliance.labels.facts import Corrections, Reason
from fedseal.compliance.labels.formats import Annotation
from fedseal.compliance.labels.holdings import Imported
from fedseal.compliance.labels.merging import Live, NewRow, merged
from fedseal.compliance.labels.scale import MISSING, LabelSchema, Level
from fedseal.compliance.labels.store import LabelStore
from fedseal.compliance.labels.tables import ANNOTATIONS, DIRECTORY, METADATA, SECRET
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secret import Secret


@pytest.fixture
def connection() -> Iterator[Connection]:
    with create_engine("sqlite://").begin() as open_connection:
        yield open_connection


@pytest.fixture
def store(connection: Connection) -> LabelStore:
    return open_store(connection)


def rows(store: LabelStore) -> list[tuple[object, ...]]:
    columns = ANNOTATIONS.c
    query = select(columns.number, columns.label, columns.supersedes, columns.reason).order_by(columns.number)
    return [tuple(row) for row in store.connection.execute(query)]


def test_what_is_imported_holds(store: LabelStore) -> None:
    done = add(store, given("x", "Anna", "low"), given("x", "Bert", "mid"), given("y", "Anna", "high"))
    assert done == Imported(1, 3, 0, 0)
    assert holds(store) == {("x", "Anna"): "low", ("x", "Bert"): "mid", ("y", "Anna"): "high"}
    found = store.snapshot("d", annotators=("Anna",))
    assert (found.items, found.ratings.n_raters) == (("x", "y"), 1)
    assert found.annotators == (store.keys.pseudonym("Anna"),)
    assert store.snapshot("d", annotators=found.annotators).items == found.items
    assert found.codes({"y": "high", "z": "low", "x": "none such"}).tolist() == [MISSING, 2]


def test_names_stand_in_the_directory_and_nowhere_else(store: LabelStore) -> None:
    add(store, given("x", "Anna-Planted", "low"))
    store.add_decisions("1", "d", {"x": "low"}, "Rita-Planted")
    for table in METADATA.sorted_tables:
        text = repr([tuple(row) for row in store.connection.execute(select(table))])
        assert ("Planted" in text) is (table is DIRECTORY)


def test_the_same_file_again_adds_nothing(store: LabelStore) -> None:
    file = (given("x", "Anna", "low", 1), given("x", "Bert", "mid"))
    add(store, *file)
    assert add(store, *file) == Imported(2, 0, 0, 2)
    assert len(rows(store)) == 2


def test_a_later_label_corrects_and_the_earlier_row_stays(store: LabelStore) -> None:
    add(store, given("x", "Anna", "low", 1))
    assert add(store, given("x", "Anna", "mid", 2)) == Imported(2, 0, 1, 0)
    assert rows(store) == [(1, "low", None, None), (2, "mid", 1, "annotator-revised")]
    # The old export once more: known, and it does not come back to life.
    assert add(store, given("x", "Anna", "low", 1)) == Imported(3, 0, 0, 1)
    assert holds(store) == {("x", "Anna"): "mid"}


def test_within_a_file_times_decide_whatever_the_order(store: LabelStore) -> None:
    done = add(store, given("x", "Anna", "mid", 5, place=2), given("x", "Anna", "low", 1, place=3))
    assert (done.added, done.corrected) == (1, 1)
    assert holds(store) == {("x", "Anna"): "mid"}


@pytest.mark.parametrize(
    "second",
    [given("x", "Anna", "mid", 5, place=9), given("x", "Anna", "low", 5, place=9), given("x", "Anna", "mid", place=9)],
)
def test_a_file_that_contradicts_itself_is_refused_whole(store: LabelStore, second: Annotation) -> None:
    with pytest.raises(DataError, match=r"labels.csv: line 9: the same annotator labels the same item as at line 4"):
        add(store, given("y", "Anna", "low"), given("x", "Anna", "low", 5, place=4), second)
    assert rows(store) == []


@pytest.mark.parametrize("minute", [None, 4, 5])
def test_another_label_without_a_later_time_is_refused(store: LabelStore, minute: int | None) -> None:
    add(store, given("x", "Anna", "low", 5))
    with pytest.raises(DataError, match=r"line 3: another label than this annotator gave .* no later time") as caught:
        add(store, given("x", "Anna", "high", minute, place=3))
    assert "fedseal labels correct" in caught.value.next_step
    assert "Anna" not in caught.value.explain()
    assert holds(store) == {("x", "Anna"): "low"}


def test_a_person_corrects_and_withdraws(store: LabelStore) -> None:
    add(store, given("x", "Anna", "low", 1), given("y", "Anna", "low"))
    store.correct("d", "x", "Anna", "high", Reason.MISTAKE, NOW)
    store.correct("d", "y", store.keys.pseudonym("Anna"), None, Reason.WITHDRAWN, NOW)
    assert holds(store) == {("x", "Anna"): "high"}
    assert rows(store)[2:] == [(3, "high", 2, "mistake"), (4, None, 1, "withdrawn")]
    # What was withdrawn does not return with the next export.
    assert add(store, given("y", "Anna", "low"), given("x", "Anna", "low", 1)).known == 2
    store.correct("d", "x", "Anna", "mid", Reason.MISTAKE, NOW)
    assert rows(store)[-1] == (5, "mid", 3, "mistake")
    assert store.corrections("d", "1", 0) == (Corrections(2, Reason.MISTAKE), Corrections(1, Reason.WITHDRAWN))
    assert store.corrections("d", "1", 4) == (Corrections(1, Reason.MISTAKE),)


@pytest.mark.parametrize(
    ("item", "who", "label", "says"),
    [
        ("x", "Bert", "mid", "no annotation of that item"),
        ("z", "Anna", "mid", "no annotation of that item"),
        ("x", "Anna", "low", "has that label already"),
        ("x", "Anna", "Planted", "schema does not have"),
    ],
)
def test_a_correction_of_nothing_is_refused(store: LabelStore, item: str, who: str, label: str, says: str) -> None:
    add(store, given("x", "Anna", "low"))
    with pytest.raises(DataError, match=says) as caught:
        store.correct("d", item, who, label, Reason.MISTAKE, NOW)
    assert "Planted" not in caught.value.explain()
    assert len(rows(store)) == 1


def test_a_later_guideline_supersedes_and_an_earlier_one_does_not(store: LabelStore) -> None:
    store.add_guideline("2", b"how to label, better", SCHEMA)
    add(store, given("x", "Anna", "low"), given("y", "Anna", "low"))
    assert add(store, given("x", "Anna", "low"), guideline="2").corrected == 1
    assert rows(store)[-1] == (3, "low", 1, "guideline-changed")
    assert (holds(store), holds(store, "1")) == ({("x", "Anna"): "low"}, {("y", "Anna"): "low"})
    assert add(store, given("x", "Anna", "low")).known == 1
    with pytest.raises(DataError, match="no later time"):
        add(store, given("x", "Anna", "mid", 9))
    # The file may say which version it follows, line by line.
    assert add(store, given("z", "Anna", "low", guideline="2"), given("z", "Bert", "mid")).added == 2
    assert holds(store)["z", "Anna"] == "low"


def test_labels_are_of_the_schema_and_guidelines_are_registered(store: LabelStore) -> None:
    with pytest.raises(DataError, match=r"line 7: a label that the guideline's label schema does not have") as caught:
        add(store, given("x", "Anna", "Planted", place=7))
    assert "Planted" not in caught.value.explain()
    with pytest.raises(ConfigError, match="no guideline version '3'"):
        add(store, given("x", "Anna", "low", guideline="3"))
    with pytest.raises(DataError, match="no annotations of that kind"):
        store.snapshot("d")
    with pytest.raises(DataError, match="2 labels that the guideline's label schema does not have"):
        store.add_gold("1", "d", {"x": "Planted", "y": "b", "z": "low"})
    assert store.gold("d") == {}


def test_a_guideline_version_is_one_document_and_one_schema(store: LabelStore) -> None:
    again = store.add_guideline("1", b"how to label", SCHEMA)
    assert again == store.guideline("1")
    assert len(store.guidelines()) == 1
    for document, schema in (
        (b"other", SCHEMA),
        (b"how to label", LabelSchema(level=Level.NOMINAL, labels=("a", "b"))),
    ):
        with pytest.raises(ConfigError, match="another document or has another label schema"):
            store.add_guideline("1", document, schema)
    for name in ("", " 2", "a\nb", "x" * 257):
        with pytest.raises(ConfigError, match="printable characters"):
            store.add_guideline(name, b"d", SCHEMA)


def test_gold_and_decisions_are_added_and_the_newest_holds(store: LabelStore) -> None:
    store.add_gold("1", "d", {"x": "low", "y": "mid"})
    store.add_gold("1", "d", {"x": "high", "y": "mid"})
    assert store.gold("d") == {"x": "high", "y": "mid"}
    assert store.gold("other") == {}
    store.add_decisions("1", "d", {"x": "low"}, "Rita")
    store.add_decisions("1", "d", {"x": "mid"}, "Rita")
    assert store.decisions("d") == {"x": "mid"}


def test_rows_cannot_be_changed_by_mistake(store: LabelStore) -> None:
    add(store, given("x", "Anna", "low"))
    with pytest.raises(DatabaseError, match="never changed"):
        store.connection.execute(update(ANNOTATIONS).values(label="high"))
    with pytest.raises(DatabaseError, match="UNIQUE"):
        for number in (8, 9):
            twin = {"number": number, "dataset": "d", "item": "x", "annotator": "a", "guideline": "1", "supersedes": 1}
            store.connection.execute(ANNOTATIONS.insert().values(**twin))
    # A name may be taken out of the directory.
    store.connection.execute(delete(DIRECTORY))
    assert store.names() == {}


def test_the_secret_is_drawn_once_and_does_not_show(connection: Connection) -> None:
    with pytest.raises(ConfigError, match="no labels yet"):
        LabelStore.look(connection)
    first = LabelStore.open(connection, KeyedRandomness(1, "site"))
    again = LabelStore.open(connection, KeyedRandomness(2, "site"))
    assert first.keys == again.keys == LabelStore.look(connection).keys
    secret = connection.execute(select(SECRET.c.secret)).scalar_one()
    assert len(secret) == 32
    assert secret.hex() not in repr(first.keys)
    other = LabelKeys(Secret(b"o" * 32))
    assert first.keys.pseudonym("Anna") != other.pseudonym("Anna")
    assert first.keys.pseudonym("Anna").startswith("act_")
    assert len(first.keys.pseudonym("Anna")) == 4 + 32
    assert len({first.keys.item("a"), first.keys.item("b"), bytes.fromhex(first.keys.commitment("a")[5:])}) == 3


moments = st.lists(
    st.tuples(st.sampled_from("xy"), st.sampled_from("AB"), st.sampled_from(SCHEMA.labels), st.integers(0, 40)),
    max_size=12,
    unique_by=lambda entry: (entry[0], entry[1], entry[3]),
)


@hypothesis_given(moments, st.integers(0, 12))
@settings(max_examples=60, deadline=None)
def test_with_times_the_last_label_holds_however_files_are_cut(
    events: list[tuple[str, str, str, int]], cut: int
) -> None:
    """Each annotator's labels in the order of their times: one file, or two of which the second is later."""
    ordered = sorted(events, key=lambda entry: entry[3])
    files = [[given(i, a, label, minute) for i, a, label, minute in part] for part in (ordered[:cut], ordered[cut:])]
    live: dict[tuple[str, str], Live] = {}
    stored: list[NewRow] = []
    for file in files:
        new, _ = merged(file, live, KEYS, SOURCE, "1", {"1": 1}, len(stored) + 1)
        stored.extend(new)
    last = {(i, KEYS.pseudonym(a)): label for i, a, label, _ in ordered}
    assert {key: entry.label for key, entry in live.items()} == last
    # Every row but the first of its chain names the one before, once.
    named = [row.supersedes for row in stored if row.supersedes is not None]
    assert len(named) == len(set(named)) == len(stored) - len(last)
    by_number = {row.number: row for row in stored}
    for row in stored:
        if row.supersedes is not None:
            before = by_number[row.supersedes]
            assert (before.item, before.annotator) == (row.item, row.annotator)
            assert row.supersedes < row.number
