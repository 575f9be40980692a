"""Vectors as Flower's arrays carry them: the very bytes of numpy.save, read where they lie."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedseal.privacy.npy import from_npy, to_npy
from fedseal.privacy.secagg.masks import RingVector, ring_dtype, vector_from_bytes

RINGS = pytest.mark.parametrize("bits", [32, 64])


def vector(length: int, bits: int) -> RingVector:
    return vector_from_bytes(np.random.default_rng(length).bytes(length * bits // 8), bits)


def saved(words: RingVector) -> bytes:
    out = BytesIO()
    np.save(out, words, allow_pickle=False)
    return out.getvalue()


@RINGS
@pytest.mark.parametrize("length", [0, 1, 31, 10**5])
def test_the_bytes_are_those_of_numpy(length: int, bits: int) -> None:
    words = vector(length, bits)
    assert to_npy(words) == saved(words)
    found = from_npy(saved(words), ring_dtype(bits), length)
    assert found is not None
    assert np.array_equal(found, words)


@RINGS
def test_nothing_is_copied_when_they_are_read(bits: int) -> None:
    raw = to_npy(vector(1000, bits))
    found = from_npy(raw, ring_dtype(bits), 1000)
    assert found is not None
    assert np.shares_memory(found, np.frombuffer(raw, np.uint8))
    assert not found.flags.writeable


@RINGS
@given(data=st.data())
def test_any_other_bytes_are_none(bits: int, data: st.DataObject) -> None:
    raw, length = to_npy(vector(7, bits)), 7
    match data.draw(st.sampled_from(["short", "long", "head", "length", "dtype"])):
        case "short":
            assert from_npy(raw[: data.draw(st.integers(0, len(raw) - 1))], ring_dtype(bits), length) is None
        case "long":
            assert from_npy(raw + data.draw(st.binary(min_size=1)), ring_dtype(bits), length) is None
        case "head":
            place = data.draw(st.integers(0, 127))
            assert from_npy(raw[:place] + bytes((raw[place] ^ 1,)) + raw[place + 1 :], ring_dtype(bits), length) is None
        case "length":
            assert from_npy(raw, ring_dtype(bits), data.draw(st.integers(8, 99))) is None
        case _:
            assert from_npy(raw, ring_dtype(96 - bits), length) is None
