"""The ledger never promises more than it has, whatever the order of operations, and never counts too little."""

import math
import random
from dataclasses import replace

import pytest
from support.books import TERMS, Book, gaussian, release, run_id

from fedseal.errors import BudgetExceeded, ConfigError, ExitCode, LocalError
from fedseal.privacy import accounting
from fedseal.privacy.chain import check_chain, reservations
from fedseal.privacy.ledger import (
    GENESIS,
    UNITS,
    Release,
    Terms,
    cost,
    epsilon_enforced,
    epsilon_spent,
    open_ledger,
    open_terms,
)
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan, encode_plan
from fedseal.privacy.receipt import Receipt

plan = gaussian


def random_book(seed: int, operations: int = 30) -> Book:
    """Some runs with some plans, each operation at random, whether it makes sense or not."""
    rng = random.Random(seed)
    book = Book(open_terms("train", epsilon=rng.uniform(2, 12), delta=1e-5, order=rng.choice([8.0, 16.0, 32.0])))
    plans: list[PrivacyPlan] = [NoPrivacy(releases=1, retries=0)]
    for _ in range(4):
        noise, q = rng.uniform(2.0, 60.0), rng.choice([1.0, rng.uniform(0.05, 0.5)])
        plans.append(plan(noise, q, steps=rng.randrange(1, 4), releases=rng.randrange(1, 6), retries=rng.randrange(3)))
    for _ in range(operations):
        run, chosen = run_id(rng.randrange(4)), rng.choice(plans)
        rng.choices([book.reserve, book.charge, book.give_back], [3, 6, 1])[0](run, chosen)
        book.check()
    return book


@pytest.mark.parametrize("block", range(10))
def test_whatever_happens_the_ledger_stays_within_its_budget(block: int) -> None:
    books = [random_book(seed) for seed in range(40 * block, 40 * block + 40)]
    for book in books:
        assert check_chain(book.terms, book.entries) == book.ledger
        assert reservations(book.entries) == book.ledger.reservations
    # The schedules are of use only if they meet both answers often.
    assert sum(book.refused for book in books) > 100
    assert sum(len(book.entries) for book in books) > 200


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_chain_can_be_cut_anywhere_and_goes_on_the_same(seed: int) -> None:
    book = random_book(seed)
    for length in range(1, len(book.entries) + 1):
        part = check_chain(book.terms, book.entries[:length])
        assert part.last == book.entries[length - 1]
        # A ledger that lost its end is whole in itself: only its counter tells, and that is what the peers remember.
        assert part.counter == length


# One run


def terms_of(units: int) -> Terms:
    """Terms with a budget of just so many units of 10^-12."""
    zero = accounting.conversion(TERMS.order, TERMS.delta)
    nearby = (replace(TERMS, epsilon=(units + k / 4) / UNITS + zero) for k in range(-8, 9))
    return next(terms for terms in nearby if terms.budget == units)


@pytest.mark.parametrize(
    "made", [plan(), plan(30.0, 0.3, steps=7, releases=20, retries=4), plan(9.0, releases=1, retries=0)]
)
def test_a_run_has_as_many_attempts_as_its_plan_says(made: LocalGaussian) -> None:
    """The budget is exactly that of the plan, so not one unit is counted too much either."""
    needed = cost(made, TERMS.order) * made.attempts
    book, run = Book(terms_of(needed)), run_id(1)
    assert book.reserve(run, made)
    assert all(book.charge(run, made) for _ in range(made.attempts))
    assert not book.charge(run, made)
    assert (book.ledger.last.charged, book.ledger.last.reserved) == (needed, 0)
    with pytest.raises(BudgetExceeded, match="used up what its plan reserved") as caught:
        book.ledger.charge(release(run), made)
    assert caught.value.exit_code == ExitCode.BUDGET
    assert not Book(terms_of(needed - 1)).reserve(run, made)


def test_one_attempt_too_many_for_the_budget_is_refused_before_anything_happens() -> None:
    made = plan(20.0, releases=1, retries=0)
    most = TERMS.budget // cost(made, TERMS.order)
    assert Book().reserve(run_id(1), replace(made, releases=most))
    with pytest.raises(
        BudgetExceeded, match=r"would cost 10\d\.\d % of the budget of population 'train', 100.0 % is left"
    ):
        Book().ledger.reserve(run_id(1), replace(made, releases=most + 1))


