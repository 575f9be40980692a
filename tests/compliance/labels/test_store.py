"""Labels in a site's store: what an import adds, how corrections supersede, and what names a label set."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as hypothesis_given
from hypothesis import settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, delete, select, update
from sqlalchemy.exc import DatabaseError
from support.labels import KEYS, SCHEMA, given, make_site

from fedseal import merkle
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.content import ItemLabels, LabelKeys, content_root, label_set_id
from fedseal.compliance.labels.facts import Corrections, LabelSetFacts, Reason, SharedLabelSet, Tool, shared_facts
from fedseal.compliance.labels.formats import Annotation, Format, Source
from fedseal.compliance.labels.merging import Live, NewRow, merged
from fedseal.compliance.labels.records import facts_from_record, record
from fedseal.compliance.labels.scale import MISSING, LabelSchema, Level, read_schema
from fedseal.compliance.labels.sets import LabelSet, decide, label_sets, make_label_set, register_label_set
from fedseal.compliance.labels.store import Imported, LabelStore
from fedseal.compliance.labels.tables import ANNOTATIONS, DIRECTORY, METADATA, SECRET, SETS
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secret import Secret

NOW = datetime(2026, 4, 1, tzinfo=UTC)
SOURCE = Source(Path("labels.csv"), Format.CSV_LONG)


@pytest.fixture
def connection() -> Iterator[Connection]:
    with create_engine("sqlite://").begin() as open_connection:
        yield open_connection


@pytest.fixture
def store(connection: Connection) -> LabelStore:
    opened = LabelStore.open(connection, KeyedRandomness(1, "site"))
    opened.add_guideline("1", b"how to label", SCHEMA)
    return opened


def add(store: LabelStore, *annotations: Annotation, guideline: str = "1", dataset: str = "d") -> Imported:
    return store.add_batch(dataset, guideline, SOURCE, b"file", list(annotations), NOW)


def holds(store: LabelStore, guideline: str | None = None) -> dict[tuple[str, str], str]:
    """The labels that hold, by item and annotator's name."""
    found, names = store.snapshot("d", guideline), store.names()
    return {
        (found.items[i], names[found.annotators[r]]): SCHEMA.labels[c]
        for i, r, c in zip(found.ratings.items, found.ratings.raters, found.ratings.codes, strict=True)
    }


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


ITEMS = [ItemLabels("x", "low", (("act_1", "low"), ("act_2", "mid"))), ItemLabels("y", None, (("act_1", "high"),))]


def test_the_same_data_have_the_same_root_and_any_change_another() -> None:
    root = content_root(KEYS, ITEMS)
    turned = dataclasses.replace(ITEMS[0], given=ITEMS[0].given[::-1])
    assert content_root(KEYS, [ITEMS[1], turned]) == root
    changed = [
        [ITEMS[0]],
        [dataclasses.replace(ITEMS[0], label="mid"), ITEMS[1]],
        [dataclasses.replace(ITEMS[0], item="z"), ITEMS[1]],
        [dataclasses.replace(ITEMS[0], given=(("act_1", "low"), ("act_3", "mid"))), ITEMS[1]],
        [ITEMS[0], dataclasses.replace(ITEMS[1], label="None")],
    ]
    assert len({root, *(content_root(KEYS, items) for items in changed)}) == len(changed) + 1
    assert content_root(LabelKeys(Secret(b"o" * 32)), ITEMS) != root
    assert content_root(KEYS, []) == merkle.root([])
    ids = {label_set_id(*parts, root) for parts in (("d", "g", "s", "m"), ("dg", "", "s", "m"), ("d", "g", "s", "n"))}
    assert len(ids) == 3


def build(store: LabelStore, method: Adjudication = Adjudication.MAJORITY) -> LabelSet:
    snapshot = store.snapshot("d")
    return make_label_set(store, snapshot, decide(store, snapshot, method), Coefficient.ALPHA)


def fill(store: LabelStore, seed: int = 3, order: int = 1) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.choice(SCHEMA.labels, size=40)
    file = [given(f"x{i}", a, label if rng.random() < 0.8 else "mid") for i, label in enumerate(labels) for a in "ABC"]
    add(store, *file[::order])


def test_a_label_set_is_named_by_its_data_and_not_by_how_they_came(tmp_path: Path) -> None:
    made = []
    for order, name in ((1, "a"), (-1, "b")):
        with make_site(tmp_path / f"{name}.sqlite", simulated=True).transaction() as transaction:
            store = LabelStore.open(transaction.connection, KeyedRandomness(1, "site"))
            store.add_guideline("1", b"how to label", SCHEMA)
            fill(store, order=order)
            made.append(build(store))
            if order == -1:
                store.correct(
                    "d", "x0", "A", next(l for l in SCHEMA.labels if l != holds(store)["x0", "A"]), Reason.MISTAKE, NOW
                )
                made.append(build(store))
    assert made[0] == made[1]
    assert made[2].id != made[0].id
    assert made[2].facts.corrections == (Corrections(1, Reason.MISTAKE),)


