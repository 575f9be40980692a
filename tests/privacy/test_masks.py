"""Masks equal their slow twin at every length, cancel in pairs, and leave nothing behind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.secagg import masks
from fedseal.privacy.secagg.keys import pair_mask_key, self_mask_key
from fedseal.privacy.secagg.masks import MaskedSum, RingVector, apply_masks, ring_dtype, vector_from_bytes
from fedseal.privacy.secret import Secret

CHUNK = 16
LENGTHS = [0, 1, 2, 3, 4, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK - 1, 3 * CHUNK, 3 * CHUNK + 1]
bits = pytest.mark.parametrize("ring_bits", [32, 64])


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so small that a test meets their ends."""
    monkeypatch.setattr(masks, "CHUNK_WORDS", CHUNK)


def mask_key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def slow_words(key: bytes, count: int, ring_bits: int) -> list[int]:
    """The words of a mask: counter blocks encrypted one by one, read little-endian."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - the definition of counter mode
    width = ring_bits // 8
    stream = b"".join(ecb.update(i.to_bytes(16, "big")) for i in range(-(-count * width // 16)))
    return [int.from_bytes(stream[i * width : (i + 1) * width], "little") for i in range(count)]


def slow_masked(values: list[int], add: list[bytes], subtract: list[bytes], ring_bits: int) -> list[int]:
    """Masking in Python's own integers."""
    out = list(values)
    for key, sign in [(k, 1) for k in add] + [(k, -1) for k in subtract]:
        for i, word in enumerate(slow_words(key, len(out), ring_bits)):
            out[i] = (out[i] + sign * word) % (1 << ring_bits)
    return out


def vector(length: int, ring_bits: int, seed: int = 0) -> RingVector:
    """Random words, the largest among them."""
    raw = np.random.default_rng(seed).bytes(length * ring_bits // 8)
    words = vector_from_bytes(raw, ring_bits).copy()
    words[:1] = (1 << ring_bits) - 1
    return words


@bits
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("plus", "minus"), [(0, 0), (1, 0), (0, 1), (3, 2)])
@pytest.mark.usefixtures("small_chunks")
def test_masking_equals_its_slow_twin(length: int, plus: int, minus: int, ring_bits: int) -> None:
    add, subtract = [mask_key(i) for i in range(plus)], [mask_key(100 + i) for i in range(minus)]
    words = vector(length, ring_bits)
    expected = slow_masked([int(w) for w in words], add, subtract, ring_bits)
    apply_masks(words, add, subtract)
    assert [int(w) for w in words] == expected


