"""Skellam noise is Skellam: tables to 128 bits, blocks by construction, draws by chi-square, shares by their sum."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from mpmath import mp
from scipy import stats

from fedseal.errors import LocalError
from fedseal.privacy import skellam as module
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.skellam import (
    BLOCK_MEAN,
    LARGEST_MEAN,
    SLACK,
    log_ratio,
    poisson,
    poisson_blocks,
    poisson_table,
    skellam,
)
from fedseal.privacy.tabulated import Integers, Table, tabulate

MEANS = (BLOCK_MEAN, 10_007, 1 << 24, (1 << 40) + 12_345, LARGEST_MEAN)


def stream(*purpose: str | int) -> Stream:
    return KeyedRandomness(11, "skellam").stream(*purpose)


def chi_square(drawn: Integers, edges: Sequence[float], probabilities: Sequence[float]) -> float:
    """The p-value of draws against the probabilities of the cells between edges, both ends open."""
    cells = np.bincount(np.searchsorted(edges, drawn, side="left"), minlength=len(probabilities))
    return float(stats.chisquare(cells, np.asarray(probabilities) * len(drawn)).pvalue)


def against_skellam(drawn: Integers, variance: float) -> float:
    """The p-value of draws against Skellam of mean 0; a normal distribution stands for it where it is that wide."""
    deviation = math.sqrt(variance)
    edges = np.unique(np.floor(deviation * np.linspace(-2.5, 2.5, 26)))
    if variance <= 1e5:
        below = stats.skellam(variance / 2, variance / 2).cdf(edges)
    else:
        below = stats.norm(scale=deviation).cdf(edges + 0.5)
    return chi_square(drawn, list(edges), [b - a for a, b in pairwise([0.0, *below, 1.0])])


# Tables


@pytest.mark.parametrize("mean", [1, 7, 300])
def test_the_table_of_a_poisson_distribution_is_exact_to_its_last_bits(mean: int) -> None:
    with mp.workprec(300):
        masses = poisson_table(mean).masses()
        true = [mp.exp(-mean) * mp.mpf(mean) ** k / mp.factorial(k) for k in range(len(masses))]
        distance = sum(abs(mp.ldexp(m, -128) - p) for m, p in zip(masses, true, strict=True)) / 2
        # What lies beyond the table, and every threshold's rounding.
        assert distance + (1 - sum(true)) < mp.mpf(2) ** -115
    assert sum(masses) == 1 << 128


def test_a_draw_that_shares_its_high_word_with_thresholds_is_settled_by_the_low_one() -> None:
    half = 1 << 63
    table = Table(5, np.array([half, half, half], dtype=np.uint64), (10, 20, 30))

    class Fixed(Stream):
        def __init__(self, *words: int) -> None:
            self._words = list(words)

        def words64(self, count: int) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint64]]":
            return np.array([self._words.pop(0) for _ in range(count)], dtype=np.uint64)

    low = [0, 9, 10, 19, 20, 29, 30, 31]
    assert [int(table.sample(Fixed(half, u), 1)[0]) - 5 for u in low] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert int(table.sample(Fixed(half - 1), 1)[0]) == 5
    assert int(table.sample(Fixed(half + 1), 1)[0]) == 8


@pytest.mark.slow
def test_a_table_that_would_be_too_large_is_not_made() -> None:
    with pytest.raises(LocalError, match="too wide for a table"):
        tabulate((mp.mpf(0) for _ in range((1 << 20) + 1)), 0)


# Blocks


@pytest.mark.parametrize("mean", MEANS)
def test_doubles_give_the_logarithm_of_a_ratio_well_within_the_slack(mean: int) -> None:
    """An error of e in the logarithm is one of at most e in a probability."""
    with mp.workprec(420):
        for factor in (-14.05, -9, -3, -1, -0.1, 0, 0.01, 1, 2, 5, 11, 14.05):
            away = int(factor * math.sqrt(mean))
            k = mp.mpf(mean) + away
            exact = away * mp.log(mp.mpf(mean)) - mp.loggamma(k + 1) + mp.loggamma(mp.mpf(mean) + 1)
            assert abs(float(exact - float(log_ratio(np.array([away]), mean)[0]))) < SLACK / 8


@pytest.mark.parametrize("mean", MEANS)
def test_the_staircase_is_above_the_distribution_and_fits_its_bits(mean: int) -> None:
    blocks = poisson_blocks(mean)
    starts = blocks.first - mean + (np.arange(len(blocks.weights)) << blocks.bits)
    for away in (starts, starts + (1 << blocks.bits) - 1, starts + (1 << blocks.bits) // 3):
        assert (np.exp(log_ratio(away, mean)) * (blocks.scale / blocks.weights) <= 1).all()
    assert int(blocks.ends[-1]) <= 1 << 60
    assert np.array_equal(np.diff(blocks.ends, prepend=0), blocks.weights)
    # Beyond the staircase: less than 14 deviations of a Poisson variable have.
    assert starts[0] <= -14 * math.sqrt(mean)
    assert starts[-1] + (1 << blocks.bits) > 14 * math.sqrt(mean)
    assert stats.poisson(mean).sf(mean + starts[-1]) < 2.0**-100 or mean > 1 << 30


@pytest.mark.parametrize("mean", [BLOCK_MEAN, 1 << 40])
def test_close_decisions_are_taken_again_and_come_out_the_same(mean: int, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = poisson_blocks(mean)
    fast = blocks.propose(stream("close"), 300)
    monkeypatch.setattr(module, "SLACK", 2.0)
    assert np.array_equal(blocks.propose(stream("close"), 300), fast)


def test_a_close_decision_has_256_bits() -> None:
    """The same 64 bits are kept with low further bits and not kept with high ones, on either side of the chance."""
    blocks = poisson_blocks(BLOCK_MEAN)
    block = len(blocks.weights) // 2
    with mp.workprec(448):
        k, mean = mp.mpf(BLOCK_MEAN + 1), mp.mpf(BLOCK_MEAN)
        ratio = mp.exp(mp.log(mean) - mp.loggamma(k + 1) + mp.loggamma(mean + 1))
        chance = ratio * mp.mpf(blocks.scale) / int(blocks.weights[block])
        whole = int(mp.floor(mp.ldexp(chance, 256)))
    word, further = whole >> 192, whole & ((1 << 192) - 1)
    assert blocks._settled(1, block, word, (further - 1).to_bytes(24, "big"))
    assert not blocks._settled(1, block, word, (further + 1).to_bytes(24, "big"))


# Draws


@pytest.mark.parametrize("mean", [1, 50, 4_000, BLOCK_MEAN, 50_000])
def test_draws_are_poisson(mean: int) -> None:
    drawn = poisson(mean, stream("poisson", mean), 200_000)
    edges = np.unique(np.floor(mean + math.sqrt(mean) * np.linspace(-2.5, 2.5, 26)))
    below = stats.poisson(mean).cdf(edges)
    probabilities = [b - a for a, b in pairwise([0.0, *below, 1.0])]
    kept = [i for i, p in enumerate(probabilities) if p > 0]
    assert chi_square(drawn, list(edges[kept[0] :]), probabilities[kept[0] :]) > 1e-3


@pytest.mark.parametrize("variance", [2, 200, 60_000, 1 << 40, 1 << 51])
def test_draws_are_skellam(variance: int) -> None:
    drawn = skellam(variance, stream("skellam", variance), 200_000)
    assert against_skellam(drawn, variance) > 1e-3
    assert drawn.dtype == np.int64
    assert float(drawn.astype(float).mean()) == pytest.approx(0, abs=5 * math.sqrt(variance / 200_000))
    # The fourth moment says how sure the second is: Skellam's is 3 v^2 + v.
    error = 5 * math.sqrt((2 + 1 / variance) / 200_000)
    assert float(np.square(drawn.astype(float)).mean()) / variance == pytest.approx(1, abs=error)


@pytest.mark.parametrize(("shares", "variance"), [(2, 400), (5, 2_000), (3, 90_000)])
def test_shares_add_up_to_skellam_of_their_whole_variance(shares: int, variance: int) -> None:
    total = sum(skellam(variance, stream("share", i, variance), 200_000) for i in range(shares))
    assert against_skellam(np.asarray(total), shares * variance) > 1e-3


@pytest.mark.parametrize("wrong", [0.97, 1.03])
def test_a_variance_that_is_three_percent_off_is_seen(wrong: float) -> None:
    """The twin: the same test refuses noise of another variance."""
    drawn = skellam(2 * round(30_000 * wrong), stream("wrong"), 200_000)
    assert against_skellam(drawn, 60_000) < 1e-6


def test_neighbours_in_a_vector_are_independent() -> None:
    drawn = skellam(1 << 30, stream("pairs"), 200_000).astype(float)
    assert abs(float(np.corrcoef(drawn[:-1], drawn[1:])[0, 1])) < 5 / math.sqrt(200_000)


@pytest.mark.parametrize("variance", [0, -2, 3, (1 << 51) + 2])
def test_a_variance_that_cannot_be_drawn_is_refused(variance: int) -> None:
    with pytest.raises(LocalError, match="expected an even variance"):
        skellam(variance, stream("bad"), 1)


def test_a_mean_that_blocks_are_not_made_for_is_refused() -> None:
    for mean in (BLOCK_MEAN - 1, LARGEST_MEAN + 1):
        with pytest.raises(LocalError, match="expected a mean from"):
            poisson_blocks(mean)
