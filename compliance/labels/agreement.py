"""How well a site's annotators agree: a coefficient, its 95 % interval, and what the literature calls it.

The interval is the percentile bootstrap over items (Efron and Tibshirani 1993, chapter 13): items, not annotations,
are drawn again, as the annotations of one item belong together. Only how often each combination of labels occurs
matters to a coefficient, so a resample is one draw from a multinomial distribution over the combinations that
occurred. The generator is seeded: this is analysis of what is there, and protects nobody.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedseal.compliance.labels.coefficients import Coefficient, coefficient_of, coincidences, level_of
from fedseal.compliance.labels.scale import Codes, Floats, Level, Ratings
from fedseal.errors import DataError

RESAMPLES = 2000
TAIL = 0.025
# A resample without any variation has no coefficient. If more than these have none, an interval would be a guess.
MOST_UNDEFINED = 0.1


class Verdict(StrEnum):
    """Koo and Li (2016) for intraclass correlations, which a quadratically weighted kappa is (Fleiss and Cohen 1973);
    .75 is also where Fleiss (1981) begins to call kappa excellent.

    Good may be used, moderate with care (say how labels were decided, and train with their noise in mind), poor not.
    """

    GOOD = "good"
    MODERATE = "moderate"
    POOR = "poor"


def verdict(value: float) -> Verdict:
    """From .75 on good, from .5 on moderate, below poor."""
    return Verdict.GOOD if value >= 0.75 else Verdict.MODERATE if value >= 0.5 else Verdict.POOR


class Undefined(DataError):  # noqa: N818 - the coefficient is, not the program
    """Labels vary too little for any coefficient: nothing can be told from chance."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A coefficient with its 95 % interval. ``items`` is how many items it rests on."""

    coefficient: Coefficient
    level: Level
    value: float
    low: float
    high: float
    items: int

    @property
    def verdict(self) -> Verdict:
        """What the value is called."""
        return verdict(self.value)

    @property
    def settled(self) -> bool:
        """Whether both ends of the interval are called the same; Koo and Li judge by the interval."""
        return verdict(self.low) is verdict(self.high)


def agreement(
    ratings: Ratings, coefficient: Coefficient, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Agreement:
    """A coefficient over all items that have what it needs.

    Cohen's kappa needs two annotators and takes items that both labelled; Fleiss' takes items with at least two
    annotations, of which all have the same number; alpha takes all items with at least two annotations.

    Args:
        ratings: who gave which label.
        coefficient: which one.
        rng: a seeded generator for the interval.
        resamples: how many resamples the interval is from.

    Raises:
        Undefined: all labels are the same, or nearly so.
        DataError: the ratings are not what the coefficient needs, or nobody labelled an item twice.
    """
    of, weights = _function(ratings, coefficient)
    level, items = level_of(coefficient, ratings.scale), int(weights.sum())
    value = _defined(of(weights))
    drawn = rng.multinomial(items, weights / items, size=resamples).astype(np.float64)
    values = np.array([of(row) for row in drawn])
    defined = values[~np.isnan(values)]
    if len(defined) < (1 - MOST_UNDEFINED) * resamples:
        raise Undefined(
            "nearly all labels are the same: there are too few others for an interval",
            next_step="Have more items labelled twice.",
        )
    low, high = np.quantile(defined, [TAIL, 1 - TAIL])
    return Agreement(coefficient, level, value, float(low), float(high), items)


def value_of(ratings: Ratings, coefficient: Coefficient) -> float:
    """A coefficient without its interval; DataError as for `agreement`."""
    of, weights = _function(ratings, coefficient)
    return _defined(of(weights))


def _defined(value: float) -> float:
    if np.isnan(value):
        raise Undefined("all labels are the same, so agreement cannot be told from chance")
    return value


def _function(ratings: Ratings, coefficient: Coefficient) -> tuple[Callable[[Floats], float], Floats]:
    """The coefficient as a function of how many items there are of each combination of labels, and these numbers."""
    level_of(coefficient, ratings.scale)
    patterns, numbers = _pairs(ratings) if coefficient.ordered else _patterns(ratings)
    if coefficient is Coefficient.FLEISS and len(np.unique(patterns.sum(axis=1))) > 1:
        raise DataError(
            "Fleiss' kappa needs the same number of annotations for every item that has several",
            next_step="Use krippendorff-alpha, which does not.",
        )

    def of(weights: Floats) -> float:
        table = _square(weights, patterns, ratings) if coefficient.ordered else coincidences(patterns, weights)
        return float(coefficient_of(coefficient, ratings.scale, table))

    return of, numbers.astype(np.float64)


def _patterns(ratings: Ratings) -> tuple[Codes, Codes]:
    """How often an item was given each label, each combination once, with the number of items like that."""
    counts = ratings.counts()
    counts = counts[counts.sum(axis=1) >= 2]
    if not len(counts):
        raise DataError("no item has two annotations", next_step="Have some items labelled by a second annotator.")
    patterns, numbers = np.unique(counts, axis=0, return_counts=True)
    return patterns, numbers


def _pairs(ratings: Ratings) -> tuple[Codes, Codes]:
    """The cells (first label, second label) that occur, numbered row by row, and how many items are in each."""
    if ratings.n_raters != 2:
        raise DataError(
            f"Cohen's kappa is of two annotators; there are {ratings.n_raters}",
            next_step="Choose two annotators, or use krippendorff-alpha.",
        )
    given = np.full((ratings.n_items, 2), -1, dtype=np.int64)
    given[ratings.items, ratings.raters] = ratings.codes
    both = given[np.all(given >= 0, axis=1)]
    if not len(both):
        raise DataError("no item was labelled by both annotators")
    return np.unique(both[:, 0] * len(ratings.scale) + both[:, 1], return_counts=True)


def _square(weights: Floats, cells: Codes, ratings: Ratings) -> Floats:
    table = np.zeros(len(ratings.scale) ** 2)
    table[cells] = weights
    return table.reshape(len(ratings.scale), -1)
