"""Degree and threshold of the sparse graph: published tables, exact arithmetic, and the conditions themselves."""

import json
from fractions import Fraction
from math import comb, log2
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedseal.errors import LocalError
from fedseal.privacy.secagg import hypergeometric
from fedseal.privacy.secagg.degree import Adversary, NoDegreeError, find_degree, gap_pairs
from fedseal.privacy.secagg.hypergeometric import Urn, all_marked_below, largest_rare_below, smallest_rare
from fedseal.privacy.secagg.parameters import MAX_DEGREE, PROTOCOL_RULES, degree_for

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "tests" / "vectors" / "graph_degrees.json").read_text(encoding="utf-8"))
TABLE = ROOT.parent / "shared" / "vectors" / "harary_parameters.json"
NAMES = {"none": Adversary.NONE, "curious_server": Adversary.CURIOUS, "semi_malicious_server": Adversary.SEMI_MALICIOUS}


def found(n: int, a: int, d: int, sigma: int, eta: int, adversary: Adversary) -> tuple[int, int]:
    degree = find_degree(n, a, d, sigma, eta, adversary)
    return degree.neighbours, degree.threshold


@pytest.mark.parametrize("row", VECTORS["published"]["rows"], ids=str)
def test_published_degrees(row: list[Any]) -> None:
    n, a, d, adversary, k, t = row
    assert found(n, n * a // 100, n * d // 100, 40, 20, Adversary(adversary)) == (k, t)


@pytest.mark.parametrize("row", VECTORS["other_programs"]["rows"], ids=str)
def test_degrees_of_another_program(row: list[int]) -> None:
    n, a, d, sigma, eta, k, t = row
    assert found(n, n * a // 100, n * d // 100, sigma, eta, Adversary.SEMI_MALICIOUS) == (k, t)


@pytest.mark.skipif(not TABLE.exists(), reason="the whole published table is not here")
def test_the_whole_published_table() -> None:
    rows = json.loads(TABLE.read_text(encoding="utf-8"))["rows"]
    assert len(rows) > 50
    for row in rows:
        n = row["clients"]
        a, d = (int(Fraction(str(row[rate])) * n) for rate in ("adversarial_rate", "dropout_rate"))
        assert found(n, a, d, 40, 20, NAMES[row["adversary"]]) == (row["degree"], row["threshold"]), row


def test_a_few_bits_or_colluders_more_would_not_reproduce_it() -> None:
    """The tables can fail: they pin both parameters."""
    assert found(1000, 100, 100, 43, 20, Adversary.SEMI_MALICIOUS) != (96, 67)
    assert found(1000, 100, 100, 40, 23, Adversary.SEMI_MALICIOUS) != (96, 67)
    assert found(1000, 110, 100, 40, 20, Adversary.SEMI_MALICIOUS) != (96, 67)


# Exact arithmetic


@pytest.mark.parametrize("urn", [Urn(300, 30, 94), Urn(1000, 100, 132), Urn(1000, 330, 66), Urn(100_000, 10_000, 212)])
def test_doubles_are_accurate_far_below_the_bounds(urn: Urn) -> None:
    """A hundred times closer than TIE, down to 2^-200: bounds lie near 2^-110 at least."""
    ways = [comb(urn.marked, i) * comb(urn.population - urn.marked, urn.draws - i) for i in range(urn.draws + 1)]
    every, total = comb(urn.population, urn.draws), 0
    tails, seen = urn.at_least(), 0
    for x in range(urn.draws, -1, -1):
        total += ways[x]
        exact = Fraction(total, every)
        if exact > Fraction(1, 1 << 200):
            assert abs(tails[x] / float(exact) - 1) < hypergeometric.TIE / 100
            seen += 1
    assert seen > 20
    assert urn.exactly_at_least(urn.draws // 2) == Fraction(sum(ways[urn.draws // 2 :]), every)


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))),
    st.fractions(Fraction(1, 10**6), 1),
)
def test_quantiles_are_those_of_exact_arithmetic(numbers: tuple[int, int, int], limit: Fraction) -> None:
    urn = Urn(*numbers)
    upper = [urn.exactly_at_least(x) for x in range(urn.draws + 2)]
    lower = [urn.exactly_below(x) for x in range(urn.draws + 2)]
    assert all(u + w == 1 for u, w in zip(upper, lower, strict=True))
    # Also at the very bound, where doubles cannot tell.
    for bound in (limit, *upper[:-1], *lower[1:]):
        if bound > 0:
            assert smallest_rare(urn, bound) == next(x for x, p in enumerate(upper) if p <= bound)
            assert largest_rare_below(urn, bound) == max(x for x, p in enumerate(lower) if p < bound)
            assert all_marked_below(*numbers, bound) == (
                Fraction(comb(numbers[1], numbers[2]), upper_ways(urn)) < bound
            )


