"""A store's ledger read through its last entries is the one that a replay of all entries gives, at a fixed price."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sqlalchemy import event
from support.books import TERMS, Book, gaussian, release, run_id
from support.keys import key, make_roster, signed

from fedseal.errors import BudgetExceeded, LocalError
from fedseal.privacy.chain import check_chain
from fedseal.privacy.ledger import Release
from fedseal.privacy.plan import NoPrivacy, PrivacyPlan, encode_plan
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.privacy.transaction import Transaction

POPULATIONS = ("train", "test")
ALL_TERMS = {p: replace(TERMS, population=p) for p in POPULATIONS}
PLANS: tuple[PrivacyPlan, ...] = (
    gaussian(20.0, releases=2, retries=1),
    gaussian(25.0, 0.5, steps=2),
    # Too dear for the budget.
    gaussian(1.0),
    NoPrivacy(releases=1, retries=1),
)
RUNS = tuple(run_id(n) for n in (0, 1, 2))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SiteStore:
    """A site's store. The tests undo what they write."""
    roster = make_roster(2, simulated=False)
    made = Enrolment(1, key("site-1"), signed(roster), roster.digest(), "", tuple(ALL_TERMS.values()))
    return SiteStore.create(tmp_path_factory.mktemp("histories") / "site-1.sqlite", made)


class UndoneError(Exception):
    """Leave a transaction without a trace."""


def undone(store: SiteStore, work: Callable[[Transaction], None]) -> None:
    """Do something in a transaction that is undone at its end."""
    with pytest.raises(UndoneError), store.transaction() as transaction:
        work(transaction)
        raise UndoneError


# Histories


def compare(transaction: Transaction, books: dict[str, Book]) -> None:
    """Every view of every ledger against the book that was kept beside it, and against a replay of all entries."""
    for population, book in books.items():
        book.check()
        entries = transaction.entries(population)
        assert entries == book.entries
        replayed = check_chain(ALL_TERMS[population], entries)
        assert replayed == book.ledger
        for run in RUNS:
            for plan in PLANS:
                found, place = transaction.ledger(population, run, encode_plan(plan)), (run, encode_plan(plan))
                held = {k: v for k, v in replayed.reservations.items() if k == place}
                assert found == replace(replayed, reservations=held)
    transaction.verify_ledgers()


def session_of(operation: int) -> bytes:
    return operation.to_bytes(32, "big")


def perform(transaction: Transaction, book: Book, kind: str, run: bytes, plan: PrivacyPlan, number: int) -> None:
    """One operation in the store and in the book: allowed in both or in neither."""
    asked = Release(run, "update", 1, number, session_of(number))
    ledger = transaction.ledger(book.terms.population, run, encode_plan(plan))
    try:
        match kind:
            case "reserve":
                entry = ledger.reserve(run, plan)[1]
            case "charge":
                _, entry, receipt = ledger.charge(asked, plan)
            case _:
                entry = ledger.release(run, plan)[1]
    except (BudgetExceeded, LocalError):
        entry = None
    operations: dict[str, Callable[[Any], tuple[Any, ...]]] = {
        "reserve": lambda whole: whole.reserve(run, plan),
        "charge": lambda whole: whole.charge(asked, plan),
        "release": lambda whole: whole.release(run, plan),
    }
    assert book.do(operations[kind]) == (entry is not None)
    if entry is not None:
        transaction.append(book.terms.population, entry)
        assert entry == book.entries[-1]
        if kind == "charge":
            assert transaction.receipt(book.terms.population, session_of(number)) == receipt


def close(transaction: Transaction, books: dict[str, Book], run: bytes) -> None:
    """End a run in the store and, plan by plan in whatever order the store took them, in the books."""
    first = not transaction.run(run).closed
    transaction.close_run(run)
    assert transaction.run(run).closed
    for population, book in books.items():
        added = transaction.entries(population)[len(book.entries) :]
        held = {plan for holder, plan in book.ledger.reservations if holder == run}
        assert len(added) == (len(held) if first else 0)
        assert first is False or {e.plan for e in added} == held
        for entry in added:
            assert book.give_back(run, next(p for p in PLANS if encode_plan(p) == entry.plan))


