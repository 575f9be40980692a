"""From one noisy table to a model card: what is exact without noise, what noise does, and what is hidden."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from fedseal.privacy.counts import counted
from fedseal.privacy.inference.card import Card, model_card, suppressed
from fedseal.privacy.inference.evaluation import Estimate, estimates, evaluation_tables
from fedseal.privacy.inference.scores import average_precision, average_precision_error, conformal, recalibration
from fedseal.privacy.inference.tally import CountNoise, Tally
from fedseal.study import Evaluation

Real = NDArray[np.float64]
GROUPS = ("young", "middle", "old", "very old")


def persons(count: int, seed: int = 1) -> tuple[Real, Real, Real]:
    """Scores that know something and are too sure, labels, and groups: two of many and two of few."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.4).astype(float)
    logit = rng.normal(size=count) * 1.2 + 1.6 * label - 0.8
    group = rng.choice(4, size=count, p=[0.5, 0.46, 0.03, 0.01]).astype(float)
    return 1 / (1 + np.exp(-1.5 * logit)), label, group


def evaluation_of(**changes: Any) -> Evaluation:
    return Evaluation.model_validate({"epsilon": 1.0, "bins": 20, **changes})


def tally_of(
    evaluation: Evaluation, found: tuple[Real, Real, Real], noise: CountNoise | None = None, seed: int = 0
) -> Tally:
    score, label, group = found
    tables = evaluation_tables(evaluation)
    numbers = {0: label, 2: group, 3: score}
    counts = counted(tables, lambda axis: numbers[axis.source])
    if noise is not None:
        counts = counts + noise.draw(np.random.default_rng(1000 + seed), counts.shape)
    return Tally(tables, counts, 4, noise)


def card_of(evaluation: Evaluation, found: tuple[Real, Real, Real], noise: CountNoise | None = None) -> Card:
    card = model_card(tally_of(evaluation, found, noise), evaluation)
    assert card is not None
    return card


def value(estimate: Estimate) -> float:
    assert estimate.value is not None
    return estimate.value


# Single figures


@pytest.mark.parametrize("count", [30, 300, 3000])
def test_average_precision_is_scikit_learns_but_for_bins(count: int) -> None:
    score, label, _ = found = persons(count)
    estimate = estimates(tally_of(evaluation_of(), found))["average_precision"]
    exact = float(average_precision_score(label, score))
    assert abs(value(estimate) - exact) <= estimate.bin_error + 1e-12
    assert estimate.bin_error < 0.3


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=8))
def test_the_order_within_bins_never_leaves_the_bound(cells: list[tuple[int, int]]) -> None:
    table = np.array(cells, dtype=np.float64).T
    if table[1].sum() == 0:
        return
    binned, error = float(average_precision(table[None])[0]), average_precision_error(table)
    for first in (0, 1):
        # The best and the worst order: all of one label before the other in every bin.
        label, score = [], []
        for place in range(table.shape[1]):
            order = [first] * int(table[first, place]) + [1 - first] * int(table[1 - first, place])
            label += order
            score += [place + i / (len(order) + 1) for i in range(len(order))]
        assert abs(float(average_precision_score(label, score)) - binned) <= error + 1e-9


def test_rates_and_calibration_are_those_of_the_persons() -> None:
    score, label, _ = found = persons(4000)
    got = estimates(tally_of(evaluation_of(), found))
    said = score >= 0.5
    assert value(got["tpr"]) == pytest.approx(said[label == 1].mean())
    assert value(got["fpr"]) == pytest.approx(said[label == 0].mean())
    assert value(got["selection_rate"]) == pytest.approx(said.mean())
    places = np.minimum((score * 10).astype(int), 9)
    exact = sum(abs(float((score - label)[places == g].sum())) for g in range(10)) / 4000
    assert abs(value(got["calibration_error"]) - exact) <= got["calibration_error"].bin_error
    # These scores are too sure of themselves.
    assert value(got["calibration_error"]) > 0.02


