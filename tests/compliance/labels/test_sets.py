"""Label set versions: their digest, their facts, and what of them others may know."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, select
from support.labels import KEYS, NOW, SCHEMA, add, given, holds, make_site, open_store

from fedseal import merkle
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.content import ItemLabels, LabelKeys, content_root, label_set_id
from fedseal.compliance.labels.facts import Corrections, LabelSetFacts, Reason, SharedLabelSet, Tool, shared_facts
from fedseal.compliance.labels.records import facts_from_record, record
from fedseal.compliance.labels.scale import read_schema
from fedseal.compliance.labels.sets import LabelSet, decide, label_sets, make_label_set, register_label_set
from fedseal.compliance.labels.store import LabelStore
from fedseal.compliance.labels.tables import SETS
from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.secret import Secret


@pytest.fixture
def store() -> Iterator[LabelStore]:
    with create_engine("sqlite://").begin() as connection:
        yield open_store(connection)


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
