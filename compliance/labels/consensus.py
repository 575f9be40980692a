"""One label an item from several annotations: by majority, by a reviewer, or by Dawid and Skene's model.

What cannot be decided is reported as undecided, never guessed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedseal.compliance.labels.dawid_skene import DawidSkene
from fedseal.compliance.labels.scale import MISSING, Codes, Ratings
from fedseal.errors import DataError

# Posteriors this close are a tie: far above rounding, far below anything that data of this kind could tell apart.
SAME = 1e-9


class Adjudication(StrEnum):
    """How the labels of a set were decided."""

    SINGLE = "single"
    MAJORITY = "majority"
    REVIEWER = "reviewer"
    DAWID_SKENE = "dawid-skene"


@dataclass(frozen=True, slots=True)
class Consensus:
    """The outcome.

    Args:
        method: how it came about.
        labels: shape (items,), places in the scale; -1 where nothing is decided.
        tied: shape (items,), whether it is undecided although there are annotations.
    """

    method: Adjudication
    labels: Codes
    tied: np.ndarray[tuple[int], np.dtype[np.bool_]]

    @property
    def decided(self) -> int:
        """How many items have a label."""
        return int(np.sum(self.labels != MISSING))


def single(ratings: Ratings) -> Consensus:
    """The one annotation each item has.

    Raises:
        DataError: an item has several.
    """
    if ratings.multiple():
        raise DataError(
            f"{ratings.multiple()} items have several annotations",
            next_step="Say how they are decided: majority, reviewer or dawid-skene.",
        )
    return _decide(Adjudication.SINGLE, ratings)


def majority(ratings: Ratings) -> Consensus:
    """The label most often given (a plurality, if none has more than half); a tie stays undecided."""
    return _decide(Adjudication.MAJORITY, ratings)


def _decide(method: Adjudication, ratings: Ratings) -> Consensus:
    counts = ratings.counts()
    most = counts.max(axis=1)
    tied = (np.sum(counts == most[:, None], axis=1) > 1) & (most > 0)
    return Consensus(method, np.where((most > 0) & ~tied, counts.argmax(axis=1), MISSING), tied)


def reviewer(ratings: Ratings, decisions: Mapping[int, int]) -> Consensus:
    """What all annotators of an item say, and where they differ, what the reviewer decided.

    A decision on an item that everybody agrees on counts too: whoever adjudicates may overrule. An item on which
    annotators differ and nothing was decided stays undecided.

    Args:
        ratings: who gave which label.
        decisions: item -> label, by their places.

    Raises:
        DataError: a decision on an item or for a label that does not exist.
    """
    counts = ratings.counts()
    given = counts > 0
    unanimous = given.sum(axis=1) == 1
    labels = np.where(unanimous, given.argmax(axis=1), MISSING)
    for item, label in decisions.items():
        if not (0 <= item < ratings.n_items and 0 <= label < len(ratings.scale)):
            raise DataError("a reviewer's decision on an item or for a label that is not there")
        labels[item] = label
    return Consensus(Adjudication.REVIEWER, labels, (labels == MISSING) & given.any(axis=1))


def by_model(fit: DawidSkene, ratings: Ratings) -> Consensus:
    """The most probable label of each item under a fitted model; equally probable ones are a tie."""
    labelled = np.bincount(ratings.items, minlength=ratings.n_items) > 0
    best = fit.posterior.max(axis=1)
    tied = (np.sum(fit.posterior >= best[:, None] - SAME, axis=1) > 1) & labelled
    labels = np.where(labelled & ~tied, fit.posterior.argmax(axis=1), MISSING)
    return Consensus(Adjudication.DAWID_SKENE, labels, tied)
