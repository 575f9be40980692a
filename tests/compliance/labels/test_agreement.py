"""Coefficients of agreement: the literature's numbers, slow twins that follow the definitions, and their algebra."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from support.labels import KNOWN, annotated, confusions, from_counts, from_table, krippendorff, scale

from fedseal.compliance.labels.agreement import Verdict, agreement, value_of, verdict
from fedseal.compliance.labels.coefficients import Coefficient, coefficient_of, coincidences
from fedseal.compliance.labels.scale import MISSING, Codes, Level, Ratings, Scale
from fedseal.errors import DataError

COHENS = {Coefficient.COHEN: None, Coefficient.COHEN_LINEAR: "linear", Coefficient.COHEN_QUADRATIC: "quadratic"}


def value(ratings: Ratings, coefficient: Coefficient) -> float:
    """The coefficient alone; nan where it is not defined."""
    try:
        return value_of(ratings, coefficient)
    except DataError as error:
        assert "all labels are the same" in error.message
        return math.nan


@pytest.mark.parametrize("level", list(Level))
def test_krippendorffs_twelve_units(level: Level) -> None:
    assert value(krippendorff(level), Coefficient.ALPHA) == pytest.approx(
        KNOWN["krippendorff"]["alpha"][level], abs=5e-5
    )


def test_fleiss_ten_subjects_and_cohens_fifty_proposals() -> None:
    assert value(from_counts(KNOWN["fleiss"]["counts"]), Coefficient.FLEISS) == pytest.approx(0.20993, abs=1e-5)
    assert KNOWN["fleiss"]["kappa"] == round(0.20993, 3)
    assert value(from_table(KNOWN["cohen"]["table"]), Coefficient.COHEN) == pytest.approx(0.4, abs=1e-12)


def slow_alpha(codes: Codes, of: Scale) -> float:
    """Krippendorff 2011, in words: one minus the mean difference within units over that between any two values."""
    units = [[c for c in unit if c != MISSING] for unit in codes.tolist()]
    units = [unit for unit in units if len(unit) > 1]
    values = [c for unit in units for c in unit]
    numbers = [values.count(c) for c in range(len(of))]

    def difference(c: int, k: int) -> float:
        low, high = min(c, k), max(c, k)
        match of.level:
            case Level.NOMINAL:
                return float(c != k)
            case Level.ORDINAL:
                return (sum(numbers[low : high + 1]) - (numbers[c] + numbers[k]) / 2) ** 2
            case Level.INTERVAL:
                return (of.values[c] - of.values[k]) ** 2
            case Level.RATIO:
                total = of.values[c] + of.values[k]
                return ((of.values[c] - of.values[k]) / total) ** 2 if total else 0.0

    n = len(values)
    within = sum(sum(difference(c, k) for c, k in itertools.permutations(u, 2)) / (len(u) - 1) for u in units) / n
    between = sum(difference(c, k) for c, k in itertools.permutations(values, 2)) / (n * (n - 1))
    return 1 - within / between if between else math.nan


def slow_fleiss(counts: Codes) -> float:
    """Fleiss 1971, equations 1 to 7."""
    items, raters = len(counts), int(counts[0].sum())
    shares = counts.sum(axis=0) / (items * raters)
    within = (np.sum(counts**2, axis=1) - raters) / (raters * (raters - 1))
    chance = float(np.sum(shares**2))
    return (float(within.mean()) - chance) / (1 - chance) if chance < 1 else math.nan


matrices = st.integers(2, 5).flatmap(
    lambda raters: st.lists(
        st.lists(st.integers(-1, 3), min_size=raters, max_size=raters), min_size=3, max_size=12
    ).map(np.array)
)


@given(matrices, st.sampled_from(Level))
@settings(max_examples=150, deadline=None)
def test_alpha_is_that_of_its_definition(codes: Codes, level: Level) -> None:
    of = Scale(level, (0.0, 1.0, 2.5, 7.0))
    if not np.any(np.sum(codes != MISSING, axis=1) > 1):
        return
    assert value(Ratings.from_matrix(codes, of), Coefficient.ALPHA) == pytest.approx(
        slow_alpha(codes, of), abs=1e-9, nan_ok=True
    )


@given(matrices)
@settings(max_examples=80, deadline=None)
def test_fleiss_kappa_is_that_of_its_definition(codes: Codes) -> None:
    ratings = Ratings.from_matrix(np.abs(codes), scale(4))
    assert value(ratings, Coefficient.FLEISS) == pytest.approx(slow_fleiss(ratings.counts()), abs=1e-9, nan_ok=True)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=40), st.sampled_from(list(COHENS))
)
@settings(max_examples=80, deadline=None)
def test_cohens_kappas_are_scikit_learns(pairs: list[tuple[int, int]], coefficient: Coefficient) -> None:
    first, second = zip(*pairs, strict=True)
    if len(set(first + second)) < 2:
        return
    ours = value(Ratings.from_matrix(np.array(pairs), scale(4, Level.ORDINAL)), coefficient)
    theirs = cohen_kappa_score(first, second, labels=[0, 1, 2, 3], weights=COHENS[coefficient])
    assert ours == pytest.approx(theirs, abs=1e-9, nan_ok=True)


@given(matrices, st.randoms(use_true_random=False), st.sampled_from(Level))
@settings(max_examples=60, deadline=None)
def test_who_is_who_and_which_item_is_first_do_not_matter(codes: Codes, random: object, level: Level) -> None:
    if not np.any(np.sum(codes != MISSING, axis=1) > 1):
        return
    rng = np.random.default_rng(random.randrange(2**32))  # type: ignore[attr-defined]
    of = scale(4, level)
    before = value(Ratings.from_matrix(codes, of), Coefficient.ALPHA)
    shuffled = rng.permuted(codes[rng.permutation(len(codes))], axis=1)
    assert value(Ratings.from_matrix(shuffled, of), Coefficient.ALPHA) == pytest.approx(before, nan_ok=True)
    if level is Level.NOMINAL:
        renamed = np.r_[rng.permutation(4), MISSING][shuffled]
        assert value(Ratings.from_matrix(renamed, of), Coefficient.ALPHA) == pytest.approx(before, nan_ok=True)
    if level in (Level.ORDINAL, Level.INTERVAL):
        upside_down = np.where(shuffled == MISSING, MISSING, 3 - shuffled)
        assert value(Ratings.from_matrix(upside_down, of), Coefficient.ALPHA) == pytest.approx(before, nan_ok=True)


@pytest.mark.parametrize("coefficient", list(Coefficient))
def test_full_agreement_is_one_and_chance_is_zero(coefficient: Coefficient) -> None:
    rng = np.random.default_rng(1)
    same = np.repeat(rng.integers(0, 3, size=(200, 1)), 2, axis=1)
    of = scale(3, Level.ORDINAL)
    found = agreement(Ratings.from_matrix(same, of), coefficient, rng, resamples=50)
    assert (found.value, found.low, found.high, found.items) == (1.0, 1.0, 1.0, 200)
    guessed = rng.integers(0, 3, size=(4000, 2))
    assert abs(value(Ratings.from_matrix(guessed, of), coefficient)) < 0.04


def test_kappa_falls_where_labels_are_swapped_for_others() -> None:
    """The twin of the invariances: what should matter does."""
    table = [[30, 2, 1], [2, 30, 2], [1, 2, 30]]
    far = [[30, 2, 3], [2, 30, 2], [3, 2, 26]]
    near, apart = (value(from_table(t, Level.ORDINAL), Coefficient.COHEN_QUADRATIC) for t in (table, far))
    assert apart < near - 0.03


def test_an_interval_holds_its_value_repeats_and_narrows() -> None:
    rng = np.random.default_rng(2)
    widths = []
    for items in (50, 5000):
        ratings = annotated(rng.integers(0, 3, items), confusions(3, 3, rng), rng, share=0.9)
        found = [agreement(ratings, Coefficient.ALPHA, np.random.default_rng(7), resamples=400) for _ in range(2)]
        assert found[0] == found[1]
        assert found[0].low < found[0].value < found[0].high
        widths.append(found[0].high - found[0].low)
    assert widths[1] < widths[0] / 5


def test_verdicts_stand_at_their_lines() -> None:
    assert [verdict(v) for v in (1.0, 0.75, 0.7499, 0.5, 0.4999, -0.2)] == [
        Verdict.GOOD,
        Verdict.GOOD,
        Verdict.MODERATE,
        Verdict.MODERATE,
        Verdict.POOR,
        Verdict.POOR,
    ]
    wide = agreement(krippendorff(Level.NOMINAL), Coefficient.ALPHA, np.random.default_rng(3))
    assert (wide.verdict, wide.settled) == (Verdict.MODERATE, False)


@pytest.mark.parametrize(
    ("matrix", "coefficient", "says"),
    [
        ([[0, -1], [-1, 1]], Coefficient.ALPHA, "no item has two annotations"),
        ([[0, -1], [-1, 1]], Coefficient.COHEN, "no item was labelled by both"),
        ([[0, 0], [0, 0]], Coefficient.ALPHA, "all labels are the same"),
        ([[0, 0, 1], [0, 1, -1]], Coefficient.FLEISS, "same number of annotations"),
        ([[0, 0, 1], [0, 1, 1]], Coefficient.COHEN, "two annotators; there are 3"),
        ([[0, 1], [1, 1]], Coefficient.COHEN_LINEAR, "labels that have no order"),
        ([[0, 0]] * 60 + [[0, 1]], Coefficient.ALPHA, "nearly all labels are the same"),
    ],
)
def test_what_a_coefficient_cannot_be_of_is_said(matrix: list[list[int]], coefficient: Coefficient, says: str) -> None:
    with pytest.raises(DataError, match=says):
        agreement(Ratings.from_matrix(matrix, scale(2)), coefficient, np.random.default_rng(0), resamples=200)


def test_a_code_that_is_not_of_the_scale_is_refused() -> None:
    for code in (-2, 2):
        with pytest.raises(DataError, match="places in the scale"):
            Ratings.from_matrix([[0, code]], scale(2))


def true_alpha(confusion: np.ndarray, prevalence: np.ndarray) -> float:
    """Alpha (nominal) of infinitely many items that all these annotators label."""
    joint = np.einsum("k,akl,bkm->ablm", prevalence, confusion, confusion)
    pairs = [joint[a, b] for a, b in itertools.permutations(range(len(confusion)), 2)]
    table = np.mean(pairs, axis=0)
    return float(coefficient_of(Coefficient.FLEISS, scale(len(prevalence)), table))


@pytest.mark.slow
@pytest.mark.parametrize("items", [40, 100, 400])
def test_the_bootstraps_intervals_hold_the_truth_as_often_as_they_say(items: int) -> None:
    """Over 400 data sets of three annotators, 95 % intervals: at least 90 % at 40 items, 92 % beyond."""
    rng = np.random.default_rng(items)
    confusion, prevalence = confusions(3, 3, rng), np.array([0.5, 0.3, 0.2])
    truth = true_alpha(confusion, prevalence)
    held = 0
    for _ in range(400):
        ratings = annotated(rng.choice(3, items, p=prevalence), confusion, rng, share=0.9)
        found = agreement(ratings, Coefficient.ALPHA, rng, resamples=400)
        held += found.low <= truth <= found.high
    print(f"{items} items: {held / 4:.1f} %")
    assert (0.90 if items < 100 else 0.92) * 400 <= held <= 0.985 * 400


@pytest.mark.slow
@pytest.mark.parametrize("coefficient", [Coefficient.COHEN, Coefficient.COHEN_QUADRATIC])
def test_the_intervals_of_cohens_kappa_hold_the_truth(coefficient: Coefficient) -> None:
    rng = np.random.default_rng(5)
    confusion, prevalence = confusions(2, 3, rng), np.array([0.5, 0.3, 0.2])
    table = np.einsum("k,kl,km->lm", prevalence, confusion[0], confusion[1])
    truth = float(coefficient_of(coefficient, scale(3, Level.ORDINAL), table))
    held = 0
    for _ in range(400):
        drawn = annotated(rng.choice(3, 100, p=prevalence), confusion, rng)
        ratings = Ratings(drawn.items, drawn.raters, drawn.codes, 100, 2, scale(3, Level.ORDINAL))
        found = agreement(ratings, coefficient, rng, resamples=400)
        held += found.low <= truth <= found.high
    print(f"{coefficient}: {held / 4:.1f} %")
    assert 0.92 * 400 <= held <= 0.985 * 400


def test_a_coincidence_matrix_counts_every_pairable_value() -> None:
    patterns, weights = np.array([[2, 1, 0], [0, 0, 4]]), np.array([3.0, 2.0])
    table = coincidences(patterns, weights)
    assert table.sum() == pytest.approx(3 * 3 + 2 * 4)
    assert np.array_equal(table, table.T)
    assert table[0, 0] == pytest.approx(3 * 2 / 2)
    assert table[2, 2] == pytest.approx(2 * 12 / 3)
