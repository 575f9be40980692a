"""Windows of counts and how often tests reject them: parts of `drift_power.py`."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, kolmogorov

from fedseal.privacy.inference.drift.contrasts import every
from fedseal.privacy.inference.drift.difference import Difference, Strata, expected_weights, released, two_sample
from fedseal.privacy.inference.drift.smooth import p_values, smooth_contrasts
from fedseal.privacy.inference.noise import CountNoise
from fedseal.privacy.secagg.parameters import minimum_sites, threshold

Real = NDArray[np.float64]
ALPHA = 0.05
ROWS, REFERENCE = 1000, 10_000
# Of epsilon, for W; what is left for V.
WEIGHTS_PART = 0.15


@dataclass
class Study:
    """The draws, how many, and what was found."""

    rng: np.random.Generator
    replicates: int
    chains: int
    rows: dict[str, list[dict[str, float | str]]] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)

    def tell(self, part: str, row: dict[str, float | str]) -> None:
        """Keep a row, and print it."""
        self.rows.setdefault(part, []).append(row)
        print(
            "  " + "  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True
        )

    def judge(self, goal: str, met: bool) -> None:
        """Say whether a goal is met."""
        print(f"  {'met   ' if met else 'MISSED'} {goal}")
        if not met:
            self.missed.append(goal)

    def counts(self, rows: int, shares: Real, noise: CountNoise | None) -> Real:
        """Counts of windows, shape (replicates, B), with noise."""
        exact = self.rng.multinomial(rows, shares, self.replicates).astype(np.float64)
        return exact if noise is None else exact + noise.draw(self.rng, exact.shape)

    def pair(self, before: Real, after: Real, noise: CountNoise | None, rows: int = ROWS) -> Difference:
        """Windows against references of their own, both with noise."""
        window, reference = self.counts(rows, after, noise), self.counts(REFERENCE, before, noise)
        return two_sample(released(window, noise), released(reference, noise))


def variance(noise: CountNoise | None) -> float:
    """0 without noise."""
    return 0.0 if noise is None else noise.variance


def counted_on(sites: int, colluders: int = 1) -> int:
    """How many honest shares the protocol counts on."""
    return minimum_sites(threshold(sites, colluders), 3, colluders, 0) - colluders


def smooth_rate(difference: Difference, contrasts: Real | None = None) -> float:
    """How often the smooth test rejects."""
    chosen = smooth_contrasts(difference) if contrasts is None else contrasts
    return float((p_values(difference, chosen) <= ALPHA).mean())


def chi2_rate(difference: Difference) -> float:
    """How often the chi-squared test rejects."""
    return float((p_values(difference, every(difference.bins)) <= ALPHA).mean())


def site_counts(study: Study, shares: Real, rows: NDArray[np.int64]) -> Real:
    drawn = [study.rng.multinomial(n, p, study.replicates) for n, p in zip(rows, shares, strict=True)]
    return np.stack(drawn, axis=1).astype(np.float64)


def noised(study: Study, counts: Real, noise: CountNoise | None) -> Real:
    return counts if noise is None else counts + noise.draw(study.rng, counts.shape)


def weights_released(study: Study, exact: Strata, epsilon: float | None, ratio: float) -> Strata:
    """Most of epsilon for V (sensitivity 2), the rest for W (1 + 2 ratio)."""
    if epsilon is None:
        return exact
    first, second = (
        CountNoise(epsilon * (1 - WEIGHTS_PART) / 2, 1, 1),
        CountNoise(epsilon * WEIGHTS_PART / (1 + 2 * ratio), 1, 1),
    )
    difference, weights = noised(study, exact.difference, first), noised(study, exact.weights, second)
    return Strata(difference, weights, exact.rows, first.variance, second.variance)


def weights_planned(study: Study, exact: Strata, epsilon: float | None, ratio: float, public: Real) -> Strata:
    """All of epsilon for V; W from the shares at training and the largest ratio."""
    noise = None if epsilon is None else CountNoise(epsilon / 2, 1, 1)
    weights = expected_weights(exact.rows, public, ratio)
    return Strata(noised(study, exact.difference, noise), weights, exact.rows, variance(noise))


def textbook_chi2(window: Real, reference: Real) -> float:
    n1, n0 = (np.maximum(c, 0).sum(axis=1, keepdims=True) for c in (window, reference))
    c1, c0 = np.maximum(window, 0), np.maximum(reference, 0)
    pooled = np.maximum(c1 + c0, 1e-9) / (n1 + n0)
    found = ((c1 - n1 * pooled) ** 2 / (n1 * pooled) + (c0 - n0 * pooled) ** 2 / (n0 * pooled)).sum(axis=1)
    return float((chdtrc(15, found) <= ALPHA).mean())


def textbook_ks(window: Real, reference: Real) -> float:
    n1, n0 = (c.sum(axis=1, keepdims=True) for c in (window, reference))
    apart = np.abs(np.cumsum(window, axis=1) / n1 - np.cumsum(reference, axis=1) / n0).max(axis=1)
    return float((kolmogorov(apart * np.sqrt(n1 * n0 / (n1 + n0))[:, 0]) <= ALPHA).mean())


def textbook_psi(window: Real, reference: Real) -> float:
    p1, p0 = (np.maximum(c, 0.5) / np.maximum(c, 0.5).sum(axis=1, keepdims=True) for c in (window, reference))
    return float((((p1 - p0) * np.log(p1 / p0)).sum(axis=1) > 0.1).mean())
