"""A site's privacy ledger, pure: what a population of persons has spent, entry by entry, and what it can still
afford.

The ledger belongs to a population, not to a file or a run: everything released about the same persons is charged
here. It counts Rényi divergence at the one order fixed when it was opened, in whole units of 10^-12, costs rounded up
and the budget rounded down, so that nothing is ever counted too low and sums do not depend on their order.

A run first *reserves* what its plan will cost with all retries, then *charges* each release before it leaves, then
*releases* what is left. Every entry holds the hash of the one before, the running totals and the site's signature;
`counter` only grows, and peers remember it.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import lru_cache
from typing import Annotated, ClassVar, TypeAlias

from fedseal.errors import BudgetExceeded, ConfigError, LocalError
from fedseal.privacy import accounting
from fedseal.privacy.plan import NoPrivacy, PlanKind, PrivacyPlan, decode_plan, encode_plan
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify
from fedseal.wire import F64, U8, U32, U64, Blob, Bytes16, Bytes32, Bytes64, DecodeError, Str, decode, encode

UNITS = 10**12
UNAFFORDABLE = 1 << 62
LARGEST_EPSILON = 1000.0
GENESIS = bytes(32)
DAMAGED = (
    "The ledger's file was changed from outside, or is damaged. Restore it, and compare the number of its charges "
    "with what the other sites remember."
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What was promised to a population when its ledger was opened; never changed afterwards."""

    TAG: ClassVar[int] = 60

    population: Str
    unit: Str
    adjacency: Str
    epsilon: F64
    delta: F64
    order: F64

    @property
    def budget(self) -> int:
        """The Rényi divergence at ``order`` that epsilon and delta leave, in units of 10^-12, rounded down."""
        return math.floor(accounting.rdp_budget(self.epsilon, self.delta, self.order) * UNITS)

    def digest(self) -> bytes:
        """What every entry names as its ``terms``."""
        return hashlib.sha256(encode(self)).digest()


def open_terms(population: str, *, epsilon: float, delta: float, order: float) -> Terms:
    """Terms for persons under add-or-remove-one.

    Raises:
        ConfigError: out of range, or the order leaves nothing of the budget.
    """
    if not (0 < epsilon <= LARGEST_EPSILON and 0 < delta < 1 and 1 < order < math.inf):
        raise ConfigError(f"expected 0 < epsilon <= {LARGEST_EPSILON:g}, 0 < delta < 1 and a finite order above 1")
    terms = Terms(population, "person", "add-or-remove-one", float(epsilon), float(delta), float(order))
    if terms.budget <= 0:
        raise ConfigError(
            f"at order {order:g}, epsilon {epsilon:g} and delta {delta:g} leave no budget at all",
            next_step="Open the ledger with the order of the plan you expect: `fedseal.privacy.accounting.best_order`.",
        )
    return terms


