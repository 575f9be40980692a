"""Content roots and proofs: known bytes, a brute-force search for false proofs, and twins that fail."""

import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal import merkle
from fedseal.compliance.data.content import (
    Content,
    Membership,
    NonMembership,
    Placed,
    leaf,
    subject_tag,
    verify_membership,
    verify_non_membership,
)
from fedseal.compliance.data.keys import KeyedHash, data_keys, derive, version_id
from fedseal.compliance.data.rows import Column, Kind, cell, row, schema
from fedseal.errors import DataError, LocalError
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode

KEYS = data_keys(Secret(b"s" * 32), Secret(b"e" * 32))
SCHEMA = schema([Column("x", Kind.INTEGER), Column("id", Kind.TEXT)], "id")


def content(ids: list[str], value: int = 1) -> Content:
    rows = [row(SCHEMA, [value])]
    return Content.of(leaf(subject_tag(KEYS.subject, i), KEYS.rows, SCHEMA, rows) for i in ids)


# By hand from the table in rows.py: IEEE 754 and two's complement as struct has them, SHA-256 of "abc" from FIPS 180-2.
CELLS: list[tuple[Kind, Any, str]] = [
    (Kind.BOOLEAN, True, "0101"),
    (Kind.BOOLEAN, None, "0000"),
    (Kind.INTEGER, 1, "010000000000000001"),
    (Kind.INTEGER, -1, "01ffffffffffffffff"),
    (Kind.REAL, 1.0, "013ff0000000000000"),
    (Kind.REAL, -0.0, "010000000000000000"),
    (Kind.REAL, float("nan"), "000000000000000000"),
    (Kind.REAL, float("inf"), "017ff0000000000000"),
    (Kind.TEXT, "abc", "01ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    (Kind.TEXT, None, "00" * 33),
    (Kind.DATE, date(1970, 1, 2), "010000000000000001"),
    (Kind.DATE, date(1969, 12, 31), "01ffffffffffffffff"),
    (Kind.TIMESTAMP, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), "0100000000000f4240"),
    (Kind.TIMESTAMP, datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "010000000000000000"),
]


@pytest.mark.parametrize(("kind", "value", "expected"), CELLS)
def test_cells_are_these_bytes(kind: Kind, value: Any, expected: str) -> None:
    assert cell(kind, value).hex() == expected
    assert len(cell(kind, value)) == 1 + kind.width


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (Kind.INTEGER, True),
        (Kind.INTEGER, 1 << 63),
        (Kind.REAL, 1),
        (Kind.TEXT, 1),
        (Kind.BOOLEAN, 1),
        (Kind.DATE, datetime(2026, 1, 1, tzinfo=UTC)),
        (Kind.TIMESTAMP, date(2026, 1, 1)),
    ],
)
def test_a_value_of_another_type_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises(LocalError, match="no "):
        cell(kind, value)


def test_one_word_has_one_spelling() -> None:
    assert cell(Kind.TEXT, "Zoe\u0308") == cell(Kind.TEXT, "Zo\u00eb")
    assert subject_tag(KEYS.subject, "Zoe\u0308") == subject_tag(KEYS.subject, "Zo\u00eb")
    assert cell(Kind.TEXT, "Zoe") != cell(Kind.TEXT, "Zo\u00eb")


def test_a_schema_knows_no_order_of_columns_but_their_types_and_the_subject() -> None:
    columns = [Column("b", Kind.REAL), Column("a", Kind.TEXT), Column("id", Kind.TEXT)]
    first = schema(columns, "id").digest()
    assert schema(columns[::-1], "id").digest() == first
    assert schema([Column("b", Kind.INTEGER), *columns[1:]], "id").digest() != first
    assert schema(columns, "a").digest() != first
    # By hand: a, b, id with types 4, 3, 4 of which the last names subjects.
    by_hand = b"fedseal/data/schema/1\0" + b"\0\0\0\x01a\x04\0" + b"\0\0\0\x01b\x03\0" + b"\0\0\0\x02id\x04\x01"
    assert first == hashlib.sha256(by_hand).digest()


@given(st.binary(min_size=32, max_size=32), st.lists(st.binary(max_size=200), max_size=4))
def test_the_fast_hmac_is_hmac(key: bytes, parts: list[bytes]) -> None:
    assert KeyedHash(Secret(key)).digest(*parts) == hmac.digest(key, b"".join(parts), "sha256")


def test_keys_differ_and_none_of_them_prints() -> None:
    keys = [KEYS.subject, KEYS.rows, KEYS.commit, KEYS.population, KEYS.split, KEYS.wrap]
    assert len({k.reveal() for k in keys}) == len(keys)
    assert KEYS.subject.reveal().hex() not in repr(KEYS)
    # RFC 5869 by hand: extract under 32 zero bytes, then one block.
    prk = hmac.digest(bytes(32), b"s" * 32, "sha256")
    assert derive(Secret(b"s" * 32), "subject").reveal() == hmac.digest(prk, b"fedseal/data/subject\x01", "sha256")
    other = data_keys(Secret(b"s" * 32), Secret(b"f" * 32))
    assert other.subject == KEYS.subject
    assert other.rows != KEYS.rows