@bits
def test_the_size_of_the_chunks_does_not_change_the_masks(ring_bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    length = masks.CHUNK_WORDS + 3
    whole = vector(length, ring_bits)
    apply_masks(whole, [mask_key(1)], [mask_key(2)])
    monkeypatch.setattr(masks, "CHUNK_WORDS", 1001)
    parts = vector(length, ring_bits)
    apply_masks(parts, [mask_key(1)], [mask_key(2)])
    assert np.array_equal(whole, parts)


@bits
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.usefixtures("small_chunks")
def test_what_was_added_can_be_taken_off_again(length: int, ring_bits: int) -> None:
    words = vector(length, ring_bits)
    before = words.copy()
    add, subtract = [mask_key(1), mask_key(2)], [mask_key(3)]
    apply_masks(words, add, subtract)
    assert length == 0 or not np.array_equal(words, before)
    apply_masks(words, subtract, add)
    assert np.array_equal(words, before)


def site_masks(u: int, sites: range) -> tuple[list[bytes], list[bytes]]:
    """The pairwise masks of site u: added towards larger numbers, subtracted towards smaller ones."""
    session = b"s" * 32

    def pair(v: int) -> bytes:
        return pair_mask_key(bytes(32), session, u, v)

    return [pair(v) for v in sites if u < v], [pair(v) for v in sites if v < u]


@bits
@pytest.mark.parametrize("n", [2, 3, 7])
@pytest.mark.usefixtures("small_chunks")
def test_the_masks_of_all_pairs_cancel(n: int, ring_bits: int) -> None:
    sites, length = range(1, n + 1), 2 * CHUNK + 5
    clear, total = MaskedSum(length, ring_bits), MaskedSum(length, ring_bits)
    for u in sites:
        words = vector(length, ring_bits, seed=u)
        clear.add(words)
        apply_masks(words, *site_masks(u, sites))
        assert not np.array_equal(words, vector(length, ring_bits, seed=u))
        total.add(words)
    assert np.array_equal(total.unmask([], []), clear.unmask([], []))


@bits
def test_a_sum_without_one_site_keeps_that_sites_masks(ring_bits: int) -> None:
    sites, length = range(1, 4), 10
    total, clear = MaskedSum(length, ring_bits), MaskedSum(length, ring_bits)
    for u in (1, 3):
        words = vector(length, ring_bits, seed=u)
        clear.add(words)
        apply_masks(words, *site_masks(u, sites))
        total.add(words)
    left_over = total._total.copy()
    expected = clear.unmask([], [])
    assert not np.array_equal(left_over, expected)
    add, subtract = site_masks(2, sites)
    # What site 2 would have brought in is what cancels the halves that the others hold.
    assert np.array_equal(total.unmask(add, subtract), expected)


@bits
def test_a_masked_sum_is_counted_and_unmasked_once(ring_bits: int) -> None:
    total = MaskedSum(5, ring_bits)
    keys = [self_mask_key(Secret(bytes(32)), b"s" * 32, u) for u in (1, 2, 3)]
    plain = [vector(5, ring_bits, seed=u) for u in (1, 2, 3)]
    for key, words in zip(keys, plain, strict=True):
        masked = words.copy()
        apply_masks(masked, [key], [])
        total.add(masked)
    assert total.count == 3
    expected = [sum(int(w[i]) for w in plain) % (1 << ring_bits) for i in range(5)]
    found = total.unmask([], keys)
    assert [int(w) for w in found] == expected
    assert found.dtype == ring_dtype(ring_bits)
    assert len(total.unmask([], [])) == 0


def test_adding_does_not_touch_what_is_added() -> None:
    total, words = MaskedSum(4, 32), vector(4, 32)
    before = words.copy()
    total.add(words)
    total.unmask([mask_key(1)], [])
    assert np.array_equal(words, before)


@pytest.mark.parametrize("other", [np.zeros(5, "<u4"), np.zeros(3, "<u4"), np.zeros(4, "<f8")])
def test_a_vector_of_another_length_or_of_real_numbers_is_not_added(other: NDArray[Any]) -> None:
    total = MaskedSum(4, 32)
    with pytest.raises((TypeError, ValueError)):
        total.add(other)
    assert total.count == 0


def test_words_are_little_endian_on_every_machine() -> None:
    assert [int(w) for w in vector_from_bytes(b"\x01\x00\x00\x00\x00\x01\x00\x00", 32)] == [1, 256]
    assert [int(w) for w in vector_from_bytes(b"\x01\x00\x00\x00\x00\x01\x00\x00", 64)] == [1 + (1 << 40)]
    assert [ring_dtype(b).str for b in (32, 64)] == ["<u4", "<u8"]


@pytest.mark.parametrize("ring_bits", [0, 11, 33, 128])
def test_another_ring_is_refused(ring_bits: int) -> None:
    with pytest.raises(LocalError, match="12 to 32, or 64"):
        ring_dtype(ring_bits)


@pytest.mark.parametrize("workers", [2, 3, 7])
@bits
def test_several_threads_give_the_same_masks(ring_bits: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each thread begins in the middle of every keystream; the twin begins a block too late."""
    monkeypatch.setattr(masks, "CHUNK_WORDS", 8)
    monkeypatch.setattr(masks, "BATCH_KEYS", 3)
    add, subtract = [bytes((i,)) * 32 for i in range(8)], [bytes((i,)) * 32 for i in range(100, 104)]
    alone, shared = vector(203, ring_bits), vector(203, ring_bits)
    apply_masks(alone, add, subtract)
    apply_masks(shared, add, subtract, workers=workers)
    assert np.array_equal(alone, shared)
    wrong = vector(203, ring_bits)
    monkeypatch.setattr(masks, "_keystream", late(masks._keystream))
    apply_masks(wrong, add, subtract, workers=workers)
    assert not np.array_equal(alone, wrong)


def late(right: Callable[[bytes, int], Any]) -> Callable[[bytes, int], Any]:
    return lambda key, block: right(key, block + (block > 0))


def test_no_worker_is_no_way_to_work() -> None:
    with pytest.raises(LocalError, match="at least one worker"):
        apply_masks(vector(4, 32), [], [], workers=0)