def test_nothing_is_charged_without_a_reservation_for_this_run_and_plan() -> None:
    book = Book()
    book.reserve(run_id(1), plan(20.0))
    for run, made in ((run_id(2), plan(20.0)), (run_id(1), plan(21.0)), (run_id(1), NoPrivacy(releases=1, retries=0))):
        with pytest.raises(BudgetExceeded, match="used up"):
            book.ledger.charge(release(run), made)


def test_a_run_reserves_a_plan_once() -> None:
    book = Book()
    book.reserve(run_id(1), plan())
    with pytest.raises(LocalError, match="holds a reservation for this plan already"):
        book.ledger.reserve(run_id(1), plan())
    assert book.reserve(run_id(2), plan())
    assert book.reserve(run_id(1), plan(40.0))


def test_giving_back_returns_exactly_what_is_left() -> None:
    book, made, run = Book(), plan(20.0, releases=5, retries=2), run_id(1)
    book.reserve(run, made)
    book.charge(run, made)
    book.charge(run, made)
    one = cost(made, TERMS.order)
    assert book.give_back(run, made)
    assert book.entries[-1].amount == 5 * one
    assert (book.ledger.last.charged, book.ledger.last.reserved) == (2 * one, 0)
    assert book.ledger.available == TERMS.budget - 2 * one
    assert not book.charge(run, made)
    with pytest.raises(LocalError, match="holds no reservation"):
        book.ledger.release(run, made)
    assert book.reserve(run, made)


def test_a_charge_says_what_was_charged_and_hands_out_a_receipt() -> None:
    book, made, run = Book(), plan(), run_id(7)
    book.reserve(run, made)
    following, entry, receipt = book.ledger.charge(Release(run, "update", 4, 2, b"s" * 32), made)
    assert receipt == Receipt(b"s" * 32, encode_plan(made), 3)
    assert (entry.run, entry.release_name, entry.release_seq, entry.attempt) == (run, "update", 4, 2)
    assert (entry.session, entry.plan, entry.amount) == (b"s" * 32, encode_plan(made), cost(made, TERMS.order))
    assert following.last == entry
    assert entry.previous == book.entries[-1].digest()
    assert book.entries[0].previous == GENESIS


# Numbers


@pytest.mark.parametrize("order", [2.0, 7.25, 64.0])
@pytest.mark.parametrize("made", [plan(3.3), plan(1.7, 0.37, steps=3), plan(500.0, 0.01)])
def test_costs_are_rounded_up_and_the_budget_down(made: LocalGaussian, order: float) -> None:
    exact = accounting.rdp_at(made.event(1), order) * UNITS
    assert exact <= cost(made, order) < exact + 1
    terms = open_terms("train", epsilon=4.56, delta=1e-5, order=order) if order > 2 else replace(TERMS, epsilon=20.0)
    left = accounting.rdp_budget(terms.epsilon, terms.delta, terms.order) * UNITS
    assert terms.budget <= left < terms.budget + 1


@pytest.mark.parametrize("seed", range(6))
def test_what_is_enforced_is_never_less_than_what_was_spent(seed: int) -> None:
    rng, book = random.Random(seed), Book()
    plans = [plan(rng.uniform(8, 20), rng.choice([1.0, 0.2]), releases=2) for _ in range(2)]
    for number, made in enumerate(plans):
        assert book.reserve(run_id(number), made)
        for _ in range(rng.randrange(1, 4)):
            assert book.charge(run_id(number), made)
    enforced = epsilon_enforced(TERMS, book.ledger.last.charged)
    assert 0 < epsilon_spent(TERMS, book.entries) <= enforced <= TERMS.epsilon


def test_reservations_are_not_spent() -> None:
    book = Book()
    book.reserve(run_id(1), plan())
    assert epsilon_spent(TERMS, book.entries) == 0.0
    assert epsilon_enforced(TERMS, book.ledger.last.charged) == 0.0


