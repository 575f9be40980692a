"""Agreement over the whole federation, from one table of counts summed over sites. Pure.

A site's own coefficient never leaves it. What can leave, inside a sealed sum and under plan `histogram`, are counts of
a fixed public layout: each item with at least two annotations adds one to one cell, that of the labels in one pair of
its annotations drawn at random, and each person's items to at most ``per_person`` cells. Whether a person is in the
data so changes at most so many counts, by one each. From the sum anyone can compute the coefficients of
`coefficients`, as if every item had two annotations:

* annotators of one site are others than those of the next, so pairs have no order, and Fleiss' kappa (Scott's pi) and
  Krippendorff's alpha apply;
* where two *roles* are the same at all sites (annotator and reviewer, model and reader), the layout is ordered and
  Cohen's kappa applies too.

Noise of mean zero in the cells does not stay of mean zero in products of them. Both disagreements are quadratic forms
x'Qx in the cells x; independent noise of variance v adds v tr(Q), which is known and is taken off again. At level
ordinal the distances come from the noisy table itself and are taken as given; ratios keep a bias of second order.

The interval is by the delta method: the gradient g of the coefficient at the table, with the multinomial variance of
the counts and the noise's, g' (diag(x) + v I) g - (g'x)^2 / n. It takes items as independent: with several items a
person it is too narrow.
"""

import math
from dataclasses import dataclass

import numpy as np

from fedseal.compliance.labels.agreement import Agreement
from fedseal.compliance.labels.coefficients import Coefficient, coefficient_of, distances, level_of
from fedseal.compliance.labels.scale import Codes, Floats, Ratings, Scale
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.randomness import Stream

MOST_CLASSES = 32
_NORMAL_975 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class PairLayout:
    """The cells of the table, in public order.

    Ordered: row by row. Not ordered: the upper triangle with the diagonal, row by row.
    """

    classes: int
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MOST_CLASSES:
            raise ConfigError(f"a table of pairs is over 2 to {MOST_CLASSES} labels")

    @property
    def cells(self) -> int:
        """How many counts there are."""
        return self.classes**2 if self.ordered else self.classes * (self.classes + 1) // 2

    def places(self, first: Codes, second: Codes) -> Codes:
        """The cells of pairs of labels; both of shape (pairs,)."""
        if self.ordered:
            return np.asarray(first * self.classes + second)
        low, high = np.minimum(first, second), np.maximum(first, second)
        return np.asarray(low * self.classes - low * (low - 1) // 2 + high - low)

    def unfold(self, counts: Floats) -> Floats:
        """Tables (..., classes, classes) from counts (..., cells); not ordered, each pair counts both ways."""
        row, column = np.triu_indices(self.classes)
        if self.ordered:
            return counts.reshape(*counts.shape[:-1], self.classes, self.classes)
        tables = np.zeros((*counts.shape[:-1], self.classes, self.classes))
        tables[..., row, column] += counts
        tables[..., column, row] += counts
        return tables


@dataclass(frozen=True, slots=True)
class CountNoise:
    """Two-sided geometric noise in every cell of a sum (`privacy.polya`).

    Args:
        epsilon: what one release costs a person.
        per_person: how many cells one person may add one to.
        surplus: sites whose shares are in the sum, over those the plan counts on; the noise is that much larger.
    """

    epsilon: float
    per_person: int = 1
    surplus: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.epsilon < math.inf and self.per_person >= 1 and 1 <= self.surplus < math.inf):
            raise ConfigError("noise needs a finite epsilon above 0, at least one cell a person, and a surplus from 1")

    @property
    def variance(self) -> float:
        """2 q / (1 - q)^2 with q = exp(-epsilon / per_person), times the surplus."""
        decay = self.epsilon / self.per_person
        return 2 * math.exp(-decay) / math.expm1(-decay) ** 2 * self.surplus


