"""Polya shares: a table to 128 bits, and a sum that is two-sided geometric noise."""

import math
from itertools import pairwise

import numpy as np
import pytest
from mpmath import mp
from scipy import stats

from fedseal.errors import LocalError
from fedseal.privacy.polya import SMALLEST_DECAY, polya, polya_table
from fedseal.privacy.randomness import KeyedRandomness, Stream
from fedseal.privacy.tabulated import Integers

DRAWS = 200_000


def stream(*purpose: str | int) -> Stream:
    return KeyedRandomness(13, "polya").stream(*purpose)


def against_two_sided_geometric(drawn: Integers, decay: float) -> float:
    """The p-value of draws against P(x) = (1 - q) / (1 + q) q^|x|, scipy's discrete Laplace."""
    reach = max(3, round(4 / decay))
    edges = np.unique(np.round(np.linspace(-reach, reach, 25)))
    below = stats.dlaplace(decay).cdf(edges)
    cells = np.bincount(np.searchsorted(edges, drawn, side="left"), minlength=len(edges) + 1)
    expected = np.array([b - a for a, b in pairwise([0.0, *below, 1.0])]) * len(drawn)
    return float(stats.chisquare(cells, expected).pvalue)


def summed(shares: int, counted: int, decay: float) -> Integers:
    """What ``shares`` sites add, each a share of ``counted``."""
    return np.asarray(sum(polya(counted, decay, stream(i, counted, str(decay)), DRAWS) for i in range(shares)))


@pytest.mark.parametrize(("shares", "decay"), [(1, 1.0), (2, 0.3), (7, 0.05), (200, 2.0)])
def test_the_table_of_a_share_is_exact_to_its_last_bits(shares: int, decay: float) -> None:
    with mp.workprec(400):
        masses = polya_table(shares, decay).masses()
        q, r = mp.exp(-mp.mpf(decay)), mp.mpf(1) / shares
        # Gamma functions, where the table goes from one mass to the next.
        true = [
            mp.exp(mp.loggamma(r + k) - mp.loggamma(r) - mp.loggamma(k + 1)) * q**k * (1 - q) ** r
            for k in range(len(masses))
        ]
        distance = sum(abs(mp.ldexp(m, -128) - p) for m, p in zip(masses, true, strict=True)) / 2
        assert distance + (1 - sum(true)) < mp.mpf(2) ** -110
    assert sum(masses) == 1 << 128


@pytest.mark.parametrize(("shares", "decay"), [(1, 0.5), (2, 1.0), (3, 0.1), (10, 0.5)])
def test_shares_add_up_to_two_sided_geometric_noise(shares: int, decay: float) -> None:
    drawn = summed(shares, shares, decay)
    assert against_two_sided_geometric(drawn, decay) > 1e-3
    q = math.exp(-decay)
    variance = 2 * q / (1 - q) ** 2
    # The fourth moment of such noise is below 7 variances squared for these decays.
    assert float(np.square(drawn).mean()) == pytest.approx(variance, rel=5 * math.sqrt(7 / DRAWS))


def test_a_share_too_few_and_a_wrong_shape_are_seen() -> None:
    """Twins: two shares of three, and three shares made for four."""
    assert against_two_sided_geometric(summed(2, 3, 0.5), 0.5) < 1e-6
    assert against_two_sided_geometric(summed(3, 4, 0.5), 0.5) < 1e-6


def test_a_decay_that_is_three_percent_off_is_seen() -> None:
    assert against_two_sided_geometric(summed(3, 3, 0.515), 0.5) < 1e-6


@pytest.mark.parametrize(("shares", "decay"), [(0, 1.0), (2, SMALLEST_DECAY / 2), (2, 65.0), (2, math.nan)])
def test_what_no_table_is_made_for_is_refused(shares: int, decay: float) -> None:
    with pytest.raises(LocalError, match="expected at least one share"):
        polya_table(shares, decay)