def test_what_is_enforced_reaches_the_promise_with_the_last_unit_and_not_before() -> None:
    assert epsilon_enforced(TERMS, 0) == 0.0
    whole = epsilon_enforced(TERMS, TERMS.budget)
    assert TERMS.epsilon - 1e-11 < whole <= TERMS.epsilon + 1e-14
    assert epsilon_enforced(TERMS, 1) == pytest.approx(accounting.conversion(TERMS.order, TERMS.delta))
    charged = [epsilon_enforced(TERMS, n * TERMS.budget // 7) for n in range(8)]
    assert charged == sorted(charged)


def test_a_plan_without_privacy_costs_one_unit_and_makes_the_epsilon_infinite() -> None:
    book, none = Book(), NoPrivacy(releases=2, retries=0)
    assert {cost(none, order) for order in (1.5, TERMS.order, 200.0)} == {1}
    book.reserve(run_id(1), plan())
    book.charge(run_id(1), plan())
    book.reserve(run_id(2), none)
    assert math.isfinite(epsilon_spent(TERMS, book.entries))
    book.charge(run_id(2), none)
    assert book.ledger.last.charged == cost(plan(), TERMS.order) + 1
    assert math.isinf(epsilon_spent(TERMS, book.entries))


@pytest.mark.parametrize(("releases", "retries"), [(1, 0), (3, 2), (1, 5)])
def test_a_plan_without_privacy_has_as_many_attempts_as_it_says(releases: int, retries: int) -> None:
    book, none, run = Book(), NoPrivacy(releases=releases, retries=retries), run_id(1)
    assert book.reserve(run, none)
    assert book.ledger.last.left == releases + retries
    assert [book.charge(run, none) for _ in range(releases + retries + 1)] == [True] * (releases + retries) + [False]
    with pytest.raises(BudgetExceeded, match="used up what its plan reserved"):
        book.ledger.charge(release(run), none)
    # Giving back the nothing that is left is an entry too.
    assert book.give_back(run, none)
    book.check()


def test_more_attempts_without_privacy_than_there_are_units_are_refused() -> None:
    book = Book(terms_of(5))
    assert not book.reserve(run_id(1), NoPrivacy(releases=5, retries=1))
    assert book.reserve(run_id(1), NoPrivacy(releases=5, retries=0))
    assert not book.reserve(run_id(2), NoPrivacy(releases=1, retries=0))


@pytest.mark.parametrize(
    ("made", "order"),
    [
        # The smallest noise that a plan may have.
        (plan(1e-3), 8.0),
        (plan(1e-3, 0.5), 8.0),
        (plan(1e-3, 1e-6), 8.0),
        (plan(1e-3, steps=(1 << 32) - 1, releases=(1 << 32) - 1, retries=(1 << 32) - 1), 200.0),
        # At these orders the series for a subsampled Gaussian does not converge, and no finite bound is known.
        (plan(1.0, 0.5), 1.3),
        (plan(0.3, 0.1), 1.1),
    ],
)
def test_a_plan_that_no_finite_budget_can_pay_for_is_refused(made: LocalGaussian, order: float) -> None:
    ledger = open_ledger(open_terms("train", epsilon=500.0, delta=1e-5, order=order))[0]
    with pytest.raises(BudgetExceeded):
        ledger.reserve(run_id(1), made)


@pytest.mark.parametrize(
    ("epsilon", "delta", "order"),
    [
        (0.0, 1e-5, 8.0),
        (-1.0, 1e-5, 8.0),
        (math.nan, 1e-5, 8.0),
        (1.0, 0.0, 8.0),
        (1.0, 1.0, 8.0),
        (1.0, 1e-5, 1.0),
        (math.inf, 1e-5, 8.0),
        (1.0, 1e-5, math.inf),
    ],
)
def test_terms_out_of_range_are_a_config_error(epsilon: float, delta: float, order: float) -> None:
    with pytest.raises(ConfigError):
        open_terms("train", epsilon=epsilon, delta=delta, order=order)


def test_an_order_that_leaves_no_budget_says_which_order_to_take() -> None:
    with pytest.raises(ConfigError, match="at order 2, epsilon 1 and delta 1e-05 leave no budget at all") as caught:
        open_terms("train", epsilon=1.0, delta=1e-5, order=2.0)
    assert "best_order" in caught.value.next_step
