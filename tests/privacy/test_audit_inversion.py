"""The attack on a first layer: it reads who is alone in a unit, and nobody else."""

import numpy as np
import pytest

from fedseal.privacy.audit.inversion import candidates, recovered


def gradients(fires: np.ndarray, records: np.ndarray, pull: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A first layer's gradients: unit j sums over the records that fire it, each with its own factor."""
    factors = fires * pull
    return factors @ records, factors.sum(axis=1)


def test_a_record_alone_in_a_unit_is_read() -> None:
    records = np.array([[0.5, -0.25, 1.0], [-0.75, 0.125, 0.0], [0.3, 0.3, -0.9]])
    fires = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]])
    pull = np.array([[0.2, 0.1, 0.3], [0.5, -0.4, 0.1], [0.1, 0.6, -0.9], [1.0, 1.0, 1.0]])
    found = candidates(*gradients(fires, records, pull))
    assert recovered(found, records).tolist() == [True, False, False]


def test_a_record_between_two_thresholds_is_read() -> None:
    records = np.array([[0.5, -0.25], [-0.75, 0.125], [0.1, 0.9]])
    # Thresholds one after the other, and the same pull in every unit: no unit has anybody alone but the last.
    fires = np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    pull = np.array([0.3, -0.2, 0.7])
    found = candidates(*gradients(fires, records, pull))
    assert recovered(found, records).tolist() == [True, True, True]
    # The same records in one unit are blended.
    assert not recovered(candidates(*gradients(fires[:1], records, pull)), records).any()


def test_noise_hides_the_record() -> None:
    record = np.array([[0.5, -0.25, 0.8]])
    weights, biases = gradients(np.ones((1, 1)), record, np.array([[0.01]]))
    assert recovered(candidates(weights, biases), record).all()
    assert not recovered(candidates(weights + 0.05, biases - 0.03), record).any()


@pytest.mark.parametrize("units", [1, 3])
def test_nobody_is_read_from_nothing(units: int) -> None:
    found = candidates(np.zeros((units, 2)), np.zeros(units))
    assert len(found) == 0
    assert not recovered(found, np.ones((4, 2))).any()
