"""How persons are spread: nobody is lost or doubled, the seed fixes everything, and the two skews do what their names
say.
"""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.simulation.partition import ATTEMPTS, Indices, class_table, generator, skewed

Labels = NDArray[np.intp]
SEEDS = range(20)


def stream(seed: int) -> Stream:
    return KeyedRandomness(seed, "test").stream("partition")


def spread(labels: Labels, *, seed: int = 0, **changes: Any) -> list[Indices]:
    chosen: dict[str, Any] = {"sites": 4, "label_skew": 1.0, "quantity_skew": 10.0, "smallest": 1}
    return skewed(labels, stream=stream(seed), **{**chosen, **changes})


def balanced(persons: int = 400, classes: int = 2) -> Labels:
    return np.arange(persons, dtype=np.intp) % classes


def distance_to_pooled(labels: Labels, parts: list[Indices]) -> float:
    """Mean total-variation distance of the sites' label shares to the pooled ones."""
    table = class_table(labels, parts).astype(np.float64)
    pooled = table.sum(axis=0) / table.sum()
    shares = table / table.sum(axis=1, keepdims=True)
    return float(np.abs(shares - pooled).sum(axis=1).mean() / 2)


def inequality(parts: list[Indices]) -> float:
    """The deviation of the sizes as a share of their mean."""
    sizes = np.array([len(p) for p in parts])
    return float(sizes.std() / sizes.mean())


def averaged_distance(label_skew: float) -> float:
    labels = balanced()
    parts = (spread(labels, seed=s, label_skew=label_skew, quantity_skew=100.0) for s in SEEDS)
    return float(np.mean([distance_to_pooled(labels, p) for p in parts]))


def averaged_inequality(quantity_skew: float) -> float:
    parts = (spread(balanced(), seed=s, label_skew=10.0, quantity_skew=quantity_skew) for s in SEEDS)
    return float(np.mean([inequality(p) for p in parts]))


# Codes need not be 0, 1, 2, ..., nor all occur.
some_labels = st.lists(st.sampled_from([0, 1, 2, 7]), min_size=60, max_size=200).map(
    lambda codes: np.array(codes, dtype=np.intp)
)


@settings(max_examples=60, deadline=None)
@given(
    labels=some_labels,
    sites=st.integers(2, 6),
    smallest=st.integers(1, 4),
    label_skew=st.floats(0.5, 20),
    quantity_skew=st.floats(2, 50),
    seed=st.integers(0, 2**63 - 1),
)
def test_everybody_is_at_exactly_one_site(
    labels: Labels, sites: int, smallest: int, label_skew: float, quantity_skew: float, seed: int
) -> None:
    parts = spread(
        labels, seed=seed, sites=sites, smallest=smallest, label_skew=label_skew, quantity_skew=quantity_skew
    )
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))


@settings(max_examples=60, deadline=None)
@given(labels=some_labels, smallest=st.integers(1, 8), seed=st.integers(0, 2**63 - 1))
def test_each_part_is_sorted_and_has_its_minimum(labels: Labels, smallest: int, seed: int) -> None:
    parts = spread(labels, seed=seed, smallest=smallest)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert min(len(part) for part in parts) >= smallest


@settings(max_examples=30, deadline=None)
@given(labels=some_labels, seed=st.integers(0, 2**63 - 1))
def test_the_class_table_adds_up(labels: Labels, seed: int) -> None:
    parts = spread(labels, seed=seed)
    table = class_table(labels, parts)
    assert table.shape == (4, len(np.unique(labels)))
    assert table.sum(axis=1).tolist() == [len(p) for p in parts]
    assert table.sum(axis=0).tolist() == np.unique(labels, return_counts=True)[1].tolist()


def test_the_class_table_counts_each_class_at_its_site() -> None:
    labels = np.array([0, 5, 5, 0, 5, 9], dtype=np.intp)
    parts = [np.array([0, 1, 2], dtype=np.intp), np.array([3, 4, 5], dtype=np.intp)]
    assert class_table(labels, parts).tolist() == [[1, 2, 0], [1, 1, 1]]


def test_the_same_stream_gives_the_same_parts_and_another_seed_others() -> None:
    labels = balanced()
    first, again, other = spread(labels, seed=3), spread(labels, seed=3), spread(labels, seed=4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_generator_is_philox_with_the_streams_key() -> None:
    """Philox is specified, so that a seed means the same persons on every platform."""
    made = generator(stream(1))
    assert isinstance(made.bit_generator, np.random.Philox)
    key = np.frombuffer(stream(1).raw(16), dtype="<u8")
    twin = np.random.Generator(np.random.Philox(key=key))
    assert made.integers(0, 2**32, 5).tolist() == twin.integers(0, 2**32, 5).tolist()


def test_a_smaller_label_skew_brings_sites_further_from_the_pooled_labels() -> None:
    strong, usual, weak = averaged_distance(0.2), averaged_distance(1.0), averaged_distance(20.0)
    assert strong > usual + 0.05
    assert usual > weak + 0.05


def test_a_smaller_quantity_skew_makes_sizes_more_unequal() -> None:
    strong, usual, weak = averaged_inequality(0.8), averaged_inequality(5.0), averaged_inequality(200.0)
    assert strong > usual + 0.1
    assert usual > weak + 0.1


def test_the_first_sites_are_not_the_large_ones() -> None:
    """Over many seeds no place in the list is favoured."""
    sizes = np.mean([[len(p) for p in spread(balanced(), seed=s)] for s in range(200)], axis=0)
    assert sizes.min() > 85
    assert sizes.max() < 115


def test_too_few_persons_are_refused_with_the_numbers() -> None:
    with pytest.raises(ConfigError, match="39 persons cannot fill 4 sites with at least 10 each") as caught:
        spread(balanced(39), smallest=10)
    assert "smallest_site" in caught.value.next_step


def test_a_minimum_that_no_draw_meets_is_refused_with_what_to_change() -> None:
    """Forty persons for four sites of ten: equal sizes are needed exactly, and this skew never gives them."""
    with pytest.raises(ConfigError, match=f"no draw in {ATTEMPTS}") as caught:
        spread(balanced(40), smallest=10, quantity_skew=0.2)
    assert "less skew" in caught.value.next_step
