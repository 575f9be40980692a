"""A ledger that is kept and counted again after every operation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fedseal.errors import BudgetExceeded, LocalError
from fedseal.privacy.ledger import Entry, EntryKind, Ledger, Release, Terms, open_ledger, open_terms
from fedseal.privacy.plan import LocalGaussian, PrivacyPlan

TERMS = open_terms("train", epsilon=3.0, delta=1e-5, order=8.0)


def gaussian(
    noise: float = 20.0, q: float = 1.0, *, steps: int = 1, releases: int = 3, retries: int = 1
) -> LocalGaussian:
    """A plan, small enough for several of them."""
    return LocalGaussian(
        clip_norm=1.0, noise_multiplier=noise, sample_rate=q, steps=steps, releases=releases, retries=retries
    )


def run_id(number: int) -> bytes:
    """A run's name."""
    return number.to_bytes(16, "big")


def release(run: bytes, attempt: int = 0) -> Release:
    """One attempt at a run's update."""
    return Release(run, "update", 1, attempt, bytes([attempt % 256]) * 32)


@dataclass
class Book:
    """A ledger with all entries it made; an operation that is refused has to leave both as they were."""

    terms: Terms = TERMS
    ledger: Ledger = field(init=False)
    entries: list[Entry] = field(init=False)
    refused: int = 0

    def __post_init__(self) -> None:
        self.ledger, first = open_ledger(self.terms)
        self.entries = [first]

    def do(self, operation: Callable[[Ledger], tuple[Any, ...]]) -> bool:
        """Apply an operation; whether it was allowed."""
        before, held = self.ledger, dict(self.ledger.reservations)
        try:
            following, entry = operation(self.ledger)[:2]
        except (BudgetExceeded, LocalError):
            self.refused += 1
            assert self.ledger is before
            assert dict(self.ledger.reservations) == held
            return False
        assert dict(before.reservations) == held
        self.ledger = following
        self.entries.append(entry)
        return True

    def reserve(self, run: bytes, plan: PrivacyPlan) -> bool:
        """Whether it was allowed."""
        return self.do(lambda ledger: ledger.reserve(run, plan))

    def charge(self, run: bytes, plan: PrivacyPlan) -> bool:
        """Whether it was allowed."""
        return self.do(lambda ledger: ledger.charge(release(run, ledger.counter), plan))

    def give_back(self, run: bytes, plan: PrivacyPlan) -> bool:
        """Whether it was allowed."""
        return self.do(lambda ledger: ledger.release(run, plan))

    def check(self) -> None:
        """What has to hold after every operation, by counting the entries again."""
        last, budget = self.ledger.last, self.terms.budget
        charged = sum(e.amount for e in self.entries if e.kind == EntryKind.CHARGE)
        moved = {EntryKind.RESERVE: 1, EntryKind.CHARGE: -1, EntryKind.RELEASE: -1, EntryKind.OPEN: 0}
        reserved = sum(moved[EntryKind(e.kind)] * e.amount for e in self.entries)
        assert (last.charged, last.reserved) == (charged, reserved)
        assert 0 <= reserved == sum(self.ledger.reservations.values())
        assert charged + reserved <= budget
        assert self.ledger.available == budget - charged - reserved >= 0
        assert self.ledger.counter == len(self.entries)
        assert last.left == self.ledger.reservations.get((last.run, last.plan), 0)
