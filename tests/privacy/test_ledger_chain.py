"""No entry of a ledger changes unseen: the chain has to follow, to add up, and to be signed by its site."""

from dataclasses import fields, replace
from typing import Any

import pytest
from support.books import TERMS, Book, gaussian, run_id
from support.keys import key

from fedseal.errors import FedsealError, LocalError
from fedseal.privacy.chain import check_chain, reservations
from fedseal.privacy.ledger import Entry, EntryKind, SignedEntry, sign_entry
from fedseal.privacy.plan import NoPrivacy, encode_plan

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


@pytest.mark.parametrize("name", ["counter", "kind", "previous", "terms", "amount", "left", "charged", "reserved"])
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


def test_a_relinked_chain_still_has_to_say_what_is_left() -> None:
    entries = chain()
    for i in range(1, len(entries)):
        for value in altered(entries[i].left):
            if value != entries[i].left:
                broken = relinked([*entries[:i], replace(entries[i], left=value), *entries[i + 1 :]])
                with pytest.raises(LocalError, match=f"ledger entry {i + 1} states a wrong remainder") as caught:
                    check_chain(TERMS, broken)
                assert "Restore it" in caught.value.next_step


@pytest.mark.parametrize("changes", [{"run": run_id(2)}, {"run": run_id(9)}, {"plan": encode_plan(gaussian(21.0))}])
def test_a_relinked_chain_spends_no_other_runs_or_plans_reservation(changes: dict[str, Any]) -> None:
    """The totals add up all the same."""
    entries = chain()
    assert (EntryKind(entries[2].kind), entries[2].run) == (EntryKind.CHARGE, run_id(1))
    with pytest.raises(LocalError, match="moves what its run does not have"):
        check_chain(TERMS, relinked([*entries[:2], replace(entries[2], **changes), *entries[3:]]))


# What a run has


def moved(kind: int, amount: int, left: int, run: int = 1, plan: bytes = b"p") -> Entry:
    """An entry of which only these numbers count here."""
    return replace(chain()[1], kind=kind, amount=amount, left=left, run=run_id(run), plan=plan)


RESERVE, CHARGE, RELEASE = int(EntryKind.RESERVE), int(EntryKind.CHARGE), int(EntryKind.RELEASE)
TEN = moved(RESERVE, 10, 10)
IMPOSSIBLE: dict[str, tuple[Entry, ...]] = {
    "a charge without a reservation": (moved(CHARGE, 1, 0),),
    "a charge of nothing without a reservation": (moved(CHARGE, 0, 0),),
    "a return without a reservation": (moved(RELEASE, 0, 0),),
    "a second reservation": (TEN, TEN),
    "a second reservation after spending all": (TEN, moved(CHARGE, 10, 0), TEN),
    "a charge above the reservation": (TEN, moved(CHARGE, 11, 0)),
    "a charge above what is left": (TEN, moved(CHARGE, 6, 4), moved(CHARGE, 5, 0)),
    "a return of more than is left": (TEN, moved(CHARGE, 4, 6), moved(RELEASE, 10, 0)),
    "a return of less than is left": (TEN, moved(CHARGE, 4, 6), moved(RELEASE, 5, 0)),
    "a return of nothing while there is something": (TEN, moved(RELEASE, 0, 0)),
    "a second return": (TEN, moved(RELEASE, 10, 0), moved(RELEASE, 0, 0)),
    "a charge after the return": (TEN, moved(RELEASE, 10, 0), moved(CHARGE, 1, 0)),
    "a charge of another run": (TEN, moved(CHARGE, 1, 9, run=2)),
    "a charge under another plan": (TEN, moved(CHARGE, 1, 9, plan=b"q")),
    "a return by another run": (TEN, moved(RELEASE, 10, 0, run=2)),
    "an unknown kind": (TEN, moved(4, 0, 10)),
}


@pytest.mark.parametrize("entries", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_entry_that_moves_what_its_run_does_not_have_is_found(entries: tuple[Entry, ...]) -> None:
    reservations(entries[:-1])
    with pytest.raises(LocalError, match="moves what its run does not have") as caught:
        reservations(entries)
    assert "Restore it" in caught.value.next_step


@pytest.mark.parametrize("wrong", [moved(RESERVE, 10, 9), moved(RESERVE, 10, 0), moved(RESERVE, 10, 11)])
def test_a_reservation_leaves_all_of_itself(wrong: Entry) -> None:
    with pytest.raises(LocalError, match="states a wrong remainder"):
        reservations([wrong])


def test_what_is_left_is_counted_by_run_and_plan() -> None:
    history = [TEN, moved(RESERVE, 5, 5, run=2), moved(RESERVE, 3, 3, plan=b"q"), moved(CHARGE, 4, 6)]
    assert reservations(history) == {(run_id(1), b"p"): 6, (run_id(2), b"p"): 5, (run_id(1), b"q"): 3}
    history += [moved(CHARGE, 5, 0, run=2), moved(RELEASE, 3, 0, plan=b"q")]
    assert reservations(history) == {(run_id(1), b"p"): 6, (run_id(2), b"p"): 0}
    # Given back, it may be set aside again.
    assert reservations([*history, moved(RESERVE, 2, 2, plan=b"q")])[run_id(1), b"q"] == 2


def test_charges_without_privacy_are_in_the_chain_like_all_others() -> None:
    book, none = Book(), NoPrivacy(releases=2, retries=0)
    book.reserve(run_id(1), none)
    book.charge(run_id(1), none)
    book.charge(run_id(1), none)
    assert [e.left for e in book.entries] == [0, 2, 1, 0]
    assert check_chain(TERMS, book.entries).last == book.entries[-1]
    # Without the unit that each costs, one attempt more or less would not be seen.
    with pytest.raises(LocalError):
        check_chain(TERMS, relinked([*book.entries, book.entries[-1]]))


# Signatures


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
