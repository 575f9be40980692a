"""Signatures made elsewhere: taken if they count, refused with the reason if not, and then nothing is written."""

import base64
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.evidence import BARRED, USED, WAITING, WEAK, evidence_at, forged, signed_file
from support.keys import key
from support.registry import actor, bundle

from fedseal.compliance.events.bodies import PersonAdded
from fedseal.compliance.events.fields import Alias, Meaning, Role
from fedseal.compliance.events.subjects import Signature
from fedseal.compliance.journal.federation import Fact
from fedseal.compliance.log.canonical import MAX_BYTES
from fedseal.compliance.registry.approvals import Request
from fedseal.errors import ConfigError, FedsealError, PolicyRefused
from fedseal.server.console.evidence.approving import (
    LARGEST_FILE,
    accept,
    bundle_files,
    leaf_in,
    read_approvals,
    request_for,
)
from fedseal.server.console.evidence.place import Evidence
from fedseal.server.registry import registry_at

APPROVER, ENGINEER = frozenset({"approver"}), frozenset({"ml-engineer"})
PRODUCTION = ("production", "approved")


@pytest.fixture
def evidence(chronicle: Path, tmp_path: Path) -> Evidence:
    """A federation of the test's own."""
    shutil.copytree(chronicle, tmp_path / "own")
    return evidence_at(tmp_path / "own")


def ask(evidence: Evidence, name: str, made: str = WAITING.digest, aim: tuple[str, str] = PRODUCTION) -> Request:
    """What somebody is asked to sign, in the role that their meaning needs."""
    role = "ml-engineer" if aim[1] == "authored" else "approver"
    with evidence.opened() as view:
        return request_for(view, made[7:], *aim, actor(name), role)


def size(evidence: Evidence) -> int:
    with evidence.opened() as view:
        return view.log.size


def test_what_waits_for_whom(evidence: Evidence) -> None:
    with evidence.opened() as view:
        page = read_approvals(view, evidence.asked(), evidence.names())
        nameless = read_approvals(view, evidence.asked(), {})
    waiting = {(one.bundle, one.alias): one for one in page.waiting}
    # What an alias points to, or pointed to, waits for nothing; nor does a model that is suspended.
    assert set(waiting) == {(made.digest, alias) for made in (WAITING, WEAK) for alias in ("candidate", "production")}
    one = waiting[WAITING.digest, "production"]
    assert [(given.person, given.meaning) for given in one.given] == [("Ana <b>Muster</b>", "authored")]
    assert {(who.actor, who.meaning) for who in one.signers} == {(actor(n), "approved") for n in ("ben", "eva", "sam")}
    assert not any("Muster" in who.person for line in nameless.waiting for who in line.signers)
    assert waiting[WEAK.digest, "production"].blocked
    with evidence.opened() as view:
        assert read_approvals(view, None, {}).waiting == ()


def test_signatures_are_taken_until_nothing_is_missing(evidence: Evidence) -> None:
    before = size(evidence)
    for name in ("ben", "sam"):
        accepted = accept(evidence, signed_file(ask(evidence, name), key(name)), APPROVER)
    assert (accepted.index, size(evidence)) == (before + 1, before + 2)
    assert "as approved" in accepted.said
    with evidence.opened() as view:
        page = read_approvals(view, evidence.asked(), {})
        assert not view.state().refused
    assert [(one.bundle, one.alias) for one in page.complete] == [(WAITING.digest, "production")]
    # The same way as the command line's: it goes on from there.
    with registry_at(evidence.store, evidence.bundles) as opened:
        state = opened.registry.state()
        assert len([a for a in state.approvals if a.bundle == WAITING.digest]) == 3


Forge = Callable[[Request], bytes]


def _body(asked: Request, **changes: object) -> Signature:
    return asked.body.model_copy(update=changes)


