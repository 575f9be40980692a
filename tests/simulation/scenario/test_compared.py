"""A sweep's groups, compared by pairs of the same seed: known answers by hand and by scipy."""

import re

import pytest
from scipy import stats
from support.scenarios import made, small

from fedseal.simulation.scenario.compared import Comparison, compare, groups_of, mean_ranks, paired
from fedseal.simulation.scenario.page_compare import render, sentence

FIRST, SECOND, THIRD = [0.80, 0.70, 0.90, 0.85], [0.84, 0.73, 0.95, 0.88], [0.81, 0.69, 0.90, 0.84]


def results(**by_strategy: list[float]) -> list[object]:
    return [
        made([a], seed=seed, strategy=strategy)
        for strategy, found in by_strategy.items()
        for seed, a in enumerate(found)
    ]


def comparison() -> Comparison:
    groups = groups_of(results(fedavg=FIRST, fedadam=SECOND, fedprox=THIRD))  # type: ignore[arg-type]
    return compare(groups, [(), (), ()], "Made", "digest")


def test_differences_are_paired_by_seed() -> None:
    groups = groups_of(results(fedavg=FIRST, fedadam=SECOND))  # type: ignore[arg-type]
    found = paired(*groups)
    assert found is not None
    differences = [b - a for a, b in zip(FIRST, SECOND, strict=True)]
    low, high = stats.ttest_rel(SECOND, FIRST).confidence_interval(0.95)
    assert found.mean == pytest.approx(sum(differences) / 4)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    # Not paired they could not be told apart: seeds differ by more than strategies do.
    assert stats.ttest_ind(SECOND, FIRST).pvalue > 0.3
    assert found.low is not None
    assert found.low > 0


def test_ranks_and_the_sentence() -> None:
    found = comparison()
    assert [g.rank for g in found.groups] == [pytest.approx(r) for r in (2.375, 1.0, 2.625)]
    assert (
        sentence(found) == "More accurate than fedavg, no promise: fedadam, no promise. "
        "1 of 2 others cannot be told from it over these seeds."
    )
    assert [g.best for g in found.groups] == [False, True, False]


def test_a_run_without_a_model_comes_last() -> None:
    groups = groups_of([made([None], strategy="fedavg"), made([0.1], strategy="fedadam")])
    assert mean_ranks(groups) == [2.0, 1.0]
    assert paired(*groups) is None


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(small(), comparison())
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "url(http" not in page
    assert "<script" not in page
    assert "fedadam, no promise" in page
