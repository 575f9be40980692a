"""Who errs how, estimated without knowing the truth: Dawid and Skene (1979), "Maximum likelihood estimation of observer
error-rates using the EM algorithm", Applied Statistics 28(1), 20-28.

Each item has one true label k, of probability p_k. Annotator j, seeing an item of true label k, gives label l with
probability pi^j_kl, independently of the other annotators. EM alternates between the posteriors T_ik of the true labels
(the paper's 2.5) and the estimates of pi and p from them (2.3, 2.4). It starts from each item's own shares of labels
(3.1), and works in logarithms: with many annotators products of probabilities underflow.

The likelihood never falls; it may have several maxima, and labels that everybody confuses in the same way look like
truth. The model does not know that two annotators copy each other.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from fedseal.compliance.labels.scale import Floats, Ratings
from fedseal.errors import DataError

TOLERANCE = 1e-8
MOST_ITERATIONS = 1000


@dataclass(frozen=True, slots=True)
class DawidSkene:
    """A fitted model.

    Args:
        posterior: T, shape (items, labels); the prevalence where an item has no annotation.
        confusion: pi, shape (annotators, labels, labels): the true label first. A row is uniform where the annotator
            has seen no item that could be of that label.
        prevalence: p, shape (labels,).
        log_likelihood: of the annotations, in nats.
        iterations: how many it took.
        converged: whether the likelihood had stopped rising.
    """

    posterior: Floats
    confusion: Floats
    prevalence: Floats
    log_likelihood: float
    iterations: int
    converged: bool


def fit_dawid_skene(
    ratings: Ratings,
    *,
    weights: Floats | None = None,
    start: Floats | None = None,
    tolerance: float = TOLERANCE,
    most_iterations: int = MOST_ITERATIONS,
) -> DawidSkene:
    """Fit the model by EM.

    Args:
        ratings: who gave which label. An annotator may have labelled an item several times, as in the paper.
        weights: shape (items,): how often each item counts, for resampling; once if not given.
        start: posteriors to start from, shape (items, labels); the shares of each item's labels if not given.
        tolerance: stop when an iteration raises the log-likelihood by less than this share of it.
        most_iterations: stop at the latest after so many.

    Raises:
        DataError: there are no annotations.
    """
    if not len(ratings.items):
        raise DataError("there are no annotations")
    labels = len(ratings.scale)
    labelled = np.bincount(ratings.items, minlength=ratings.n_items) > 0
    counted = labelled * (np.ones(ratings.n_items) if weights is None else weights)
    posterior = _shares(ratings) if start is None else start
    before, likelihood, iterations = -np.inf, -np.inf, 0
    confusion, prevalence = np.empty(0), np.empty(0)
    converged = False
    while not converged and iterations < most_iterations:
        iterations += 1
        confusion, prevalence = _maximise(ratings, posterior * counted[:, None])
        with np.errstate(divide="ignore"):
            log_confusion, log_prevalence = np.log(confusion), np.log(prevalence)
        joint = np.tile(log_prevalence, (ratings.n_items, 1))
        for k in range(labels):
            # (2.5): the product over annotators, as a sum of logarithms over the annotations of each item.
            terms = log_confusion[ratings.raters, k, ratings.codes]
            joint[:, k] += np.bincount(ratings.items, weights=terms, minlength=ratings.n_items)
        evidence = logsumexp(joint, axis=1)
        seen = np.isfinite(evidence)
        # An item drawn zero times may have labels that the resample says are impossible; it counts for nothing.
        posterior = np.where(seen[:, None], np.exp(joint - np.where(seen, evidence, 0.0)[:, None]), posterior)
        likelihood = float(counted[seen] @ evidence[seen])
        converged = likelihood - before <= tolerance * abs(likelihood)
        before = likelihood
    return DawidSkene(posterior, confusion, prevalence, likelihood, iterations, converged)


def _shares(ratings: Ratings) -> Floats:
    counts = ratings.counts().astype(np.float64)
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, totals, out=np.full_like(counts, 1 / len(ratings.scale)), where=totals > 0))


def _maximise(ratings: Ratings, expected: Floats) -> tuple[Floats, Floats]:
    """(2.3) and (2.4): the estimates from posteriors, those of an item times how often it counts."""
    labels = len(ratings.scale)
    confusion = np.empty((ratings.n_raters, labels, labels))
    cells = ratings.raters * labels + ratings.codes
    for k in range(labels):
        counts = np.bincount(cells, weights=expected[ratings.items, k], minlength=ratings.n_raters * labels)
        confusion[:, k, :] = counts.reshape(ratings.n_raters, labels)
    totals = confusion.sum(axis=2, keepdims=True)
    confusion = np.divide(confusion, totals, out=np.full_like(confusion, 1 / labels), where=totals > 0)
    prevalence = expected.sum(axis=0)
    return confusion, prevalence / prevalence.sum()
