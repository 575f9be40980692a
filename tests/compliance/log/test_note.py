"""Signed notes, checkpoints and cosignatures are those of other implementations, and nothing else is read."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import SERVER, key
from support.logs import LOG, ORIGIN, TIME, hashes, signed, witness

from fedseal.compliance.log import note as notes
from fedseal.compliance.log.checkpoint import (
    RESERVED,
    Checkpoint,
    cosign,
    is_origin,
    log_key,
    parse_checkpoint,
    parse_decimal,
    read_checkpoint,
    server_origin,
    sign_checkpoint,
    site_origin,
    witness_key,
)
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import Algorithm, Note, SignatureError, VerifierKey, parse_note, parse_vkey, signers
from fedseal.errors import LocalError
from fedseal.merkle import root
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, signed_message
from fedseal.privacy.secret import Secret

KNOWN: dict[str, Any] = json.loads((Path(__file__).resolve().parents[2] / "vectors" / "log_notes.json").read_text())


def test_the_specification_s_example() -> None:
    vkey = parse_vkey(KNOWN["signed_note"]["vkey"])
    note = parse_note(KNOWN["signed_note"]["note"])
    assert (str(vkey), str(note)) == (KNOWN["signed_note"]["vkey"], KNOWN["signed_note"]["note"])
    assert (vkey.identifier.hex(), vkey.algorithm) == ("530d903a", Algorithm.ED25519)
    assert note.text == "This is an example message.\n"
    assert signers(note, [vkey]) == (vkey,)


def test_go_s_note_is_signed_byte_for_byte() -> None:
    known = KNOWN["go"]
    peter, enoch = map(parse_vkey, known["keys"])
    note = parse_note(known["note"])
    assert signers(note, [peter, enoch]) == (peter, enoch)
    assert signers(note, [enoch]) == (enoch,)
    signing = SigningKey(Secret(bytes.fromhex(known["seed"])))
    assert notes.sign(note.text, "PeterNeumann", signing) == note.signatures[0]


def test_a_checkpoint_that_go_accepts() -> None:
    known = KNOWN["checkpoint"]
    signing = SigningKey(Secret(b"\x01" * 32))
    checkpoint, _ = read_checkpoint(known["note"])
    assert (checkpoint.origin, checkpoint.size) == ("fedseal.example/coord", 70_000)
    assert str(log_key(checkpoint.origin, signing.public)) == known["vkey"]
    assert str(sign_checkpoint(checkpoint, signing)) == known["note"]


def test_cosignatures_of_public_witnesses() -> None:
    known = KNOWN["cosigned"]
    log, witnesses = parse_vkey(known["log"]), tuple(map(parse_vkey, known["witnesses"]))
    note = parse_note(known["note"])
    assert [str(w) for w in witnesses] == known["witnesses"]
    assert signers(note, [log, *witnesses]) == (log, *witnesses)
    assert {s.time for s in note.signatures if any(s.is_by(w) for w in witnesses)} == {known["time"]}
    for vkey in witnesses:
        for altered in (note.text.replace("1432088532", "1432088533"), note.text + "more\n"):
            with pytest.raises(SignatureError):
                signers(Note(altered, note.signatures), [vkey])


def test_a_cosignature_holds_for_its_witness_text_and_time() -> None:
    checkpoint, note = read_checkpoint(signed(hashes(5)))
    own, other = witness(1), witness(2)
    line = cosign(checkpoint, own, TIME)
    assert line.time == TIME
    assert notes.holds(line, note.text, own.vkey)
    assert notes.parse_signature(line.line) == line
    assert not notes.holds(line, note.text, other.vkey)
    assert not notes.holds(line, note.text + "x\n", own.vkey)
    # The same key under its other type, and under another name.
    assert not notes.holds(line, note.text, log_key(own.name, own.key.public))
    assert not notes.holds(line, note.text, witness_key(other.name, own.key.public))
    for place in range(len(line.value)):
        altered = bytes([*line.value[:place], line.value[place] ^ 1, *line.value[place + 1 :]])
        assert not notes.holds(notes.Signature(line.name, line.identifier, altered), note.text, own.vkey)
    for wrong in (line.value[:-1], line.value + b"\0", line.value[8:]):
        assert not notes.holds(notes.Signature(line.name, line.identifier, wrong), note.text, own.vkey)


def test_times_are_63_bits() -> None:
    checkpoint, note = read_checkpoint(signed(hashes(5)))
    assert notes.holds(cosign(checkpoint, witness(1), 2**63 - 1), note.text, witness(1).vkey)
    for time in (-1, 2**63):
        with pytest.raises(LocalError):
            cosign(checkpoint, witness(1), time)
    late = (2**63).to_bytes(8, "big") + witness(1).key.sign(notes.cosigned_message(note.text, 2**63))
    assert not notes.holds(
        notes.Signature(witness(1).name, witness(1).vkey.identifier, late), note.text, witness(1).vkey
    )


def test_a_note_is_refused_whole_where_a_known_key_fails() -> None:
    note = parse_note(signed(hashes(5)))
    good, strange = note.signatures[0], cosign(parse_checkpoint(note.text), witness(1), TIME)
    bad = notes.Signature(good.name, good.identifier, bytes(64))
    assert signers(Note(note.text, (good, strange)), [LOG]) == (LOG,)
    assert signers(Note(note.text, (good, good)), [LOG]) == (LOG,)
    assert signers(Note(note.text, (strange,)), [LOG]) == ()
    for lines in ((good, bad), (bad, good), (bad,)):
        with pytest.raises(SignatureError):
            signers(Note(note.text, lines), [LOG])


def test_at_least_sixteen_signatures_are_read() -> None:
    checkpoint, note = read_checkpoint(signed(hashes(5)))
    all_ = [witness(i) for i in range(40)]
    full = Note(note.text, (*note.signatures, *(cosign(checkpoint, w, TIME) for w in all_)))
    assert len(signers(parse_note(str(full)), [LOG, *(w.vkey for w in all_)])) == 41


GOOD = "text\n\n\u2014 name AAAAAAA=\n"
BAD_NOTES = [
    "",
    "\n",
    "text\n",
    "text\n\n",
    "text\n\n\n",
    "text\n\u2014 name AAAAAAA=\n",
    "text\n\n\u2014 name AAAAAAA=",
    "text\n\n\u2014 name AAAAAAA=\n\n",
    "text\n\n- name AAAAAAA=\n",
    "text\n\n\u2014  AAAAAAA=\n",
    "text\n\n\u2014 name\n",
    "text\n\n\u2014 name \n",
    "text\n\n\u2014 na+me AAAAAAA=\n",
    "text\n\n\u2014 na\u00a0me AAAAAAA=\n",
    "text\n\n\u2014 na\u3000me AAAAAAA=\n",
    "text\n\n\u2014 name AAAA\n",
    "text\n\n\u2014 name AAAAAA==\n",
    "text\n\n\u2014 name AAAAAAB=\n",
    "text\n\n\u2014 name AAAA AAA=\n",
    "text\n\n\u2014 name AAAAAAA\n",
    "text\n\n\u2014 name AAAAAAA= \n",
    "te\txt\n\n\u2014 name AAAAAAA=\n",
    "te\rxt\n\n\u2014 name AAAAAAA=\n",
    "te\0xt\n\n\u2014 name AAAAAAA=\n",
    "te\ud800xt\n\n\u2014 name AAAAAAA=\n",
    "x" * (1 << 20) + GOOD,
]


@pytest.mark.parametrize("text", BAD_NOTES, ids=range(len(BAD_NOTES)))
def test_what_is_no_note_is_refused(text: str) -> None:
    assert str(parse_note(GOOD)) == GOOD
    with pytest.raises(MalformedError):
        parse_note(text)


def test_bytes_that_are_no_text_are_no_note() -> None:
    with pytest.raises(MalformedError):
        parse_note(b"te\xffxt\n\n\xe2\x80\x94 name AAAAAAA=\n")


def test_the_last_empty_line_divides() -> None:
    assert parse_note("a\n\nb\n\n\u2014 name AAAAAAA=\n").text == "a\n\nb\n"


@pytest.mark.parametrize("vkey", [*KNOWN["go"]["keys"], *KNOWN["cosigned"]["witnesses"]])
def test_a_mangled_vkey_is_refused(vkey: str) -> None:
    """As x/mod's own test mangles it: every piece of it, and every byte raised by one."""
    assert str(parse_vkey(vkey)) == vkey
    pieces = {vkey[i:j] for i in range(len(vkey)) for j in range(i + 1, len(vkey) + 1)} - {vkey}
    raised = {vkey[:i] + chr(ord(vkey[i]) + 1) + vkey[i + 1 :] for i in range(len(vkey))}
    for other in pieces | raised:
        with pytest.raises(MalformedError):
            parse_vkey(other)


