"""The planner's other questions, and the distribution that it stands on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chdtri, chndtr

from fedseal.errors import ConfigError
from fedseal.privacy.inference.drift.power import (
    Design,
    Release,
    Shift,
    ShiftKind,
    _exceeds,
    cells,
    epsilon_needed,
    power,
    rows_needed,
    smallest_shift,
)
from fedseal.privacy.inference.noise import CountNoise

MEAN = Shift(ShiftKind.MEAN, 0.12)
DESIGN = Design(1000, 10_000, over_strata=False)
SMALL = [MEAN, Shift(ShiftKind.SCALE, 1.1), Shift(ShiftKind.TAIL, 0.02), Shift(ShiftKind.RATE, 0.05, 0.2)]


def test_eighty_percent_power_of_four_contrasts_needs_a_noncentrality_of_11_9() -> None:
    # 11.935, as in tables of the noncentral chi-squared distribution (Haynam, Govindarajulu and Leone 1970).
    assert _exceeds(chdtri(4, 0.05), np.array([11.935, 0, 0, 0]) ** 0.5, np.eye(4), np.eye(4)) == pytest.approx(
        0.8, abs=1e-3
    )


@given(st.floats(0.5, 30), st.floats(0, 40), st.integers(2, 6))
def test_with_equal_covariances_power_is_noncentral_chi_squared(critical: float, noncentral: float, k: int) -> None:
    mean = np.full(k, (noncentral / k) ** 0.5)
    found = _exceeds(critical, mean, np.eye(k), np.eye(k))
    assert found == pytest.approx(1 - float(chndtr(critical, k, noncentral)), abs=1e-4)


def test_with_other_covariances_it_is_what_is_drawn() -> None:
    rng = np.random.default_rng(1)
    taken, true = np.diag([1.0, 1.0, 2.0, 0.5]), np.diag([1.5, 0.8, 2.0, 1.0])
    mean = np.array([0.5, 1.5, -1.0, 0.3])
    y = mean + rng.normal(size=(200_000, 4)) @ np.linalg.cholesky(true).T
    drawn = (y * np.linalg.solve(taken, y.T).T).sum(axis=1)
    for critical in (6.0, 9.5, 14.0):
        assert _exceeds(critical, mean, taken, true) == pytest.approx(float((drawn > critical).mean()), abs=0.006)
        # The twin: with the same covariance in both places it would be noticed.
    assert abs(_exceeds(9.5, mean, taken, taken) - float((drawn > 9.5).mean())) > 0.03


@pytest.mark.parametrize("shift", SMALL, ids=str)
@pytest.mark.parametrize("over_strata", [True, False])
def test_answers_agree_with_each_other(shift: Shift, over_strata: bool) -> None:
    release = Release(1.0, shares=10, honest=6)
    design = replace(DESIGN, noise=release.noise, over_strata=over_strata)
    smallest = smallest_shift(design, shift, 0.02)
    assert smallest.size is not None
    assert power(design, replace(shift, size=smallest.size), 0.02) == pytest.approx(0.8, abs=1e-3)
    rows = rows_needed(design, shift, 0.02)
    assert rows is not None
    assert power(replace(design, rows=rows), shift, 0.02) == pytest.approx(0.8, abs=5e-3)
    epsilon = epsilon_needed(replace(design, rows=4000), release, shift, 0.02)
    assert epsilon is not None
    needed = replace(design, rows=4000, noise=replace(release, epsilon=epsilon).noise)
    assert power(needed, shift, 0.02) >= 0.799


def test_what_no_number_of_rows_shows_is_said() -> None:
    assert rows_needed(replace(DESIGN, reference_rows=100), Shift(ShiftKind.MEAN, 0.01), 0.05) is None
    assert epsilon_needed(replace(DESIGN, rows=50), Release(1.0), MEAN, 0.05) is None


@given(st.integers(100, 5000), st.floats(0.1, 4), st.sampled_from(SMALL))
def test_more_of_anything_sees_more(rows: int, epsilon: float, shift: Shift) -> None:
    def at(rows: float, epsilon: float, alpha: float = 0.05) -> float:
        noise = Release(epsilon).noise
        return power(Design(rows, 10_000, noise, noise, over_strata=False), shift, alpha)

    here = at(rows, epsilon)
    assert at(rows * 2, epsilon) >= here - 2e-3
    assert at(rows, epsilon * 2) >= here - 2e-3
    assert at(rows, epsilon, 0.1) >= here
    assert 0 <= here <= 1


def test_no_shift_is_seen_at_the_level() -> None:
    none = {ShiftKind.SCALE: 1.0}
    for shift in SMALL:
        still = replace(shift, size=none.get(shift.kind, 0.0))
        assert power(replace(DESIGN, noise=8.0, reference_noise=8.0), still, 0.05) == pytest.approx(0.05, abs=2e-3)


def test_shifted_shares_are_shares() -> None:
    for shift in SMALL:
        for found in cells(shift, np.linspace(0, 1, 9)):
            assert found.sum() == pytest.approx(1.0)
            assert np.all(found > 0)


def test_a_releases_noise() -> None:
    one = Release(0.5).noise
    assert one == pytest.approx(CountNoise(0.5, 1, 1).variance)
    assert Release(0.5, shares=10, honest=5).noise == pytest.approx(2 * one)
    # Noise grows with the square of what one person changes.
    assert Release(0.5, tables=13).noise == pytest.approx(13**2 * one, rel=0.03)
    assert Release(0.5, sensitivity=2.0).noise == pytest.approx(Release(0.25).noise)


@pytest.mark.parametrize(
    ("kind", "size", "base"),
    [
        (ShiftKind.SCALE, 0.0, 0.0),
        (ShiftKind.TAIL, 1.0, 0.0),
        (ShiftKind.RATE, 0.1, 0.0),
        (ShiftKind.RATE, 0.9, 0.2),
        (ShiftKind.MEAN, 11.0, 0.0),
        (ShiftKind.MEAN, float("nan"), 0.0),
    ],
)
def test_shifts_that_make_no_sense_are_refused(kind: ShiftKind, size: float, base: float) -> None:
    with pytest.raises(ConfigError, match="cannot have size"):
        Shift(kind, size, base)
