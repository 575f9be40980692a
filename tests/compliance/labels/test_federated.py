"""The federation's agreement from one summed table: layout, bound, the coefficients, and what noise does to them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.labels import KNOWN, annotated, confusions, from_table, scale

from fedseal.compliance.labels.agreement import value_of
from fedseal.compliance.labels.coefficients import Coefficient, coefficient_of
from fedseal.compliance.labels.federated import (
    CountNoise,
    PairLayout,
    disagreements,
    federated_agreement,
    pair_counts,
)
from fedseal.compliance.labels.scale import Codes, Level, Ratings
from fedseal.errors import ConfigError, DataError
from fedseal.privacy.polya import polya
from fedseal.privacy.randomness import KeyedRandomness, Stream


def stream(seed: int = 1) -> Stream:
    return KeyedRandomness(seed, "labels").stream("pairs")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_layout_has_one_cell_for_every_pair_of_labels(classes: int, ordered: bool) -> None:
    layout = PairLayout(classes, ordered)
    first, second = (a.ravel() for a in np.indices((classes, classes)))
    places = layout.places(first, second)
    assert set(places.tolist()) == set(range(layout.cells))
    swapped = layout.places(second, first)
    assert np.array_equal(places, swapped) is not ordered
    for a, b, cell in zip(first, second, places, strict=True):
        table = layout.unfold(np.eye(layout.cells)[cell])
        assert table.sum() == (1 if ordered else 2)
        assert table[a, b] == (1 if ordered or a != b else 2)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_a_person_adds_at_most_so_many_ones(seed: int, per_person: int, annotators: int) -> None:
    rng = np.random.default_rng(seed)
    ratings = annotated(rng.integers(0, 3, 40), confusions(annotators, 3, rng), rng, share=0.6)
    persons = rng.integers(0, 9, 40)
    counts = pair_counts(ratings, PairLayout(3), stream(seed), persons=persons, per_person=per_person)
    several = np.bincount(ratings.items, minlength=40) > 1
    assert counts.sum() == sum(min(per_person, int(np.sum(several & (persons == p)))) for p in range(9))
    for person in range(9):
        own = persons[ratings.items] == person
        alone = Ratings(ratings.items[own], ratings.raters[own], ratings.codes[own], 40, annotators, ratings.scale)
        assert pair_counts(alone, PairLayout(3), stream(), persons=persons, per_person=per_person).sum() <= per_person


def test_without_a_bound_all_items_of_a_person_count() -> None:
    """The twin: one person's hundred items are a hundred, or with the bound two."""
    rng = np.random.default_rng(1)
    ratings, alone = annotated(rng.integers(0, 3, 100), confusions(2, 3, rng), rng), np.zeros(100, dtype=np.int64)
    assert pair_counts(ratings, PairLayout(3), stream()).sum() == 100
    assert pair_counts(ratings, PairLayout(3), stream(), persons=alone, per_person=2).sum() == 2


@pytest.mark.parametrize("level", list(Level))
def test_tables_of_sites_add_up_to_the_coefficient_of_all(level: Level) -> None:
    """With two annotations an item nothing is drawn, and the sum is what one site with all items would compute."""
    rng = np.random.default_rng(4)
    sites = [annotated(rng.integers(0, 4, n), confusions(2, 4, rng), rng) for n in (30, 50, 70)]
    of, layout = scale(4, level), PairLayout(4)
    total = np.sum([pair_counts(site, layout, stream(i)) for i, site in enumerate(sites)], axis=0)
    matrix = np.vstack([site.codes.reshape(2, -1, order="F").T for site in sites])
    together = Ratings.from_matrix(matrix, of)
    found = federated_agreement(total, layout, Coefficient.ALPHA, of)
    assert found.items == 150
    assert found.value == pytest.approx(value_of(together, Coefficient.ALPHA), abs=1e-12)
    if level is Level.NOMINAL:
        fleiss = federated_agreement(total, layout, Coefficient.FLEISS, of)
        assert fleiss.value == pytest.approx(value_of(together, Coefficient.FLEISS), abs=1e-12)