def upper_ways(urn: Urn) -> int:
    return comb(urn.population, urn.draws)


def slowly(n: int, a: int, d: int, sigma: int, eta: int) -> tuple[int, int] | None:
    """The protocol's conditions as docs/protocol.md has them, in fractions, without any shortcut."""
    half = Fraction(1, 2 ** (sigma + 1))
    for k in range(2, n - 1, 2):
        around, side, alive = Urn(n, a, k), Urn(n, a, k // 2), Urn(n, n - d, k)
        for t in range(2, k + 1):
            surrounded = (n + 1) * around.exactly_at_least(2 * t - k)
            cut = Fraction(n * (n - k - 1), 2) * side.exactly_at_least(t - k // 2) ** 2
            deserted = (n + 1) * alive.exactly_below(t)
            if t > k // 2 and surrounded <= half and cut <= half and deserted < Fraction(1, 2**eta):
                return k, t
    return None


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 60), st.data())
def test_the_protocols_degree_is_that_of_its_conditions(n: int, data: st.DataObject) -> None:
    a, d = data.draw(st.integers(0, n // 3)), data.draw(st.integers(0, n // 4))
    sigma, eta = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 20))
    try:
        fast: tuple[int, int] | None = found(n, a, d, sigma, eta, Adversary.MALICIOUS)
    except NoDegreeError:
        fast = None
    assert fast == slowly(n, a, d, sigma, eta)


@pytest.mark.parametrize(("n", "m", "d"), [(257, 0, 25), (300, 30, 30), (1000, 100, 100), (1000, 200, 100)])
def test_the_protocols_own_numbers_keep_their_bounds_exactly(n: int, m: int, d: int) -> None:
    degree = degree_for(n, n, m, d, PROTOCOL_RULES.sigma, PROTOCOL_RULES.eta)
    k, t = degree.neighbours, degree.threshold
    surrounded = (n + 1) * Urn(n, m, k).exactly_at_least(2 * t - k)
    cut = gap_pairs(n, k) * Urn(n, m, k // 2).exactly_at_least(t - k // 2) ** 2
    assert max(surrounded, cut) <= Fraction(1, 1 << PROTOCOL_RULES.sigma + 1)
    assert (n + 1) * Urn(n, n - d, k).exactly_below(t) < Fraction(1, 1 << PROTOCOL_RULES.eta)


def test_windows_with_many_colluders_are_as_rare_as_the_bound_says() -> None:
    """E4 rests on Pr[both windows] <= Pr[one]^2 for two disjoint windows of a random order: here exactly."""
    n, a, half, x = 40, 12, 6, 3
    every = comb(n, a)
    both = sum(
        Fraction(comb(half, i) * comb(half, j) * comb(n - 2 * half, a - i - j), every)
        for i in range(x, half + 1)
        for j in range(x, half + 1)
        if i + j <= a
    )
    one = Urn(n, a, half).exactly_at_least(x)
    assert 0 < both <= one**2


def test_the_malicious_server_costs_more_neighbours_than_the_semi_malicious_one() -> None:
    assert found(1000, 100, 100, 80, 20, Adversary.MALICIOUS) == (132, 97)
    assert found(1000, 100, 100, 80, 20, Adversary.SEMI_MALICIOUS) == (120, 87)


def test_too_few_sites_have_no_degree() -> None:
    with pytest.raises(NoDegreeError, match="no sparse graph on 20 sites"):
        find_degree(20, 6, 4, 80, 20)
    with pytest.raises(LocalError, match="at least 3 sites"):
        find_degree(2, 0, 0, 80, 20)


def test_no_degree_beyond_the_largest_is_looked_for() -> None:
    with pytest.raises(NoDegreeError):
        degree_for(100_000, 100_000, 33_000, 33_000, 80, 20)
    assert degree_for(100_000, 100_000, 33_000, 5_000, 80, 20).neighbours <= MAX_DEGREE


def test_dropouts_before_the_graph_is_made_shrink_it_in_proportion_and_colluders_do_not() -> None:
    assert degree_for(600, 1000, 100, 100, 80, 20) == find_degree(600, 100, 60, 80, 20)


def test_a_ring_of_random_order_is_surrounded_as_often_as_the_urn_says() -> None:
    """The urn is the right one: colluders among the k neighbours of a fixed place of a shuffled ring."""
    rng, n, a, k = np.random.default_rng(5), 50, 15, 8
    marks = np.arange(n) < a
    counts = np.array([rng.permutation(marks)[:k].sum() for _ in range(20_000)])
    for x in (2, 3, 4):
        expected = float(Urn(n, a, k).exactly_at_least(x))
        assert abs((counts >= x).mean() - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5
    assert -log2(float(Urn(n, a, k).exactly_at_least(8))) > 15