def test_the_calibration_error_is_corrected_for_what_noise_adds() -> None:
    rng = np.random.default_rng(5)
    score = rng.random(1000)
    found = score, (rng.random(1000) < score).astype(float), np.zeros(1000)
    evaluation, noise = evaluation_of(), CountNoise(0.3, 4, 3)
    exact = value(estimates(tally_of(evaluation, found))["calibration_error"])
    corrected, held, plain = [], 0, []
    for seed in range(60):
        tally = tally_of(evaluation, found, noise, seed)
        estimate = estimates(tally)["calibration_error"]
        corrected.append(value(estimate))
        held += estimate.low is not None and estimate.high is not None and estimate.low <= exact <= estimate.high
        plain.append(value(estimates(Tally(tally.tables, tally.counts, 4, None))["calibration_error"]))
    assert abs(np.mean(corrected) - exact) < 0.5 * (np.mean(plain) - exact)
    # The twin: uncorrected it is far above what is true.
    assert np.mean(plain) > 1.3 * exact
    assert held >= 50


# The card


def test_reliability_without_noise_is_that_of_the_persons() -> None:
    score, label, _ = found = persons(3000)
    rows = card_of(evaluation_of(), found).reliability
    assert len(rows) == 10
    for row in rows:
        inside = (score >= row.low) & (score < row.high)
        assert value(row.persons) == inside.sum()
        assert value(row.positives) == pytest.approx(label[inside].mean())
        assert abs(value(row.score) - score[inside].mean()) <= 0.025


def test_every_threshold_has_its_rates() -> None:
    score, label, _ = found = persons(2000)
    thresholds = card_of(evaluation_of(), found).thresholds
    assert [t.score for t in thresholds] == pytest.approx([i / 20 for i in range(1, 20)])
    for t in thresholds:
        assert value(t.tpr) == pytest.approx((score[label == 1] >= t.score).mean())
        assert value(t.fpr) == pytest.approx((score[label == 0] >= t.score).mean())


def test_the_conformal_set_covers_new_persons_and_a_smaller_quantile_would_not() -> None:
    evaluation, noise = evaluation_of(coverage=0.85), CountNoise(1.0, 4, 3)
    rule = card_of(evaluation, persons(1500), noise).conformal
    assert rule is not None
    score, label, _ = persons(40_000, seed=9)
    wrong = np.where(label == 1, 1 - score, score)
    assert (wrong <= rule.quantile).mean() >= 0.85
    assert (wrong <= rule.quantile - 0.1).mean() < 0.85
    both = (score >= rule.abstain_from) & (score <= rule.abstain_to)
    assert abs(both.mean() - rule.abstains) < 0.06


def test_a_coverage_that_noise_leaves_open_has_no_rule() -> None:
    table = np.array([[3.0, 1.0], [1.0, 3.0]])
    samples = table[None] + np.random.default_rng(1).normal(0, 30, (500, 2, 2))
    assert conformal(table, samples, np.array([0.0, 0.5, 1.0]), coverage=0.9, level=0.95) is None


def test_recalibration_is_a_logistic_regression_on_logits() -> None:
    score, label, _ = found = persons(5000)
    got = card_of(evaluation_of(bins=40), found).recalibration
    assert got is not None
    logit = np.log(score / (1 - score))[:, None]
    oracle = LogisticRegression(C=np.inf).fit(logit, label)
    assert got.slope == pytest.approx(float(oracle.coef_[0, 0]), rel=0.06)
    assert got.intercept == pytest.approx(float(oracle.intercept_[0]), abs=0.06)
    assert got.temperature > 1.1


def test_a_table_that_separates_has_no_recalibration() -> None:
    assert recalibration(np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0.0, 0.5, 1.0])) is None


# Subgroups