def test_unknown_types_of_keys_are_refused() -> None:
    with pytest.raises(MalformedError):
        parse_vkey(f"name+00000000+{notes.to_base64(bytes([2]) + bytes(32))}")
    with pytest.raises(ValueError, match="name"):
        VerifierKey("a b", Algorithm.ED25519, bytes(32))


@given(st.text(), st.text(min_size=1))
def test_parsers_raise_nothing_else(text: str, other: str) -> None:
    for parse in (parse_note, parse_vkey, parse_checkpoint, parse_decimal, notes.parse_signature, notes.from_base64):
        for candidate in (text, other, GOOD + text):
            try:
                parse(candidate)
            except MalformedError:
                continue


BAD_CHECKPOINTS = [
    "a\n1\n",
    "a\n1\nAAAA\n",
    "\n1\n{}\n",
    "a\n01\n{}\n",
    "a\n-1\n{}\n",
    "a\n+1\n{}\n",
    "a\n\u0661\n{}\n",
    "a\n1\n{}",
]
BAD_CHECKPOINTS += [
    "a\n1\n{}\nextension\n",
    "a b\n1\n{}\n",
    "a+b\n1\n{}\n",
    "a\n 1\n{}\n",
    "a\n9223372036854775808\n{}\n",
]


@pytest.mark.parametrize("text", BAD_CHECKPOINTS, ids=range(len(BAD_CHECKPOINTS)))
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    digest = notes.to_base64(bytes(32))
    assert parse_checkpoint(f"a\n9223372036854775807\n{digest}\n").size == 2**63 - 1
    with pytest.raises(MalformedError):
        parse_checkpoint(text.format(digest))


