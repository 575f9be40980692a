"""The order of persons in a pass over them."""

import math
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from fedseal.privacy.randomness import KeyedRandomness, Stream


def stream(number: int = 0) -> Stream:
    return KeyedRandomness(3, "test").stream("order", number)


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_everyone_occurs_once(count: int) -> None:
    assert sorted(stream().permutation(count)) == list(range(count))


def test_all_orders_are_equally_likely() -> None:
    """Chi-squared over the 24 orders of four; 23 degrees of freedom exceed 60 once in 30,000 times."""
    one = stream()
    counts = Counter(tuple(one.permutation(4)) for _ in range(12_000))
    assert len(counts) == math.factorial(4)
    assert sum((n - 500) ** 2 / 500 for n in counts.values()) < 60


def test_words_that_are_equal_are_drawn_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the first of two would come first more often."""
    draws = iter([[7, 7, 1], [3, 1, 2]])

    def words(self: Stream, count: int) -> NDArray[np.uint64]:
        return np.array(next(draws), dtype=np.uint64)

    monkeypatch.setattr(Stream, "words64", words)
    assert stream().permutation(3).tolist() == [1, 2, 0]
