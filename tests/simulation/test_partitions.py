"""How rows are spread: nobody is lost or doubled, and each skew does what its name says."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.partition import Indices, class_table
from fedseal.simulation.partitions.features import continuous, feature_cells, natural
from fedseal.simulation.partitions.label_noise import Confusion, instance, pair, symmetric
from fedseal.simulation.partitions.labels import deal_labels, label_dirichlet, labels_per_site
from fedseal.simulation.partitions.missing import Missingness
from fedseal.simulation.partitions.quantity import Rule, apportion, by_sizes, iid, relative_size

Labels = NDArray[np.intp]


def keyed(seed: int = 0) -> KeyedRandomness:
    return KeyedRandomness(seed, "test")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def values(rows: int, seed: int, columns: int = 3) -> NDArray[np.float64]:
    x = rng(seed).normal(size=(rows, columns))
    # Ties and gaps, as real columns have them.
    x[::5] = np.round(x[::5])
    x[::11, 0] = np.nan
    return x


# All of them on the same rows: three classes, three features.
PARTITIONS: dict[str, Callable[[Labels, int, int], list[Indices]]] = {
    "iid": lambda y, sites, seed: iid(len(y), sites, keyed(seed).stream("p")),
    "dirichlet": lambda y, sites, seed: label_dirichlet(
        y, sites=sites, alpha=1.0, min_rows=2, self_balancing=False, randomness=keyed(seed)
    ),
    "balanced": lambda y, sites, seed: label_dirichlet(
        y, sites=sites, alpha=0.2, min_rows=1, self_balancing=True, randomness=keyed(seed)
    ),
    "labels": lambda y, sites, seed: labels_per_site(y, sites=sites, count=2, stream=keyed(seed).stream("p")),
    "quantity": lambda y, sites, seed: by_sizes(
        len(y), apportion(rng(seed).random(sites), len(y), 3), keyed(seed).stream("p")
    ),
    "continuous": lambda y, sites, seed: continuous(
        values(len(y), seed)[:, 0], sites=sites, strictness=0.5, stream=keyed(seed).stream("p")
    ),
    "cells": lambda y, sites, seed: feature_cells(
        values(len(y), seed), sites=sites, bins=2, stream=keyed(seed).stream("p")
    ),
    "natural": lambda y, sites, seed: natural(
        (np.arange(len(y)) % 9).astype(np.intp), sites=sites, stream=keyed(seed).stream("p")
    ),
}


@pytest.mark.parametrize("name", PARTITIONS)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(80, 160), sites=st.integers(2, 6), seed=st.integers(0, 2**63 - 1))
def test_everybody_is_at_exactly_one_site(name: str, rows: int, sites: int, seed: int) -> None:
    y = np.arange(rows, dtype=np.intp) % 3
    parts = PARTITIONS[name](y, sites, seed)
    assert len(parts) == sites
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    assert all((np.diff(part) > 0).all() for part in parts)
    assert min(len(part) for part in parts) >= 1
    again = PARTITIONS[name](y, sites, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=30).filter(lambda w: sum(w) > 0),
    rows=st.integers(0, 500),
    least=st.integers(0, 5),
)
def test_apportioned_rows_add_up_and_none_is_below_the_least(weights: list[float], rows: int, least: int) -> None:
    if rows < len(weights) * least:
        with pytest.raises(ConfigError, match="cannot fill"):
            apportion(np.array(weights), rows, least)
        return
    sizes = apportion(np.array(weights), rows, least)
    assert sizes.sum() == rows
    assert sizes.min() >= least


def test_apportioned_rows_follow_the_weights_by_largest_remainders() -> None:
    """Hamilton's method by hand: 10 rows by 1 : 2 : 4 are 1.43, 2.86 and 5.71, so the second and third get one more."""
    assert apportion(np.array([1.0, 2.0, 4.0]), 10, 0).tolist() == [1, 3, 6]


SIZES: dict[Rule, list[float]] = {
    "equal": [1, 1, 1, 1],
    "linear": [1 / 2.5, 2 / 2.5, 3 / 2.5, 4 / 2.5],
    "square": [1 / 7.5, 4 / 7.5, 9 / 7.5, 16 / 7.5],
    "exponential": (np.exp([1, 2, 3, 4]) / np.exp([1, 2, 3, 4]).mean()).tolist(),
    "explicit": [10 / 15, 20 / 15, 10 / 15, 20 / 15],
}


