"""A model card from one private release: the score x label x subgroup histogram, and what follows from it.

Reliability, rates at every threshold, subgroups and their gaps, a conformal threshold and a recalibration, each with
the interval that the noise leaves open. All of it is a function of released counts, so it costs nothing beyond them.
A group with few persons is hidden, and never alone: what is hidden could otherwise be had by subtraction.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.counts import Real, Source
from fedseal.privacy.inference.evaluation import (
    DRAWS,
    LEVEL,
    PERSONS,
    Estimate,
    Measure,
    estimate,
    score_measures,
)
from fedseal.privacy.inference.scores import (
    Conformal,
    Recalibration,
    conformal,
    group_starts,
    rate,
    recalibration,
)
from fedseal.privacy.inference.tally import Tally
from fedseal.study import Evaluation

# Below so many deviations of its noise a number of persons says nothing.
DEVIATIONS = 3.0
GROUP_MEASURES = (PERSONS, "accuracy", "auc", "calibration_gap", "selection_rate", "tpr", "fpr")


@dataclass(frozen=True, slots=True)
class Reliability:
    """Persons with scores from ``low`` to ``high``: their mean score, by bins' middles, and the share of class 1."""

    low: float
    high: float
    persons: Estimate
    score: Estimate
    positives: Estimate


@dataclass(frozen=True, slots=True)
class Threshold:
    """What happens if every score of at least ``score`` says class 1."""

    score: float
    selection_rate: Estimate
    tpr: Estimate
    fpr: Estimate


@dataclass(frozen=True, slots=True)
class Group:
    """One subgroup; ``estimates`` is empty where it is ``hidden``."""

    name: str
    hidden: bool
    estimates: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Subgroups:
    """All values of one attribute. A group below ``smallest`` persons is hidden, and never a single one.

    ``gaps`` are those between the groups that are shown: ``demographic_parity`` the largest difference of selection
    rates, ``equalised_odds`` the larger one of those of tpr and of fpr, ``auc`` and ``accuracy`` of these.
    """

    attribute: str
    smallest: int
    groups: tuple[Group, ...]
    gaps: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Card:
    """What one release says about a model beyond single figures. ``persons`` of all groups."""

    reliability: tuple[Reliability, ...]
    thresholds: tuple[Threshold, ...]
    conformal: Conformal | None
    recalibration: Recalibration | None
    subgroups: Subgroups | None


@dataclass(frozen=True, slots=True)
class _Scores:
    """A score table, released and plausible: shapes (groups, 2, bins) and (draws, groups, 2, bins)."""

    edges: Real
    released: Real
    samples: Real
    deviation: float

    @property
    def whole(self) -> tuple[Real, Real]:
        """All groups together."""
        return self.released.sum(axis=0), self.samples.sum(axis=1)


def model_card(tally: Tally, evaluation: Evaluation) -> Card | None:
    """The card of a tally; None if it has no table of scores.

    Args:
        tally: what was released.
        evaluation: what was asked for: names of groups, their least size, the coverage.
    """
    scores = _scores(tally)
    if scores is None:
        return None
    released, samples = scores.whole
    return Card(
        _reliability(scores),
        _thresholds(scores),
        conformal(released, samples, scores.edges, coverage=evaluation.coverage, level=LEVEL),
        recalibration(released, scores.edges),
        None if evaluation.subgroup is None else _subgroups(scores, evaluation),
    )


def _scores(tally: Tally) -> _Scores | None:
    for table, released, samples in tally.drawn(DRAWS):
        if Source(table.axes[-1].source) is Source.SCORE:
            # A table without groups is one of a single group.
            shape = (-1, *table.shape[-2:])
            deviation = 0.0 if tally.noise is None else math.sqrt(tally.noise.variance)
            edges = np.asarray(table.axes[-1].edges)
            return _Scores(edges, released.reshape(shape), samples.reshape(len(samples), *shape), deviation)
    return None


def _reliability(scores: _Scores) -> tuple[Reliability, ...]:
    released, samples = scores.whole
    edges = scores.edges
    starts = [int(s) for s in group_starts(len(edges) - 1)]
    rows = []
    for first, end in zip(starts, [*starts[1:], len(edges) - 1], strict=True):
        inside = slice(first, end)
        middle = (edges[first + 1 : end + 1] + edges[first:end]) / 2
        low, high = float(edges[first]), float(edges[end])
        measures = _of_a_tenth(middle, low, high)
        found = [estimate(m, released[:, inside], samples[:, :, inside]) for m in measures]
        if found[0].value is not None and found[0].value <= DEVIATIONS * _deviation_of(scores, 2 * (end - first)):
            # So few that noise may be all there is: a share of them would be a share of noise.
            found[1:] = [Estimate(None, None, None)] * 2
        rows.append(Reliability(low, high, *found))
    return tuple(rows)