def test_with_more_annotators_a_drawn_pair_is_right_on_average() -> None:
    rng = np.random.default_rng(6)
    ratings = annotated(rng.integers(0, 3, 300), confusions(5, 3, rng), rng, share=0.7)
    found = [
        federated_agreement(pair_counts(ratings, PairLayout(3), stream(i)), PairLayout(3), Coefficient.ALPHA, scale(3))
        for i in range(200)
    ]
    # Items weigh alike here, by their number of annotations in alpha over all: close, not the same.
    assert np.mean([f.value for f in found]) == pytest.approx(value_of(ratings, Coefficient.ALPHA), abs=0.02)


def test_two_roles_keep_their_order() -> None:
    table = KNOWN["cohen"]["table"]
    counts = pair_counts(from_table(table), PairLayout(2, ordered=True), stream())
    assert counts.reshape(2, 2).tolist() == table
    found = federated_agreement(counts, PairLayout(2, ordered=True), Coefficient.COHEN, scale(2))
    assert found.items == 50
    assert found.value == pytest.approx(0.4)


def fleiss_cohen_everitt(table: Codes) -> float:
    """The large-sample variance of kappa: Fleiss, Cohen and Everitt 1969, equation 13, for weights of 0 and 1."""
    n = table.sum()
    p = table / n
    rows, columns, agreed = p.sum(axis=1), p.sum(axis=0), float(np.trace(p))
    chance = float(rows @ columns)
    total = -((agreed * chance - 2 * chance + agreed) ** 2)
    for i in range(len(p)):
        for j in range(len(p)):
            if i == j:
                total += p[i, i] * ((1 - chance) - (columns[i] + rows[i]) * (1 - agreed)) ** 2
            else:
                total += (1 - agreed) ** 2 * p[i, j] * (columns[i] + rows[j]) ** 2
    return float(total / (n * (1 - chance) ** 4))


@pytest.mark.parametrize("table", [[[200, 50], [100, 150]], [[120, 10, 4], [14, 90, 20], [3, 17, 222]]])
def test_without_noise_the_intervals_variance_is_the_published_one(table: list[list[int]]) -> None:
    counts = np.array(table)
    found = federated_agreement(
        counts.ravel(), PairLayout(len(counts), ordered=True), Coefficient.COHEN, scale(len(counts))
    )
    error = (found.high - found.low) / 2 / 1.959963984540054
    assert error**2 == pytest.approx(fleiss_cohen_everitt(counts), rel=1e-4)


def test_the_noises_variance_is_that_of_the_shares_that_make_it() -> None:
    """Five shares of two-sided geometric noise where the plan counts on four."""
    epsilon, per_person = 0.8, 2
    noise = CountNoise(epsilon, per_person, surplus=5 / 4)
    total = np.sum([polya(4, epsilon / per_person, stream(i), 40_000) for i in range(5)], axis=0)
    assert np.var(total) == pytest.approx(noise.variance, rel=0.05)
    assert noise.variance > 1.1 * CountNoise(epsilon, per_person).variance


def summed(items: int, seed: int) -> tuple[Codes, float]:
    """A table of three labels over so many items, and the coefficient it comes from."""
    rng = np.random.default_rng(seed)
    confusion, prevalence = confusions(2, 3, rng), np.array([0.6, 0.3, 0.1])
    joint = np.einsum("k,kl,km->lm", prevalence, confusion[0], confusion[1])
    truth = float(coefficient_of(Coefficient.FLEISS, scale(3), joint + joint.T))
    drawn = rng.multinomial(items, joint.ravel()).reshape(3, 3)
    first, second = (a.ravel() for a in np.indices((3, 3)))
    layout = PairLayout(3)
    return np.bincount(np.repeat(layout.places(first, second), drawn.ravel()), minlength=layout.cells), truth


def noisy(counts: Codes, noise: CountNoise, rng: np.random.Generator) -> Codes:
    ratio = math.exp(-noise.epsilon / noise.per_person)
    draws = rng.negative_binomial(noise.surplus, 1 - ratio, size=(2, len(counts)))
    return np.asarray(counts + draws[0] - draws[1])


