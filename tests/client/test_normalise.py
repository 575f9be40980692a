"""Moments of persons, whether a person is one row or several records: one person moves the sum by one bounded row, and
what is padding neither counts nor becomes something else.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import TensorDataset

from fedseal.client.noise import noisy_mean
from fedseal.client.normalise import Normalisation, moment_rows, own_normalisation, unlike_records
from fedseal.errors import ConfigError
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.randomness import KeyedRandomness

LOW, HIGH = [0.0, -10.0], [200.0, 10.0]
NUMBER = st.floats(-1e3, 1e3, width=32) | st.sampled_from([float("nan"), float("inf"), 3e38])
RECORD = st.tuples(NUMBER, NUMBER)
PERSONS = st.lists(st.lists(RECORD, max_size=4), min_size=1, max_size=6)
Records = list[list[tuple[float, float]]]


def grouped(persons: Records, *, most: int = 4, padding: float = 0.0) -> TensorDataset:
    """Persons with so many records each, as person_items() makes them."""
    records, mask = torch.full((len(persons), most, 2), padding), torch.zeros(len(persons), most)
    for i, person in enumerate(persons):
        for j, record in enumerate(person):
            records[i, j], mask[i, j] = torch.tensor(record), 1.0
    return TensorDataset(records, mask, torch.zeros(len(persons)))


def unit(value: float, low: float, high: float) -> float:
    """A number mapped from its range to [-1, 1]; beyond it, its end."""
    return min(max(2 * (float(np.float32(value)) - low) / (high - low) - 1, -1.0), 1.0)


def twin(person: list[tuple[float, float]]) -> list[float]:
    """The mean of a person's (u, u^2), in plain Python."""
    if not person or np.isnan(person).any():
        return [0.0] * 4
    us = [[unit(x, a, b) for x, a, b in zip(record, LOW, HIGH, strict=True)] for record in person]
    columns = [[u[0] for u in us], [u[1] for u in us], [u[0] ** 2 for u in us], [u[1] ** 2 for u in us]]
    return [sum(column) / len(us) for column in columns]


@settings(max_examples=150, deadline=None)
@given(PERSONS)
def test_a_person_is_one_row_whatever_the_number_of_records(persons: Records) -> None:
    rows = moment_rows(grouped(persons), LOW, HIGH)
    assert rows.shape == (len(persons), 4)
    np.testing.assert_allclose(rows, [twin(p) for p in persons], atol=1e-12)
    assert np.abs(rows).max() <= 1 + 1e-12


@settings(max_examples=150, deadline=None)
@given(PERSONS, st.lists(RECORD, max_size=4), st.data())
def test_adding_a_person_moves_the_sum_by_one_clipped_row(
    persons: Records, other: list[tuple[float, float]], data: st.DataObject
) -> None:
    """Whatever that person's records are, and how many: the rows of the others stay, and the row's norm is bounded."""
    place = data.draw(st.integers(0, len(persons)))
    without, beside = (
        moment_rows(grouped(p), LOW, HIGH) for p in (persons, [*persons[:place], other, *persons[place:]])
    )
    assert np.array_equal(np.delete(beside, place, axis=0), without)
    assert np.linalg.norm(beside[place]) <= np.sqrt(2 * 2) + 1e-12


def released(persons: Records, clip: float, public: int) -> NDArray[np.float64]:
    plan = LocalGaussian(clip_norm=clip, noise_multiplier=1.5, sample_rate=1.0, steps=1, releases=1, retries=0)
    stream = KeyedRandomness(3, "test").stream("noise")
    return noisy_mean(moment_rows(grouped(persons), LOW, HIGH), plan, persons=public, stream=stream)


@pytest.mark.parametrize("count", [1, 4])
def test_one_person_moves_the_release_by_the_clip_and_no_more(count: int) -> None:
    """With the same noise in both, what is left is that person, whose row at the ranges' ends has a norm of 2."""
    others: Records = [[(80.0, 1.0)], [(90.0, -3.0), (70.0, 2.0)]]
    extreme = [(1e9, 1e9)] * count
    moved = released([*others, extreme], 0.5, 10) - released(others, 0.5, 10)
    assert np.linalg.norm(moved) == pytest.approx(0.5 / 10, rel=1e-3)


