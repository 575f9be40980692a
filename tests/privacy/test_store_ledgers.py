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
from fedseal.privacy.ledger import EntryKind, Release, cost, sign_entry
from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.secagg.client_states import Done
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.wire import encode

ROSTER = make_roster(2, simulated=False)
PLAN = encode_plan(gaussian())


@pytest.fixture
def store(tmp_path: Path) -> SiteStore:
    """Site 1, with two runs behind it: six entries, three of them charges."""
    terms = (TERMS, replace(TERMS, population="test"))
    made = Enrolment(1, key("site-1"), signed(ROSTER), ROSTER.digest(), "", terms)
    store = SiteStore.create(tmp_path / "site-1.sqlite", made)
    spend(store, 1, charges=2)
    spend(store, 2, charges=1)
    return store


def spend(store: SiteStore, run: int, *, charges: int) -> None:
    """Reserve once and charge some times, each in a transaction of its own."""
    with store.transaction() as transaction:
        _, entry = transaction.ledger("train", run_id(run), PLAN).reserve(run_id(run), gaussian())
        transaction.append("train", entry)
    for attempt in range(charges):
        with store.transaction() as transaction:
            ledger = transaction.ledger("train", run_id(run), PLAN)
            _, entry, _ = ledger.charge(session(run, attempt), gaussian())
            transaction.append("train", entry)


def session(run: int, attempt: int) -> Release:
    """One attempt at a run's update, under a header of its own."""
    return replace(release(run_id(run), attempt), session=bytes([run, attempt]) * 16)


def test_a_ledger_stands_where_its_last_entry_left_it(store: SiteStore) -> None:
    with SiteStore.open(store.path).transaction() as transaction:
        entries = transaction.entries("train")
        first, second, third = (transaction.ledger("train", run_id(n), PLAN) for n in (1, 2, 3))
        other = transaction.ledger("train", run_id(1), encode_plan(gaussian(21.0)))
        test = transaction.ledger("test", run_id(1), PLAN)
    kinds = [EntryKind(e.kind) for e in entries]
    charge, reserve = EntryKind.CHARGE, EntryKind.RESERVE
    assert kinds == [EntryKind.OPEN, reserve, charge, charge, reserve, charge]
    one = entries[2].amount
    assert [e.left for e in entries] == [0, 4 * one, 3 * one, 2 * one, 4 * one, 3 * one]
    assert first.last == second.last == third.last == other.last == entries[-1]
    assert first.reservations == {(run_id(1), PLAN): 2 * one}
    assert second.reservations == {(run_id(2), PLAN): 3 * one}
    assert third.reservations == other.reservations == test.reservations == {}
    assert (test.terms.population, test.counter) == ("test", 1)
    assert first.available == TERMS.budget - 8 * one


def test_what_a_site_advertises_grows_with_every_charge_and_nothing_else(store: SiteStore) -> None:
    with store.transaction() as transaction:
        assert transaction.charges() == 3
        _, entry = transaction.ledger("train", run_id(1), PLAN).release(run_id(1), gaussian())
        transaction.append("train", entry)
        assert transaction.charges() == 3
        ledger, entry = transaction.ledger("test", run_id(1), PLAN).reserve(run_id(1), gaussian())
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


def move(store: SiteStore) -> None:
    """The last entry, to the other ledger: which persons it is about stands in it as the hash of their terms."""
    change(store, "UPDATE entries SET population = 'test' WHERE population = 'train' AND counter = 6")


def move_and_relink(store: SiteStore) -> None:
    """The same, with everything made right that can be: the terms' hash alone gives it away."""
    with store.transaction() as transaction:
        reserved, before = transaction.entries("train")[1], transaction.entries("test")[0]
    moved = replace(reserved, previous=before.digest())
    assert (moved.counter, moved.charged) == (2, 0)
    change(store, "DELETE FROM entries WHERE population = 'train' AND counter > 1")
    columns = "population, counter, run, plan, session, kind, entry"
    row = ("test", 2, moved.run, moved.plan, moved.session, moved.kind, encode(sign_entry(moved, key("site-1"))))
    change(store, f"INSERT INTO entries ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", *row)  # noqa: S608


