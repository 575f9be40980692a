"""Events: one fact has one form, one author, one place; nothing that is not in the schema can enter."""

import json
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.events import bodies, times
from support.keys import SERVER, key

from fedseal.compliance.events.bodies import Genesis, PlanFacts, RunFinished
from fedseal.compliance.events.fields import decimal, public_name
from fedseal.compliance.events.leaf import ENTITIES, Place, keyid_of, read_event, sign_event, subjects_of
from fedseal.compliance.events.plans import plan_facts, plan_of
from fedseal.compliance.events.registry import EVENTS, Author, Book, EventType, type_of
from fedseal.compliance.events.subjects import ModelRegistered
from fedseal.compliance.log.canonical import decode, encode
from fedseal.config import Frozen
from fedseal.errors import LocalError, PeerError
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, SharedGeometric, SharedSkellam

NOW = "2026-11-28T09:00:00.000000Z"
KINDS = pytest.mark.parametrize("kind", EVENTS.values(), ids=list(EVENTS))

# What must never stand in a log, as it might be put there.
CANARIES: tuple[Any, ...] = (
    "Jane Roe",
    "MRN 00042",
    "/data/ward 7/patients.csv",
    "C:\\data\\patients.csv",
    "KeyError: 'Jane Roe'",
    "jane.roe@hospital.example",
    "10.0.0.7:9092",
    "biopsy: malignant\n",
    "Müller",
    3.14,
    -1,
    1 << 60,
    None,
    {"text": "free"},
    ["free text"],
)


def leaf_of(body: Frozen, kind: EventType | None = None) -> bytes:
    return sign_event(body, SERVER, Place(), org="server", time=NOW, kind=kind)


def forged(leaf: bytes, change: typing.Callable[[dict[str, Any]], object]) -> bytes:
    """The leaf with a change, canonical again where it can be; its signature is not looked at by `read_event`."""
    value = typing.cast(dict[str, Any], decode(leaf))
    change(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8")


@KINDS
@settings(max_examples=8, deadline=None)
@given(st.data())
def test_every_type_is_read_as_it_was_signed(kind: EventType, data: st.DataObject) -> None:
    body, time = data.draw(bodies(kind.body)), data.draw(times())
    leaf = sign_event(body, SERVER, Place(), org="server", time=time, kind=kind)
    event = read_event(leaf)
    assert (event.body, event.kind, event.time, event.run, event.seq) == (body, kind, time, None, 0)
    assert event.signed_by(SERVER.public)
    assert not event.signed_by(key("site-1").public)
    assert len(leaf) <= 16 * 1024


def fields_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in a body, those in lists and tables too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (*path, name)
            yield from fields_in(inner, (*path, name))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield (*path, place)
            yield from fields_in(inner, (*path, place))


def planted(value: Any, path: tuple[Any, ...], canary: Any) -> Any:
    """A copy with the canary at a place."""
    if not path:
        return canary
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = planted(value[path[0]], path[1:], canary)
    return copy


@KINDS
@settings(max_examples=3, deadline=None)
@given(st.data())
def test_no_canary_gets_into_any_field(kind: EventType, data: st.DataObject) -> None:
    body = data.draw(bodies(kind.body))
    plain = body.model_dump(mode="json")
    for path in fields_in(plain):
        for canary in CANARIES:
            changed = planted(plain, path, canary)
            if changed == plain:
                continue
            try:
                found = kind.body.model_validate_json(json.dumps(changed))
            except ValidationError:
                continue
            # None is what an optional field may be, and an empty place nothing anyone could read.
            assert canary is None, (path, canary)
            assert found.model_dump(mode="json") == changed


def test_the_canaries_are_seen_by_a_form_that_is_not_closed() -> None:
    """The twin: a field of free text lets them in."""

    class Open(Frozen):
        note: str

    assert Open(note="Jane Roe")


@pytest.mark.parametrize("canary", [c for c in CANARIES if isinstance(c, str)])
@pytest.mark.parametrize("field", ["type", "time", "actor", "org", "prev", "run", "sealed"])
def test_no_canary_gets_into_the_envelope_and_no_error_quotes_one(field: str, canary: str) -> None:
    leaf = leaf_of(RunFinished(rounds=3, model=None))
    with pytest.raises(PeerError) as caught:
        read_event(forged(leaf, lambda v: v.update({field: canary})))
    assert canary.strip() not in caught.value.explain()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: v.update(note="x"),
        lambda v: v["body"].update(note="x"),
        lambda v: v["body"].pop("model"),
        lambda v: v.pop("subject"),
        lambda v: v.update(subject=[{"k": "model", "d": "sha256:" + 64 * "1"}]),
        lambda v: v.update(v=2),
        lambda v: v.update(seq=-1),
        lambda v: v.update(seq="0"),
        lambda v: v["sig"].update(s=v["sig"]["s"][:-3] + "B=="),
        lambda v: v.update(time="2026-02-30T00:00:00.000000Z"),
        lambda v: v.update(type="run.finished/v2"),
        lambda v: v.update(run=None),
        lambda v: v["body"].update(rounds=True),
        lambda v: v["body"].update(rounds=3.0),
    ],
)
def test_a_leaf_of_another_form_is_refused(change: typing.Callable[[dict[str, Any]], object]) -> None:
    leaf = leaf_of(RunFinished(rounds=3, model=None))
    assert read_event(forged(leaf, lambda v: None)).body == RunFinished(rounds=3, model=None)
    with pytest.raises(PeerError):
        read_event(forged(leaf, change))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    leaf = leaf_of(ModelRegistered.model_validate(MODEL))
    place, bit = data.draw(st.integers(0, len(leaf) - 1)), data.draw(st.integers(0, 7))
    changed = leaf[:place] + bytes([leaf[place] ^ (1 << bit)]) + leaf[place + 1 :]
    try:
        event = read_event(changed)
    except PeerError:
        return
    assert not event.signed_by(SERVER.public)


