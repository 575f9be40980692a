"""The ledgers in a store: each entry counts once, survives the process, and an edited file is noticed."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from support.books import TERMS, gaussian, release, run_id
from support.keys import key, make_roster, signed

from fedseal.errors import LocalError
from fedseal.privacy.ledger import EntryKind, sign_entry
from fedseal.privacy.plan import encode_plan
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.wire import encode

ROSTER = make_roster(2, simulated=False)


@pytest.fixture
def store(tmp_path: Path) -> SiteStore:
    """Site 1, with two runs behind it: five entries, three of them charges."""
    terms = (TERMS, replace(TERMS, population="test"))
    made = Enrolment(1, key("site-1"), signed(ROSTER), ROSTER.digest(), "", terms)
    store = SiteStore.create(tmp_path / "site-1.sqlite", made)
    spend(store, 1, charges=2)
    spend(store, 2, charges=1)
    return store


def spend(store: SiteStore, run: int, *, charges: int) -> None:
    """Reserve once and charge some times, each in a transaction of its own."""
    with store.transaction() as transaction:
        _, entry = transaction.ledger("train", run_id(run)).reserve(run_id(run), gaussian())
        transaction.append("train", entry)
    for attempt in range(charges):
        with store.transaction() as transaction:
            ledger = transaction.ledger("train", run_id(run))
            _, entry, _ = ledger.charge(release(run_id(run), attempt), gaussian())
            transaction.append("train", entry)


def test_a_ledger_stands_where_its_last_entry_left_it(store: SiteStore) -> None:
    with SiteStore.open(store.path).transaction() as transaction:
        entries = transaction.entries("train")
        first, second, third = (transaction.ledger("train", run_id(n)) for n in (1, 2, 3))
    kinds = [EntryKind(e.kind) for e in entries]
    charge, reserve = EntryKind.CHARGE, EntryKind.RESERVE
    assert kinds == [EntryKind.OPEN, reserve, charge, charge, reserve, charge]
    one, plan = entries[2].amount, encode_plan(gaussian())
    assert first.last == second.last == third.last == entries[-1]
    assert first.reservations == {(run_id(1), plan): 2 * one}
    assert second.reservations == {(run_id(2), plan): 3 * one}
    assert third.reservations == {}
    assert first.available == TERMS.budget - 8 * one


def test_what_a_site_advertises_grows_with_every_charge_and_nothing_else(store: SiteStore) -> None:
    with store.transaction() as transaction:
        assert transaction.charges() == 3
        ledger, entry = transaction.ledger("train", run_id(1)).release(run_id(1), gaussian())
        transaction.append("train", entry)
        assert transaction.charges() == 3
        ledger, entry = transaction.ledger("test", run_id(1)).reserve(run_id(1), gaussian())
        transaction.append("test", entry)
        assert transaction.charges() == 3
        transaction.append("test", ledger.charge(release(run_id(1)), gaussian())[1])
        assert transaction.charges() == 4


def test_two_entries_in_one_place_are_a_bug(store: SiteStore) -> None:
    with pytest.raises(IntegrityError), store.transaction() as transaction:
        transaction.append("train", transaction.entries("train")[-1])


def test_untouched_ledgers_verify(store: SiteStore) -> None:
    store.verify_ledgers()


def change(store: SiteStore, statement: str, *values: object) -> None:
    """Write into the file by hand."""
    connection = sqlite3.connect(store.path)
    with connection:
        assert connection.execute(statement, values).rowcount > 0
    connection.close()


def stored(store: SiteStore, counter: int) -> bytes:
    """One row of the training ledger."""
    connection = sqlite3.connect(store.path)
    query = "SELECT entry FROM entries WHERE population = 'train' AND counter = ?"
    (row,) = connection.execute(query, (counter,)).fetchone()
    connection.close()
    return bytes(row)


def put(store: SiteStore, counter: int, raw: bytes) -> None:
    change(store, "UPDATE entries SET entry = ? WHERE population = 'train' AND counter = ?", raw, counter)


@pytest.mark.parametrize("counter", [1, 3, 6])
def test_a_changed_byte_of_an_entry_is_noticed(store: SiteStore, counter: int) -> None:
    raw = stored(store, counter)
    # Behind both envelopes, so that the bytes still say an entry, and in the signature.
    for place in (12 + 3, 12 + 40, 12 + 100, len(raw) - 80, len(raw) - 1):
        put(store, counter, raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        with pytest.raises(LocalError):
            store.verify_ledgers()
    put(store, counter, raw)
    store.verify_ledgers()


@pytest.mark.parametrize("place", [0, 2, 3, 5, 8, 11])
def test_an_entry_that_is_none_any_more_is_noticed(store: SiteStore, place: int) -> None:
    raw = stored(store, 3)
    put(store, 3, raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    with pytest.raises(LocalError):
        store.verify_ledgers()


def drop(store: SiteStore) -> None:
    change(store, "DELETE FROM entries WHERE population = 'train' AND counter = 3")


def drop_first(store: SiteStore) -> None:
    change(store, "DELETE FROM entries WHERE population = 'train' AND counter = 1")


def drop_all(store: SiteStore) -> None:
    change(store, "DELETE FROM entries WHERE population = 'train'")


def swap(store: SiteStore) -> None:
    one, two = stored(store, 3), stored(store, 4)
    put(store, 3, two)
    put(store, 4, one)


def resign(store: SiteStore) -> None:
    with store.transaction() as transaction:
        entry = transaction.entries("train")[2]
    put(store, 3, encode(sign_entry(entry, key("site-2"))))


def cheapen(store: SiteStore) -> None:
    """Signed by the site itself, but the totals of the next entry no longer follow."""
    with store.transaction() as transaction:
        entry = transaction.entries("train")[2]
    put(store, 3, encode(sign_entry(replace(entry, amount=0, charged=0), key("site-1"))))


def raise_budget(store: SiteStore) -> None:
    change(store, "UPDATE terms SET terms = ? WHERE population = 'train'", encode(replace(TERMS, epsilon=30.0)))


def exchange_ledgers(store: SiteStore) -> None:
    change(store, "UPDATE entries SET population = 'x' WHERE population = 'train'")
    change(store, "UPDATE entries SET population = 'train' WHERE population = 'test'")


BY_HAND = (drop, drop_first, drop_all, swap, resign, cheapen, raise_budget, exchange_ledgers)


@pytest.mark.parametrize("by_hand", BY_HAND, ids=lambda by_hand: by_hand.__name__)
def test_a_ledger_changed_by_hand_is_noticed(store: SiteStore, by_hand: Callable[[SiteStore], None]) -> None:
    by_hand(store)
    with pytest.raises(LocalError):
        SiteStore.open(store.path).verify_ledgers()


@pytest.mark.parametrize("column", ["kind", "run"])
def test_a_changed_column_beside_an_entry_is_noticed(store: SiteStore, column: str) -> None:
    """What a site advertises is counted over one column, what a run has left is found by the other."""
    value: object = int(EntryKind.RESERVE) if column == "kind" else run_id(9)
    change(store, f"UPDATE entries SET {column} = ? WHERE population = 'train' AND counter = 3", value)  # noqa: S608
    with pytest.raises(LocalError):
        store.verify_ledgers()


def test_a_ledger_that_lost_its_end_is_told_by_what_it_advertises(store: SiteStore) -> None:
    change(store, "DELETE FROM entries WHERE population = 'train' AND counter = 6")
    store.verify_ledgers()
    with store.transaction() as transaction:
        assert transaction.charges() == 2
