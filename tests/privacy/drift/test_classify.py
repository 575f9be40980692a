"""What a window's tests add up to, and that the tests of a made-up world add up to what was made up."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fedseal.errors import LocalError
from fedseal.privacy.inference.drift.chi2 import chi2_test
from fedseal.privacy.inference.drift.classify import (
    DriftKind,
    Obstacle,
    Reason,
    WindowEvidence,
    classify,
)
from fedseal.privacy.inference.drift.conditional import (
    label_given_score,
    label_given_score_question,
    score_given_label,
    score_given_label_question,
)
from fedseal.privacy.inference.drift.difference import Difference, Strata, released, stratified, sum_strata, two_sample
from fedseal.privacy.inference.drift.smooth import p_values, smooth_test
from fedseal.privacy.inference.noise import CountNoise

Real = NDArray[np.float64]
NOISE = CountNoise(0.5, 10, 6)
COVARIATE, LABEL, CONCEPT, SCHEMA = DriftKind
QUIET = WindowEvidence(sites=9, rows=900.0, features=False, scores=False, labels=False, errors=False)

# What moved, and what that is.
TABLE: list[tuple[dict[str, bool], set[DriftKind]]] = [
    ({}, set()),
    ({"features": True}, {COVARIATE}),
    ({"scores": True}, {COVARIATE}),
    ({"labels": True}, {LABEL}),
    ({"errors": True}, {CONCEPT}),
    ({"missing": True}, {SCHEMA}),
    ({"out_of_range": True, "features": True}, {SCHEMA, COVARIATE}),
    ({"unseen": True}, {SCHEMA}),
    # Without conditional tests both are named.
    ({"scores": True, "labels": True}, {COVARIATE, LABEL}),
    # A covariate shift: labels follow the scores, and errors may.
    (
        {"scores": True, "labels": True, "errors": True, "label_given_score": False, "score_given_label": True},
        {COVARIATE},
    ),
    # A label shift: scores follow the labels, and equal scores mean something else, by Bayes' rule.
    (
        {"scores": True, "labels": True, "errors": True, "label_given_score": True, "score_given_label": False},
        {LABEL},
    ),
    ({"label_given_score": True, "score_given_label": True, "errors": True}, {CONCEPT}),
    (
        {"label_given_score": True, "score_given_label": True, "labels": True, "scores": True},
        {COVARIATE, LABEL, CONCEPT},
    ),
    ({"errors": True, "label_given_score": False}, set()),
]


@pytest.mark.parametrize(("moved", "kinds"), TABLE)
def test_kinds(moved: dict[str, bool], kinds: set[DriftKind]) -> None:
    found = classify(replace(QUIET, **moved), min_sites=5, min_rows=50)
    assert found.kinds == kinds
    assert found.evaluable
    assert all(named.reasons for named in found.named)


def test_too_little_to_judge_is_not_no_drift() -> None:
    loud = WindowEvidence(sites=4, rows=900.0, features=True)
    assert classify(loud, min_sites=5, min_rows=50).obstacle is Obstacle.TOO_FEW_SITES
    assert classify(loud, min_sites=3, min_rows=901).obstacle is Obstacle.TOO_FEW_ROWS
    assert classify(WindowEvidence(9, 900.0), min_sites=5, min_rows=50).obstacle is Obstacle.NOTHING_TESTED
    nothing = classify(QUIET, min_sites=5, min_rows=50)
    assert (nothing.evaluable, nothing.kinds) == (True, frozenset())


def test_reasons_are_named() -> None:
    found = classify(WindowEvidence(9, 900.0, scores=True, features=True), min_sites=5, min_rows=50)
    assert found.named[0].reasons == (Reason.FEATURES, Reason.SCORES)


# A world of one feature z and a label; the score is a monotone map of z, cut into ten bins.

EDGES = np.array([-1.5, -1.0, -0.5, -0.2, 0.1, 0.4, 0.8, 1.2, 1.7])


def world(kind: str) -> Real:
    """Shares of the score x label table, flat."""
    z = np.linspace(-6, 6, 6001)
    density = np.exp(-((z - (0.4 if kind == "covariate" else 0.0)) ** 2) / 2)
    logit = 1.5 * z - 1 + (0.8 if kind == "concept" else 0.0)
    positive = 1 / (1 + np.exp(-logit))
    place = np.searchsorted(EDGES, z)
    table = np.stack([np.bincount(place, density * (1 - positive), 10), np.bincount(place, density * positive, 10)])
    table = table / table.sum()
    if kind == "label":
        table = table * np.array([[0.55], [0.45]]) / table.sum(axis=1, keepdims=True)
    return np.asarray(table.ravel())


def drawn(rng: np.random.Generator, rows: int, kind: str, count: int) -> Real:
    exact = rng.multinomial(rows, world(kind), count).astype(np.float64)
    return np.asarray(exact + NOISE.draw(rng, exact.shape))


def compared(kind: str, rows: int = 2000, count: int = 2000) -> Difference:
    rng = np.random.default_rng(1)
    return two_sample(
        released(drawn(rng, rows, kind, count), NOISE), released(drawn(rng, 10_000, "none", count), NOISE)
    )


def rates(kind: str) -> tuple[float, float]:
    difference = compared(kind)
    questions = (label_given_score_question(difference), score_given_label_question(difference))
    first, second = (float((p_values(*question) <= 0.05).mean()) for question in questions)
    return first, second


def test_conditional_tests_keep_their_level() -> None:
    label, score = rates("none")
    assert 0.035 <= label <= 0.065
    assert 0.035 <= score <= 0.065


def test_a_covariate_shift_leaves_labels_given_scores() -> None:
    label, score = rates("covariate")
    assert label <= 0.09
    assert score > 0.95


def test_a_label_shift_leaves_scores_given_labels() -> None:
    label, score = rates("label")
    assert label > 0.95
    assert 0.035 <= score <= 0.065


def test_a_concept_drift_moves_both() -> None:
    label, score = rates("concept")
    assert label > 0.95
    assert score > 0.8


@pytest.mark.parametrize(
    ("kind", "expected"), [("none", set()), ("covariate", {COVARIATE}), ("label", {LABEL}), ("concept", {CONCEPT})]
)
def test_a_made_up_world_is_classified_as_it_was_made(kind: str, expected: set[DriftKind]) -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(40):
        tables = [rng.multinomial(n, world(k)).reshape(2, 10) for n, k in ((3000, kind), (10_000, "none"))]

        def difference(axis: int | None, tables: list[NDArray[np.int64]] = tables) -> Difference:
            """Of what is released apart, each with noise of its own: the tables, or their margins."""
            counts = [np.asarray(t.ravel() if axis is None else t.sum(axis=axis), dtype=np.float64) for t in tables]
            return two_sample(*(released(c + NOISE.draw(rng, c.shape), NOISE) for c in counts))

        joint = difference(None)
        evidence = WindowEvidence(
            sites=10,
            rows=3000.0,
            scores=smooth_test(difference(0), alpha=0.01).rejects,
            labels=chi2_test(difference(1), alpha=0.01).rejects,
            label_given_score=label_given_score(joint, alpha=0.01).rejects,
            score_given_label=score_given_label(joint, alpha=0.01).rejects,
        )
        kinds = classify(evidence, min_sites=5, min_rows=50).kinds
        # A concept drift also moves the share of labels.
        hits += kinds - {LABEL} == expected if kind == "concept" else kinds == expected
    assert hits >= 34


def test_conditional_tests_over_strata() -> None:
    rng = np.random.default_rng(3)
    rates_found = {}
    for kind in ("none", "concept"):
        windows = rng.multinomial(300, world(kind), (1000, 8)).astype(np.float64)
        past = rng.multinomial(1500, world("none"), (1000, 8)).astype(np.float64)
        exact = sum_strata(windows, past)
        noisy = exact.difference + NOISE.draw(rng, exact.difference.shape)
        difference = stratified(
            Strata(noisy, exact.weights, exact.rows, NOISE.variance, kurtosis=NOISE.excess_kurtosis)
        )
        rates_found[kind] = float((p_values(*label_given_score_question(difference)) <= 0.05).mean())
    assert rates_found["none"] <= 0.07
    assert rates_found["concept"] > 0.95


def test_only_tables_of_two_rows_have_conditional_tests() -> None:
    five = two_sample(released(np.ones(5), None), released(np.ones(5), None))
    with pytest.raises(LocalError):
        label_given_score(five, alpha=0.05)
