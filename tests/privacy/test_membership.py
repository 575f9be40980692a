"""Memberships, requests and bundles: what is signed holds, what was changed does not, and files survive a mail."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.enrolled import NOW, Seats
from support.keys import key

from fedseal.compliance.enrolment.files import read_bundle, read_request
from fedseal.errors import ConfigError
from fedseal.privacy.membership.armour import Form, armoured, fingerprint, same_fingerprint, unarmoured
from fedseal.privacy.membership.documents import (
    Bundle,
    Epoch,
    FormerKey,
    KeyKind,
    Membership,
    NodeEntry,
    Reason,
    moves,
    open_bundle,
    sign_membership,
)
from fedseal.privacy.membership.requests import (
    Applicant,
    SignedRequest,
    SiteKeys,
    SiteRequest,
    ask_as_site,
    open_request,
)
from fedseal.privacy.membership.standing import standing
from fedseal.privacy.membership.tls import (
    certified_key,
    check_server_certificate,
    make_csr,
    new_private_key,
    read_csr,
)
from fedseal.wire import DecodeError, decode, encode

MOVES = "fedseal site join BUNDLE"


@pytest.fixture(scope="module")
def epochs(tmp_path_factory: pytest.TempPathFactory) -> list[Epoch]:
    """Three epochs of one federation."""
    seats = Seats(tmp_path_factory.mktemp("seats"))
    paths = [seats.admit([seats.begin(), seats.apply("north"), seats.apply("south")])]
    paths += [seats.admit(), seats.admit([seats.apply("east")])]
    return [read_bundle(path) for path in paths]


def test_a_fingerprint_is_forty_digits_of_a_hash() -> None:
    # Computed apart from our code: printf 'fedseal/fingerprint/1\0BUNDLE\0abc' | sha256sum, modulo 10^40 with bc.
    hashed = hashlib.sha256(b"fedseal/fingerprint/1\0BUNDLE\0abc").hexdigest()
    digits = f"{int(hashed, 16) % 10**40:040}"
    found = fingerprint(Form.BUNDLE, b"abc")
    assert found.replace(" ", "") == digits
    assert [len(group) for group in found.split(" ")] == [5] * 8
    assert found != fingerprint(Form.REQUEST, b"abc")


@given(st.binary(max_size=300), st.sampled_from(["", " ", "-", ".", "\n"]))
def test_a_fingerprint_is_the_same_however_it_was_typed(content: bytes, space: str) -> None:
    found = fingerprint(Form.REQUEST, content)
    assert same_fingerprint(space.join(found.replace(" ", "")), found)
    other = str((int(found[0]) + 1) % 10) + found[1:]
    assert not same_fingerprint(other, found)
    assert not same_fingerprint("", found)


@given(st.binary(max_size=400), st.text(alphabet=st.characters(codec="ascii", exclude_characters="\r-"), max_size=40))
def test_what_was_mailed_can_be_read(content: bytes, greeting: str) -> None:
    text = f"{greeting}\n{armoured(Form.REQUEST, content)}\n{greeting}\n"
    assert unarmoured(Form.REQUEST, text, "x") == content
    with pytest.raises(ConfigError, match="holds a request and no bundle"):
        unarmoured(Form.BUNDLE, text, "x")


@given(st.text(max_size=300))
def test_no_text_is_taken_for_a_bundle(text: str) -> None:
    with pytest.raises(ConfigError):
        unarmoured(Form.BUNDLE, text, "x")


@given(st.binary(max_size=300))
def test_no_bytes_are_taken_for_a_bundle(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(raw, Bundle)


def test_a_membership_is_written_field_by_field() -> None:
    """By hand from the rules of `fedseal.wire`: big-endian integers, 32-bit lengths and counts."""

    def blob(raw: bytes) -> bytes:
        return len(raw).to_bytes(4, "big") + raw

    gone = FormerKey(int(KeyKind.SIGNING), 2, "south", bytes(range(32)), 1, int(Reason.REVOKED), 77)
    member = Membership(
        "town", 2, b"r" * 32, (b"p" * 32,), 5, 9, "h:1", b"a" * 32, b"c" * 32, (NodeEntry(1, "ssh x"),), (gone,)
    )
    expected = b"FS" + bytes((1, 93)) + blob(b"town") + (2).to_bytes(4, "big") + b"r" * 32
    expected += (1).to_bytes(4, "big") + b"p" * 32 + (5).to_bytes(8, "big") + (9).to_bytes(8, "big")
    expected += blob(b"h:1") + b"a" * 32 + b"c" * 32
    expected += (1).to_bytes(4, "big") + (1).to_bytes(4, "big") + blob(b"ssh x")
    expected += (1).to_bytes(4, "big") + bytes((1,)) + (2).to_bytes(4, "big") + blob(b"south") + blob(bytes(range(32)))
    expected += (1).to_bytes(4, "big") + bytes((2,)) + (77).to_bytes(8, "big")
    assert encode(member) == expected
    assert decode(expected, Membership) == member
    assert member.digest() == hashlib.sha256(expected).digest()


def test_a_bundle_is_what_its_root_has_signed(epochs: list[Epoch]) -> None:
    bundle = epochs[0].bundle
    assert open_bundle(bundle).membership == epochs[0].membership
    flipped = bytes([bundle.membership[-1] ^ 1])
    for changed, message in (
        (replace(bundle, membership_signature=bytes(64)), "root key has not signed the membership"),
        (replace(bundle, roster_signature=bytes(64)), "the roster's signature does not hold"),
        (replace(bundle, membership=bundle.membership[:-1] + flipped), "membership"),
        (replace(bundle, certificate=epochs[1].bundle.certificate), "do not belong together"),
        (replace(bundle, authority=bundle.certificate), "do not belong together"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_bundle(changed)


def test_parts_of_two_epochs_make_no_third(epochs: list[Epoch]) -> None:
    one, other = epochs[0].bundle, epochs[1].bundle
    mixed = replace(one, membership=other.membership, membership_signature=other.membership_signature)
    with pytest.raises(ConfigError, match="do not belong together"):
        open_bundle(mixed)


def test_only_later_epochs_of_the_same_history_are_moved_to(epochs: list[Epoch], tmp_path: Path) -> None:
    assert moves(epochs[0], epochs[1])
    assert moves(epochs[0], epochs[2])
    assert not moves(epochs[1], epochs[1])
    with pytest.raises(ConfigError, match="of epoch 1, and this has adopted epoch 2 already"):
        moves(epochs[1], epochs[0])
    seats = Seats(tmp_path / "other", name="village")
    other = read_bundle(seats.admit([seats.begin(), seats.apply("north")]))
    with pytest.raises(ConfigError, match="of federation 'village', and this is a member of 'town'"):
        moves(epochs[0], other)
    namesake = Seats(tmp_path / "namesake")
    other = read_bundle(namesake.admit([namesake.begin(), namesake.apply("north")]))
    with pytest.raises(ConfigError, match="another root key than the one that was pinned"):
        moves(epochs[0], other)


def test_a_root_that_signs_two_histories_is_seen(tmp_path: Path) -> None:
    seats = Seats(tmp_path)
    first = read_bundle(seats.admit([seats.begin(), seats.apply("north")]))
    mine = read_bundle(seats.admit())
    seats.root.bundle(2).unlink()
    seats.admit([seats.apply("south")])
    third = read_bundle(seats.admit())
    assert moves(first, third)
    with pytest.raises(ConfigError, match="tells of another epoch 2 than the one that was adopted here"):
        moves(mine, third)


def test_an_epoch_holds_between_two_days(epochs: list[Epoch]) -> None:
    epoch = epochs[0]
    assert standing(epoch, NOW, moves=MOVES).warning is None
    near = standing(epoch, NOW + timedelta(days=340), moves=MOVES)
    assert near.days == 24
    assert near.warning is not None
    assert "in 24 days" in near.warning
    with pytest.raises(ConfigError, match="epoch 1, ended on") as caught:
        standing(epoch, NOW + timedelta(days=366), moves=MOVES)
    assert MOVES in caught.value.next_step
    with pytest.raises(ConfigError, match=r"holds from .* on, and this machine's clock says") as caught:
        standing(epoch, NOW - timedelta(days=1), moves=MOVES)
    assert "Set the clock" in caught.value.next_step


def test_a_certificate_is_for_one_host_of_one_authority_for_a_time(epochs: list[Epoch], tmp_path: Path) -> None:
    one = epochs[0].bundle
    check_server_certificate(one.authority, one.certificate, "127.0.0.1", NOW)
    with pytest.raises(ConfigError, match=r"not for 127\.0\.0\.2"):
        check_server_certificate(one.authority, one.certificate, "127.0.0.2", NOW)
    with pytest.raises(ConfigError, match="the server's certificate expired on"):
        check_server_certificate(one.authority, one.certificate, "127.0.0.1", NOW + timedelta(days=366))
    with pytest.raises(ConfigError, match="the federation's TLS authority is not valid before"):
        check_server_certificate(one.authority, one.certificate, "127.0.0.1", NOW - timedelta(days=1))
    with pytest.raises(ConfigError, match="the federation's TLS authority expired on"):
        check_server_certificate(one.authority, one.certificate, "127.0.0.1", NOW + timedelta(days=21 * 365))
    seats = Seats(tmp_path)
    other = read_bundle(seats.admit([seats.begin(), seats.apply("north")])).bundle
    with pytest.raises(ConfigError, match="not of the federation's TLS authority"):
        check_server_certificate(one.authority, other.certificate, "127.0.0.1", NOW)


def asked(**changed: object) -> tuple[SignedRequest, SiteKeys]:
    keys = SiteKeys(key("north"), new_private_key())
    who = Applicant("town", "north", "North", 110)
    return ask_as_site(replace(who, **changed), keys, 1_790_000_000), keys  # type: ignore[arg-type]


def test_every_key_in_a_request_has_signed_it() -> None:
    signed, keys = asked()
    found = open_request(signed, "x")
    assert isinstance(found, SiteRequest)
    assert (found.name, found.persons, found.signing_key) == ("north", 110, keys.signing.public)
    other, _ = asked()
    for changed, message in (
        (replace(signed, signature=bytes(64)), "its signing key has not signed"),
        (replace(signed, by_node=other.by_node), "its node key has not signed"),
        (replace(signed, by_node=b""), "its node key has not signed"),
        (replace(signed, by_previous=bytes(64)), "its former key has not signed"),
        (replace(signed, payload=other.payload), "has not signed"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_request(changed, "x")


def test_nobody_asks_for_new_keys_in_anothers_name() -> None:
    keys = SiteKeys(key("new"), new_private_key())
    who = Applicant("town", "north", "North", 110)
    good = ask_as_site(who, keys, 1, before=key("north"))
    assert open_request(good, "x").previous == key("north").public
    payload = encode(replace(decode(good.payload, SiteRequest), previous=key("victim").public))
    forged = replace(good, payload=payload, signature=keys.signing.sign(b"fedseal/sa1/request\0" + payload))
    with pytest.raises(ConfigError, match="its former key has not signed"):
        open_request(forged, "x")


@pytest.mark.parametrize("name", ["server", "", "a b", "../up", "x" * 64, "a/b", "-a"])
def test_names_that_are_taken_or_no_names_are_refused(name: str) -> None:
    signed, _ = asked(name=name)
    with pytest.raises(ConfigError, match="cannot be the name of a site"):
        open_request(signed, "x")


def test_a_number_of_persons_that_nobody_has_is_refused() -> None:
    signed, _ = asked(persons=0)
    with pytest.raises(ConfigError, match="number of persons"):
        open_request(signed, "x")


def test_a_request_that_is_cut_short_says_so(tmp_path: Path) -> None:
    signed, _ = asked()
    path = tmp_path / "north.request"
    path.write_text(armoured(Form.REQUEST, encode(signed)[:-3]), encoding="ascii")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_request(path)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_request(tmp_path / "nowhere")


def test_a_membership_that_contradicts_itself_cannot_be(epochs: list[Epoch]) -> None:
    member = epochs[1].membership
    for changed in (
        {"previous": ()},
        {"valid_until": member.valid_from},
        {"nodes": member.nodes[::-1]},
        {"epoch": 0},
    ):
        with pytest.raises(ValueError):
            replace(member, **changed)


def test_a_membership_of_another_root_is_not_taken(epochs: list[Epoch]) -> None:
    bundle = epochs[0].bundle
    forged = replace(bundle, membership_signature=sign_membership(epochs[0].membership, key("thief")))
    with pytest.raises(ConfigError, match="root key has not signed"):
        open_bundle(forged)
    assert datetime.fromtimestamp(epochs[0].membership.valid_from, UTC) < NOW


def test_a_certificate_or_request_of_another_kind_is_no_traceback(epochs: list[Epoch]) -> None:
    """Found by changed inputs: a curve that nobody knows, and a version that there is not."""
    curve = bytes.fromhex("06082a8648ce3d030107")
    authority, shown = epochs[0].bundle.authority, epochs[0].bundle.certificate
    unknown = authority.replace(curve, bytes.fromhex("06082a8648ce3d030207"))
    assert unknown != authority
    with pytest.raises(ConfigError, match="not of the federation's TLS authority"):
        check_server_certificate(unknown, shown, "127.0.0.1", NOW)
    with pytest.raises(ConfigError, match="key that cannot be read"):
        certified_key(shown.replace(curve, bytes.fromhex("06082a8648ce3d030207")))
    csr = make_csr("town server", new_private_key())
    with pytest.raises(ConfigError, match="cannot be read"):
        read_csr(csr.replace(b"\x02\x01\x00", b"\x02\x01\x02", 1))
