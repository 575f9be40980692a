"""Whether a file's scores are spread as those of the model's evaluation were.

The reference is what the evaluation released of all sites' test persons together, with its noise; the file is counted
exactly. So a site whose patients differ from the federation's is told so, at its first file as at any later one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedseal.compliance.registry.recipe import ScoreReference
from fedseal.privacy.inference.drift.difference import Histogram, enough_rows, two_sample
from fedseal.privacy.inference.drift.effect import psi_like
from fedseal.privacy.inference.drift.smooth import smooth_test

# Fewer rows have no spread that a test of four contrasts could tell from another.
FEWEST = 50
ALPHA = 0.01
# What readers of PSI call a change worth looking at.
NOTABLE = 0.1
# A cell of the reference holds at least this share of it, or is counted with its neighbour.
SMALLEST_SHARE = 0.02

Verdict = Literal["no-reference", "too-few-rows", "none-found", "slight", "shifted"]


@dataclass(frozen=True, slots=True)
class Shift:
    """What was found. ``p`` is compared with 0.01; ``psi`` is the unbiased PSI-like effect, with its 95 % interval."""

    verdict: Verdict
    rows: int
    p: float | None = None
    psi: float | None = None
    low: float | None = None
    high: float | None = None


class ScoreCounts:
    """Counts the scores of a file by the reference's edges.

    Args:
        reference: the bundle's; None counts nothing.
    """

    def __init__(self, reference: ScoreReference | None) -> None:
        self._reference = reference
        self.counts = np.zeros(0 if reference is None else len(reference.counts))

    def add(self, scores: NDArray[np.float64]) -> None:
        """Count scores of class 1, shape (rows,)."""
        if self._reference is None or not len(scores):
            return
        inner = np.asarray(self._reference.edges[1:-1])
        self.counts += np.bincount(np.searchsorted(inner, scores, side="right"), minlength=len(self.counts))

    def shift(self) -> Shift:
        """Compare what was counted."""
        rows, reference = int(self.counts.sum()), self._reference
        if reference is None:
            return Shift("no-reference", rows)
        before, now, cells = _merged(np.asarray(reference.counts), self.counts)
        if len(before) < 2 or not enough_rows(float(before.sum()), len(before), cells * reference.noise):
            return Shift("no-reference", rows)
        if rows < FEWEST:
            return Shift("too-few-rows", rows)
        difference = two_sample(Histogram(now), Histogram(before, cells * reference.noise))
        order = min(4, len(before) - 1)
        p, effect = smooth_test(difference, alpha=ALPHA, order=order).p, psi_like(difference)
        verdict: Verdict = "none-found" if p > ALPHA else "shifted" if effect.value >= NOTABLE else "slight"
        return Shift(verdict, rows, p, effect.value, effect.low, effect.high)


def _merged(
    before: NDArray[np.float64], now: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Both with nearly empty cells of the reference counted with the next ones; how many became one at most."""
    starts, total, held = [0], before.sum(), 0.0
    for place, count in enumerate(before):
        if held >= SMALLEST_SHARE * total and before[place:].sum() >= SMALLEST_SHARE * total:
            starts.append(place)
            held = 0.0
        held += count
    widest = int(np.diff([*starts, len(before)]).max())
    return np.add.reduceat(before, starts), np.add.reduceat(now, starts), widest
