"""What a site has of one step, and who withdraws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """What a site has of one step.

    Args:
        x: features, shape (rows, features); what is missing is not a number.
        y: true classes by the concept of the step, shape (rows,). Only an oracle knows them.
        observed: classes as they were recorded, shape (rows,). What a site trains on.
        ready: the step from which on the labels are known.
        persons: whose row it is, shape (rows,), unique in the world. Held-out persons of a generator are negative.
        consent: whether the person consents as of the window's step, shape (rows,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.intp]
    observed: NDArray[np.intp]
    ready: int
    persons: NDArray[np.int64]
    consent: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.y)

    def keep(self, mask: NDArray[np.bool_]) -> "Window":
        """The rows of a mask, shape (rows,)."""
        return Window(
            x=self.x[mask],
            y=self.y[mask],
            observed=self.observed[mask],
            ready=self.ready,
            persons=self.persons[mask],
            consent=self.consent[mask],
        )

    @classmethod
    def joined(cls, windows: Sequence["Window"]) -> "Window":
        """The rows of one window or more, one after the other; ready when the last of them is."""
        return cls(
            x=np.concatenate([w.x for w in windows]),
            y=np.concatenate([w.y for w in windows]),
            observed=np.concatenate([w.observed for w in windows]),
            ready=max(w.ready for w in windows),
            persons=np.concatenate([w.persons for w in windows]),
            consent=np.concatenate([w.consent for w in windows]),
        )


@dataclass(frozen=True, slots=True)
class ActiveDrift:
    """One declared change, at the sites where it holds at a step and began at the same one.

    Args:
        table: ``drift``, ``label_noise`` or ``missing``.
        number: which table of that name, from 0.
        kind: ``covariate``, ``label``, ``concept``, ``schema``, ``participation``; ``label_noise``, ``missing``.
        op: what is done.
        sites: numbers of the sites.
        levels: how far it is at each of them, above 0 and at most 1.
        start: the step at which it began there.
    """

    table: str
    number: int
    kind: str
    op: str
    sites: tuple[int, ...]
    levels: tuple[float, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One [[consent]] table with a key for its coins.

    Args:
        share: of the persons known before step ``at``.
        at: the step at which they withdraw.
        sites: where.
        key: 64 random bits.
    """

    share: float
    at: int
    sites: frozenset[int]
    key: int

    def of(self, persons: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these persons would withdraw, shape (persons,): a person's coin is the same wherever one asks.

        The coin is the finaliser of SplitMix64 (Steele, Lea and Flood 2014) of the person's number and the key.
        """
        z = persons.view(np.uint64) ^ np.uint64(self.key)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
        z ^= z >> np.uint64(31)
        return np.asarray((z >> np.uint64(11)) * 2.0**-53 < self.share)
