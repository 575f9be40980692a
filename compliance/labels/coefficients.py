"""Agreement beyond chance, as functions of a table labels x labels. Pure.

Every coefficient here is one minus observed over expected disagreement::

    1 - (n - a) sum_ck o_ck d_ck / sum_ck r_c s_k d_ck

over a table o of n entries with row and column sums r and s and a distance d between labels:

* Cohen's kappa (1960; weighted 1968): o counts items by the label of the first and of the second annotator, a = 0, d
  is 0 or 1, |c - k|, or (c - k)^2.
* Fleiss' kappa (1971): o counts ordered pairs of annotations of the same item, each item's pairs together weighing as
  many as it has annotations; a = 0, d is 0 or 1. With two annotations an item it is Scott's pi (1955).
* Krippendorff's alpha (2011, "Computing Krippendorff's alpha-reliability"): the same table, the coincidence matrix, of
  items with at least two annotations, however many; a = 1, d by the level of measurement.
"""

from enum import StrEnum

import numpy as np

from fedseal.compliance.labels.scale import Codes, Floats, Level, Scale
from fedseal.errors import DataError


class Coefficient(StrEnum):
    """Which coefficient of agreement."""

    COHEN = "cohen-kappa"
    COHEN_LINEAR = "cohen-kappa-linear"
    COHEN_QUADRATIC = "cohen-kappa-quadratic"
    FLEISS = "fleiss-kappa"
    ALPHA = "krippendorff-alpha"

    @property
    def ordered(self) -> bool:
        """Whether it matters which annotator gave which label."""
        return self in (Coefficient.COHEN, Coefficient.COHEN_LINEAR, Coefficient.COHEN_QUADRATIC)

    @property
    def correction(self) -> int:
        """The ``a`` above."""
        return int(self is Coefficient.ALPHA)


def level_of(coefficient: Coefficient, scale: Scale) -> Level:
    """The level at which a coefficient reads the labels: alpha that of the scale, others what they are made for.

    Raises:
        DataError: weights by rank for labels that have no order.
    """
    match coefficient:
        case Coefficient.ALPHA:
            return scale.level
        case Coefficient.COHEN_LINEAR | Coefficient.COHEN_QUADRATIC:
            if scale.level is Level.NOMINAL:
                raise DataError(
                    "a weighted kappa of labels that have no order",
                    next_step="Use cohen-kappa, or say in the label schema that the level is ordinal.",
                )
            return Level.ORDINAL
        case _:
            return Level.NOMINAL


def distances(coefficient: Coefficient, scale: Scale, tables: Floats) -> Floats:
    """The distances d of shape (..., labels, labels) for tables of that shape: alone at level ordinal they depend on
    the table.
    """
    level, ranks = level_of(coefficient, scale), np.arange(len(scale), dtype=np.float64)
    apart = ranks[:, None] - ranks
    if level is Level.NOMINAL:
        return np.asarray(apart != 0, dtype=np.float64)
    if coefficient is Coefficient.COHEN_LINEAR:
        return np.asarray(np.abs(apart))
    if coefficient is Coefficient.COHEN_QUADRATIC:
        return np.asarray(apart**2)
    values = np.asarray(scale.values, dtype=np.float64)
    if level is Level.ORDINAL:
        # (sum_{g=c..k} n_g - (n_c + n_k)/2)^2 is the squared difference of the mean ranks of c and k.
        sums = tables.sum(axis=-1)
        values = np.cumsum(sums, axis=-1) - sums / 2
    difference = values[..., :, None] - values[..., None, :]
    if level is Level.RATIO:
        together = values[:, None] + values
        difference = np.divide(difference, together, out=np.zeros_like(difference), where=together > 0)
    return np.asarray(difference**2)


def coefficient_of(coefficient: Coefficient, scale: Scale, tables: Floats) -> Floats:
    """The coefficient of each table: shape (..., labels, labels) to (...); nan where the labels do not vary."""
    apart = distances(coefficient, scale, tables)
    rows, columns = tables.sum(axis=-1), tables.sum(axis=-2)
    observed = (rows.sum(axis=-1) - coefficient.correction) * (tables * apart).sum(axis=(-2, -1))
    expected = np.einsum("...c,...ck,...k->...", rows, np.broadcast_to(apart, tables.shape), columns)
    ratio = np.divide(observed, expected, out=np.full(np.shape(expected), np.nan), where=np.asarray(expected > 0))
    return np.asarray(1.0 - ratio)


def coincidences(patterns: Codes, weights: Floats) -> Floats:
    """The coincidence matrix of items that were given labels so often, shape (labels, labels).

    Args:
        patterns: shape (patterns, labels): how often an item was given each label, at least two in all.
        weights: shape (patterns,): how many items are like that.
    """
    counts = patterns.astype(np.float64)
    share = weights / (counts.sum(axis=1) - 1)
    return np.asarray((counts * share[:, None]).T @ counts - np.diag(share @ counts))