class EntryKind(IntEnum):
    """What an entry does."""

    OPEN = 0
    RESERVE = 1
    CHARGE = 2
    RELEASE = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the ledger.

    ``amount`` is what it moved, ``left`` what its run has left for its plan after it; ``charged`` and ``reserved`` are
    the totals after it.
    """

    TAG: ClassVar[int] = 61

    counter: U64
    kind: U8
    previous: Bytes32
    terms: Bytes32
    run: Bytes16
    release_name: Str
    release_seq: U64
    attempt: U32
    session: Bytes32
    plan: Annotated[bytes, Blob(4096)]
    amount: U64
    left: U64
    charged: U64
    reserved: U64

    def digest(self) -> bytes:
        """What the next entry names as ``previous``."""
        return hashlib.sha256(encode(self)).digest()

    def signed_message(self) -> bytes:
        """What the site signs."""
        return DOMAIN + b"ledger\x00" + self.digest()


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """An entry as it is stored."""

    TAG: ClassVar[int] = 62

    entry: Annotated[bytes, Blob(1 << 16)]
    signature: Bytes64

    def open(self, public_key: bytes) -> Entry:
        """The entry, if its site signed it; LocalError otherwise: the file was changed by other hands."""
        try:
            entry = decode(self.entry, Entry)
        except DecodeError as error:
            raise LocalError(f"a ledger entry cannot be read: {error.message}", next_step=DAMAGED) from None
        if not verify(public_key, self.signature, entry.signed_message()):
            raise LocalError("a ledger entry is not signed by this site", next_step=DAMAGED)
        return entry


@dataclass(frozen=True, slots=True)
class Release:
    """Which release an entry is about. ``session`` is the hash of the header that asked for it."""

    run: bytes
    name: str
    seq: int
    attempt: int
    session: bytes


# A run may have several plans: one for its statistics, one for its training.
Reservation: TypeAlias = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Ledger:
    """The state after the last entry.

    Each operation returns the next state and its entry, or raises and changes nothing.
    """

    terms: Terms
    last: Entry
    reservations: Mapping[Reservation, int]

    @property
    def counter(self) -> int:
        """How many entries there have been; what this site advertises."""
        return self.last.counter

    @property
    def available(self) -> int:
        """What is neither charged nor reserved, in units."""
        return self.terms.budget - self.last.charged - self.last.reserved

    def reserve(self, run: bytes, plan: PrivacyPlan) -> tuple["Ledger", Entry]:
        """Set aside the cost of all attempts of one of a run's plans.

        Raises:
            BudgetExceeded: it does not fit what is available.
            LocalError: the run holds a reservation for this plan already.
        """
        key = (run, encode_plan(plan))
        if key in self.reservations:
            raise LocalError("this run holds a reservation for this plan already")
        amount = cost(plan, self.terms.order) * plan.attempts
        if amount > self.available:
            raise BudgetExceeded(
                f"this run would cost {_fraction(amount, self.terms)} of the budget of population "
                f"{self.terms.population!r}, {_fraction(self.available, self.terms)} is left",
                next_step="Plan fewer rounds or more noise, or ask the data owner for a budget for new persons.",
            )
        release = Release(run, "", 0, 0, bytes(32))
        totals = (self.last.charged, self.last.reserved + amount)
        entry = self._next(EntryKind.RESERVE, release, plan, amount, amount, totals)
        return replace(self, last=entry, reservations={**self.reservations, key: amount}), entry

    def charge(self, release: Release, plan: PrivacyPlan) -> tuple["Ledger", Entry, Receipt]:
        """Spend one release of a run's reservation for this plan, irrevocably.

        Raises:
            BudgetExceeded: the run has no reservation for it or has used it up.
        """
        key = (release.run, encode_plan(plan))
        amount, left = cost(plan, self.terms.order), self.reservations.get(key)
        if left is None or amount > left:
            raise used_up()
        totals = (self.last.charged + amount, self.last.reserved - amount)
        entry = self._next(EntryKind.CHARGE, release, plan, amount, left - amount, totals)
        following = replace(self, last=entry, reservations={**self.reservations, key: left - amount})
        return following, entry, Receipt(release.session, key[1], entry.counter)

    def release(self, run: bytes, plan: PrivacyPlan) -> tuple["Ledger", Entry]:
        """Give back what a closed run has not spent of a plan. LocalError if it holds no reservation for it."""
        key = (run, encode_plan(plan))
        left = self.reservations.get(key)
        if left is None:
            raise LocalError("this run holds no reservation for this plan")
        release = Release(run, "", 0, 0, bytes(32))
        totals = (self.last.charged, self.last.reserved - left)
        entry = self._next(EntryKind.RELEASE, release, plan, left, 0, totals)
        rest = {k: amount for k, amount in self.reservations.items() if k != key}
        return replace(self, last=entry, reservations=rest), entry

    def _next(
        self, kind: EntryKind, release: Release, plan: PrivacyPlan, amount: int, left: int, totals: tuple[int, int]
    ) -> Entry:
        charged, reserved = totals
        return Entry(
            counter=self.last.counter + 1,
            kind=int(kind),
            previous=self.last.digest(),
            terms=self.terms.digest(),
            run=release.run,
            release_name=release.name,
            release_seq=release.seq,
            attempt=release.attempt,
            session=release.session,
            plan=encode_plan(plan),
            amount=amount,
            left=left,
            charged=charged,
            reserved=reserved,
        )


def used_up() -> BudgetExceeded:
    """The refusal of a run that has charged all attempts of its plan."""
    return BudgetExceeded(
        "this run has used up what its plan reserved",
        next_step="Start a new run with a plan for the rounds that remain.",
    )


def open_ledger(terms: Terms) -> tuple[Ledger, Entry]:
    """A new ledger and its first entry."""
    entry = Entry(
        counter=1,
        kind=int(EntryKind.OPEN),
        previous=GENESIS,
        terms=terms.digest(),
        run=bytes(16),
        release_name="",
        release_seq=0,
        attempt=0,
        session=bytes(32),
        plan=b"",
        amount=0,
        left=0,
        charged=0,
        reserved=0,
    )
    return Ledger(terms, entry, {}), entry


@lru_cache(maxsize=256)
def cost(plan: PrivacyPlan, order: float) -> int:
    """What one release of ``plan`` costs at ``order``, in units of 10^-12, rounded up.

    A plan without privacy costs one unit: no budget could pay for it, so it needs the site's permission instead and its
    entries say so; the unit only makes the number of its attempts count.
    """
    if isinstance(plan, NoPrivacy):
        return 1
    divergence = plan.divergence(order)
    # No budget is as large as this, so an unbounded or absurd plan is one that no ledger affords.
    return math.ceil(divergence * UNITS) if divergence < UNAFFORDABLE / UNITS else UNAFFORDABLE


def sign_entry(entry: Entry, key: SigningKey) -> SignedEntry:
    """The entry as it is stored."""
    return SignedEntry(encode(entry), key.sign(entry.signed_message()))


def epsilon_spent(terms: Terms, entries: list[Entry]) -> float:
    """The tight epsilon of everything charged so far: the number to show.

    Infinite once something was released without privacy.
    """
    counts: dict[bytes, int] = {}
    for entry in entries:
        if entry.kind == EntryKind.CHARGE:
            counts[entry.plan] = counts.get(entry.plan, 0) + 1
    return epsilon_shown(tuple((decode_plan(p), counts[p]) for p in sorted(counts)), terms.delta)


def epsilon_shown(charges: tuple[tuple[PrivacyPlan, int], ...], delta: float) -> float:
    """The tight epsilon of plans that were charged so many times each; infinite if one of them is none."""
    if any(plan.kind is PlanKind.NONE for plan, _ in charges):
        return math.inf
    return accounting.spent_by(charges, delta)


def epsilon_enforced(terms: Terms, charged: int) -> float:
    """The epsilon that the filter holds against the budget: what was charged, converted at the ledger's order."""
    if charged == 0:
        return 0.0
    return charged / UNITS + accounting.conversion(terms.order, terms.delta)


def _fraction(amount: int, terms: Terms) -> str:
    return f"{100 * amount / terms.budget:.1f} %"
