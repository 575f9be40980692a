"""Where the coins and the noise come from.

At a site they come from the operating system (`SystemRandomness`). In a simulation, and nowhere else, they are keyed
by a seed (`KeyedRandomness`): every draw depends on the seed, the site, the round and the purpose alone, so the order
of sites, retries of the protocol and the number of workers change nothing. Which of the two a site uses is written in
its store when the store is made; a store that is not marked as simulated has no seed, and no argument of any function
can give it one.

Both expand a 32-byte key by AES-256-CTR, so speed and statistics are the same.
"""

import hashlib
import os
from functools import lru_cache
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedseal.errors import LocalError

_FROM_ZERO = modes.CTR(bytes(16))


class Stream:
    """An endless supply of uniform bits from one key. Each method draws fresh ones."""

    def __init__(self, key: bytes) -> None:
        self._cipher = Cipher(algorithms.AES(key), _FROM_ZERO).encryptor()

    def raw(self, length: int) -> bytes:
        """``length`` random bytes."""
        return self._cipher.update(bytes(length))

    def words32(self, count: int) -> NDArray[np.uint32]:
        """``count`` uniform 32-bit words."""
        return np.frombuffer(self.raw(4 * count), dtype="<u4")

    def words64(self, count: int) -> NDArray[np.uint64]:
        """``count`` uniform 64-bit words."""
        return np.frombuffer(self.raw(8 * count), dtype="<u8")

    def uniform32(self, count: int) -> NDArray[np.float64]:
        """``count`` multiples of 2^-32 in [0, 1)."""
        return self.words32(count) * np.float64(2.0**-32)

    def uniform53(self, count: int) -> NDArray[np.float64]:
        """``count`` multiples of 2^-53 in (0, 1]: never 0, so that a logarithm may follow."""
        return ((self.words64(count) >> np.uint64(11)) + np.uint64(1)) * np.float64(2.0**-53)

    def coins(self, probability: float, count: int) -> NDArray[np.bool_]:
        """``count`` independent coins that are True with ``probability``, exact to 2^-64.

        Raises:
            LocalError: the probability is not in [0, 1].
        """
        # Where there is nothing to toss nothing is drawn.
        return heads(b"", probability, count) if probability == 1.0 else heads(self.raw(8 * count), probability, count)

    def permutation(self, count: int) -> NDArray[np.intp]:
        """The numbers 0 to ``count`` - 1 in an order of which all are equally likely.

        The order of independent random words; two that are equal would favour their lower place, so all are drawn anew.
        """
        while True:
            words = self.words64(count)
            order = np.argsort(words)
            ordered = words[order]
            if not (ordered[1:] == ordered[:-1]).any():
                return order

    def normal(self, count: int) -> NDArray[np.float64]:
        """``count`` standard normal variates, each half the sum of four Box-Muller variates.

        One double cannot take all the values a real Gaussian takes, and which ones it takes can betray what it was
        added to (Mironov 2012; Jin, McMurtry, Rubinstein and Ohrimenko 2022). The sum of four makes finding the
        summands infeasible (Holohan and Braghin 2021, section 5.1). The caller rounds the noisy value to a coarse
        grid besides.
        """
        total = np.zeros(count)
        for _ in range(4):
            # Box and Muller 1958; the sine half is not used, so that the four share no uniform variate.
            radius = np.sqrt(-2.0 * np.log(self.uniform53(count)))
            total += radius * np.cos(2.0 * np.pi * self.uniform53(count))
        total *= 0.5
        return total


def heads(raw: bytes, probability: float, count: int) -> NDArray[np.bool_]:
    """``count`` coins from random bits, 64 a coin; of several streams' bits in a row those that each one's `coins` are.

    Where the probability is 1 no bits are needed.

    Raises:
        LocalError: the probability is not in [0, 1].
    """
    if not 0.0 <= probability <= 1.0:
        raise LocalError("expected a probability between 0 and 1")
    if probability == 1.0:
        return np.ones(count, dtype=np.bool_)
    return np.frombuffer(raw, dtype="<u8", count=count) < np.uint64(int(probability * 2.0**64))


class Randomness(Protocol):
    """Gives out streams by purpose."""

    def stream(self, *purpose: str | int) -> Stream:
        """The stream for a purpose, e.g. ``("noise", round, attempt, step)``."""


class SystemRandomness:
    """Every stream has a key of its own from the operating system's generator; the purpose is not used."""

    def stream(self, *purpose: str | int) -> Stream:
        """A stream nobody can repeat."""
        return Stream(os.urandom(32))


class KeyedRandomness:
    """For simulations: the stream's key is a hash of the seed, the component and the purpose."""

    def __init__(self, seed: int, *component: str | int) -> None:
        self._parts = (seed, *component)
        self._hashed = hashlib.sha256(b"fedseal/keyed-randomness/1" + _parts(seed, *component))

    def __reduce__(self) -> tuple[type["KeyedRandomness"], tuple[int | str, ...]]:
        """Copies and other processes hash anew: what is hashed already cannot be pickled."""
        return KeyedRandomness, self._parts

    def stream(self, *purpose: str | int) -> Stream:
        """The same stream whenever seed, component and purpose are the same."""
        digest = self._hashed.copy()
        digest.update(_parts(*purpose))
        return Stream(digest.digest())


# A round's purposes are those of all its sites. Typed: 1 and True are not the same part.
@lru_cache(maxsize=1024, typed=True)
def _parts(*parts: str | int) -> bytes:
    """Length-prefixed: ("ab", "c") and ("a", "bc") must not meet."""
    raws = [(f"i{part}" if isinstance(part, int) else f"s{part}").encode("utf-8") for part in parts]
    return b"".join(len(raw).to_bytes(4, "big") + raw for raw in raws)