def by_group(**changes: Any) -> Evaluation:
    return evaluation_of(subgroup="age", groups=GROUPS, **changes)


def test_groups_cost_nothing_more_and_sum_to_everyone() -> None:
    found = persons(3000)
    plain, grouped = tally_of(evaluation_of(), found), tally_of(by_group(), found)
    assert len(grouped.tables.tables) == len(plain.tables.tables) == 1
    assert grouped.split[0].sum(axis=0).tolist() == plain.split[0].tolist()
    assert estimates(grouped) == estimates(plain)


def test_a_group_has_its_own_figures_and_gaps_are_those_between_shown_ones() -> None:
    score, label, group = found = persons(4000)
    card = card_of(by_group(smallest_group=30), found)
    assert card.subgroups is not None
    rates = []
    for place, shown in enumerate(card.subgroups.groups):
        inside = group == place
        assert not shown.hidden
        assert value(shown.estimates["auc"]) == pytest.approx(roc_auc_score(label[inside], score[inside]), abs=0.03)
        rates.append(float((score >= 0.5)[inside].mean()))
        assert value(shown.estimates["selection_rate"]) == pytest.approx(rates[-1])
    assert value(card.subgroups.gaps["demographic_parity"]) == pytest.approx(max(rates) - min(rates))


def test_small_groups_are_hidden_two_at_least() -> None:
    card = card_of(by_group(), persons(1500))
    assert card.subgroups is not None
    assert [g.hidden for g in card.subgroups.groups] == [False, False, True, True]
    assert card.subgroups.groups[2].estimates == {}
    # Noise raises the least number that is shown.
    noisy = card_of(by_group(), persons(1500), CountNoise(0.2, 4, 3))
    assert noisy.subgroups is not None
    assert noisy.subgroups.smallest > 50


@given(st.lists(st.integers(0, 300), min_size=2, max_size=8), st.integers(1, 120))
def test_nothing_hidden_can_be_had_by_subtraction(counts: list[int], smallest: int) -> None:
    persons_ = np.array(counts, dtype=np.float64)
    hidden = suppressed(persons_, smallest)
    assert hidden[persons_ < smallest].all()
    if hidden.any() and not hidden.all():
        assert hidden.sum() > 1
        assert persons_[hidden].sum() >= smallest
    if not (persons_ < smallest).any():
        assert not hidden.any()


def test_hiding_only_what_is_small_gives_it_away() -> None:
    """The attack, and the twin of the rule: the total minus those shown is the one that is hidden."""
    counts = np.array([500.0, 400.0, 7.0])
    only = counts < 50
    assert counts.sum() - counts[~only].sum() == counts[only].sum() == 7
    hidden = suppressed(counts, 50)
    assert hidden.tolist() == [False, True, True]
    assert counts.sum() - counts[~hidden].sum() == 407


# What can be asked


def test_bins_adapt_to_what_is_public() -> None:
    def bins(persons_: int, epsilon: float) -> int:
        return Evaluation.model_validate({"epsilon": epsilon, "bins": "auto", "persons": persons_}).bin_count

    assert [bins(100, 1.0), bins(1000, 1.0), bins(2000, 1.0), bins(10_000, 1.0)] == [8, 16, 34, 64]
    assert bins(1000, 0.5) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bins": "auto"}, "needs persons"),
        ({"subgroup": "age"}, "go together"),
        ({"groups": ("a", "b")}, "go together"),
        ({"subgroup": "age", "groups": ("a", "a")}, "each once"),
        ({"subgroup": "age", "groups": ("a", "b"), "tables": ("loss",)}, "of the table"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        evaluation_of(**changes)


def test_without_scores_there_is_no_card() -> None:
    evaluation = Evaluation(epsilon=1.0, tables=("loss",))
    tables = evaluation_tables(evaluation)
    assert model_card(Tally(tables, np.zeros(tables.length, dtype=np.int64), 4, None), evaluation) is None