@pytest.mark.parametrize("rule", SIZES)
def test_sizes_by_rule_are_multiples_of_the_mean(rule: Rule) -> None:
    sizes = [relative_size(rule, site, 4, stream=keyed().stream(site), sizes=(10, 20)) for site in range(4)]
    assert sizes == pytest.approx(SIZES[rule])


@pytest.mark.parametrize(("rule", "alpha", "spread"), [("dirichlet", 4.0, 0.5), ("dirichlet", 0.25, 2.0)])
def test_drawn_sizes_have_mean_one_and_the_deviation_of_a_gamma(rule: Rule, alpha: float, spread: float) -> None:
    sizes = np.array([relative_size(rule, s, 4000, stream=keyed().stream(s), alpha=alpha) for s in range(4000)])
    assert sizes.mean() == pytest.approx(1.0, abs=4 * spread / np.sqrt(4000))
    assert sizes.std() == pytest.approx(spread, rel=0.15)


def test_lognormal_sizes_are_those_of_synthetic() -> None:
    sizes = np.array([relative_size("lognormal", s, 1, stream=keyed().stream(s)) for s in range(2000)])
    # n = exp(N(4, 2^2)) + 50 has median exp(4) + 50, in units of its mean exp(6) + 50.
    assert np.median(sizes) == pytest.approx((np.exp(4) + 50) / (np.exp(6) + 50), rel=0.1)


def share_of_largest(labels: Labels, parts: list[Indices]) -> float:
    """The mean share of a site's most frequent class."""
    table = class_table(labels, parts)
    return float((table.max(axis=1) / table.sum(axis=1)).mean())


def test_a_small_alpha_leaves_few_classes_at_a_site_and_a_large_one_all() -> None:
    y = np.arange(2000, dtype=np.intp) % 10
    shares = [
        share_of_largest(y, label_dirichlet(y, sites=8, alpha=a, min_rows=5, self_balancing=False, randomness=keyed(1)))
        for a in (0.1, 1.0, 100.0)
    ]
    assert shares[0] > 0.4 > shares[1] > 0.2 > shares[2]
    assert shares[2] == pytest.approx(0.1, abs=0.05)


def test_dirichlet_shares_of_a_class_have_the_variance_of_the_distribution() -> None:
    """Of Dirichlet(a, ..., a) over n sites a share has variance (1/n)(1 - 1/n)/(n a + 1)."""
    y = np.zeros(400, dtype=np.intp)
    parts = [
        label_dirichlet(y, sites=5, alpha=1.0, min_rows=0, self_balancing=False, randomness=keyed(s))
        for s in range(400)
    ]
    shares = np.array([[len(part) / 400 for part in p] for p in parts])
    assert shares.mean(axis=0) == pytest.approx(np.full(5, 0.2), abs=0.03)
    assert shares.var() == pytest.approx(0.2 * 0.8 / 6, rel=0.15)


def test_self_balancing_keeps_sites_closer_to_their_equal_share() -> None:
    y = np.arange(1000, dtype=np.intp) % 10

    def largest(balanced: bool, seed: int) -> int:
        parts = label_dirichlet(y, sites=5, alpha=0.3, min_rows=1, self_balancing=balanced, randomness=keyed(seed))
        return max(len(part) for part in parts)

    assert np.mean([largest(True, s) for s in range(20)]) < np.mean([largest(False, s) for s in range(20)]) - 20


@settings(max_examples=40, deadline=None)
@given(classes=st.integers(2, 12), sites=st.integers(1, 30), count=st.integers(1, 12), seed=st.integers(0, 2**32))
def test_classes_are_dealt_out_evenly_and_none_is_left(classes: int, sites: int, count: int, seed: int) -> None:
    if count > classes or sites * count < classes:
        with pytest.raises(ConfigError):
            deal_labels(classes, sites=sites, count=count, stream=keyed(seed).stream("p"))
        return
    deal = deal_labels(classes, sites=sites, count=count, stream=keyed(seed).stream("p"))
    assert (deal.sum(axis=1) == count).all()
    assert deal.sum(axis=0).max() - deal.sum(axis=0).min() <= 1
    longer = deal_labels(classes, sites=sites + 3, count=count, stream=keyed(seed).stream("p"))
    assert np.array_equal(longer[:sites], deal)


def test_a_site_has_as_many_labels_as_declared() -> None:
    y = np.arange(300, dtype=np.intp) % 10
    for count in (1, 2, 3):
        table = class_table(y, labels_per_site(y, sites=10, count=count, stream=keyed().stream("p")))
        assert ((table > 0).sum(axis=1) == count).all()


