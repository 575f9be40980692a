"""Masks are AES-256-CTR keystreams, added and subtracted in place modulo 2^32 or 2^64.

A ring of 2^b with b < 32 is masked and summed modulo 2^32; only what crosses the wire is cut down, see `packing`.

Word ``i`` of a mask is bytes [w*i, w*i + w) of the keystream under initial counter 0, read little-endian (w = 4 or
8). One key serves one stream of one pair or site in one session, so no counter is used twice. The work is done in
chunks that fit the processor's second-level cache, for all masks of a chunk before the next one: the vector is read
and written once per chunk and no mask is ever held whole.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.secagg.packing import PACKED_RINGS, add_packed, extend_sign, pack, packed_length

RingVector: TypeAlias = NDArray[np.uint32] | NDArray[np.uint64]

# 128 kB of keystream beside 128 kB of vector: measured fastest between 2^15 and 2^17 words on processors with 1 MB of
# L2.
CHUNK_WORDS = 1 << 15
# So many ciphers exist at a time: each takes about a kilobyte, and a server may have 10,000 masks to take off.
BATCH_KEYS = 256
# A block of the keystream in 32-bit words: parts of a vector begin at whole blocks.
BLOCK_WORDS = 4


def is_ring(ring_bits: int) -> bool:
    """Whether sums can be made modulo 2^ring_bits."""
    return ring_bits in PACKED_RINGS or ring_bits in (32, 64)


def ring_dtype(ring_bits: int) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
    """The little-endian dtype in which sums of a ring are computed."""
    if not is_ring(ring_bits):
        raise LocalError(f"expected ring_bits of 12 to 32, or 64, got {ring_bits}")
    return np.dtype("<u8") if ring_bits == 64 else np.dtype("<u4")


def wire_form(vector: RingVector, ring_bits: int) -> RingVector:
    """A vector as it leaves a site: itself in the rings of 32 and 64 bits, packed in smaller ones."""
    return pack(vector.view("<u4"), ring_bits) if ring_bits in PACKED_RINGS else vector


def wire_length(length: int, ring_bits: int) -> int:
    """How many words of the ring's dtype that takes."""
    return packed_length(length, ring_bits) if ring_bits in PACKED_RINGS else length


def vector_from_bytes(raw: bytes, ring_bits: int) -> RingVector:
    """A read-only vector over little-endian words."""
    return np.frombuffer(raw, dtype="<u4") if ring_bits == 32 else np.frombuffer(raw, dtype="<u8")


def apply_masks(vector: RingVector, add: Sequence[bytes], subtract: Sequence[bytes], *, workers: int = 1) -> None:
    """Add the masks of some keys to ``vector`` and subtract those of others, in place and modulo the ring.

    Args:
        vector: contiguous, shape (d,), uint32 or uint64; changed in place.
        add: 32-byte mask keys.
        subtract: 32-byte mask keys.
        workers: how many threads share the work, each with a part of the vector. AES and the addition run without
            the interpreter's lock.
    """
    if workers < 1:
        raise LocalError("expected at least one worker")
    size = -(-len(vector) // workers)
    size = max(-(-size // CHUNK_WORDS) * CHUNK_WORDS, BLOCK_WORDS)
    starts = range(0, len(vector), size)
    if len(starts) <= 1:
        _apply(vector, 0, add, subtract)
        return
    with ThreadPoolExecutor(len(starts)) as threads:
        parts = [threads.submit(_apply, vector[s : s + size], s, add, subtract) for s in starts]
        for part in parts:
            part.result()


def _apply(part: RingVector, place: int, add: Sequence[bytes], subtract: Sequence[bytes]) -> None:
    """`apply_masks` to the part of a vector that begins at word ``place``."""
    for start in range(0, len(add), BATCH_KEYS):
        _apply_batch(part, place, add[start : start + BATCH_KEYS], ())
    for start in range(0, len(subtract), BATCH_KEYS):
        _apply_batch(part, place, (), subtract[start : start + BATCH_KEYS])


def _apply_batch(vector: RingVector, place: int, add: Sequence[bytes], subtract: Sequence[bytes]) -> None:
    width = vector.dtype.itemsize
    chunk = min(CHUNK_WORDS, max(len(vector), 1))
    zeros = memoryview(bytes(chunk * width))
    keystream = np.empty(chunk, dtype=vector.dtype)
    raw = keystream.data.cast("B")
    block = place * width // 16
    plus = [_keystream(key, block) for key in add]
    minus = [_keystream(key, block) for key in subtract]
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


def _keystream(key: bytes, block: int) -> CipherContext:
    """The encryptor whose output on zeros is the keystream from a 16-byte block on (NIST SP 800-38A, 6.5; the counter
    of block 0 is 0).
    """
    return Cipher(algorithms.AES(key), modes.CTR(block.to_bytes(16, "big"))).encryptor()


class MaskedSum:
    """The running sum of masked vectors, added up in place: the server never holds two of them.

    Used once: whoever added to it goes on with the same object, and `count` tells how many vectors it holds.
    """

    def __init__(self, length: int, ring_bits: int) -> None:
        self._total: RingVector = np.zeros(length, dtype=ring_dtype(ring_bits))
        self._ring_bits = ring_bits
        self._count = 0

    @property
    def count(self) -> int:
        """How many vectors were added."""
        return self._count

    def add(self, vector: RingVector) -> None:
        """Add one masked vector, as `wire_form` has it, of the ring's dtype and this sum's length."""
        if self._ring_bits in PACKED_RINGS:
            add_packed(self._total.view("<u4"), vector.view("<u4"), self._ring_bits)
        else:
            np.add(self._total, vector, out=self._total)
        self._count += 1

    def unmask(self, add: Sequence[bytes], subtract: Sequence[bytes], *, workers: int = 1) -> RingVector:
        """Take the remaining masks out and hand the vector over; the sum is empty afterwards.

        Its words are the sum in two's complement of their own width, also in a smaller ring.
        """
        total, self._total = self._total, self._total[:0]
        apply_masks(total, add, subtract, workers=workers)
        if self._ring_bits in PACKED_RINGS:
            extend_sign(total.view("<u4"), self._ring_bits)
        return total