def _of_a_tenth(middle: Real, low: float, high: float) -> tuple[Measure, ...]:
    """Persons, mean score and share of class 1 of some bins; tables of shape (draws, 2, bins)."""

    def score(tables: Real) -> Real:
        return np.asarray((tables.sum(axis=1) @ middle) / tables.sum(axis=(1, 2)))

    return (
        Measure(PERSONS, lambda t: t.sum(axis=(1, 2)), math.inf),
        Measure("score", score, high, smallest=low),
        Measure("positives", lambda t: t[:, 1].sum(axis=1) / t.sum(axis=(1, 2)), 1.0),
    )


def _deviation_of(scores: _Scores, cells: int) -> float:
    """Of the noise in a sum over so many cells of each group."""
    return scores.deviation * math.sqrt(cells * len(scores.released))


def _thresholds(scores: _Scores) -> tuple[Threshold, ...]:
    released, samples = scores.whole
    found = []
    for score in scores.edges[1:-1]:
        rates = _rates(scores.edges[:-1] >= score)
        found.append(Threshold(float(score), *(estimate(m, released, samples) for m in rates)))
    return tuple(found)


def _rates(says_one: NDArray[np.bool_]) -> tuple[Measure, ...]:
    """Of all, of class 1 and of class 0 the share with a score of these bins."""
    return (
        Measure("selection_rate", lambda t: rate(t.sum(axis=1), says_one), 1.0),
        Measure("tpr", lambda t: rate(t[:, 1], says_one), 1.0),
        Measure("fpr", lambda t: rate(t[:, 0], says_one), 1.0),
    )


def _subgroups(scores: _Scores, evaluation: Evaluation) -> Subgroups:
    cells = scores.released[0].size
    smallest = max(evaluation.smallest_group, math.ceil(DEVIATIONS * scores.deviation * math.sqrt(cells)))
    hidden = suppressed(scores.released.sum(axis=(1, 2)), smallest)
    measures = [m for m in score_measures(scores.edges) if m.name in GROUP_MEASURES]
    groups = []
    for place, name in enumerate(evaluation.groups):
        released, samples = scores.released[place], scores.samples[:, place]
        known = {} if hidden[place] else {m.name: estimate(m, released, samples) for m in measures}
        groups.append(Group(name, bool(hidden[place]), known))
    shown = ~hidden
    gaps = {name: estimate(m, scores.released[shown], scores.samples[:, shown]) for name, m in _gaps(scores.edges)}
    attribute = evaluation.subgroup or ""
    return Subgroups(attribute, smallest, tuple(groups), gaps if shown.sum() > 1 else {})


def suppressed(persons: Real, smallest: int) -> NDArray[np.bool_]:
    """Which groups are hidden: those of fewer than ``smallest`` persons, and more until what the total tells of all
    hidden ones together is neither a single group's number nor below ``smallest``.

    Args:
        persons: by group, as released.
        smallest: the least number of persons that is shown.
    """
    hidden = persons < smallest
    for place in np.argsort(persons, kind="stable"):
        if not hidden.any() or (hidden.sum() > 1 and persons[hidden].sum() >= smallest):
            break
        hidden[place] = True
    return hidden


def _gaps(edges: Real) -> list[tuple[str, Measure]]:
    """Differences between groups of stacked tables, shape (draws, groups, 2, bins). Noise pushes the largest one up."""
    one = {m.name: m for m in score_measures(edges)}

    def by_group(name: str, tables: Real) -> Real:
        flat = tables.reshape(-1, *tables.shape[-2:])
        return np.asarray(np.ptp(one[name].of(flat).reshape(tables.shape[:2]), axis=1))

    def gap(*names: str) -> Measure:
        return Measure(names[0], lambda t: np.max([by_group(n, t) for n in names], axis=0), 1.0, biased=True)

    return [
        ("demographic_parity", gap("selection_rate")),
        ("equalised_odds", gap("tpr", "fpr")),
        ("accuracy", gap("accuracy")),
        ("auc", gap("auc")),
    ]
