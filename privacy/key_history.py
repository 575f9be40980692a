"""Which of a site's keys has signed which entries of its ledgers: an entry keeps the signature it was made with."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from fedseal.wire import U64, Bytes32, Str


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a population's ledger had come."""

    population: Str
    counter: U64


@dataclass(frozen=True, slots=True)
class FormerOwnKey:
    """A key that this site had, and the last entry of each ledger that it has signed."""

    public: Bytes32
    ends: tuple[Reached, ...]


@dataclass(frozen=True, slots=True)
class KeyHistory:
    """All former keys of a site, the first one first. Public halves only."""

    TAG: ClassVar[int] = 96

    keys: tuple[FormerOwnKey, ...] = ()

    def signer(self, population: str, counter: int, current: bytes) -> bytes:
        """The public key that has to have signed an entry of a ledger."""
        for key in self.keys:
            if any(end.population == population and counter <= end.counter for end in key.ends):
                return key.public
        return current

    def after(self, public: bytes, reached: Mapping[str, int]) -> "KeyHistory":
        """With one more key that is no longer used, and how far it has signed."""
        ends = tuple(Reached(population, counter) for population, counter in sorted(reached.items()))
        return KeyHistory((*self.keys, FormerOwnKey(public, ends)))


ONE_KEY = KeyHistory()