def test_a_leaf_is_what_the_page_says() -> None:
    rows = [row(SCHEMA, [5]), row(SCHEMA, [None])]
    tag = hmac.digest(KEYS.subject.reveal(), b"7", "sha256")
    message = tag + SCHEMA.digest() + (2).to_bytes(8, "big") + b"".join(rows)
    expected = tag + hmac.digest(KEYS.rows.reveal(), message, "sha256")
    assert leaf(subject_tag(KEYS.subject, "7"), KEYS.rows, SCHEMA, rows) == expected


def test_the_root_does_not_know_the_order_of_subjects_and_knows_their_rows() -> None:
    ids = [str(i) for i in range(7)]
    assert content(ids).root == content(ids[::-1]).root
    assert content(ids).root != content(ids[1:]).root
    assert content(ids).root != content(ids, value=2).root
    assert content(ids).root == merkle.root(
        sorted_hashes := [merkle.leaf_hash(leaf_) for leaf_ in sorted(content(ids).whole)]
    )
    assert len(sorted_hashes) == 7


def test_the_shared_id_is_keyed() -> None:
    root = content(["1"]).root
    assert version_id(KEYS.commit, root) == hmac.digest(KEYS.commit.reveal(), root, "sha256")
    assert version_id(KEYS.commit, root) != version_id(KEYS.rows, root)


def test_two_leaves_of_one_subject_are_refused() -> None:
    with pytest.raises(DataError, match="normal form"):
        content(["Zoe\u0308", "Zo\u00eb"])
    leaves = content(["a", "b"]).leaves
    with pytest.raises(LocalError, match="not sorted"):
        Content(leaves[64:] + leaves[:64])
    with pytest.raises(LocalError, match="64 bytes"):
        Content(leaves[:-1])


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 60), max_size=20), st.integers(0, 60))
def test_everybody_is_in_or_out_and_only_one_of_them_can_be_proven(there: set[int], who: int) -> None:
    found, tag = content([str(i) for i in there]), subject_tag(KEYS.subject, str(who))
    proof = found.prove(tag)
    assert (tag in found) == (who in there)
    if who in there:
        assert isinstance(proof, Membership)
        assert verify_membership(proof, found.root, tag)
        assert not verify_membership(proof, found.root, subject_tag(KEYS.subject, str(who + 1)))
        assert not verify_membership(proof, content([str(who), "more"]).root, tag)
    else:
        assert isinstance(proof, NonMembership)
        assert verify_non_membership(proof, found.root, tag)
        for present in found.tags:
            assert not verify_non_membership(proof, found.root, present)
    assert decode(encode(proof), Membership, NonMembership) == proof


def placements(found: Content) -> list[Placed]:
    """Every leaf with every index of trees up to a size beyond: what a liar can put together of true paths."""
    proofs = [found.prove(tag) for tag in found.tags]
    placed = [p.placed for p in proofs if isinstance(p, Membership)]
    return [replace(p, index=i) for p in placed for i in range(len(found) + 3)]


@pytest.mark.parametrize("size", range(1, 8))
def test_no_false_non_membership_can_be_put_together(size: int) -> None:
    """With any sizes, indices and pairs of true leaves; who is not there has some, so the search can find them."""
    found = content([str(i) for i in range(size)])
    absent = subject_tag(KEYS.subject, "absent")
    options: list[Placed | None] = [None, *placements(found)]

    def provable(tag: bytes) -> bool:
        return any(
            verify_non_membership(NonMembership(claimed, left, right), found.root, tag)
            for claimed in range(size + 3)
            for left in options
            for right in options
        )

    assert provable(absent)
    assert not any(provable(tag) for tag in found.tags)


def test_a_changed_proof_does_not_hold() -> None:
    found = content([str(i) for i in range(9)])
    tag = subject_tag(KEYS.subject, "absent")
    proof = found.prove(tag)
    assert isinstance(proof, NonMembership)
    left, right = proof.left, proof.right
    assert left is not None
    assert right is not None
    changed = [
        replace(proof, left=None),
        replace(proof, right=None),
        replace(proof, left=right, right=left),
        replace(proof, left=left, right=replace(right, leaf=right.leaf[:-1] + bytes((right.leaf[-1] ^ 1,)))),
        NonMembership(0, None, None),
    ]
    assert verify_non_membership(proof, found.root, tag)
    assert not any(verify_non_membership(p, found.root, tag) for p in changed)


def test_nobody_is_in_an_empty_dataset() -> None:
    empty, tag = content([]), subject_tag(KEYS.subject, "x")
    assert verify_non_membership(NonMembership(0, None, None), empty.root, tag)
    assert empty.root == hashlib.sha256().digest()


def test_proofs_at_the_edges() -> None:
    found = content(["a", "b", "c"])
    lowest, highest = bytes(32), b"\xff" * 32
    for tag in (lowest, highest):
        proof = found.prove(tag)
        assert isinstance(proof, NonMembership)
        assert (proof.left is None, proof.right is None) == (tag == lowest, tag == highest)
        assert verify_non_membership(proof, found.root, tag)