def test_a_registered_set_is_on_record_with_its_facts_and_its_parent(tmp_path: Path) -> None:
    site = make_site(tmp_path / "site.sqlite")
    with site.transaction() as transaction:
        store = LabelStore.open(transaction.connection, site.identity.randomness())
        store.add_guideline("1", b"how to label", SCHEMA)
        fill(store)
        store.add_gold("1", "d", {f"x{i}": "mid" for i in range(9)})
        first = build(store)
        assert register_label_set(transaction, first, NOW)
        assert not register_label_set(transaction, first, NOW + timedelta(days=1))
        second = build(store, Adjudication.DAWID_SKENE)
        assert register_label_set(transaction, second, NOW)
    with site.transaction() as transaction:
        assert label_sets(transaction.connection) == [first, second]
        text = transaction.connection.execute(select(SETS.c.facts).order_by(SETS.c.number)).scalars().all()[0]
    assert "." not in json.dumps([v for v in json.loads(text).values() if not isinstance(v, dict)])
    facts = first.facts
    assert (facts.n_multi_annotated, facts.annotators, facts.adjudication) == (40, 3, Adjudication.MAJORITY)
    assert facts.agreement is not None
    assert facts.agreement.ci[0] <= facts.agreement.value <= facts.agreement.ci[1]
    assert facts.gold is not None
    assert facts.noise is not None
    assert (facts.gold.n, facts.noise.method) == (9, "gold")
    assert (first.facts.parents, second.facts.parents) == ((), (first.id,))
    assert first.tool is Tool.TABLE


def test_without_gold_the_model_estimates_noise_and_without_variation_nothing(store: LabelStore) -> None:
    fill(store)
    noise = build(store).facts.noise
    assert noise is not None
    assert noise.method == "dawid-skene"
    add(store, *(given(f"y{i}", a, "low") for i in range(5) for a in "AB"), dataset="d2")
    snapshot = store.snapshot("d2")
    flat = make_label_set(store, snapshot, decide(store, snapshot, Adjudication.MAJORITY), Coefficient.ALPHA)
    assert (flat.facts.agreement, flat.facts.n_items) == (None, 5)
    add(store, given("z", "A", "low"), dataset="d3")
    alone = store.snapshot("d3")
    single = make_label_set(store, alone, decide(store, alone, Adjudication.SINGLE), Coefficient.ALPHA)
    assert (single.facts.agreement, single.facts.noise, single.facts.gold) == (None, None, None)


def test_what_others_may_know_has_no_number_of_the_site(store: LabelStore) -> None:
    fill(store)
    made = build(store)
    shared = shared_facts(
        made.id, dataclasses.replace(made.facts, parents=("sha256:" + "1" * 64,)), made.tool, store.keys
    )
    assert {f.name for f in dataclasses.fields(SharedLabelSet)} == {
        "label_set",
        "guideline_version",
        "label_schema",
        "adjudication",
        "tool",
        "parents",
    }
    text = json.dumps(record(shared))
    assert made.id[7:] not in text
    assert "1" * 64 not in text
    assert made.content_root.hex() not in text

    def types(value: object) -> set[type]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return {type(value)}.union(*(types(v) for v in inner))

    assert types(record(shared)) <= {dict, list, str}
    # Two sites with sizes and scores of their own: what is shared has the same form and the same public values.
    fill_more = [given(f"n{i}", "A", "low") for i in range(100)]
    add(store, *fill_more)
    other = build(store)
    again = shared_facts(other.id, other.facts, other.tool, store.keys)
    assert other.facts.n_items != made.facts.n_items
    assert dataclasses.replace(again, label_set="", parents=()) == dataclasses.replace(shared, label_set="", parents=())
    assert again.label_set != shared.label_set


def test_the_sites_facts_have_the_fields_that_were_agreed() -> None:
    assert [f.name for f in dataclasses.fields(LabelSetFacts)] == [
        "dataset_version",
        "guideline_version",
        "label_schema",
        "n_items",
        "n_multi_annotated",
        "annotators",
        "adjudication",
        "agreement",
        "gold",
        "noise",
        "corrections",
        "parents",
    ]


def test_facts_survive_their_record(store: LabelStore) -> None:
    fill(store)
    store.add_gold("1", "d", {"x1": "mid"})
    store.correct("d", "x5", "A", None, Reason.WITHDRAWN, NOW)
    facts = build(store).facts
    assert facts.gold is not None
    assert facts.corrections
    assert facts_from_record(json.loads(json.dumps(record(facts)))) == facts


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('labels = ["a", "b"]', "'level' is missing"),
        ('level = "nominal"\nlabels = ["a"]', "labels"),
        ('level = "nominal"\nlabels = ["a", "a"]', "the same label twice"),
        ('level = "nominal"\nlabels = ["a", " b"]', "printable characters"),
        ('level = "ratio"\nlabels = ["1", "b"]', "every label is a number"),
        ('level = "interval"\nlabels = ["2", "1"]', "ascending order"),
        ('level = "interval"\nlabels = ["1", "nan"]', "ascending order"),
        ('level = "ratio"\nlabels = ["-1", "1"]', "below zero"),
        ('level = "nominal"\nlabels = ["a", "b"]\nlevels = 1', "unknown key 'levels'"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_schema(text, "schema.toml")


def test_a_schemas_digest_is_of_what_it_says() -> None:
    one = read_schema('level = "ratio"\nlabels = ["0", "1.5"]', "a.toml")
    two = read_schema('version = 1\nlabels = [\n  "0",\n  "1.5",\n]\nlevel = "ratio" # same', "b.toml")
    assert one.digest() == two.digest() != SCHEMA.digest()
    assert one.scale.values == (0.0, 1.5)
    assert SCHEMA.scale.values == (0.0, 1.0, 2.0)