ATTACKS: dict[str, tuple[Forge, str]] = {
    "another key": (lambda asked: signed_file(asked, key("mallory")), "not made with the key"),
    "another person's key": (lambda asked: signed_file(asked, key("eva")), "not made with the key"),
    "the server's key": (lambda asked: signed_file(asked, key("server")), "not made with the key"),
    "an unknown person": (
        lambda asked: signed_file(asked.model_copy(update={"person": actor("mallory")}), key("mallory")),
        "no signature of a person",
    ),
    "somebody who was removed": (
        lambda asked: signed_file(asked.model_copy(update={"person": actor("old")}), key("old")),
        "no signature of a person",
    ),
    "another organisation": (
        lambda asked: forged(asked, key("ben"), asked.body, org="site-1"),
        "not made with the key",
    ),
    "another bundle": (
        lambda asked: forged(asked, key("ben"), _body(asked, bundle=bundle(9).digest)),
        "not registered",
    ),
    "another model under the bundle": (
        lambda asked: forged(asked, key("ben"), _body(asked, model=WEAK.model_digest)),
        "names another model",
    ),
    "no bundle": (lambda asked: forged(asked, key("ben"), _body(asked, bundle=None)), "not registered"),
    "a model that is suspended": (
        lambda asked: forged(asked, key("ben"), _body(asked, bundle=BARRED.digest, model=BARRED.model_digest)),
        "suspended",
    ),
    "an alias that is closed": (lambda asked: forged(asked, key("ben"), _body(asked, alias=Alias.CANARY)), "closed"),
    "a meaning that nobody asked for": (
        lambda asked: forged(asked, key("ben"), _body(asked, meaning=Meaning.RESPONSIBLE)),
        "would not count",
    ),
    "an event of another kind": (
        lambda asked: forged(asked, key("ben"), PersonAdded(person=actor("ben"), key=key("x").public.hex(), roles=())),
        "another kind",
    ),
    "a place that was taken": (lambda asked: forged(asked, key("ben"), asked.body, seq=0), "not the next entry"),
    "a place that is not there yet": (lambda asked: forged(asked, key("ben"), asked.body, seq=7), "not the next entry"),
}


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_what_would_count_for_nothing_is_refused_and_nothing_is_written(evidence: Evidence, attack: str) -> None:
    forge, reason = ATTACKS[attack]
    before = size(evidence)
    with pytest.raises(FedsealError, match=reason):
        accept(evidence, forge(ask(evidence, "ben")), APPROVER)
    assert size(evidence) == before
    # The twin: what is not tampered with is taken.
    assert accept(evidence, signed_file(ask(evidence, "ben"), key("ben")), APPROVER).index == before


def test_a_role_that_the_person_does_not_have(evidence: Evidence) -> None:
    asked = ask(evidence, "ben")
    engineer = forged(asked, key("ben"), _body(asked, role=Role.ML_ENGINEER))
    with pytest.raises(PolicyRefused, match="no role of yours"):
        accept(evidence, engineer, APPROVER)
    with pytest.raises(PolicyRefused, match="does not have the role"):
        accept(evidence, engineer, APPROVER | ENGINEER)


def test_nobody_hands_in_what_is_signed_in_a_role_that_they_do_not_have(evidence: Evidence) -> None:
    signed = signed_file(ask(evidence, "ben"), key("ben"))
    for roles in (ENGINEER, frozenset({"coordinator-ops", "auditor"}), frozenset[str]()):
        with pytest.raises(PolicyRefused, match="no role of yours"):
            accept(evidence, signed, roles)
    assert accept(evidence, signed, APPROVER).index


def test_a_signature_is_taken_once(evidence: Evidence) -> None:
    signed = signed_file(ask(evidence, "ben"), key("ben"))
    accept(evidence, signed, APPROVER)
    after = size(evidence)
    with pytest.raises(PolicyRefused, match="signed that already"):
        accept(evidence, signed, APPROVER)
    with pytest.raises(PolicyRefused, match="signed that already"):
        accept(evidence, signed_file(ask(evidence, "ben"), key("ben")), APPROVER)
    assert size(evidence) == after