def test_rows_of_each_record_would_be_too_much() -> None:
    """The test above can fail: taken record by record, one person would move the sum by four clips."""
    rows = moment_rows(TensorDataset(torch.full((4, 2), 1e9), torch.zeros(4)), LOW, HIGH)
    clipped = rows * np.minimum(1.0, 0.5 / np.linalg.norm(rows, axis=1, keepdims=True))
    assert np.linalg.norm(clipped.sum(axis=0)) == pytest.approx(4 * 0.5)


def test_what_stands_where_no_record_is_does_not_count() -> None:
    persons: Records = [[(80.0, 1.0)], [(90.0, -3.0), (70.0, 2.0)], []]
    expected = moment_rows(grouped(persons), LOW, HIGH)
    for padding in (7.0, float("nan"), 1e30):
        assert np.array_equal(moment_rows(grouped(persons, padding=padding), LOW, HIGH), expected)


def test_records_are_normalised_and_padding_is_zero() -> None:
    persons = grouped([[(80.0, 1.0)], [(90.0, -3.0), (70.0, 2.0)]], padding=5.0)
    found: Any = Normalisation((80.0, 1.0), (10.0, 2.0)).apply(persons)
    records, mask, targets = found.tensors
    assert records[0].tolist() == [[0.0, 0.0]] * 4
    assert records[1].tolist() == [[1.0, -2.0], [-1.0, 0.5], [0.0, 0.0], [0.0, 0.0]]
    assert mask.equal(persons.tensors[1])
    assert targets.equal(persons.tensors[2])


def test_own_moments_count_a_person_once() -> None:
    """One person with three records of 0, one with a single record of 8."""
    found = own_normalisation(grouped([[(0.0, 1.0)] * 3, [(8.0, 1.0)]]))
    assert found.mean == pytest.approx((4.0, 1.0))
    assert found.deviation == pytest.approx((4.0, 1e-6))


@pytest.mark.parametrize(
    "tensors",
    [
        (torch.zeros(5, 4, 2), torch.zeros(5)),
        (torch.zeros(5, 4, 2), torch.ones(5, 3), torch.zeros(5)),
        (torch.zeros(5, 4, 2), torch.ones(5), torch.zeros(5)),
        (torch.zeros(5, 4, 2), torch.zeros(5, 4)),
        (torch.zeros(5, 2, 4, 4), torch.ones(5, 2), torch.zeros(5)),
        (torch.zeros(5, 3), torch.zeros(5)),
        (torch.zeros(5), torch.zeros(5)),
    ],
    ids=["no mask", "another mask", "lengths", "the targets are no mask", "pictures", "too many", "no features"],
)
@pytest.mark.parametrize(
    "use", [lambda p: moment_rows(p, LOW, HIGH), Normalisation((0.0, 0.0), (1.0, 1.0)).apply], ids=["rows", "apply"]
)
def test_a_layout_that_has_no_persons_moments_is_refused(
    tensors: tuple[Tensor, ...], use: Callable[[TensorDataset], object]
) -> None:
    with pytest.raises(ConfigError, match="normalisation") as caught:
        use(TensorDataset(*tensors))
    assert "mask" in caught.value.next_step


def test_a_mask_that_is_none_is_counted_before_anything_is_trained() -> None:
    persons = grouped([[(80.0, 1.0)], [(90.0, -3.0), (70.0, 2.0)], [(1.0, 1.0)]])
    assert unlike_records(persons, 2) == 0
    records, mask, targets = (t.clone() for t in persons.tensors)
    mask[0, 0], records[2, 3, 1] = 0.5, 9.0
    assert unlike_records(TensorDataset(records, mask, targets), 2) == 2
    assert unlike_records(TensorDataset(torch.rand(3, 2), targets), 2) == 0
