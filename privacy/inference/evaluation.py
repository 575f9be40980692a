"""From one private release about a model to its metrics: a score x label histogram gives them all.

Accuracy, AUC, Brier score and calibration in the large are functions of that table (Cormode and Markov 2023 release it
under differential privacy), so they cost nothing beyond it. Each comes with the interval that the noise leaves open for
the exact value *on the same persons*: it says nothing of how other persons would score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.counts import Axis, Real, Source, Table, Tables, codes, labels
from fedseal.privacy.inference.scores import average_precision, average_precision_error, calibration_error, rate
from fedseal.privacy.inference.tally import Tally, quantiles
from fedseal.study import Evaluation

LEVEL = 0.95
DRAWS = 2000
PERSONS = "persons"
Chosen = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of a private release.

    ``low`` and ``high`` are its 95 % noise interval; ``bin_error`` bounds how far the number of the exact counts can be
    from that without bins. ``value`` is None where the noise leaves nothing, and so may be the interval.
    """

    value: float | None
    low: float | None
    high: float | None
    bin_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Measure:
    """A function of stacked tables, shape (draws, ...), and the range of its values.

    ``biased`` is one that noise pushes up, as a sum of distances: it is corrected for that.
    """

    name: str
    of: Callable[[Real], Real]
    largest: float
    bin_error: Callable[[Real], float] = lambda _: 0.0
    smallest: float = 0.0
    biased: bool = False


def evaluation_tables(evaluation: Evaluation) -> Tables:
    """What a study's evaluation counts, table by table in the contract's order."""
    return Tables(tuple(_table(name, evaluation) for name in evaluation.tables))


def _table(name: str, evaluation: Evaluation) -> Table:
    bins = evaluation.bin_count
    match name:
        case "score":
            by_label = labels(2), Axis(int(Source.SCORE), tuple(i / bins for i in range(bins + 1)))
            if evaluation.subgroup is None:
                return Table(by_label)
            # A person is in one group, so in one cell still.
            return Table((codes(Source.COLUMN, len(evaluation.groups), name=evaluation.subgroup), *by_label))
        case "right":
            return Table((codes(Source.RIGHT, 2), labels(evaluation.classes)))
        case _:
            edges = np.linspace(evaluation.low, evaluation.high, bins + 1)
            return Table((Axis(int(Source.LOSS), tuple(float(e) for e in edges)),))


def estimates(tally: Tally) -> dict[str, Estimate]:
    """The metrics of an evaluation's tables, and the number of persons.

    A name that two tables give, as accuracy by scores and by classes, is taken from the first.
    """
    found: dict[str, Estimate] = {}
    for table, released, samples in tally.drawn(DRAWS):
        everyone = _together(table, released, samples)
        for measure in _measures(table):
            if measure.name not in found:
                found[measure.name] = estimate(measure, *everyone)
    return found


def _together(table: Table, released: Real, samples: Real) -> tuple[Real, Real]:
    """Of a score table by groups that of all persons: the sum over groups, and of their noise."""
    if Source(table.axes[0].source) is not Source.COLUMN:
        return released, samples
    return released.sum(axis=0), samples.sum(axis=1)


