"""Words of fewer than 32 bits, packed for the wire.

A ring of 2^b with b < 32 is Z_2^32 with the upper bits dropped: reduction modulo 2^b is a homomorphism of rings, and a
word uniform modulo 2^32 is uniform modulo 2^b. So vectors are masked and summed in uint32 as they are, and only what
crosses the wire is cut down to b bits a word.

The packed form is 32 lanes: word ``i`` of a vector of length d stands in lane ``i // m`` at place ``i % m``, where m =
ceil(d / 32); missing words are 0. Place k of the lanes fills the k-th words of b output lanes: lane j occupies bits [j
* b, j * b + b) of the 32 * b bits there, least significant first. Whole lanes are shifted at once, so nothing is
gathered word by word.
"""

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import LocalError

# Fewer leave even two sites too few levels to be of use.
PACKED_RINGS = range(12, 32)
LANES = 32
# Places of a lane that are packed before the next: 32 lanes of 1024 words are 128 kB, half of what the cache takes.
CHUNK = 1 << 10

Words = NDArray[np.uint32]


def packed_length(length: int, bits: int) -> int:
    """How many uint32 words a packed vector of ``length`` words takes."""
    return -(-length // LANES) * bits


def pack(vector: Words, bits: int) -> Words:
    """The lowest ``bits`` bits of every word, packed.

    Args:
        vector: shape (d,), uint32.
        bits: 1 to 31.

    Returns:
        Shape (packed_length(d, bits),), little-endian uint32.

    Raises:
        LocalError: ``bits`` is out of range.
    """
    _checked(bits)
    lanes = _lanes(vector)
    places = lanes.shape[1]
    out = np.zeros((bits, places), dtype="<u4")
    mask = np.uint32((1 << bits) - 1)
    for start in range(0, places, CHUNK):
        part = slice(start, start + CHUNK)
        for j in range(LANES):
            first, shift = divmod(j * bits, 32)
            words = lanes[j, part] & mask
            out[first, part] |= words << np.uint32(shift)
            if shift + bits > 32:
                out[first + 1, part] |= words >> np.uint32(32 - shift)
    return out.reshape(-1)


def add_packed(total: Words, packed: Words, bits: int) -> None:
    """Add the words of a packed vector of as many words as ``total`` to it, in place and modulo 2^32.

    Unpacks a chunk at a time: nothing of the vector's size is made.

    Raises:
        LocalError: ``bits`` is out of range, or ``packed`` is no packed vector of so many words.
    """
    length = len(total)
    lanes = _lanes_of(packed, length, bits)
    places = lanes.shape[1]
    for start in range(0, places, CHUNK):
        for j in range(LANES):
            # The last lanes are cut short by the padding, or are nothing but padding.
            stop = min(start + CHUNK, places, length - j * places)
            if start < stop:
                part = total[j * places + start : j * places + stop]
                np.add(part, _words(lanes, j, slice(start, stop), bits), out=part)


def is_canonical(packed: Words, length: int, bits: int) -> bool:
    """Whether the padding behind the last word is 0, so that one vector has one packed form.

    Raises:
        LocalError: as `add_packed`.
    """
    lanes = _lanes_of(packed, length, bits)
    places = lanes.shape[1]
    padding = (divmod(i, places) for i in range(length, LANES * places))
    return not any(_words(lanes, j, slice(k, k + 1), bits).any() for j, k in padding)


def extend_sign(words: Words, bits: int) -> None:
    """Replace residues modulo 2^bits, whatever stands above them, by their two's complement in 32 bits. In place."""
    np.left_shift(words, np.uint32(32 - bits), out=words)
    numbers = words.view("<i4")
    np.right_shift(numbers, np.int32(32 - bits), out=numbers)


def _lanes_of(packed: Words, length: int, bits: int) -> Words:
    """The output lanes of a packed vector."""
    if packed.shape != (packed_length(length, _checked(bits)),) or packed.dtype != np.dtype("<u4"):
        raise LocalError(f"expected {length} words packed to {bits} bits")
    return packed.reshape(bits, -(-length // LANES))


def _words(lanes: Words, j: int, part: slice, bits: int) -> Words:
    """The words at some places of lane j."""
    first, shift = divmod(j * bits, 32)
    words = lanes[first, part] >> np.uint32(shift)
    if shift + bits > 32:
        words |= lanes[first + 1, part] << np.uint32(32 - shift)
    words &= np.uint32((1 << bits) - 1)
    return words


def _lanes(vector: Words) -> Words:
    """The vector as 32 lanes, copied only where its length asks for padding."""
    places = -(-len(vector) // LANES)
    if len(vector) == places * LANES:
        return vector.reshape(LANES, places)
    padded = np.zeros(places * LANES, dtype="<u4")
    padded[: len(vector)] = vector
    return padded.reshape(LANES, places)


def _checked(bits: int) -> int:
    if not 1 <= bits <= 31:
        raise LocalError(f"expected words of 1 to 31 bits, got {bits}")
    return bits