def set_apart(store: SiteStore) -> None:
    """The last charge, to a population that has no ledger: the number that the site advertises stays the same."""
    change(store, "UPDATE entries SET population = 'none' WHERE population = 'train' AND counter = 6")


BY_HAND: tuple[Callable[[SiteStore], None], ...] = (drop, drop_first, drop_all, swap, resign, cheapen, raise_budget)
BY_HAND += (exchange_ledgers, move, move_and_relink, set_apart)


@pytest.mark.parametrize("by_hand", BY_HAND, ids=lambda by_hand: by_hand.__name__)
def test_a_ledger_changed_by_hand_is_noticed(store: SiteStore, by_hand: Callable[[SiteStore], None]) -> None:
    by_hand(store)
    with pytest.raises(LocalError):
        SiteStore.open(store.path).verify_ledgers()


OTHER_COLUMNS: dict[str, object] = {
    "kind": int(EntryKind.RESERVE),
    "run": run_id(9),
    "plan": encode_plan(gaussian(21.0)),
    "session": b"s" * 32,
    "counter": 30,
}


@pytest.mark.parametrize("counter", [3, 6])
@pytest.mark.parametrize(
    ("column", "value"), [*OTHER_COLUMNS.items(), *((name, None) for name in OTHER_COLUMNS if name != "counter")]
)
def test_a_changed_column_beside_an_entry_is_noticed(
    store: SiteStore, column: str, value: object, counter: int
) -> None:
    """What a site advertises is counted over one of them, what a run has left is found by the others."""
    set_ = f"UPDATE entries SET {column} = ? WHERE population = 'train' AND counter = ?"  # noqa: S608
    change(store, set_, value, counter)
    with pytest.raises(LocalError, match="contradicts its own entry") as caught:
        store.verify_ledgers()
    assert "Restore it" in caught.value.next_step
    with store.transaction() as transaction, pytest.raises(LocalError, match="contradicts its own entry"):
        transaction.entries("train")


@pytest.mark.parametrize("column", OTHER_COLUMNS)
def test_the_two_entries_that_a_round_reads_are_checked(store: SiteStore, column: str) -> None:
    """The newest one, and the newest one of the run and plan: here the same."""
    set_ = f"UPDATE entries SET {column} = ? WHERE population = 'train' AND counter = 6"  # noqa: S608
    change(store, set_, OTHER_COLUMNS[column])
    with store.transaction() as transaction, pytest.raises(LocalError, match="contradicts its own entry"):
        transaction.ledger("train", run_id(2), PLAN)


def test_an_entry_that_a_round_reads_is_of_its_own_population(store: SiteStore) -> None:
    """Without waiting for the next check of the whole ledger."""
    move(store)
    with store.transaction() as transaction, pytest.raises(LocalError):
        transaction.ledger("test", run_id(2), PLAN)


def test_a_transaction_can_verify_what_it_goes_on_with(store: SiteStore) -> None:
    with store.transaction() as transaction:
        transaction.verify_ledgers()
    change(store, "DELETE FROM entries WHERE population = 'test'")
    with store.transaction() as transaction:
        with pytest.raises(LocalError, match="does not begin with its opening entry"):
            transaction.verify_ledgers()
        with pytest.raises(LocalError, match="without its opening entry"):
            transaction.ledger("test", run_id(1), PLAN)


def test_a_ledger_that_lost_its_end_is_told_by_what_it_advertises(store: SiteStore) -> None:
    change(store, "DELETE FROM entries WHERE population = 'train' AND counter = 6")
    store.verify_ledgers()
    with store.transaction() as transaction:
        assert transaction.charges() == 2


# Receipts


def test_a_session_that_was_charged_has_its_receipt_again(store: SiteStore) -> None:
    """After a crash the release is not charged a second time."""
    with SiteStore.open(store.path).transaction() as transaction:
        found = [transaction.receipt("train", session(1, attempt).session) for attempt in range(3)]
        assert found == [Receipt(bytes([1, 0]) * 16, PLAN, 3), Receipt(bytes([1, 1]) * 16, PLAN, 4), None]
        assert transaction.receipt("train", session(2, 0).session) == Receipt(bytes([2, 0]) * 16, PLAN, 6)
        # Another population was not charged for it.
        assert transaction.receipt("test", session(1, 0).session) is None


