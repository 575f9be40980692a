"""How good labels are: against a gold set, and where there is none, by Dawid and Skene's model.

Accuracies of single annotators are how a site looks after its people. They stay at the site; only aggregates over all
annotators become facts of a label set, and those only in the site's own log.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy.stats import binomtest

from fedseal.compliance.labels.agreement import TAIL
from fedseal.compliance.labels.consensus import Consensus
from fedseal.compliance.labels.dawid_skene import DawidSkene, fit_dawid_skene
from fedseal.compliance.labels.scale import MISSING, Codes, Floats, Ratings
from fedseal.errors import DataError

RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class Share:
    """A share of ``n`` items or annotations with its 95 % interval. Not a number, between 0 and 1, if ``n`` is 0."""

    value: float
    low: float
    high: float
    n: int


class NoiseMethod(StrEnum):
    """What an estimate of label noise rests on."""

    GOLD = "gold"
    DAWID_SKENE = "dawid-skene"


@dataclass(frozen=True, slots=True)
class Noise:
    """The share of a set's labels that are wrong, with its 95 % interval."""

    method: NoiseMethod
    estimate: float
    low: float
    high: float


def wilson(right: int, n: int) -> Share:
    """A share with Wilson's interval (1927), from scipy."""
    if not n:
        return Share(float("nan"), 0.0, 1.0, 0)
    found = binomtest(right, n).proportion_ci(method="wilson")
    return Share(right / n, float(found.low), float(found.high), n)


def annotators_on_gold(ratings: Ratings, gold: Codes) -> list[Share]:
    """Each annotator's share of right labels on gold items, in the order of their numbers. For the site only.

    Args:
        ratings: who gave which label.
        gold: shape (items,): the true label's place, -1 where it is not known.
    """
    known = gold[ratings.items] != MISSING
    right = known & (gold[ratings.items] == ratings.codes)
    n = np.bincount(ratings.raters[known], minlength=ratings.n_raters)
    hits = np.bincount(ratings.raters[right], minlength=ratings.n_raters)
    return [wilson(int(h), int(m)) for h, m in zip(hits, n, strict=True)]


def set_on_gold(consensus: Consensus, gold: Codes) -> Share:
    """The share of right labels of a label set on those gold items that it decides."""
    known = (gold != MISSING) & (consensus.labels != MISSING)
    return wilson(int(np.sum(consensus.labels[known] == gold[known])), int(known.sum()))


def noise_from_gold(consensus: Consensus, gold: Codes) -> Noise:
    """One minus the set's accuracy on gold items, with Wilson's interval.

    It holds for the set if the gold items were drawn from it at random.

    Raises:
        DataError: no gold item has a label.
    """
    found = set_on_gold(consensus, gold)
    if not found.n:
        raise DataError("no gold item has a label in this set")
    return Noise(NoiseMethod.GOLD, 1 - found.value, 1 - found.high, 1 - found.low)


def noise_from_model(
    ratings: Ratings, consensus: Consensus, rng: np.random.Generator, resamples: int = RESAMPLES
) -> Noise:
    """The mean posterior probability, under Dawid and Skene's model, that a decided item's label is not the true one.

    The interval is for the share that is wrong in this very set: each resample of items fits the model again, from
    where it stood (what is not known of the annotators), and then tosses a coin for every item with its probability of
    being wrong (what is not known of the item). It is as good as the model: annotators who err together look right.

    Args:
        ratings: who gave which label.
        consensus: the labels that are judged, however they were decided.
        rng: a seeded generator for the interval.
        resamples: how many resamples.

    Raises:
        DataError: nothing is decided, or no item has two annotations: then the model knows nothing of errors.
    """
    if not consensus.decided or not ratings.multiple():
        raise DataError("without items that several annotators labelled, noise needs a gold set")
    # The model sees no difference between items that were labelled alike, so each kind is computed once.
    grouped, sizes, labels = ratings.groups(consensus.labels)
    decided = np.flatnonzero(labels != MISSING)

    def doubts(found: DawidSkene) -> Floats:
        return np.asarray(1 - found.posterior[decided, labels[decided]]).clip(0.0, 1.0)

    counts, total = sizes.astype(np.float64), int(sizes[decided].sum())
    stood = fit_dawid_skene(grouped, weights=counts)
    estimates = []
    for _ in range(resamples):
        weights = rng.multinomial(ratings.n_items, counts / counts.sum()).astype(np.float64)
        again = fit_dawid_skene(grouped, weights=weights, start=stood.posterior, tolerance=1e-6, most_iterations=100)
        estimates.append(rng.binomial(sizes[decided], doubts(again)).sum() / total)
    low, high = np.quantile(estimates, [TAIL, 1 - TAIL])
    return Noise(NoiseMethod.DAWID_SKENE, float(doubts(stood) @ sizes[decided]) / total, float(low), float(high))
