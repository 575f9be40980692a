"""A site's own tests: exact, and against scipy's."""

import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp

from fedseal.errors import DataError
from fedseal.privacy.inference.drift.local import categories, histogram, inner_edges, ks, smooth
from fedseal.privacy.inference.drift.results import EffectKind, Method

RNG = np.random.default_rng(1)
REFERENCE = RNG.normal(size=3000)


def test_ks_is_scipys() -> None:
    window = RNG.normal(0.2, 1, 300)
    found, theirs = ks(window, REFERENCE, alpha=0.05), ks_2samp(window, REFERENCE)
    assert (found.statistic, found.p) == pytest.approx((theirs.statistic, theirs.pvalue))
    assert (found.method, found.degrees) == (Method.KS, None)


def test_categories_against_a_large_reference_are_pearsons() -> None:
    window = np.array([30.0, 50, 20, 0])
    found = categories(window, np.array([3e8, 5e8, 2e8, 0]), alpha=0.05)
    # A category that neither has is left out.
    assert found.degrees == 2
    found = categories(np.array([40.0, 45, 15]), np.array([3e8, 5e8, 2e8]), alpha=0.05)
    assert found.p == pytest.approx(chisquare([40, 45, 15], [30, 50, 20]).pvalue, rel=1e-3)


def test_a_shift_is_seen_with_its_size() -> None:
    found = smooth(RNG.normal(0.3, 1.2, 800), REFERENCE, alpha=0.01)
    assert found.rejects
    sizes = {e.kind: e for e in found.effects}
    assert sizes[EffectKind.MEAN_SHIFT].low <= 0.3 <= sizes[EffectKind.MEAN_SHIFT].high
    assert sizes[EffectKind.SCALE_RATIO].low <= 1.2 <= sizes[EffectKind.SCALE_RATIO].high
    assert sizes[EffectKind.PSI_LIKE].low > 0


def test_windows_of_a_site_are_rejected_at_the_level() -> None:
    rng = np.random.default_rng(2)
    rejected = [smooth(rng.exponential(size=150), rng.exponential(size=900), alpha=0.05).rejects for _ in range(400)]
    assert 0.02 <= np.mean(rejected) <= 0.085


def test_missing_values_are_left_out_and_ties_share_a_bin() -> None:
    values = np.array([0.0, 0.0, 1.0, np.nan, 1.0, 2.0])
    edges = inner_edges(values, 10)
    assert np.all(np.diff(edges) > 0)
    found = histogram(values, edges).counts
    assert found.sum() == 5
    assert np.all(found > 0)


def test_a_column_of_two_values_is_tested_as_a_rate() -> None:
    window, past = np.repeat([0.0, 1.0], [60, 40]), np.repeat([0.0, 1.0], [800, 200])
    found = smooth(window, past, alpha=0.05)
    assert found.degrees == 1
    assert found.effects[0].kind is EffectKind.RATE
    assert found.effects[0].value == pytest.approx(0.2)


@pytest.mark.parametrize(
    "refused",
    [
        lambda: smooth(np.array([np.nan]), REFERENCE, alpha=0.05),
        lambda: smooth(REFERENCE, np.ones(50), alpha=0.05),
        lambda: ks(np.array([]), REFERENCE, alpha=0.05),
        lambda: categories(np.zeros(3), np.ones(3), alpha=0.05),
        lambda: categories(np.array([3.0, 0]), np.array([9.0, 0]), alpha=0.05),
    ],
)
def test_columns_without_a_distribution_are_refused(refused: object) -> None:
    assert callable(refused)
    with pytest.raises(DataError):
        refused()
