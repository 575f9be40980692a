"""From what a run released about each canary to a guess of its coin, and how sure the auditor is of it.

Canaries lie in directions that are orthogonal to each other, so each has one number of its own: the released sum
along its direction, in units of the clip norm. Under the mechanism that is claimed that number is K + noise for a
canary that took part, K ~ Binomial(steps, sample rate), and noise alone for one that did not.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from fedseal.privacy.audit.one_run import Guesses

Real = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Mechanism:
    """What the auditor expects of a release, in units of the clip norm.

    Attributes:
        noise_multiplier: standard deviation, a step and coordinate, of the noise that the auditor does not know.
        sample_rate: the probability with which a person is drawn into a step.
        steps: of a release.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int


# Numbers of draws less likely than this do not change a likelihood.
_UNLIKELY = 1e-15


def log_likelihood_ratios(scores: Real, mechanism: Mechanism, releases: int) -> Real:
    """How much likelier each score is if its canary took part, as a natural logarithm; shape as ``scores``.

    Args:
        scores: released sums along each canary's direction, over all releases, in units of the clip norm.
        mechanism: what is claimed.
        releases: how many releases were summed.
    """
    steps = mechanism.steps * releases
    variance = mechanism.noise_multiplier**2 * steps
    low, high = stats.binom.ppf([_UNLIKELY, 1 - _UNLIKELY], steps, mechanism.sample_rate)
    draws = np.arange(max(low, 0), high + 1)
    weights = stats.binom.logpmf(draws, steps, mechanism.sample_rate)
    # log of sum over k of P[k] N(s; k, variance) / N(s; 0, variance)
    exponents = (2 * scores[..., None] * draws - draws**2) / (2 * variance) + weights
    found: Real = special.logsumexp(exponents, axis=-1)
    return found


def guess(ratios: Real, included: NDArray[np.bool_], made: int) -> Guesses:
    """Guess the ``made`` coins of which the auditor is surest, and count how many are right.

    Args:
        ratios: shape (canaries,), from `log_likelihood_ratios`.
        included: the coins, shape (canaries,). They say which guesses are right; they choose none.
        made: how many coins to guess, fixed before the run.

    Raises:
        ValueError: the shapes differ, or there are fewer canaries than guesses.
    """
    if ratios.shape != included.shape or ratios.ndim != 1:
        raise ValueError("expected a ratio and a coin for each canary")
    surest = np.argsort(-np.abs(ratios), kind="stable")[:made]
    return Guesses(len(ratios), made, int(((ratios > 0) == included)[surest].sum()))


@dataclass(frozen=True, slots=True)
class ReachTest:
    """How far one person moves the released sum, on average over the canaries that took part.

    Attributes:
        ratio: over what drawing and clipping as planned allow; 1 in a correct build, where every canary is longer than
            the clip norm.
        low: lower end of the 95 % interval of the true ratio.
        high: upper end.
        p_value: the probability of so much, or more, in a correct build.
    """

    ratio: float
    low: float
    high: float
    p_value: float


def reach_test(scores: Real, included: NDArray[np.bool_], mechanism: Mechanism, releases: int) -> ReachTest | None:
    """Whether persons reach further than the plan says, on one side; None if no canary took part.

    A score's variance under the plan is known, so the mean over canaries is compared by the normal distribution.

    Args:
        scores: as in `log_likelihood_ratios`.
        included: which canaries took part, shape (canaries,).
        mechanism: what is claimed.
        releases: how many releases were summed.
    """
    count, steps, rate = int(included.sum()), mechanism.steps * releases, mechanism.sample_rate
    if not count:
        return None
    expected = steps * rate
    error = float(np.sqrt((steps * mechanism.noise_multiplier**2 + expected * (1 - rate)) / count))
    mean = float(scores[included].mean())
    half = 1.96 * error
    p_value = float(stats.norm.sf((mean - expected) / error))
    return ReachTest(mean / expected, (mean - half) / expected, (mean + half) / expected, p_value)


@dataclass(frozen=True, slots=True)
class NoiseTest:
    """What coordinates without any signal say about the noise.

    Attributes:
        coordinates: how many independent draws were looked at.
        ratio: their mean square over the variance that the plan states; 1 in a correct build.
        low: lower end of the 95 % interval of the true ratio.
        high: upper end.
        p_value: the probability of so little noise, or less, in a correct build.
    """

    coordinates: int
    ratio: float
    low: float
    high: float
    p_value: float


# Fewer coordinates would leave an interval wider than about 6 % on either side.
FEWEST_COORDINATES = 2000


def noise_test(quiet: Real, variance: float) -> NoiseTest:
    """The chi-square test of a Gaussian's variance, its mean known to be 0, on one side: too little noise.

    Args:
        quiet: released values at coordinates where nobody has a signal, any shape.
        variance: what the plan says their variance is, in the same units squared.

    Raises:
        ValueError: fewer than 2000 coordinates, or a variance that is not positive.
    """
    if quiet.size < FEWEST_COORDINATES or not variance > 0:
        raise ValueError(f"expected at least {FEWEST_COORDINATES} coordinates and a positive variance")
    total, count = float(np.square(quiet).sum()) / variance, quiet.size
    upper, lower = (float(end) for end in stats.chi2.ppf([0.975, 0.025], count))
    return NoiseTest(count, total / count, total / upper, total / lower, float(stats.chi2.cdf(total, count)))