def test_an_author_does_not_approve_in_either_order(evidence: Evidence) -> None:
    """Four eyes: with both roles too, whichever signature comes first."""
    with registry_at(evidence.store, evidence.bundles) as opened:
        for name in ("ana", "eva"):
            roles = (Role.ML_ENGINEER, Role.APPROVER)
            opened.journal.commit([Fact(PersonAdded(person=actor(name), key=key(name).public.hex(), roles=roles))])
    with pytest.raises(PolicyRefused, match="author"):
        accept(evidence, signed_file(ask(evidence, "ana"), key("ana")), APPROVER)
    accept(evidence, signed_file(ask(evidence, "eva"), key("eva")), APPROVER)
    authored = signed_file(ask(evidence, "eva", aim=("production", "authored")), key("eva"))
    with pytest.raises(PolicyRefused, match="count no longer"):
        accept(evidence, authored, ENGINEER)
    with evidence.opened() as view:
        page = read_approvals(view, evidence.asked(), {})
    (one,) = (w for w in page.waiting if (w.bundle, w.alias) == (WAITING.digest, "production"))
    assert {given.meaning for given in one.given} == {"authored", "approved"}
    assert actor("ana") not in {who.actor for who in one.signers}


def test_without_rules_nothing_is_taken(evidence: Evidence) -> None:
    signed = signed_file(ask(evidence, "ben"), key("ben"))
    without = replace(evidence, rules=evidence.store.parent / "none.toml")
    with pytest.raises(ConfigError, match="does not know what aliases ask for"):
        accept(without, signed, APPROVER)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\n \t",
        b"not base64!",
        b"{}",
        base64.b64encode(b"{}"),
        base64.b64encode(b"\x00\xff"),
        base64.b64encode(b"[" * 5000),
        base64.b64encode(b"x" * (MAX_BYTES + 1)),
        b"A" * (LARGEST_FILE + 1),
        base64.b64encode(json.dumps({"v": 1, "type": "model.approved/v1"}).encode()),
    ],
)
def test_what_is_no_signed_file_is_refused_by_name(evidence: Evidence, raw: bytes) -> None:
    with pytest.raises(ConfigError, match="no signed file"):
        accept(evidence, raw, APPROVER)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_a_named_error(raw: bytes) -> None:
    try:
        found = leaf_in(raw)
    except ConfigError:
        return
    assert base64.b64encode(found).rstrip(b"=") in b"".join(raw.split())


def test_nobody_is_asked_for_what_they_may_not_sign(evidence: Evidence) -> None:
    with evidence.opened() as view:
        for wrong in (
            ("ffffff", "production", "approved", actor("ben"), "approver"),
            (WAITING.digest, "<b>", "approved", actor("ben"), "approver"),
            (WAITING.digest, "production", "wanted", actor("ben"), "approver"),
            (WAITING.digest, "production", "approved", "act_0", "approver"),
            (WAITING.digest, "production", "approved", actor("ben"), "king"),
        ):
            with pytest.raises(ConfigError):
                request_for(view, *wrong)
        with pytest.raises(PolicyRefused, match="removed"):
            request_for(view, WAITING.digest, "production", "approved", actor("old"), "approver")
        with pytest.raises(PolicyRefused, match="does not have the role"):
            request_for(view, WAITING.digest, "production", "approved", actor("ana"), "approver")


def test_the_bundle_comes_whole_or_not_at_all(evidence: Evidence) -> None:
    with evidence.opened() as view:
        _, pieces = bundle_files(evidence, view, USED.digest)
        assert b"model.safetensors" in b"".join(pieces)
        changed = evidence.bundles / USED.digest[7:] / "recipe.json"
        changed.write_bytes(changed.read_bytes() + b" ")
        with pytest.raises(ConfigError, match="not those that the log names"):
            bundle_files(evidence, view, USED.digest)