@given(st.text(min_size=1, max_size=30).filter(lambda t: t.isprintable()), st.text(min_size=1, max_size=30))
def test_origins_of_any_federation_are_names(federation: str, site: str) -> None:
    if any("\ud800" <= c <= "\udfff" for c in federation + site):
        return
    origins = {server_origin(federation), site_origin(federation, site), site_origin(site, federation)}
    assert len(origins) == (2 if federation == site else 3)
    assert all(is_origin(origin) for origin in origins)


def test_a_log_needs_a_name() -> None:
    with pytest.raises(LocalError):
        server_origin("")
    with pytest.raises(LocalError):
        site_origin("test", "")


def dsse(kind: str, body: bytes) -> bytes:
    """What is signed of an event: https://github.com/secure-systems-lab/dsse, protocol.md, PAE."""
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(body), body)


class Listening:
    """Keeps what it was asked to sign."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.public = SERVER.public

    def sign(self, message: bytes) -> bytes:
        """No signature: only what it would be over matters here."""
        self.heard.append(message)
        return bytes(64)


@pytest.mark.parametrize("federation", ["fedseal", "cosignature", "DSSEv1 1", "subtree", "test", "fedseal/sa1/"])
def test_no_message_that_a_key_signs_begins_as_one_of_another_kind(federation: str) -> None:
    """Decision 23: one key signs them all."""
    ear: Any = Listening()
    origins = (server_origin(federation), site_origin(federation, "a"), site_origin(federation, "sa1/"))
    for origin in origins:
        checkpoint = Checkpoint(origin, 5, root(hashes(5)))
        sign_checkpoint(checkpoint, ear)
    checkpoints = tuple(ear.heard)
    cosignature = notes.cosigned_message(str(checkpoint), TIME)
    others = [cosignature, dsse("application/x", b"{}"), signed_message("mask", bytes(32), b""), b"subtree/v1\n\0"]
    assert [
        m.startswith(p.encode()) for m, p in zip(others, ("cosig", "DSSE", "fedseal/sa1/", "sub"), strict=True)
    ] == [True] * 4
    for message in checkpoints:
        assert not message.startswith(tuple(prefix.encode() for prefix in RESERVED))
    assert DOMAIN.decode() in RESERVED
    for one in RESERVED:
        for other in RESERVED:
            assert one is other or not other.startswith(one)
    for message in others:
        assert sum(message.startswith(prefix.encode()) for prefix in RESERVED) == 1


@pytest.mark.parametrize(
    "origin", ["cosignature/v1", "subtree/v1", "fedseal/sa1/mask", "DSSEv1 1", "", "a b", "a+b", "a\nb"]
)
def test_an_origin_that_begins_as_another_message_is_refused(origin: str) -> None:
    with pytest.raises(ValueError, match="origin"):
        Checkpoint(origin, 0, bytes(32))
    assert is_origin(ORIGIN)


def test_keys_do_not_print() -> None:
    assert key("site-1").seed.reveal().hex() not in repr(witness(1))