def test_only_a_charge_has_a_receipt(store: SiteStore) -> None:
    """Entries that are about no session say so with zeros."""
    with store.transaction() as transaction:
        assert transaction.receipt("test", bytes(32)) is None
        assert transaction.receipt("train", bytes(32)) is None


def test_a_receipt_is_only_given_for_what_the_site_signed(store: SiteStore) -> None:
    raw = stored(store, 3)
    put(store, 3, raw[:-1] + bytes([raw[-1] ^ 1]))
    with store.transaction() as transaction, pytest.raises(LocalError, match="not signed by this site"):
        transaction.receipt("train", session(1, 0).session)
    put(store, 3, raw)
    change(store, "UPDATE entries SET session = ? WHERE population = 'train' AND counter = 3", b"s" * 32)
    with store.transaction() as transaction, pytest.raises(LocalError, match="contradicts its own entry"):
        transaction.receipt("train", b"s" * 32)


# The end of a run


def test_a_closed_run_gives_back_what_it_had_left_of_every_plan(store: SiteStore) -> None:
    other, none = gaussian(40.0), NoPrivacy(releases=2, retries=0)
    with store.transaction() as transaction:
        for population, plan in (("train", other), ("test", none), ("test", gaussian())):
            _, entry = transaction.ledger(population, run_id(1), encode_plan(plan)).reserve(run_id(1), plan)
            transaction.append(population, entry)
        charge = transaction.ledger("test", run_id(1), encode_plan(none)).charge(session(1, 9), none)[1]
        transaction.append("test", charge)
        transaction.put_run(RunRecord(run_id(1), 3, 1))
        transaction.put_state(b"s" * 32, run_id(1), Done(b"s" * 32))
        before = {p: transaction.entries(p) for p in ("train", "test")}
        transaction.close_run(run_id(1))
        after = {p: transaction.entries(p) for p in ("train", "test")}
        assert transaction.run(run_id(1)) == RunRecord(run_id(1), 3, 1, closed=True)
        assert transaction.state(b"s" * 32) is None
    one, others = before["train"][2].amount, cost(other, TERMS.order) * other.attempts
    given = {p: {(e.plan, e.amount, e.left) for e in after[p][len(before[p]) :]} for p in after}
    assert given == {
        "train": {(PLAN, 2 * one, 0), (encode_plan(other), others, 0)},
        "test": {(encode_plan(none), 1, 0), (PLAN, 4 * one, 0)},
    }
    assert all(e.run == run_id(1) and e.kind == EntryKind.RELEASE for p in after for e in after[p][len(before[p]) :])
    # What the other run holds is untouched, what was charged stays charged.
    assert (after["train"][-1].charged, after["train"][-1].reserved) == (3 * one, 3 * one)
    assert (after["test"][-1].charged, after["test"][-1].reserved) == (1, 0)
    store.verify_ledgers()


@pytest.mark.parametrize("number", [1, 3], ids=["a run that spent", "a run that was never seen"])
def test_a_run_is_closed_once(store: SiteStore, number: int) -> None:
    def lines() -> int:
        with store.transaction() as transaction:
            return sum(len(transaction.entries(p)) for p in transaction.populations())

    start, counts = lines(), []
    for _ in range(3):
        with store.transaction() as transaction:
            transaction.close_run(run_id(number))
            assert transaction.run(run_id(number)).closed
        counts.append(lines() - start)
    assert counts == ([1, 1, 1] if number == 1 else [0, 0, 0])
    store.verify_ledgers()


def test_a_closed_run_stays_closed_whatever_it_holds(store: SiteStore) -> None:
    """Idempotent by the record of the run, not by what is found in the ledger."""
    with store.transaction() as transaction:
        transaction.put_run(RunRecord(run_id(2), 1, closed=True))
        before = transaction.entries("train")
        transaction.close_run(run_id(2))
        assert transaction.entries("train") == before


def test_any_run_can_be_closed(store: SiteStore) -> None:
    """The opening entry is of no run, and its sixteen zeros are as good a name as any other."""
    with store.transaction() as transaction:
        transaction.close_run(bytes(16))
        assert transaction.run(bytes(16)).closed
        assert len(transaction.entries("train")) == 6
