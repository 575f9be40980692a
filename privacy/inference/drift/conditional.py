"""What moved: what a score means, or only who is scored? Tests of one variable given another.

The cells are a score x label table: label 0 over all score bins, then label 1. A covariate shift moves scores but not
the label *given* the score; a label shift moves labels but not the score *given* the label; a concept drift moves
both. Each question is a set of contrasts over the cells of a `Difference`, so it is answered with noise, over two
samples or over strata, as the smooth test is.
"""

from dataclasses import replace

import numpy as np

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.contrasts import ORDER, Real, middles, normal_scores
from fedseal.privacy.inference.drift.difference import Difference, floored, sampling_covariance
from fedseal.privacy.inference.drift.results import Method, TestResult
from fedseal.privacy.inference.drift.smooth import contrast_test


def label_given_score(difference: Difference, *, alpha: float) -> TestResult:
    """Is a score worth what it was? Calibration in the large and its slope; 2 degrees of freedom."""
    return contrast_test(*label_given_score_question(difference), Method.CONDITIONAL, alpha)


def score_given_label(difference: Difference, *, alpha: float) -> TestResult:
    """Are the persons of each label scored as they were? Four contrasts for each label; 8 degrees of freedom."""
    return contrast_test(*score_given_label_question(difference), Method.CONDITIONAL, alpha)


def label_given_score_question(difference: Difference) -> tuple[Difference, Real]:
    """The difference with the variance it has if only scores moved, and the contrasts; cells (..., 2 B)."""
    table = _table(difference)
    bins = table.shape[-1]
    margin = table.sum(axis=-2)
    rate = table[..., 1, :] / margin
    # A window's own scores, and labels as they were for each: what there is if only the scores moved.
    now = floored(_moved(difference).sum(axis=-2), np.asarray(1e-6 / bins))
    null = np.stack([now * (1 - rate), now * rate], axis=-2)
    scores = normal_scores(middles(margin), 1)
    columns = np.concatenate([np.broadcast_to(np.full((bins, 1), bins**-0.5), scores.shape), scores], axis=-1)
    contrasts = np.concatenate([-rate[..., None] * columns, (1 - rate)[..., None] * columns], axis=-2)
    return _given(difference, null), contrasts


def score_given_label_question(difference: Difference) -> tuple[Difference, Real]:
    """The difference with the variance it has if only the labels' shares moved, and the contrasts."""
    table = _table(difference)
    share = table.sum(axis=-1, keepdims=True)
    given = table / share
    now = floored(_moved(difference).sum(axis=-1), np.asarray(1e-6))
    columns = normal_scores(middles(given), min(ORDER, table.shape[-1] - 1))
    centred = columns - (given[..., None] * columns).sum(axis=-2, keepdims=True)
    nothing = np.zeros_like(centred[..., 0, :, :])
    first = np.concatenate([centred[..., 0, :, :], nothing], axis=-1)
    second = np.concatenate([nothing, centred[..., 1, :, :]], axis=-1)
    contrasts = np.concatenate([first, second], axis=-2)
    return _given(difference, now[..., None] * given), contrasts


def _given(difference: Difference, null: Real) -> Difference:
    """With the sampling variance of a window whose cells are ``null``, shape (..., 2, B)."""
    sampling = sampling_covariance(difference, null.reshape(difference.common.shape))
    return replace(difference, covariance=sampling + difference.noise_covariance)


def _table(difference: Difference) -> Real:
    if difference.bins % 2 or difference.bins < 4:
        raise LocalError("a score x label table has two rows of two bins or more")
    return difference.common.reshape(*difference.common.shape[:-1], 2, -1)


def _moved(difference: Difference) -> Real:
    return np.asarray((difference.before + difference.shares).reshape(*difference.before.shape[:-1], 2, -1))
