"""Functions of score histograms that take no single score: precision and recall, calibration, conformal thresholds.

All take stacked tables of counts by label and score, shape (draws, 2, bins), scores rising; counts may be negative,
where noise was added. A bin counts as one score: who is in it is told apart from nobody else in it.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.counts import Real

# Calibration is compared in so many groups of bins: noise adds to every distance, and fewer distances add less.
CALIBRATION_BINS = 10
# Precision is looked at in so many places of a bin.
PARTS = 8


def rate(counts: Real, chosen: NDArray[np.bool_]) -> Real:
    """The share of those whose bin is chosen; counts of shape (draws, bins)."""
    return np.asarray(counts[:, chosen].sum(axis=1) / counts.sum(axis=1))


def average_precision(tables: Real) -> Real:
    """The mean over positives of the precision where the threshold is their own score, from the highest score down.

    Labels within a bin are taken as evenly mixed: its positives meet precisions all along it. One threshold a bin, as
    if all its persons had one score, would be lower by a bin's half.
    """
    negatives, positives = tables[:, 0, ::-1], tables[:, 1, ::-1]
    before_p, before = np.cumsum(positives, axis=1) - positives, np.cumsum(negatives + positives, axis=1)
    before = before - negatives - positives
    precision = np.zeros_like(positives)
    for part in (np.arange(PARTS) + 0.5) / PARTS:
        found, said = before_p + part * positives, before + part * (negatives + positives)
        ratio = np.divide(found, said, out=np.zeros_like(found), where=said > 0)
        precision += np.clip(ratio, 0.0, 1.0) / PARTS
    total = positives.sum(axis=1)
    return np.where(total > 0, (precision * positives).sum(axis=1) / total, np.nan)


def average_precision_error(table: Real) -> float:
    """How far it can be from that of the scores themselves; one table of whole counts, shape (2, bins).

    In no order of the persons of a bin is the precision at one of them above that with all its positives first, nor
    below that with all its negatives first; the sum over positives, each with its bin's bound, contains both numbers.
    """
    negatives, positives = table[0, ::-1], table[1, ::-1]
    if positives.sum() <= 0:
        return 0.0
    before_n, before_p = np.cumsum(negatives) - negatives, np.cumsum(positives) - positives
    most, least = 0.0, 0.0
    for n, p, bn, bp in zip(negatives, positives, before_n, before_p, strict=True):
        if p > 0:
            steps = np.arange(1, math.floor(p) + 1)
            most += float(((bp + steps) / np.maximum(bp + bn + steps, 1e-12)).sum())
            least += float(((bp + steps) / np.maximum(bp + bn + n + steps, 1e-12)).sum())
    value = float(average_precision(table[None])[0])
    return float(max(most / positives.sum() - value, value - least / positives.sum(), 0.0))


def calibration_error(tables: Real, edges: Real) -> Real:
    """The expected calibration error: the sum over groups of bins of |sum of scores - positives|, by persons.

    No mean of a group is taken, so no group is too small for one. Scores are their bins' middles.
    """
    middle = (edges[1:] + edges[:-1]) / 2
    gaps = tables.sum(axis=1) * middle - tables[:, 1]
    starts = group_starts(len(middle))
    return np.asarray(np.abs(np.add.reduceat(gaps, starts, axis=1)).sum(axis=1) / tables.sum(axis=(1, 2)))


def group_starts(bins: int) -> NDArray[np.intp]:
    """Where each group of bins begins: `CALIBRATION_BINS` of nearly one size, or each bin if there are fewer."""
    count = min(bins, CALIBRATION_BINS)
    return (np.arange(count) * bins // count).astype(np.intp)


@dataclass(frozen=True, slots=True)
class Recalibration:
    """Platt's scaling: logit(p) = ``slope`` * logit(score) + ``intercept``; ``temperature`` alone is 1 / its slope
    without an intercept.
    """

    slope: float
    intercept: float
    temperature: float


def recalibration(table: Real, edges: Real) -> Recalibration | None:
    """The least log loss on a table's counts, shape (2, bins), each score its bin's middle; None if none is least.

    Newton's method on the logistic regression of labels on logits (Platt 1999), and of one factor alone (Guo et al.
    2017). Negative counts count as none.
    """
    counts = np.maximum(table, 0.0)
    middle = (edges[1:] + edges[:-1]) / 2
    logits = np.log(middle / (1 - middle))
    both = _logistic(np.stack([logits, np.ones_like(logits)], axis=1), counts)
    one = _logistic(logits[:, None], counts)
    if both is None or one is None or one[0] <= 0:
        return None
    return Recalibration(float(both[0]), float(both[1]), float(1 / one[0]))


def _logistic(columns: Real, counts: Real) -> Real | None:
    """Coefficients of a logistic regression on weighted rows, shape (columns,); None where it does not settle."""
    weights = np.zeros(columns.shape[1])
    total, positives = counts.sum(axis=0), counts[1]
    for _ in range(50):
        said = 1 / (1 + np.exp(-np.clip(columns @ weights, -30, 30)))
        slope = columns.T @ (positives - total * said)
        curve = (columns * (total * said * (1 - said))[:, None]).T @ columns
        try:
            step = np.linalg.solve(curve, slope)
        except np.linalg.LinAlgError:
            return None
        weights = weights + np.clip(step, -2, 2)
        if not np.all(np.isfinite(weights)) or np.abs(weights).max() > 1e3:
            return None
        if np.abs(step).max() < 1e-9:
            return np.asarray(weights)
    return None


@dataclass(frozen=True, slots=True)
class Conformal:
    """A split-conformal rule for two classes: a class is in the set where one minus its score is at most ``quantile``.

    The set holds the label of a new person of the same kind with probability ``coverage`` or more, as far as the noise
    at level ``level`` allows. ``abstain_from`` to ``abstain_to`` are the scores with both classes in the set or none:
    there the model should abstain. ``abstains`` is the share of persons whose score is there.
    """

    coverage: float
    level: float
    quantile: float
    abstain_from: float
    abstain_to: float
    abstains: float


def conformal(table: Real, samples: Real, edges: Real, *, coverage: float, level: float) -> Conformal | None:
    """The smallest quantile among the bins' ends that has its coverage in a share ``level`` of the plausible tables.

    A score s of label 1 has nonconformity 1 - s, of label 0 it has s (Sadinle, Lei and Wasserman 2019); the quantile is
    of rank ceil((n + 1) coverage) (Vovk et al. 2005), rounded up to the end of its bin.

    Args:
        table: released counts, shape (2, bins), edges from 0 to 1 and symmetric.
        samples: plausible exact ones, shape (draws, 2, bins).
        edges: of the bins.
        coverage: in (0, 1).
        level: in (0, 1).

    Returns:
        None if noise or numbers leave no bin that does.
    """
    by_score = samples[:, 0] + samples[:, 1, ::-1]
    persons = by_score.sum(axis=1)
    needed = np.ceil((persons + 1) * coverage)
    reached = (np.cumsum(by_score, axis=1) >= needed[:, None]).mean(axis=0)
    enough = np.flatnonzero(reached >= level)
    if not len(enough):
        return None
    quantile = float(edges[1:][enough[0]])
    low, high = sorted((1 - quantile, quantile))
    middle = (edges[1:] + edges[:-1]) / 2
    inside = table.sum(axis=0)[(middle >= low) & (middle <= high)].sum() / table.sum()
    return Conformal(coverage, level, quantile, low, high, float(np.clip(inside, 0.0, 1.0)))