def pair_counts(
    ratings: Ratings, layout: PairLayout, stream: Stream, *, persons: Codes | None = None, per_person: int = 1
) -> Codes:
    """A site's counts, of shape (cells,): what it may add to a sealed sum.

    Args:
        ratings: who gave which label. For an ordered layout rater 0 has the first role and rater 1 the second.
        layout: the public layout.
        stream: where the draw of pairs and of a person's items comes from.
        persons: shape (items,): whose item it is, from 0; every item its own person if not given.
        per_person: how many items of a person count.

    Raises:
        ConfigError: the layout is over another number of labels, or is ordered and there are not two raters.
    """
    if layout.classes != len(ratings.scale) or (layout.ordered and ratings.n_raters != 2) or per_person < 1:
        raise ConfigError("the layout of the pairs is not that of these labels, or their raters have no two roles")
    shuffled = stream.permutation(len(ratings.items))
    by_rater = shuffled[np.argsort(ratings.raters[shuffled], kind="stable")] if layout.ordered else shuffled
    order = by_rater[np.argsort(ratings.items[by_rater], kind="stable")]
    items, codes = ratings.items[order], ratings.codes[order]
    rank = _rank_in_group(items)
    first, second = np.flatnonzero(rank == 0), np.flatnonzero(rank == 1)
    first = first[np.isin(items[first], items[second], assume_unique=True)]
    paired = items[first]
    places = layout.places(codes[first], codes[second])
    if persons is not None:
        mixed = stream.permutation(len(paired))
        mixed = mixed[np.argsort(persons[paired[mixed]], kind="stable")]
        places = places[mixed[_rank_in_group(persons[paired[mixed]]) < per_person]]
    return np.bincount(places, minlength=layout.cells).astype(np.int64)


def federated_agreement(
    counts: Codes, layout: PairLayout, coefficient: Coefficient, scale: Scale, noise: CountNoise | None = None
) -> Agreement:
    """A coefficient with its interval from counts summed over sites.

    Args:
        counts: shape (cells,), the sum; with noise also below zero.
        layout: the public layout.
        coefficient: Cohen's needs an ordered layout, the others one that is not.
        scale: the labels.
        noise: what is in the sum besides the counts.

    Raises:
        ConfigError: coefficient and layout do not fit.
        DataError: the noise leaves nothing to say, or all labels are the same.
    """
    if coefficient.ordered is not layout.ordered or layout.classes != len(scale) or counts.shape != (layout.cells,):
        raise ConfigError(f"{coefficient} is not of such a table")
    cells, variance = counts.astype(np.float64), 0.0 if noise is None else noise.variance
    total = float(cells.sum())
    observed, expected = disagreements(cells, layout, coefficient, scale, variance)
    if total < 2 or expected <= 0:
        raise DataError(
            "the table does not tell how well annotators agree: too few pairs for this noise, or one label only",
            next_step="Have more items labelled twice, or spend a larger epsilon on the table.",
        )
    value = 1 - observed / expected
    # Central differences; a step of one is small beside any table that says something.
    steps = np.eye(layout.cells)
    ahead, behind = (
        coefficient_of(coefficient, scale, layout.unfold(np.maximum(cells, 0.0) + s * 0.5 * steps)) for s in (1, -1)
    )
    slope = np.nan_to_num(ahead - behind)
    spread = float(slope**2 @ (np.maximum(cells, 0.0) + variance) - (slope @ cells) ** 2 / total)
    error = _NORMAL_975 * math.sqrt(max(spread, 0.0))
    low, high = max(value - error, -1.0), min(value + error, 1.0)
    return Agreement(coefficient, level_of(coefficient, scale), value, low, high, round(total))


def disagreements(
    cells: Floats, layout: PairLayout, coefficient: Coefficient, scale: Scale, variance: float
) -> tuple[float, float]:
    """Observed and expected disagreement of a coefficient, before they are divided; with what noise of this variance
    adds to them on average taken off.

    Args:
        cells: shape (cells,), counts with noise in them.
        layout: their layout.
        coefficient: which one.
        scale: the labels.
        variance: the noise's, in each cell; 0 without noise.
    """
    table = layout.unfold(cells)
    apart = distances(coefficient, scale, table)
    # What one more count in each cell adds: to all entries, to the disagreement, to rows and to columns.
    unit = layout.unfold(np.eye(layout.cells))
    entries, disagreement = unit.sum(axis=(1, 2)), (unit * apart).sum(axis=(1, 2))
    rows, columns = unit.sum(axis=2), unit.sum(axis=1)
    observed = float((entries @ cells - coefficient.correction) * (disagreement @ cells))
    expected = float(rows.T @ cells @ apart @ (columns.T @ cells))
    observed -= variance * float(entries @ disagreement)
    expected -= variance * float(np.sum(apart * (rows.T @ columns)))
    return observed, expected


def _rank_in_group(groups: Codes) -> Codes:
    """For groups that stand together: the place of each entry within its own, from 0."""
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]]) if len(groups) else np.zeros(0, dtype=np.int64)
    return np.arange(len(groups)) - np.repeat(starts, np.diff(np.r_[starts, len(groups)]))
