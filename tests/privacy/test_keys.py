"""Known answers of the primitives, and that every key, signature and envelope is bound to its place in the protocol."""

import hashlib
import hmac
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from support.keys import key

from fedseal.privacy.secagg.keys import (
    Agreement,
    KeyAgreementError,
    SigningKey,
    commit,
    derive,
    envelope_key,
    mask_private_key,
    pair_mask_key,
    seal,
    self_mask_key,
    signed_message,
    unseal,
    verify,
    x25519_public,
)
from fedseal.privacy.secagg.masks import apply_masks
from fedseal.privacy.secagg.messages import Confirmation, Stage, sign
from fedseal.privacy.secret import Secret

KNOWN: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "curves.json").read_text())
hexed = bytes.fromhex
key32 = st.binary(min_size=32, max_size=32)
site = st.integers(0, (1 << 32) - 1)


# Slow twins


def slow_hkdf(ikm: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869, 2.2 and 2.3, step by step."""
    prk = hmac.new(salt or bytes(32), ikm, hashlib.sha256).digest()
    out, block, counter = b"", b"", 1
    while len(out) < length:
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        out, counter = out + block, counter + 1
    return out[:length]


def slow_keystream(key_: bytes, counter: int, length: int) -> bytes:
    """NIST SP 800-38A, 6.5: every counter block encrypted on its own."""
    ecb = Cipher(algorithms.AES(key_), modes.ECB()).encryptor()  # noqa: S305 - the definition of counter mode
    blocks = [ecb.update(((counter + i) % (1 << 128)).to_bytes(16, "big")) for i in range(-(-length // 16))]
    return b"".join(blocks)[:length]


# Known answers


@pytest.mark.parametrize("case", KNOWN["x25519"]["cases"])
def test_x25519_of_rfc_7748(case: dict[str, str]) -> None:
    assert Agreement(hexed(case["scalar"])).shared(hexed(case["u"])).hex() == case["output"]


def test_the_key_agreement_of_rfc_7748() -> None:
    case = {name: hexed(value) for name, value in KNOWN["agreement"].items() if name != "source"}
    assert x25519_public(case["alice_private"]) == case["alice_public"]
    assert x25519_public(case["bob_private"]) == case["bob_public"]
    assert Agreement(case["alice_private"]).shared(case["bob_public"]) == case["shared"]
    assert Agreement(case["bob_private"]).shared(case["alice_public"]) == case["shared"]


@pytest.mark.parametrize("point", KNOWN["low_order"]["points"])
@pytest.mark.parametrize("high_bit", [0, 0x80])
def test_points_of_low_order_are_refused(point: str, high_bit: int) -> None:
    """The last bit of an encoding is ignored (RFC 7748, section 5), so each point has it set and not set."""
    raw = hexed(point)
    altered = raw[:31] + bytes([raw[31] | high_bit])
    for private in (b"\x11" * 32, b"\xff" * 32):
        with pytest.raises(KeyAgreementError, match="low order"):
            Agreement(private).shared(altered)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_public_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyAgreementError):
        Agreement(b"\x11" * 32).shared(b"\x09" * length)


@pytest.mark.parametrize("case", KNOWN["ed25519"]["cases"])
def test_ed25519_of_rfc_8032(case: dict[str, str]) -> None:
    signing = SigningKey(Secret(hexed(case["secret"])))
    message, signature = hexed(case["message"]), hexed(case["signature"])
    assert signing.public.hex() == case["public"]
    assert signing.sign(message) == signature
    assert verify(signing.public, signature, message)
    assert not verify(signing.public, signature, message + b"\x00")


@pytest.mark.parametrize("case", KNOWN["hkdf_sha256"]["cases"])
def test_the_slow_hkdf_is_that_of_rfc_5869(case: dict[str, str]) -> None:
    okm = hexed(case["okm"])
    assert slow_hkdf(hexed(case["ikm"]), hexed(case["salt"]), hexed(case["info"]), len(okm)) == okm


def test_the_slow_keystream_is_that_of_sp_800_38a() -> None:
    case = {name: hexed(value) for name, value in KNOWN["aes_256_ctr"].items() if name != "source"}
    stream = slow_keystream(case["key"], int.from_bytes(case["counter"], "big"), len(case["plaintext"]))
    assert bytes(a ^ b for a, b in zip(case["plaintext"], stream, strict=True)) == case["ciphertext"]


@pytest.mark.parametrize("words", [1, 3, 4, 5, 70])
@pytest.mark.parametrize("dtype", ["<u4", "<u8"])
def test_a_mask_is_the_keystream_from_counter_zero(words: int, dtype: str) -> None:
    vector = np.zeros(words, dtype=dtype)
    apply_masks(vector, [hexed(KNOWN["aes_256_ctr"]["key"])], [])
    assert vector.tobytes() == slow_keystream(hexed(KNOWN["aes_256_ctr"]["key"]), 0, vector.nbytes)


# Derivation


@settings(max_examples=50, deadline=None)
@given(st.binary(min_size=1, max_size=64), key32, st.lists(site, max_size=3))
def test_keys_are_derived_by_hkdf_with_label_and_identifiers(secret: bytes, salt: bytes, numbers: list[int]) -> None:
    info = b"fedseal/sa1/label" + b"".join(b"\x00" + n.to_bytes(4, "big") for n in numbers)
    assert derive(secret, salt, "label", *numbers) == slow_hkdf(secret, salt, info, 32)


def test_each_kind_of_key_has_the_derivation_of_the_protocol() -> None:
    secret, salt = b"s" * 32, b"h" * 32
    one, two, zero = (n.to_bytes(4, "big") for n in (1, 2, 0))
    expected = {
        mask_private_key(Secret(secret), salt): b"maskkey",
        pair_mask_key(secret, salt, 1, 2): b"pair\x00" + one + b"\x00" + two + b"\x00" + zero,
        self_mask_key(Secret(secret), salt, 2): b"self\x00" + two + b"\x00" + zero,
        envelope_key(secret, salt, 2, 1): b"share\x00" + two + b"\x00" + one,
    }
    assert len(expected) == 4
    for found, info in expected.items():
        assert found == slow_hkdf(secret, salt, b"fedseal/sa1/" + info, 32)


def test_no_two_places_in_a_round_have_the_same_key() -> None:
    secret, salts, sites = b"s" * 32, (b"a" * 32, b"b" * 32), (1, 2, 3)
    keys = [mask_private_key(Secret(secret), salt) for salt in salts]
    keys += [self_mask_key(Secret(secret), s, u, stream) for s, u, stream in product(salts, sites, (0, 1))]
    keys += [envelope_key(secret, s, u, v) for s, u, v in product(salts, sites, sites) if u != v]
    pairs = [(u, v) for u, v in product(sites, sites) if u < v]
    keys += [pair_mask_key(secret, s, u, v, stream) for s, (u, v), stream in product(salts, pairs, (0, 1))]
    assert len(set(keys)) == len(keys)


def test_the_order_of_a_pair_does_not_matter_for_its_mask_but_does_for_its_envelopes() -> None:
    secret, salt = b"s" * 32, b"h" * 32
    assert pair_mask_key(secret, salt, 1, 2) == pair_mask_key(secret, salt, 2, 1)
    assert envelope_key(secret, salt, 1, 2) != envelope_key(secret, salt, 2, 1)


def test_both_ends_of_an_agreement_derive_the_same_keys() -> None:
    a, b = Secret(b"a" * 32), Secret(b"b" * 32)
    header, session = b"h" * 32, b"s" * 32
    private = {1: mask_private_key(a, header), 2: mask_private_key(b, header)}
    at_1 = pair_mask_key(Agreement(private[1]).shared(x25519_public(private[2])), session, 1, 2)
    at_2 = pair_mask_key(Agreement(private[2]).shared(x25519_public(private[1])), session, 2, 1)
    assert at_1 == at_2


def test_a_commitment_is_a_labelled_hash() -> None:
    assert commit("sid", b"ab", b"c") == hashlib.sha256(b"fedseal/sa1/sid\x00abc").digest()
    assert len({commit("sid", b"x"), commit("com-b", b"x"), commit("sid", b"y"), commit("sid", b"")}) == 4


# Signatures


def test_a_signature_holds_for_its_stage_header_and_payload_and_no_other() -> None:
    places = list(product([s.label for s in Stage] + ["header"], (b"h" * 32, b"i" * 32), (b"", b"payload")))
    signing = key("site-1")
    signatures = {place: signing.sign(signed_message(*place)) for place in places}
    for signed, claimed in product(places, places):
        assert verify(signing.public, signatures[signed], signed_message(*claimed)) == (signed == claimed)


def test_a_signed_message_is_valid_under_its_own_key_only_and_unaltered() -> None:
    message = sign(Stage.SHARE, 1, b"h" * 32, Confirmation(bytes(32), bytes(32)), key("site-1"))
    assert message.valid(key("site-1").public)
    assert not message.valid(key("site-2").public)
    assert not message.valid(bytes(32))
    assert not message.valid(b"short")
    for altered in (
        replace(message, stage=int(Stage.MASK)),
        replace(message, header_hash=b"i" * 32),
        replace(message, payload=message.payload + b"\x00"),
        replace(message, signature=bytes(64)),
        replace(message, signature=message.signature[:-1] + bytes([message.signature[-1] ^ 1])),
    ):
        assert not altered.valid(key("site-1").public), altered


def test_a_signing_key_does_not_print() -> None:
    signing = SigningKey(Secret(b"correct horse battery staple 32b"))
    assert "horse" not in repr(signing)
    assert repr(signing) == "SigningKey(seed=Secret(<32 bytes>))"


# Envelopes


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=120), key32, key32, site, site, st.data())
def test_an_envelope_opens_in_its_place_and_nowhere_else(
    plaintext: bytes, wrap: bytes, session: bytes, sender: int, receiver: int, data: st.DataObject
) -> None:
    sealed = seal(wrap, plaintext, session, sender, receiver)
    assert unseal(wrap, sealed, session, sender, receiver) == plaintext
    place, bit = data.draw(st.integers(0, len(sealed) - 1)), 1 << data.draw(st.integers(0, 7))
    altered = sealed[:place] + bytes([sealed[place] ^ bit]) + sealed[place + 1 :]
    other_session = bytes([session[0] ^ 1]) + session[1:]
    attempts = [
        (wrap, altered, session, sender, receiver),
        (wrap, sealed[:-1], session, sender, receiver),
        (wrap, b"", session, sender, receiver),
        (wrap, sealed + b"\x00", session, sender, receiver),
        (wrap, sealed, other_session, sender, receiver),
        (wrap, sealed, session, sender ^ 1, receiver),
        (wrap, sealed, session, sender, receiver ^ 1),
        (bytes([wrap[0] ^ 1]) + wrap[1:], sealed, session, sender, receiver),
    ]
    if sender != receiver:
        attempts.append((wrap, sealed, session, receiver, sender))
    assert [unseal(*attempt) for attempt in attempts] == [None] * len(attempts)


def test_an_envelope_does_not_show_its_plaintext() -> None:
    sealed = seal(b"k" * 32, b"correct horse battery staple", b"s" * 32, 1, 2)
    assert b"horse" not in sealed
    assert len(sealed) == len(b"correct horse battery staple") + 16
