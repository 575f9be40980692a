"""One label an item: majority with ties, a reviewer, Dawid and Skene's model, and how good labels are."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from support.labels import KNOWN, anaesthetists, annotated, confusions, scale

from fedseal.compliance.labels.consensus import Adjudication, by_model, majority, reviewer, single
from fedseal.compliance.labels.dawid_skene import DawidSkene, fit_dawid_skene
from fedseal.compliance.labels.quality import (
    annotators_on_gold,
    noise_from_gold,
    noise_from_model,
    set_on_gold,
    wilson,
)
from fedseal.compliance.labels.scale import MISSING, Floats, Ratings
from fedseal.errors import DataError

TABLE = [[0, 0, 1], [0, 1, -1], [2, -1, -1], [-1, -1, -1], [1, 1, 1]]


def test_the_majority_decides_and_a_tie_stays_open() -> None:
    found = majority(Ratings.from_matrix(TABLE, scale(3)))
    assert found.labels.tolist() == [0, MISSING, 2, MISSING, 1]
    assert found.tied.tolist() == [False, True, False, False, False]
    assert (found.method, found.decided) == (Adjudication.MAJORITY, 3)


def test_a_reviewer_decides_where_annotators_differ() -> None:
    ratings = Ratings.from_matrix(TABLE, scale(3))
    undecided = reviewer(ratings, {})
    assert undecided.labels.tolist() == [MISSING, MISSING, 2, MISSING, 1]
    assert undecided.tied.tolist() == [True, True, False, False, False]
    found = reviewer(ratings, {0: 1, 4: 2})
    assert found.labels.tolist() == [1, MISSING, 2, MISSING, 2]
    for wrong in ({9: 0}, {0: 3}, {-1: 0}):
        with pytest.raises(DataError, match="not there"):
            reviewer(ratings, wrong)


def test_single_annotations_need_no_decision() -> None:
    assert single(Ratings.from_matrix([[0, -1], [-1, 1], [-1, -1]], scale(2))).labels.tolist() == [0, 1, MISSING]
    with pytest.raises(DataError, match="1 items have several annotations"):
        single(Ratings.from_matrix([[0, 1], [-1, 1]], scale(2)))


def test_dawid_and_skenes_anaesthetists() -> None:
    fit = fit_dawid_skene(anaesthetists())
    known = KNOWN["dawid-skene"]
    assert fit.converged
    assert fit.prevalence == pytest.approx(known["prevalence"], abs=0.005)
    # Printed with two decimals; two of them are .005 and rounded the other way.
    assert np.max(np.abs(fit.confusion - np.array(known["confusion"]))) < 0.0055
    assert by_model(fit, anaesthetists()).labels[[0, 1, 2, 10, 35]].tolist() == [0, 3, 1, 3, 3]


def slow_em(ratings: Ratings, iterations: int) -> tuple[Floats, Floats, Floats]:
    """The 1979 paper word for word, with n_il^(j) the number of times that j gives patient i label l."""
    patients, observers, labels = range(ratings.n_items), range(ratings.n_raters), range(len(ratings.scale))
    n = np.zeros((ratings.n_items, ratings.n_raters, len(ratings.scale)))
    for i, j, given_label in zip(ratings.items, ratings.raters, ratings.codes, strict=True):
        n[i, j, given_label] += 1
    posterior = np.array([[n[i, :, k].sum() / n[i].sum() for k in labels] for i in patients])  # (3.1)
    confusion = np.zeros((ratings.n_raters, len(ratings.scale), len(ratings.scale)))
    prevalence = np.zeros(len(ratings.scale))
    for _ in range(iterations):
        for j in observers:
            for k in labels:
                total = sum(posterior[i, k] * n[i, j].sum() for i in patients)
                for label in labels:
                    seen = sum(posterior[i, k] * n[i, j, label] for i in patients)
                    confusion[j, k, label] = seen / total if total else 1 / len(ratings.scale)  # (2.3)
        for k in labels:
            prevalence[k] = sum(posterior[i, k] for i in patients) / ratings.n_items  # (2.4)
        for i in patients:
            joint = [
                prevalence[k]
                * np.prod([confusion[j, k, label] ** n[i, j, label] for j in observers for label in labels])
                for k in labels
            ]
            posterior[i] = np.array(joint) / sum(joint)  # (2.5)
    return posterior, confusion, prevalence


def same(fit: DawidSkene, slow: tuple[Floats, Floats, Floats]) -> None:
    for ours, theirs in zip((fit.posterior, fit.confusion, fit.prevalence), slow, strict=True):
        assert np.max(np.abs(ours - theirs)) < 1e-9


def test_em_takes_the_papers_steps() -> None:
    for steps in (1, 2, 9):
        same(fit_dawid_skene(anaesthetists(), tolerance=0.0, most_iterations=steps), slow_em(anaesthetists(), steps))
    rng = np.random.default_rng(3)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        ratings = annotated(rng.integers(0, 3, 25), confusions(4, 3, rng), rng, share=0.8)
        if np.all(np.bincount(ratings.items, minlength=25)):
            same(fit_dawid_skene(ratings, tolerance=0.0, most_iterations=5), slow_em(ratings, 5))


def test_known_errors_are_found_again() -> None:
    rng = np.random.default_rng(5)
    confusion, truth = confusions(6, 3, rng), rng.choice(3, 4000, p=[0.5, 0.3, 0.2])
    ratings = annotated(truth, confusion, rng, share=0.8)
    fit = fit_dawid_skene(ratings)
    assert np.max(np.abs(fit.confusion - confusion)) < 0.06
    assert np.max(np.abs(fit.prevalence - np.bincount(truth) / 4000)) < 0.02
    right = [np.mean(found.labels == truth) for found in (by_model(fit, ratings), majority(ratings))]
    assert right[0] > right[1] > 0.8


def test_one_who_always_errs_is_found_out_and_made_use_of() -> None:
    """What majority cannot do: of two liars and three honest ones, the liars count, turned around."""
    honest, liar = [[0.8, 0.2], [0.2, 0.8]], [[0.05, 0.95], [0.95, 0.05]]
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 2, 2000)
    ratings = annotated(truth, np.array([honest, honest, honest, liar, liar]), rng)
    found = by_model(fit_dawid_skene(ratings), ratings)
    # The model has two mirror images; the start, from majorities, decides for one.
    right = max(np.mean(found.labels == truth), np.mean(found.labels == 1 - truth))
    assert right > 0.98
    assert np.mean(majority(ratings).labels == truth) < 0.9


@given(st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_the_likelihood_never_falls_and_names_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ratings = annotated(rng.integers(0, 3, 30), confusions(4, 3, rng, accuracy=0.4), rng, share=0.7)
    rising = [fit_dawid_skene(ratings, tolerance=0.0, most_iterations=n).log_likelihood for n in range(1, 12)]
    assert all(after >= before - 1e-9 for before, after in itertools.pairwise(rising))
    order = rng.permutation(3)
    renamed = Ratings(ratings.items, 3 - ratings.raters, order[ratings.codes], 30, 4, ratings.scale)
    one, other = (fit_dawid_skene(r, tolerance=0.0, most_iterations=8) for r in (ratings, renamed))
    assert one.posterior == pytest.approx(other.posterior[:, order], abs=1e-9)
    assert one.posterior.sum(axis=1) == pytest.approx(1.0)


def test_items_labelled_alike_are_one_with_a_weight() -> None:
    rng = np.random.default_rng(9)
    ratings = annotated(rng.integers(0, 2, 300), confusions(3, 2, rng), rng, share=0.8)
    kinds = rng.integers(0, 2, 300)
    grouped, sizes, kind = ratings.groups(kinds)
    assert sizes.sum() == 300
    assert grouped.n_items == len(sizes) == len(kind) <= 2 * 3**3
    one, all_of_them = fit_dawid_skene(grouped, weights=sizes.astype(float)), fit_dawid_skene(ratings)
    assert one.log_likelihood == pytest.approx(all_of_them.log_likelihood)
    assert one.confusion == pytest.approx(all_of_them.confusion)
    for kind_of in (0, 1):
        assert sizes[kind == kind_of].sum() == np.sum(kinds == kind_of)


def test_many_annotators_do_not_underflow() -> None:
    rng = np.random.default_rng(7)
    truth = rng.integers(0, 2, 20)
    ratings = annotated(truth, confusions(3000, 2, rng), rng)
    fit = fit_dawid_skene(ratings)
    assert np.all(np.isfinite(fit.posterior))
    assert np.array_equal(by_model(fit, ratings).labels, truth)


def test_equal_posteriors_are_a_tie_and_no_annotations_an_error() -> None:
    ratings = Ratings.from_matrix([[0, 1], [1, 0], [-1, -1]], scale(2))
    found = by_model(fit_dawid_skene(ratings, most_iterations=1), ratings)
    assert (found.labels.tolist(), found.tied.tolist()) == ([-1, -1, -1], [True, True, False])
    with pytest.raises(DataError, match="no annotations"):
        fit_dawid_skene(Ratings.from_matrix([[-1, -1]], scale(2)))


def test_wilsons_interval() -> None:
    """Newcombe 1998, table I, method 3: 81 of 263 and 0 of 20."""
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (0, 20, 0.0, 0.1611)):
        found = wilson(right, n)
        assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert binomtest(81, 263).proportion_ci(method="exact").low != pytest.approx(0.2553, abs=5e-5)


def test_gold_judges_annotators_and_sets() -> None:
    ratings = Ratings.from_matrix(TABLE, scale(3))
    gold = np.array([0, 1, 1, MISSING, 1])
    assert [(s.value, s.n) for s in annotators_on_gold(ratings, gold)[:2]] == [(0.5, 4), (1.0, 3)]
    found = set_on_gold(majority(ratings), gold)
    assert found.n == 3
    assert found.value == pytest.approx(2 / 3)
    noise = noise_from_gold(majority(ratings), gold)
    assert [noise.estimate, noise.low] == pytest.approx([1 / 3, 1 - found.high])
    with pytest.raises(DataError, match="no gold item"):
        noise_from_gold(majority(ratings), np.full(5, MISSING))


def test_the_model_knows_how_wrong_a_majority_is() -> None:
    rng = np.random.default_rng(8)
    truth = rng.choice(3, 1500, p=[0.5, 0.3, 0.2])
    ratings = annotated(truth, confusions(4, 3, rng), rng)
    consensus = majority(ratings)
    decided = consensus.labels != MISSING
    wrong = np.mean(consensus.labels[decided] != truth[decided])
    found = noise_from_model(ratings, consensus, np.random.default_rng(1), resamples=60)
    assert found.low <= found.estimate <= found.high
    assert found.estimate == pytest.approx(wrong, abs=0.025)
    single_votes = Ratings.from_matrix(np.array([[0], [1]]), scale(3))
    with pytest.raises(DataError, match="gold set"):
        noise_from_model(single_votes, majority(single_votes), rng)


@pytest.mark.slow
def test_the_noise_estimates_interval_holds_the_truth() -> None:
    """Over 100 data sets of 600 items and five annotators, 95 % intervals: at least 88.

    The truth is the share of wrong labels in each set, which itself varies around what the model estimates.
    """
    rng = np.random.default_rng(11)
    confusion, held = confusions(5, 3, rng), 0
    for _ in range(100):
        truth = rng.choice(3, 600, p=[0.5, 0.3, 0.2])
        ratings = annotated(truth, confusion, rng)
        consensus = by_model(fit_dawid_skene(ratings), ratings)
        found = noise_from_model(ratings, consensus, rng, resamples=60)
        held += found.low <= np.mean(consensus.labels != truth) <= found.high
    print(f"{held} %")
    assert 88 <= held <= 99
