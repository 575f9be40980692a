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
class _Measure:
    """A function of stacked tables, shape (draws, ...), and the range of its values."""

    name: str
    of: Callable[[Real], Real]
    largest: float
    bin_error: Callable[[Real], float] = lambda _: 0.0
    smallest: float = 0.0


def evaluation_tables(evaluation: Evaluation) -> Tables:
    """What a study's evaluation counts, table by table in the contract's order."""
    return Tables(tuple(_table(name, evaluation) for name in evaluation.tables))


def _table(name: str, evaluation: Evaluation) -> Table:
    bins = evaluation.bins
    match name:
        case "score":
            return Table((labels(2), Axis(int(Source.SCORE), tuple(i / bins for i in range(bins + 1)))))
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
    drawn = tally.plausible(DRAWS)
    start = 0
    for table, released in zip(tally.tables.tables, tally.split, strict=True):
        samples = drawn[:, start : start + released.size].reshape(-1, *released.shape).astype(np.float64)
        start += released.size
        for measure in _measures(table):
            if measure.name not in found:
                found[measure.name] = _estimate(measure, released.astype(np.float64), samples)
    return found


def _estimate(measure: _Measure, released: Real, samples: Real) -> Estimate:
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(measure.of(released[None])[0])
        interval = quantiles(measure.of(samples), LEVEL)
    error = measure.bin_error(np.maximum(released, 0.0))
    if not np.isfinite(value):
        return Estimate(None, None, None, error)
    low, high = interval or (measure.smallest, measure.largest)
    value, low, high = (float(np.clip(v, measure.smallest, measure.largest)) for v in (value, low, high))
    return Estimate(value, low, high, error)


def _measures(table: Table) -> tuple[_Measure, ...]:
    source = Source(table.axes[-1].source)
    if source is Source.SCORE:
        edges = np.asarray(table.axes[-1].edges)
        middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        # A score in a bin that ends at a half or below says class 0.
        says_one = edges[:-1] >= 0.5
        straddled = (edges[:-1] < 0.5) & (edges[1:] > 0.5)
        return (
            _PERSONS,
            _Measure("accuracy", lambda t: _right_share(t, says_one), 1.0, lambda t: _share(t.sum(axis=0), straddled)),
            _Measure("auc", _auc, 1.0, _auc_error),
            _Measure("brier", lambda t: _brier(t, middle), 1.0, lambda t: _share_of(t.sum(axis=0), width)),
            _Measure("calibration_gap", lambda t: _gap(t, middle), 1.0, lambda _: float(width.max()) / 2, -1.0),
        )
    if source is Source.LOSS:
        edges = np.asarray(table.axes[-1].edges)
        middle, half = (edges[1:] + edges[:-1]) / 2, float(np.diff(edges).max()) / 2
        low, high = float(edges[0]), float(edges[-1])
        return _PERSONS, _Measure("loss", lambda t: (t @ middle) / t.sum(axis=1), high, lambda _: half, low)
    # Right or not, by class.
    by_class = tuple(_recall(i) for i in range(table.shape[1]))
    return _PERSONS, _Measure("accuracy", lambda t: t[:, 1].sum(axis=1) / t.sum(axis=(1, 2)), 1.0), *by_class


_PERSONS = _Measure(PERSONS, lambda t: t.reshape(len(t), -1).sum(axis=1), float("inf"))


def _recall(label: int) -> _Measure:
    return _Measure(f"recall_{label}", lambda t: t[:, 1, label] / t[:, :, label].sum(axis=1), 1.0)


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
