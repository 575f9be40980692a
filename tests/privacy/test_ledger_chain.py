"""No entry of a ledger changes unseen: the chain has to follow, to add up, and to be signed by its site."""

from dataclasses import fields, replace
from typing import Any

import pytest
from support.books import TERMS, Book, gaussian, run_id
from support.keys import key

from fedseal.errors import FedsealError, LocalError
from fedseal.privacy.ledger import Entry, EntryKind, SignedEntry, check_chain, sign_entry

SITE = key("site-1")


def chain() -> list[Entry]:
    """A chain with every kind of entry."""
    book, one, two = Book(), gaussian(20.0), gaussian(30.0, 0.5)
    for run, made in ((run_id(1), one), (run_id(2), two)):
        book.reserve(run, made)
        book.charge(run, made)
        book.charge(run, made)
    book.give_back(run_id(1), one)
    book.charge(run_id(2), two)
    book.reserve(run_id(3), one)
    assert not book.refused
    return book.entries


def altered(value: Any) -> list[Any]:
    """Values next to a field's."""
    if isinstance(value, int):
        return [value + 1, max(value - 1, 0), 0, 2 * value]
    if isinstance(value, str):
        return [value + "x", ""]
    return [bytes([value[0] ^ 1, *value[1:]])] if value else [b"x"]


ENTRY_FIELDS = [f.name for f in fields(Entry)]


@pytest.mark.parametrize("name", ENTRY_FIELDS)
def test_an_edited_entry_is_found(name: str) -> None:
    entries = chain()
    for place, entry in enumerate(entries[:-1]):
        for value in altered(getattr(entry, name)):
            if value == getattr(entry, name) or (name == "kind" and value > EntryKind.RELEASE):
                continue
            with pytest.raises(LocalError):
                check_chain(TERMS, [*entries[:place], replace(entry, **{name: value}), *entries[place + 1 :]])


@pytest.mark.parametrize("name", ["counter", "kind", "previous", "terms", "amount", "charged", "reserved"])
def test_an_edited_last_entry_is_found_by_its_numbers(name: str) -> None:
    """Its other fields are in no hash yet; the signature covers them."""
    entries = chain()
    for value in altered(getattr(entries[-1], name)):
        if value != getattr(entries[-1], name):
            with pytest.raises(LocalError):
                check_chain(TERMS, [*entries[:-1], replace(entries[-1], **{name: value})])


@pytest.mark.parametrize("place", [1, 3, -1])
def test_an_entry_of_an_unknown_kind_is_found(place: int) -> None:
    entries = chain()
    entries[place] = replace(entries[place], kind=4)
    with pytest.raises(LocalError):
        check_chain(TERMS, entries)


def test_a_dropped_swapped_or_doubled_entry_is_found() -> None:
    entries = chain()
    for i in range(len(entries)):
        broken = [[*entries[:i], entries[i], *entries[i:]]]
        if i < len(entries) - 1:
            broken += [entries[:i] + entries[i + 1 :], [*entries[:i], entries[i + 1], entries[i], *entries[i + 2 :]]]
            broken += [entries[i + 1 :]]
        for each in broken:
            with pytest.raises(LocalError):
                check_chain(TERMS, each)


@pytest.mark.parametrize("changes", [{"epsilon": 30.0}, {"delta": 1e-4}, {"order": 9.0}, {"population": "test"}])
def test_a_chain_under_other_terms_is_found(changes: dict[str, Any]) -> None:
    with pytest.raises(LocalError, match="opening entry"):
        check_chain(replace(TERMS, **changes), chain())
    with pytest.raises(LocalError, match="opening entry"):
        check_chain(TERMS, [])


def relinked(entries: list[Entry]) -> list[Entry]:
    """Counters and hashes made right again, as someone who has the site's key could."""
    out = entries[:1]
    for entry in entries[1:]:
        out.append(replace(entry, counter=out[-1].counter + 1, previous=out[-1].digest()))
    return out


def test_a_relinked_chain_still_has_to_add_up() -> None:
    entries = chain()
    assert check_chain(TERMS, relinked(entries)).last == entries[-1]
    for i in range(1, len(entries)):
        with pytest.raises(LocalError):
            check_chain(
                TERMS, relinked([*entries[:i], replace(entries[i], amount=entries[i].amount - 1), *entries[i + 1 :]])
            )
        if i < len(entries) - 1:
            with pytest.raises(LocalError):
                check_chain(TERMS, relinked(entries[:i] + entries[i + 1 :]))


def test_a_signed_entry_opens_with_its_own_key_only() -> None:
    entry = chain()[3]
    signed = sign_entry(entry, SITE)
    assert signed.open(SITE.public) == entry
    other = sign_entry(replace(entry, amount=1), SITE)
    for wrong, public in (
        (signed, key("site-2").public),
        (SignedEntry(other.entry, signed.signature), SITE.public),
        (SignedEntry(signed.entry, bytes(64)), SITE.public),
    ):
        with pytest.raises(LocalError, match="not signed by this site") as caught:
            wrong.open(public)
        assert "Restore it" in caught.value.next_step


@pytest.mark.parametrize("raw", [b"", b"garbage", b"FS\x01\x3d"])
def test_an_entry_that_cannot_be_read_is_an_altered_one(raw: bytes) -> None:
    with pytest.raises(FedsealError) as caught:
        SignedEntry(raw, bytes(64)).open(SITE.public)
    assert isinstance(caught.value, LocalError)
