"""What a monitor will see, before a row is spent on it: power, the smallest shift seen, rows and epsilon needed.

After a shift the statistic is noncentral chi-squared, with the statistic of the expected difference as noncentrality,
so power is 1 - F(q; k, lambda) with q the test's critical value; all from the covariance that the test itself uses.
That a shift also changes the window's own variance is taken into account, which matters for scale and tails.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from scipy.special import chndtr, ndtr, ndtri

from fedseal.errors import ConfigError
from fedseal.privacy.inference.drift.contrasts import BINS, ORDER, Real, every, tail_levels
from fedseal.privacy.inference.drift.difference import (
    Difference,
    Histogram,
    Strata,
    sampling_covariance,
    stratified,
    two_sample,
)
from fedseal.privacy.inference.drift.smooth import null_law, smooth_contrasts
from fedseal.privacy.inference.noise import CountNoise

_HALVINGS = 60


class ShiftKind(StrEnum):
    """Families of shifts, each with one size."""

    # The mean rises by ``size`` standard deviations.
    MEAN = "mean"
    # The standard deviation is multiplied by ``size``.
    SCALE = "scale"
    # A share ``size`` of the rows takes values beyond the reference's largest bin edge.
    TAIL = "tail"
    # A rate ``base`` rises by ``size``: errors, missing values, a class's share.
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class Shift:
    """A change to plan for. ``base`` is the rate before, and matters to kind rate alone.

    Raises:
        ConfigError: a size that makes no sense.
    """

    kind: ShiftKind
    size: float
    base: float = 0.0

    def __post_init__(self) -> None:
        sound = {
            ShiftKind.MEAN: abs(self.size) <= 10,
            ShiftKind.SCALE: 0 < self.size <= 100,
            ShiftKind.TAIL: 0 <= self.size < 1,
            ShiftKind.RATE: 0 < self.base < 1 and 0 < self.base + self.size < 1,
        }
        if not sound[self.kind]:
            raise ConfigError(
                f"a shift of kind {self.kind} cannot have size {self.size:g}"
                + (f" from a rate of {self.base:g}" if self.kind is ShiftKind.RATE else ""),
                next_step="Sizes: mean 0.12 (standard deviations), scale 1.1 (a ratio), tail 0.02 (a share of rows), "
                "rate 0.2+0.08 (a rate, and by how much it rises).",
            )

    @property
    def least(self) -> float:
        """The size of no shift."""
        return 1.0 if self.kind is ShiftKind.SCALE else 0.0

    @property
    def greatest(self) -> float:
        """A size beyond which nobody looks."""
        return {
            ShiftKind.MEAN: 5.0,
            ShiftKind.SCALE: 10.0,
            ShiftKind.TAIL: 0.9,
            ShiftKind.RATE: 0.999 - self.base,
        }[self.kind]


@dataclass(frozen=True, slots=True)
class Release:
    """What is released every window, and how its epsilon is split.

    Attributes:
        epsilon: of the whole release.
        tables: histograms of which one person is in all, as of several features; each gets an equal part.
        sensitivity: L1 change of one table's numbers by one person: 1 for counts, 2 for stratified sums.
        part: the share of epsilon that goes to these tables; what is left pays for others, as for W.
        shares, honest: how many sites add a share of noise, and how many of these shares must make the whole noise.
    """

    epsilon: float
    tables: int = 1
    sensitivity: float = 1.0
    part: float = 1.0
    shares: int = 1
    honest: int = 1

    @property
    def noise(self) -> float:
        """Variance of the noise in one cell."""
        decay = self.epsilon * self.part / (self.tables * self.sensitivity)
        return CountNoise(decay, self.shares, self.honest).variance


@dataclass(frozen=True, slots=True)
class Design:
    """One histogram of one window.

    Attributes:
        rows, reference_rows: over all sites.
        noise, reference_noise: variance of the noise in a cell; 0 for none.
        bins: cells at `tail_levels`, for shifts of values.
        over_strata: whether sites are compared with their own past; ``reference_noise`` is then that of W.
    """

    rows: float
    reference_rows: float
    noise: float = 0.0
    reference_noise: float = 0.0
    bins: int = BINS
    over_strata: bool = True


@dataclass(frozen=True, slots=True)
class Smallest:
    """The smallest shift that is seen with probability ``power``; ``size`` is None if none is."""

    kind: ShiftKind
    size: float | None
    power: float


def cells(shift: Shift, levels: Real) -> tuple[Real, Real]:
    """The shares of bins before and after a shift, of bins that are cut at ``levels``; for a rate, of two cells."""
    if shift.kind is ShiftKind.RATE:
        after = shift.base + shift.size
        return np.array([1 - shift.base, shift.base]), np.array([1 - after, after])
    before = np.diff(levels)
    if shift.kind is ShiftKind.TAIL:
        after_tail = before * (1 - shift.size)
        after_tail[-1] += shift.size
        return before, after_tail
    mean, scale = (shift.size, 1.0) if shift.kind is ShiftKind.MEAN else (0.0, shift.size)
    return before, np.diff(ndtr((ndtri(levels) - mean) / scale))


def expected(design: Design, shift: Shift) -> Difference:
    """The difference with the expected counts in place of drawn ones."""
    before, after = cells(shift, tail_levels(design.bins))
    if design.over_strata:
        weights = design.rows * (1 + design.rows / design.reference_rows) * before
        rows = np.asarray(design.rows)
        strata = Strata(design.rows * (after - before), weights, rows, design.noise, design.reference_noise)
        return stratified(strata)
    return two_sample(
        Histogram(design.rows * after, design.noise), Histogram(design.reference_rows * before, design.reference_noise)
    )


def power(design: Design, shift: Shift, alpha: float, order: int = ORDER) -> float:
    """Probability that one window after the shift is rejected at level ``alpha``: smooth test, or for a rate chi2."""
    difference = expected(design, shift)
    contrasts = every(2) if shift.kind is ShiftKind.RATE else smooth_contrasts(difference, order)
    _, after = cells(shift, tail_levels(design.bins))
    now = sampling_covariance(difference, after) + difference.noise_covariance
    critical = float(null_law(difference, contrasts).critical(alpha))
    if contrasts.shape[-1] == 1:
        return _exceeds_alone(critical, difference, contrasts[:, 0], now)
    mean = contrasts.T @ difference.shares
    return _exceeds(critical, mean, *(contrasts.T @ c @ contrasts for c in (difference.covariance, now)))


def _exceeds_alone(critical: float, difference: Difference, contrast: Real, now: Real) -> float:
    """The same of a single contrast, with the noise's kurtosis in it: Edgeworth's first term."""
    spread = float(contrast @ now @ contrast)
    kurtosis = float(difference.noise_kurtosis) * float(((contrast @ difference.noise_factor) ** 4).sum()) / spread**2
    bound = math.sqrt(critical * float(contrast @ difference.covariance @ contrast))

    def beyond(x: float) -> float:
        return float(ndtr(-x)) + kurtosis / 24 * (x**3 - 3 * x) * math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)

    mean, deviation = float(contrast @ difference.shares), math.sqrt(spread)
    found = beyond((bound - mean) / deviation) + beyond((bound + mean) / deviation)
    return min(max(found, 0.0), 1.0)


def _exceeds(critical: float, mean: Real, taken: Real, true: Real) -> float:
    """P(y' taken^-1 y > critical) for a normal y of that mean and covariance ``true``.

    A sum of w_j chi-squared variables of one degree and noncentrality d_j, with w the eigenvalues of taken^-1 true;
    matched in its first four cumulants by one noncentral chi-squared (Liu, Tang and Zhang 2009). If both covariances
    are the same it is exact.
    """
    root = np.linalg.cholesky(true)
    weights, turn = np.linalg.eigh(root.T @ np.linalg.solve(taken, root))
    centre = (turn.T @ np.linalg.solve(root, mean)) ** 2
    c1, c2, c3, c4 = (float((weights**j * (1 + j * centre)).sum()) for j in (1, 2, 3, 4))
    s1, s2 = c3 / c2**1.5, c4 / c2**2
    a = 1 / (s1 - math.sqrt(s1**2 - s2)) if s1**2 > s2 * (1 + 1e-12) else 1 / s1
    moved = max(s1 * a**3 - a**2, 0.0)
    degrees = a**2 - 2 * moved
    point = (critical - c1) / math.sqrt(2 * c2) * math.sqrt(2) * a + degrees + moved
    return float(min(max(1.0 - chndtr(max(point, 0.0), degrees, moved), 0.0), 1.0))


def smallest_shift(design: Design, like: Shift, alpha: float, target: float = 0.8) -> Smallest:
    """The smallest shift of the kind of ``like``, upwards, that one window shows with probability ``target``."""

    def seen(size: float) -> bool:
        return power(design, replace(like, size=size), alpha) >= target

    return Smallest(like.kind, _least(seen, like.least, like.greatest), target)


def rows_needed(design: Design, shift: Shift, alpha: float, target: float = 0.8) -> int | None:
    """How many rows a window needs, with the reference as it is; None if no number is enough."""
    most = 1e9

    def seen(rows: float) -> bool:
        return power(replace(design, rows=rows), shift, alpha) >= target

    found = _least(lambda exponent: seen(10**exponent), 0.5, math.log10(most))
    return None if found is None else math.ceil(10**found)


def epsilon_needed(design: Design, release: Release, shift: Shift, alpha: float, target: float = 0.8) -> float | None:
    """The smallest epsilon of a window that shows the shift with probability ``target``; None if even 32 does not.

    The window's noise is the release's. Over two samples the reference keeps the noise of the design.
    """

    def seen(exponent: float) -> bool:
        noise = replace(release, epsilon=2**exponent).noise
        # W's noise grows as that of V does; a reference of its own was noised once and for all.
        weights = design.reference_noise * (noise / design.noise if design.over_strata and design.noise else 1.0)
        changed = replace(design, noise=noise, reference_noise=weights)
        return power(changed, shift, alpha) >= target

    found = _least(seen, -10.0, 5.0)
    return None if found is None else 2**found


def _least(seen: Callable[[float], bool], low: float, high: float) -> float | None:
    """Where a monotone answer turns, to 60 halvings; None if it does not up to ``high``."""
    if not seen(high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if seen(middle) else (middle, high)
    return high