MODEL = {"model": "sha256:" + 64 * "a", "parent": "sha256:" + 64 * "b", "kind": "global", "round": 3, "bundle": None}


def test_subjects_follow_from_the_body() -> None:
    found = subjects_of(ModelRegistered.model_validate(MODEL))
    assert [(s.k, s.d) for s in found] == [("model", MODEL["model"]), ("model", MODEL["parent"])]


def test_every_field_that_names_an_entity_is_known_as_one() -> None:
    """A digest or commitment that no question could find must be meant so."""
    silent = {"roster", "old_root", "root", "policy", "header", "update", "selected_with", "data_schema", "by"}
    silent |= {"consent_scope", "parents", "content_root", "split", "source", "quality_report", "replaces", "report"}
    silent |= {
        "candidate",
        "fallback",
        "target",
        "label_schema",
        "evidence",
        "leaf",
        "data_contract",
        "assignment",
        "query",
        "gold",
        "sealed",
        "rules",
    }
    for kind in EVENTS.values():
        for name, hint in typing.get_type_hints(kind.body, include_extras=True).items():
            if "sha256:" in repr(hint) or "hmac:" in repr(hint):
                assert name in ENTITIES or name in silent, (kind.name, name)


def test_an_event_that_does_not_fit_is_our_own_fault() -> None:
    with pytest.raises(LocalError):
        sign_event(RunFinished(rounds=1, model=None), SERVER, Place(), org="Jane Roe", time=NOW)


def test_types_say_who_may_sign_them_and_where_they_may_stand() -> None:
    assert type_of(Genesis.model_construct()).books == frozenset(Book)
    for kind in EVENTS.values():
        assert kind.authors and kind.books
        if kind.name.split(".")[-1].startswith(("details", "accessed", "shared")):
            assert kind.books == {Book.SITE} and kind.authors == {Author.SITE}


PLANS = [
    NoPrivacy(releases=3, retries=1),
    LocalGaussian(clip_norm=0.1, noise_multiplier=1.5, sample_rate=1e-05, steps=79, releases=20, retries=1),
    SharedSkellam(unit=0, clip_norm=1.0, resolution=1 << 20, length=14, variance=1 << 40, releases=5, retries=1),
    SharedGeometric(epsilon=0.5, cells=1, length=20, releases=1, retries=0),
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda p: p.kind.label)
def test_a_plan_is_the_same_in_bytes_and_in_words(plan: Any) -> None:
    facts = plan_facts(plan)
    assert plan_of(facts) == plan
    assert {v.name: float(v.value) for v in facts.values} == {n: float(getattr(plan, n)) for n in facts_names(facts)}
    worse = facts.values[0].model_copy(update={"value": "4"})
    with pytest.raises(PeerError):
        plan_of(facts.model_copy(update={"values": (worse, *facts.values[1:])}))


def facts_names(facts: PlanFacts) -> list[str]:
    return [v.name for v in facts.values]


@given(st.floats(-1e20, 1e20).filter(lambda x: x == 0 or abs(x) > 1e-6))
def test_a_decimal_is_what_the_double_prints_as(value: float) -> None:
    assert float(decimal(value)) == value
    assert encode({"a": decimal(value)})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
def test_what_no_decimal_can_hold_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"no number|cannot convert"):
        decimal(value)


@given(st.text(max_size=80))
def test_any_name_has_a_form_for_the_log(text: str) -> None:
    try:
        name = public_name(text)
    except UnicodeEncodeError:
        return
    assert RunFinished(rounds=0, model=None)
    assert Genesis(federation=name, roster="sha256:" + 64 * "0", simulated=True, faulty=0, quorum=1).federation == name


def test_keys_are_named_by_their_hash() -> None:
    assert keyid_of(bytes(32)) == "66687aad"