def test_a_strict_continuous_partition_cuts_the_order_and_a_lax_one_is_random() -> None:
    column = rng().permutation(1000).astype(np.float64)

    def means(strictness: float) -> NDArray[np.float64]:
        parts = continuous(column, sites=4, strictness=strictness, stream=keyed().stream("p"))
        return np.array([column[part].mean() for part in parts])

    strict = continuous(column, sites=4, strictness=1.0, stream=keyed().stream("p"))
    assert [sorted(column[part]) for part in strict] == [list(range(i * 250, i * 250 + 250)) for i in range(4)]
    assert np.ptp(means(0.0)) < 150 < np.ptp(means(0.5)) < np.ptp(means(1.0))


def test_octants_that_mirror_one_another_are_at_one_site() -> None:
    """FCUBE: eight octants, four sites, two octants a site with opposite signs (Li, Diao, Chen and He 2022)."""
    x = rng().uniform(-1, 1, (4000, 3))
    # The cuts are medians: subtracting them puts these at 0 exactly.
    x -= np.median(x, axis=0)
    parts = feature_cells(x, sites=4, bins=2, stream=keyed().stream("p"))
    signs = [{tuple(row) for row in np.sign(x[part])} for part in parts]
    for own in signs:
        assert len(own) == 2
        first, second = own
        assert tuple(-np.array(first)) == second


def test_more_sites_than_pairs_of_cells_share_them() -> None:
    x = rng().uniform(-1, 1, (400, 1))
    parts = feature_cells(x, sites=4, bins=4, stream=keyed().stream("p"))
    assert all(80 < len(part) < 120 for part in parts)
    with pytest.raises(ConfigError, match="without rows"):
        feature_cells(np.zeros((10, 1)), sites=20, bins=2, stream=keyed().stream("p"))


def test_as_many_groups_as_sites_are_the_sites_and_more_are_gathered_evenly() -> None:
    groups = np.repeat(np.arange(6), [50, 10, 10, 10, 10, 10]).astype(np.intp)
    same = natural(groups, sites=6, stream=keyed().stream("p"))
    assert [len(part) for part in same] == [50, 10, 10, 10, 10, 10]
    two = natural(groups, sites=2, stream=keyed().stream("p"))
    assert sorted(len(part) for part in two) == [50, 50]
    with pytest.raises(ConfigError, match="6 groups cannot be 7 sites"):
        natural(groups, sites=7, stream=keyed().stream("p"))


def test_symmetric_noise_takes_all_other_classes_and_pair_noise_the_next() -> None:
    y = np.full(20_000, 3, dtype=np.intp)
    recorded = np.bincount(symmetric(y, 5, 0.4, rng()), minlength=5) / len(y)
    assert recorded == pytest.approx([0.1, 0.1, 0.1, 0.6, 0.1], abs=0.012)
    recorded = np.bincount(pair(y, 5, 0.25, rng()), minlength=5) / len(y)
    assert recorded == pytest.approx([0, 0, 0, 0.75, 0.25], abs=0.012)
    assert set(pair(np.full(50, 4, dtype=np.intp), 5, 1.0, rng())) == {0}


def test_instance_noise_has_its_rate_and_goes_by_the_features() -> None:
    z = rng().normal(size=(20_000, 4))
    y = np.zeros(len(z), dtype=np.intp)
    confusion = Confusion.drawn(4, 3, keyed().stream("c"))
    recorded = instance(y, z, confusion, 0.3, rng(1))
    assert (recorded != y).mean() == pytest.approx(0.3, abs=0.015)
    wrong = recorded > 0
    favours_second = z @ (confusion.projections[0, :, 2] - confusion.projections[0, :, 1]) > 0
    assert (recorded[wrong & favours_second] == 2).mean() > 0.7
    assert (recorded[wrong & ~favours_second] == 2).mean() < 0.3


def test_what_is_missing_at_random_does_not_depend_on_the_value_and_what_is_not_does() -> None:
    z = rng().normal(size=20_000)
    at_random = Missingness(0.3).drawn(z, 1.0, rng(1))
    by_value = Missingness.fitted(0.3, z).drawn(z, 1.0, rng(1))
    assert at_random.mean() == pytest.approx(0.3, abs=0.015)
    assert by_value.mean() == pytest.approx(0.3, abs=0.015)
    assert abs(z[at_random].mean()) < 0.05
    assert z[by_value].mean() > 0.8
    assert Missingness.fitted(0.3, z).drawn(z, 0.5, rng(2)).mean() == pytest.approx(0.15, abs=0.012)
    assert Missingness.fitted(1.0, z).drawn(z, 1.0, rng()).all()
