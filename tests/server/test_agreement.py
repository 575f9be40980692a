"""Agreement over sites from one sealed table, exact and noisy, beside the pooled labels."""

import numpy as np
import pytest

from fedseal.compliance.labels.agreement import agreement
from fedseal.compliance.labels.coefficients import Coefficient
from fedseal.compliance.labels.scale import Level, Ratings, Scale
from fedseal.errors import ConfigError
from fedseal.privacy.inference.tally import CountNoise, Tally
from fedseal.server.agreement import agreement_over_sites, pairs_of_labels

SCALE = Scale(Level.NOMINAL, (0.0, 1.0, 2.0))


def pooled(seed: int, items: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Codes of two annotators who agree four times in five."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 3, items)
    other = draw.integers(0, 3, (items, 2))
    return np.where(draw.random((items, 2)) < 0.9, truth[:, None], other)


def tally(codes: np.ndarray[tuple[int, int], np.dtype[np.int64]], noise: CountNoise | None, seed: int = 0) -> Tally:
    """What a release of these pairs comes to."""
    counts = np.bincount(3 * codes[:, 0] + codes[:, 1], minlength=9).astype(np.int64)
    if noise is not None:
        counts = counts + noise.draw(np.random.default_rng(seed), (9,))
    return Tally(pairs_of_labels("first", "second", 3), counts, 4, noise)


def test_without_noise_it_is_the_pooled_coefficient() -> None:
    codes = pooled(1, 500)
    found = agreement_over_sites(tally(codes, None), Coefficient.COHEN, SCALE)
    items, raters = np.repeat(np.arange(500), 2), np.tile(np.arange(2), 500)
    ratings = Ratings(items, raters, codes.ravel(), 500, 2, SCALE)
    known = agreement(ratings, Coefficient.COHEN, np.random.default_rng(1))
    assert found.value == pytest.approx(known.value, abs=1e-12)
    assert found.low < found.value < found.high


def test_with_noise_its_interval_holds_the_pooled_coefficient_as_often_as_it_says() -> None:
    codes, noise, held = pooled(2, 800), CountNoise(0.5, 4, 2), 0
    exact = agreement_over_sites(tally(codes, None), Coefficient.COHEN, SCALE).value
    for seed in range(200):
        found = agreement_over_sites(tally(codes, noise, seed), Coefficient.COHEN, SCALE)
        held += found.low <= exact <= found.high
    # It also covers that other items might have been drawn, so it holds the pooled value more often than 95 %.
    assert held >= 190


def test_an_interval_that_knows_nothing_of_the_noise_is_too_narrow() -> None:
    """The twin: the same noisy tables taken for exact ones."""
    codes, noise, held = pooled(2, 300), CountNoise(0.1, 4, 2), 0
    exact = agreement_over_sites(tally(codes, None), Coefficient.COHEN, SCALE).value
    for seed in range(200):
        noisy = tally(codes, noise, seed)
        taken = Tally(noisy.tables, np.maximum(noisy.counts, 0), 4, None)
        found = agreement_over_sites(taken, Coefficient.COHEN, SCALE)
        held += found.low <= exact <= found.high
    assert held < 190


def test_another_table_or_coefficient_is_refused() -> None:
    codes = pooled(3, 50)
    with pytest.raises(ConfigError, match="told apart"):
        agreement_over_sites(tally(codes, None), Coefficient.ALPHA, SCALE)
    with pytest.raises(ConfigError, match="pairs of these labels"):
        agreement_over_sites(tally(codes, None), Coefficient.COHEN, Scale(Level.NOMINAL, (0.0, 1.0)))
