"""A lower bound on epsilon from a single run: Steinke, Nasr and Jagielski 2023, "Privacy auditing with one (1)
training run".

An auditor flips a fair coin for each of m canaries, lets those with heads take part in one run, and guesses the coins
from what the run released. Whatever (epsilon, delta)-private computation was run, right guesses are not much more
frequent than those of randomised response. So many right ones falsify the claim.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

CONFIDENCE = 0.95
# No audit gets here: it would take e^40 canaries.
_LARGEST_EPSILON = 40.0
_BISECTIONS = 40


@dataclass(frozen=True, slots=True)
class Guesses:
    """How an auditor did: of ``canaries`` coins it guessed ``made``, a number fixed before anything was released, and
    ``right`` of them were right.

    Raises:
        ValueError: the three numbers do not go together.
    """

    canaries: int
    made: int
    right: int

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.made <= self.canaries or self.canaries < 1:
            raise ValueError("expected 0 <= right <= made <= canaries, and a canary")


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """The largest probability with which an (epsilon, delta)-private computation allows as many right guesses.

    Theorem 5.2 of the paper, for guesses of one weight: with W ~ Binomial(made, e^epsilon / (1 + e^epsilon)) and
    f(v) = P[W >= v] it is f(v) + 2 m delta max over i in 1..m of (f(v - i) - f(v)) / i.

    Args:
        guesses: how the auditor did.
        epsilon: the claim's, at least 0.
        delta: the claim's, in [0, 1].

    Raises:
        ValueError: epsilon or delta is out of range.
    """
    if not (epsilon >= 0 and 0 <= delta <= 1):
        raise ValueError("expected epsilon of at least 0 and delta from 0 to 1")
    chance, right = float(special.expit(epsilon)), guesses.right
    as_many = float(stats.binom.sf(right - 1, guesses.made, chance))
    if right == 0:
        return 1.0
    # f(v - i) - f(v) = P[v - i <= W < v] for i = 1..v; beyond, it no longer grows while i does.
    just_below = np.cumsum(stats.binom.pmf(np.arange(right - 1, -1, -1), guesses.made, chance))
    steepest = float(np.max(just_below / np.arange(1, right + 1)))
    return min(1.0, as_many + 2.0 * guesses.canaries * delta * steepest)


def epsilon_lower_bound(guesses: Guesses, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest epsilon that the guesses rule out at this delta and confidence, 0 if they rule out none.

    By bisection, to 4e-11 of the range; the end that is still ruled out is returned.

    Raises:
        ValueError: the confidence is not inside (0, 1), or delta is out of range.
    """
    if not 0 < confidence < 1:
        raise ValueError("expected a confidence between 0 and 1")
    level = 1.0 - confidence
    if p_value(guesses, 0.0, delta) > level:
        return 0.0
    low, high = 0.0, _LARGEST_EPSILON
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(guesses, middle, delta) <= level else (low, middle)
    return low


def ceiling(made: int, confidence: float = CONFIDENCE) -> float:
    """The most that an audit with so many guesses can ever show: all of them right, and delta 0.

    A claim of a larger epsilon cannot be falsified by it, whatever is wrong with the build.
    """
    return 0.0 if made < 1 else epsilon_lower_bound(Guesses(made, made, made), 0.0, confidence)