operations = st.tuples(
    st.sampled_from(POPULATIONS),
    st.sampled_from(["reserve", "reserve", "charge", "charge", "charge", "release", "close"]),
    st.sampled_from(RUNS[1:]) | st.sampled_from(RUNS),
    st.sampled_from(PLANS),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(operations, max_size=40))
def test_a_ledger_read_through_two_entries_is_the_one_a_replay_gives(
    store: SiteStore, history: list[tuple[str, str, bytes, PrivacyPlan]]
) -> None:
    def work(transaction: Transaction) -> None:
        books = {population: Book(ALL_TERMS[population]) for population in POPULATIONS}
        for number, (population, kind, run, plan) in enumerate(history, start=1):
            # The run of sixteen zeros is closed in a test of its own.
            if kind == "close" and run != RUNS[0]:
                close(transaction, books, run)
            elif kind != "close":
                perform(transaction, books[population], kind, run, plan, number)
            if number % 8 == 0:
                compare(transaction, books)
        compare(transaction, books)

    undone(store, work)


# The price of reading


def grow(transaction: Transaction, charges: int) -> None:
    """A long run, with shorter ones in between."""
    long = gaussian(2000.0, releases=charges)
    ledger, entry = transaction.ledger("train", run_id(1), encode_plan(long)).reserve(run_id(1), long)
    transaction.append("train", entry)
    for number in range(charges):
        ledger, entry, _ = ledger.charge(replace(release(run_id(1), number), session=session_of(number + 1)), long)
        transaction.append("train", entry)
        if number % 10 == 0:
            run, short = run_id(1000 + number), gaussian(3000.0)
            # Reserved and left, as by a run that never ended.
            ledger, entry = ledger.reserve(run, short)
            transaction.append("train", entry)


@pytest.fixture
def statements(store: SiteStore) -> Iterator[list[str]]:
    """Every statement that reaches the database."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(store._engine, "before_cursor_execute", note)
    yield seen
    event.remove(store._engine, "before_cursor_execute", note)


READS: dict[str, Callable[[Transaction, bytes], object]] = {
    "a run's ledger": lambda t, plan: t.ledger("train", run_id(1), plan),
    "an unknown run's ledger": lambda t, plan: t.ledger("train", run_id(7), plan),
    "an old run's ledger": lambda t, plan: t.ledger("train", run_id(1000), encode_plan(gaussian(3000.0))),
    "a receipt": lambda t, plan: t.receipt("train", session_of(1)),
    "no receipt": lambda t, plan: t.receipt("train", b"s" * 32),
    "closing an old run": lambda t, plan: t.close_run(run_id(1000)),
    "closing an unknown run": lambda t, plan: t.close_run(run_id(7)),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_what_a_round_reads_does_not_grow_with_the_ledger(
    store: SiteStore, statements: list[str], read: Callable[[Transaction, bytes], object]
) -> None:
    """Neither the number of statements nor the steps of SQLite's machine, in which every row it looks at counts."""
    prices: list[tuple[int, int]] = []

    def measure(charges: int) -> None:
        def work(transaction: Transaction) -> None:
            grow(transaction, charges)
            plan, steps = encode_plan(gaussian(2000.0, releases=charges)), [0]

            def step() -> int:
                steps[0] += 1
                return 0

            connection = transaction._connection.connection.driver_connection
            assert connection is not None
            statements.clear()
            connection.set_progress_handler(step, 1)
            try:
                read(transaction, plan)
            finally:
                connection.set_progress_handler(None, 1)
            prices.append((len(statements), steps[0]))

        undone(store, work)

    measure(4)
    measure(400)
    (few, little), (as_few, as_little) = prices
    assert as_few == few
    assert little > 0
    assert as_little <= little + 8


def test_a_ledger_is_read_with_three_statements(store: SiteStore, statements: list[str]) -> None:
    """Its terms, its newest entry, and the newest one of the run and plan."""
    with store.transaction() as transaction:
        statements.clear()
        transaction.ledger("train", run_id(1), encode_plan(gaussian()))
    assert len(statements) == 3
    assert sum("FROM entries" in statement and "LIMIT" in statement for statement in statements) == 2


def test_the_store_was_left_as_it_was(store: SiteStore) -> None:
    """That the tests of this module do not see each other's entries."""
    with SiteStore.open(store.path).transaction() as transaction:
        assert [len(transaction.entries(population)) for population in POPULATIONS] == [1, 1]
