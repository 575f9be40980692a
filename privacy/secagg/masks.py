"""Masks are AES-256-CTR keystreams, added and subtracted in place modulo 2^32 or 2^64.

Word ``i`` of a mask is bytes [w*i, w*i + w) of the keystream under initial counter 0, read little-endian (w = 4 or
8). One key serves one stream of one pair or site in one session, so no counter is used twice. The work is done in
chunks that fit the processor's second-level cache, for all masks of a chunk before the next one: the vector is read
and written once per chunk and no mask is ever held whole.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from fedseal.errors import LocalError

RingVector: TypeAlias = NDArray[np.uint32] | NDArray[np.uint64]

# 128 kB of keystream beside 128 kB of vector: measured fastest between 2^15 and 2^17 words on processors with 1 MB of
# L2.
CHUNK_WORDS = 1 << 15


def ring_dtype(ring_bits: int) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
    """The little-endian dtype of Z_2^32 or Z_2^64."""
    if ring_bits == 32:
        return np.dtype("<u4")
    if ring_bits == 64:
        return np.dtype("<u8")
    raise LocalError(f"expected ring_bits of 32 or 64, got {ring_bits}")


def vector_from_bytes(raw: bytes, ring_bits: int) -> RingVector:
    """A read-only vector over little-endian words."""
    return np.frombuffer(raw, dtype="<u4") if ring_bits == 32 else np.frombuffer(raw, dtype="<u8")


def apply_masks(vector: RingVector, add: Sequence[bytes], subtract: Sequence[bytes]) -> None:
    """Add the masks of some keys to ``vector`` and subtract those of others, in place and modulo the ring.

    Args:
        vector: contiguous, shape (d,), uint32 or uint64; changed in place.
        add: 32-byte mask keys.
        subtract: 32-byte mask keys.
    """
    width = vector.dtype.itemsize
    chunk = min(CHUNK_WORDS, max(len(vector), 1))
    zeros = memoryview(bytes(chunk * width))
    keystream = np.empty(chunk, dtype=vector.dtype)
    raw = keystream.data.cast("B")
    plus = [_keystream(key) for key in add]
    minus = [_keystream(key) for key in subtract]
    for start in range(0, len(vector), chunk):
        part = vector[start : start + chunk]
        words = keystream[: len(part)]
        size = len(part) * width
        for cipher in plus:
            cipher.update_into(zeros[:size], raw[:size])
            np.add(part, words, out=part)
        for cipher in minus:
            cipher.update_into(zeros[:size], raw[:size])
            np.subtract(part, words, out=part)


def _keystream(key: bytes) -> CipherContext:
    """The encryptor whose output on zeros is the keystream (NIST SP 800-38A, 6.5; initial counter 0)."""
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


class MaskedSum:
    """The running sum of masked vectors, added up in place: the server never holds two of them.

    Used once: whoever added to it goes on with the same object, and `count` tells how many vectors it holds.
    """

    def __init__(self, length: int, ring_bits: int) -> None:
        self._total: RingVector = np.zeros(length, dtype=ring_dtype(ring_bits))
        self._count = 0

    @property
    def count(self) -> int:
        """How many vectors were added."""
        return self._count

    def add(self, vector: RingVector) -> None:
        """Add one masked vector of the ring's dtype and this sum's length."""
        np.add(self._total, vector, out=self._total)
        self._count += 1

    def unmask(self, add: Sequence[bytes], subtract: Sequence[bytes]) -> RingVector:
        """Take the remaining masks out and hand the vector over; the sum is empty afterwards."""
        total, self._total = self._total, self._total[:0]
        apply_masks(total, add, subtract)
        return total
