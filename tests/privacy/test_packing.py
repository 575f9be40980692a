"""Words of fewer than 32 bits: packed and unpacked by lanes, and by a slow twin that writes out every bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.secagg.packing import add_packed, extend_sign, is_canonical, pack, packed_length

LENGTHS = st.integers(1, 200)
BITS = st.integers(1, 31)
SEEDS = st.integers(0, 2**32 - 1)


def words(seed: int, length: int) -> NDArray[np.uint32]:
    return np.random.default_rng(seed).integers(0, 1 << 32, length, dtype=np.uint32)


def unpack(packed: NDArray[np.uint32], length: int, bits: int) -> NDArray[np.uint32]:
    """The words of a packed vector, each in [0, 2^bits)."""
    found = np.zeros(length, dtype=np.uint32)
    add_packed(found, packed, bits)
    return found


def signed(vector: NDArray[np.uint32], bits: int) -> NDArray[np.int32]:
    """Residues modulo 2^bits as numbers in [-2^(bits-1), 2^(bits-1))."""
    found = vector.copy()
    extend_sign(found, bits)
    return found.view(np.int32)


def bit_by_bit(vector: NDArray[np.uint32], bits: int) -> list[int]:
    """The packed form as the module's first lines define it, a bit at a time."""
    places = -(-len(vector) // 32)
    out = [[0] * places for _ in range(bits)]
    for i, word in enumerate(vector):
        lane, place = divmod(i, places)
        for b in range(bits):
            row, column = divmod(lane * bits + b, 32)
            out[row][place] |= (int(word) >> b & 1) << column
    return [w for row in out for w in row]


@given(SEEDS, LENGTHS, BITS)
def test_the_packed_form_is_the_one_defined(seed: int, length: int, bits: int) -> None:
    assert pack(words(seed, length), bits).tolist() == bit_by_bit(words(seed, length), bits)


@given(SEEDS, LENGTHS, BITS)
def test_what_is_packed_comes_back_reduced(seed: int, length: int, bits: int) -> None:
    vector = words(seed, length)
    packed = pack(vector, bits)
    assert packed.shape == (packed_length(length, bits),)
    assert np.array_equal(unpack(packed, length, bits), vector & np.uint32((1 << bits) - 1))
    assert is_canonical(packed, length, bits)


@given(SEEDS, st.integers(2, 9), st.integers(1, 60), st.integers(8, 31))
def test_sums_of_packed_vectors_are_right_modulo_the_ring(seed: int, sites: int, length: int, bits: int) -> None:
    """As in the protocol: masked modulo 2^32, cut on the wire, summed and unmasked modulo 2^32, read modulo 2^bits."""
    rng = np.random.default_rng(seed)
    most = ((1 << bits - 1) - 1) // sites
    values = rng.integers(-most, most, (sites, length), endpoint=True)
    masks = rng.integers(0, 1 << 32, (sites, length), dtype=np.uint32)
    total = np.zeros(length, dtype=np.uint32)
    for value, mask in zip(values, masks, strict=True):
        total += unpack(pack(value.astype(np.int32).view(np.uint32) + mask, bits), length, bits)
    total -= masks.sum(axis=0, dtype=np.uint32)
    assert np.array_equal(signed(total, bits), values.sum(axis=0))


def test_a_sum_beyond_the_ring_wraps_which_is_why_layouts_have_a_capacity() -> None:
    """The twin of the test above: one more than the ring holds is read as its other end."""
    total = np.array([1 << 9], dtype=np.uint32)
    assert signed(total, 10).tolist() == [-(1 << 9)]


def test_bits_behind_the_last_word_are_noticed() -> None:
    packed = pack(words(3, 33), 20)
    packed[-1] |= np.uint32(1 << 31)
    assert not is_canonical(packed, 33, 20)


@pytest.mark.parametrize("bits", [0, 32, -1])
def test_only_words_that_need_packing_are_packed(bits: int) -> None:
    with pytest.raises(LocalError, match="1 to 31 bits"):
        pack(words(0, 4), bits)


def test_a_vector_of_another_length_is_no_packed_form() -> None:
    with pytest.raises(LocalError, match="33 words packed to 20 bits"):
        unpack(pack(words(0, 32), 20), 33, 20)


@given(SEEDS, LENGTHS, BITS)
def test_adding_a_packed_vector_is_unpacking_and_adding(seed: int, length: int, bits: int) -> None:
    total = words(seed + 1, length)
    expected = total + unpack(pack(words(seed, length), bits), length, bits)
    add_packed(total, pack(words(seed, length), bits), bits)
    assert np.array_equal(total, expected)


def test_a_long_packed_vector_is_added_chunk_by_chunk() -> None:
    length = 32 * 1024 * 2 + 77
    total = np.zeros(length, dtype=np.uint32)
    add_packed(total, pack(words(5, length), 21), 21)
    assert np.array_equal(total, words(5, length) & np.uint32((1 << 21) - 1))


@given(SEEDS, st.integers(1, 200), BITS, st.data())
def test_any_bit_in_the_padding_is_noticed(seed: int, length: int, bits: int, data: st.DataObject) -> None:
    places = -(-length // 32)
    if length == 32 * places:
        return
    i = data.draw(st.integers(length, 32 * places - 1))
    longer = np.zeros(32 * places, dtype=np.uint32)
    longer[:length] = words(seed, length)
    longer[i] = 1 << data.draw(st.integers(0, bits - 1))
    assert not is_canonical(pack(longer, bits), length, bits)
    longer[i] = 0
    assert is_canonical(pack(longer, bits), length, bits)