def estimate(measure: Measure, released: Real, samples: Real) -> Estimate:
    """A measure of a released table, and of exact ones that may be behind it, shape (draws, ...)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(measure.of(released[None])[0])
        drawn = measure.of(samples)
    known = drawn[np.isfinite(drawn)]
    if measure.biased and np.isfinite(value) and len(known) > 1:
        # Noise adds distances, never takes them: what redrawn noise adds once more is taken away twice from redrawn
        # tables and once from the released one.
        added = float(known.mean()) - value
        value, drawn = value - added, drawn - 2 * added
    interval = quantiles(drawn, LEVEL)
    error = measure.bin_error(np.maximum(released, 0.0))
    if not np.isfinite(value):
        return Estimate(None, None, None, error)
    low, high = interval or (measure.smallest, measure.largest)
    value, low, high = (float(np.clip(v, measure.smallest, measure.largest)) for v in (value, low, high))
    return Estimate(value, low, high, error)


def _measures(table: Table) -> tuple[Measure, ...]:
    source = Source(table.axes[-1].source)
    if source is Source.SCORE:
        return score_measures(np.asarray(table.axes[-1].edges))
    if source is Source.LOSS:
        edges = np.asarray(table.axes[-1].edges)
        middle, half = (edges[1:] + edges[:-1]) / 2, float(np.diff(edges).max()) / 2
        low, high = float(edges[0]), float(edges[-1])
        return _PERSONS, Measure("loss", lambda t: (t @ middle) / t.sum(axis=1), high, lambda _: half, low)
    # Right or not, by class.
    by_class = tuple(_recall(i) for i in range(table.shape[1]))
    return _PERSONS, Measure("accuracy", lambda t: t[:, 1].sum(axis=1) / t.sum(axis=(1, 2)), 1.0), *by_class


def score_measures(edges: Real) -> tuple[Measure, ...]:
    """The measures of a table of two labels by scores."""
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    # A score in a bin that ends at a half or below says class 0.
    says_one = edges[:-1] >= 0.5
    straddled = (edges[:-1] < 0.5) & (edges[1:] > 0.5)
    halves = float(width.max()) / 2
    return (
        _PERSONS,
        Measure("accuracy", lambda t: _right_share(t, says_one), 1.0, lambda t: _share(t.sum(axis=0), straddled)),
        Measure("auc", _auc, 1.0, _auc_error),
        Measure("average_precision", average_precision, 1.0, average_precision_error),
        Measure("brier", lambda t: _brier(t, middle), 1.0, lambda t: _share_of(t.sum(axis=0), width)),
        Measure("calibration_error", lambda t: calibration_error(t, edges), 1.0, lambda _: halves, biased=True),
        Measure("calibration_gap", lambda t: _gap(t, middle), 1.0, lambda _: halves, -1.0),
        Measure("selection_rate", lambda t: rate(t.sum(axis=1), says_one), 1.0, lambda t: _share(t.sum(0), straddled)),
        Measure("tpr", lambda t: rate(t[:, 1], says_one), 1.0, lambda t: _share(t[1], straddled)),
        Measure("fpr", lambda t: rate(t[:, 0], says_one), 1.0, lambda t: _share(t[0], straddled)),
    )


_PERSONS = Measure(PERSONS, lambda t: t.reshape(len(t), -1).sum(axis=1), float("inf"))


def _recall(label: int) -> Measure:
    return Measure(f"recall_{label}", lambda t: t[:, 1, label] / t[:, :, label].sum(axis=1), 1.0)


def _right_share(tables: Real, says_one: Chosen) -> Real:
    right = tables[:, 0, ~says_one].sum(axis=1) + tables[:, 1, says_one].sum(axis=1)
    return np.asarray(right / tables.sum(axis=(1, 2)))


def _auc(tables: Real) -> Real:
    """Persons of different label in one bin count half. Counts stay as they are, negative ones too: products of
    independent cells are unbiased, sums of clipped ones are not.
    """
    negatives, positives = tables[:, 0], tables[:, 1]
    below = np.cumsum(negatives, axis=1) - negatives
    n, p = negatives.sum(axis=1), positives.sum(axis=1)
    found = (positives * (below + negatives / 2)).sum(axis=1) / (n * p)
    return np.where((n > 0) & (p > 0), found, np.nan)


def _auc_error(table: Real) -> float:
    pairs = float(table[0].sum() * table[1].sum())
    return float((table[0] * table[1]).sum() / (2 * pairs)) if pairs else 0.0


def _brier(tables: Real, middle: Real) -> Real:
    squares = tables[:, 0] @ middle**2 + tables[:, 1] @ (1 - middle) ** 2
    return np.asarray(squares / tables.sum(axis=(1, 2)))


def _gap(tables: Real, middle: Real) -> Real:
    """The mean score minus the share of class 1. A sum of distances bin by bin would be pushed up by noise."""
    whole = tables.sum(axis=(1, 2))
    return np.asarray((tables.sum(axis=1) @ middle - tables[:, 1].sum(axis=1)) / whole)


def _share(counts: Real, chosen: Chosen) -> float:
    return float(counts[chosen].sum() / counts.sum()) if counts.sum() > 0 else 0.0


def _share_of(counts: Real, width: Real) -> float:
    # |(s - y)^2 - (c - y)^2| <= |s - c| |s + c - 2 y| <= half a bin's width times 2.
    return float(counts @ width / counts.sum()) if counts.sum() > 0 else 0.0


def by_name(found: Mapping[str, Estimate]) -> dict[str, float | None]:
    """The values alone."""
    return {name: estimate.value for name, estimate in found.items()}