@pytest.mark.quick("cohen-kappa")
@pytest.mark.parametrize("coefficient", [Coefficient.ALPHA, Coefficient.COHEN])
def test_noise_is_taken_off_the_disagreements(coefficient: Coefficient) -> None:
    """Over 8,000 draws of strong noise both are right on average; not corrected, neither is."""
    layout, of = PairLayout(3, ordered=coefficient.ordered), scale(3)
    counts = np.arange(layout.cells, dtype=np.int64)
    noise, rng = CountNoise(0.1), np.random.default_rng(2)
    exact = disagreements(counts.astype(float), layout, coefficient, of, 0.0)
    draws = [noisy(counts, noise, rng).astype(float) for _ in range(8000)]
    for variance in (noise.variance, 0.0):
        found = np.array([disagreements(cells, layout, coefficient, of, variance) for cells in draws])
        away = np.abs(found.mean(axis=0) - exact) / (found.std(axis=0) / np.sqrt(8000))
        assert np.all(away < 4) if variance else np.all(away > 8)


@pytest.mark.parametrize("coefficient", [Coefficient.ALPHA, Coefficient.FLEISS])
def test_a_noisy_table_gives_the_coefficient_back(coefficient: Coefficient) -> None:
    counts, _ = summed(3000, 3)
    noise, rng = CountNoise(0.5), np.random.default_rng(4)
    exact = federated_agreement(counts, PairLayout(3), coefficient, scale(3))
    found = [
        federated_agreement(noisy(counts, noise, rng), PairLayout(3), coefficient, scale(3), noise) for _ in range(300)
    ]
    assert np.mean([f.value for f in found]) == pytest.approx(exact.value, abs=4 * 0.003 / math.sqrt(300))
    assert all(f.high - f.low > exact.high - exact.low for f in found[:20])


def test_a_table_that_noise_has_drowned_says_nothing() -> None:
    layout = PairLayout(3)
    for counts in (np.zeros(6, dtype=np.int64), np.array([-5, 3, -2, 1, 0, 2]), np.array([80, 0, 0, 0, 0, 0])):
        with pytest.raises(DataError, match="does not tell how well"):
            federated_agreement(counts, layout, Coefficient.ALPHA, scale(3), CountNoise(0.5))


def test_coefficient_layout_and_labels_have_to_fit() -> None:
    with pytest.raises(ConfigError, match="is not of such a table"):
        federated_agreement(np.ones(6, dtype=np.int64), PairLayout(3), Coefficient.COHEN, scale(3))
    with pytest.raises(ConfigError, match="is not of such a table"):
        federated_agreement(np.ones(9, dtype=np.int64), PairLayout(3, ordered=True), Coefficient.ALPHA, scale(3))
    with pytest.raises(ConfigError, match="not that of these labels"):
        pair_counts(from_table(KNOWN["cohen"]["table"]), PairLayout(3), stream())
    for classes in (1, 33):
        with pytest.raises(ConfigError):
            PairLayout(classes)
    for epsilon in (0.0, math.inf, math.nan):
        with pytest.raises(ConfigError):
            CountNoise(epsilon)


@pytest.mark.slow
@pytest.mark.parametrize(("items", "epsilon"), [(200, None), (1000, None), (1000, 0.5), (3000, 0.2)])
def test_the_intervals_hold_the_truth_as_often_as_they_say(items: int, epsilon: float | None) -> None:
    """Over 2,000 tables, 95 % intervals: 93 % to 97.5 %."""
    noise, rng, held = None if epsilon is None else CountNoise(epsilon), np.random.default_rng(items), 0
    rng2 = np.random.default_rng(9)
    confusion, prevalence = confusions(2, 3, rng2), np.array([0.6, 0.3, 0.1])
    joint = np.einsum("k,kl,km->lm", prevalence, confusion[0], confusion[1])
    truth = float(coefficient_of(Coefficient.FLEISS, scale(3), joint + joint.T))
    layout = PairLayout(3)
    first, second = (a.ravel() for a in np.indices((3, 3)))
    for _ in range(2000):
        drawn = rng.multinomial(items, joint.ravel())
        counts = np.bincount(layout.places(first, second), weights=drawn, minlength=6).astype(np.int64)
        seen = counts if noise is None else noisy(counts, noise, rng)
        found = federated_agreement(seen, layout, Coefficient.ALPHA, scale(3), noise)
        held += found.low <= truth <= found.high
    print(f"{items} items, epsilon {epsilon}: {held / 20:.1f} %")
    assert 0.93 * 2000 <= held <= 0.975 * 2000
