"""From a noisy table to metrics with intervals, and the promise that pays for it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from support.studies import tiny

from fedseal.errors import BudgetExceeded, ConfigError
from fedseal.privacy import accounting
from fedseal.privacy.counts import Tables, counted
from fedseal.privacy.inference.evaluation import PERSONS, Estimate, by_name, estimates, evaluation_tables
from fedseal.privacy.inference.tally import CountNoise, Tally
from fedseal.privacy.ledger import cost, epsilon_shown, open_ledger, open_terms
from fedseal.privacy.plan import LocalGaussian, SharedGeometric
from fedseal.privacy.planning import PURE_ORDERS, counts_epsilon, plan_evaluation
from fedseal.privacy.skellam_accounting import pure_rdp
from fedseal.study import Contract, Evaluation

Real = NDArray[np.float64]


def contract_of(**evaluation: Any) -> Contract:
    return tiny(evaluation=evaluation).contract


# Metrics


def persons(count: int, seed: int = 1) -> tuple[Real, Real]:
    """Scores that know something, and labels."""
    rng = np.random.default_rng(seed)
    label = (rng.random(count) < 0.4).astype(float)
    score = 1 / (1 + np.exp(-(rng.normal(size=count) * 1.2 + 1.6 * label - 0.8)))
    return score, label


def tally_of(evaluation: Evaluation, score: Real, label: Real, noise: CountNoise | None = None, seed: int = 0) -> Tally:
    """Released tables of such persons."""
    tables = evaluation_tables(evaluation)
    loss = -np.log(np.where(label == 1, score, 1 - score))
    right = ((score > 0.5) == (label == 1)).astype(float)
    numbers = {0: label, 3: score, 4: right, 5: loss}
    counts = counted(tables, lambda axis: numbers[axis.source])
    if noise is not None:
        counts = counts + noise.draw(np.random.default_rng(1000 + seed), counts.shape)
    return Tally(tables, counts, 4, noise)


def test_without_noise_metrics_are_those_of_the_persons_but_for_bins() -> None:
    score, label = persons(3000)
    evaluation = Evaluation(epsilon=1.0, tables=("score", "right", "loss"), bins=20)
    found = estimates(tally_of(evaluation, score, label))
    right = (score > 0.5) == (label == 1)
    exact = {
        PERSONS: 3000.0,
        "accuracy": float(right.mean()),
        "auc": float(roc_auc_score(label, score)),
        "brier": float(np.square(score - label).mean()),
        "calibration_gap": float((score - label).mean()),
        "recall_0": float(right[label == 0].mean()),
        "recall_1": float(right[label == 1].mean()),
    }
    for name, value in exact.items():
        estimate = found[name]
        assert estimate.value is not None
        assert abs(estimate.value - value) <= estimate.bin_error + 1e-12, name
        # Nothing but the value itself is plausible.
        assert (estimate.low, estimate.high) == (estimate.value, estimate.value)
    assert found["accuracy"].bin_error == 0.0
    assert 0 < found["auc"].bin_error < 0.03
    loss = -np.log(np.where(label == 1, score, 1 - score))
    assert abs((found["loss"].value or 0.0) - float(np.clip(loss, 0, 4).mean())) <= found["loss"].bin_error


def test_an_odd_number_of_bins_says_what_it_does_to_accuracy() -> None:
    score, label = persons(3000)
    found = estimates(tally_of(Evaluation(epsilon=1.0, bins=5), score, label))["accuracy"]
    exact = float(((score > 0.5) == (label == 1)).mean())
    assert found.value is not None
    assert found.bin_error > 0
    assert abs(found.value - exact) <= found.bin_error


TRIALS = 120


def coverage(noise: CountNoise, believed: CountNoise) -> dict[str, float]:
    """How often each interval holds the number that the exact tables have, over 400 persons."""
    score, label = persons(400)
    evaluation = Evaluation(epsilon=1.0, tables=("score", "loss"), bins=10)
    exact = by_name(estimates(tally_of(evaluation, score, label)))
    held = dict.fromkeys(exact, 0)
    for seed in range(TRIALS):
        noisy = tally_of(evaluation, score, label, noise, seed)
        for name, found in estimates(replace(noisy, noise=believed)).items():
            low, high = found.low, found.high
            held[name] += low is not None and high is not None and low <= (exact[name] or 0.0) <= high
    return {name: count / TRIALS for name, count in held.items()}


@pytest.mark.slow
def test_nineteen_of_twenty_intervals_hold_the_exact_number_and_too_narrow_ones_do_not() -> None:
    noise = CountNoise(decay=0.5, shares=4, honest=3)
    held = coverage(noise, noise)
    # Of 120 with a chance of .95 fewer than 104 hold once in 3000.
    for name in ("accuracy", "auc", "brier", "calibration_gap", "loss", PERSONS):
        assert held[name] >= 104 / TRIALS, name
    # The twin: intervals for noise of a third of the deviation.
    narrow = coverage(noise, CountNoise(decay=1.5, shares=4, honest=3))
    for name in ("accuracy", "auc", "brier", PERSONS):
        assert narrow[name] < 0.8, name


def test_where_noise_leaves_nothing_it_says_so() -> None:
    evaluation = Evaluation(epsilon=1.0, bins=4)
    tables = evaluation_tables(evaluation)
    empty = Tally(tables, np.zeros(tables.length, dtype=np.int64), 4, CountNoise(0.5, 4, 3))
    found = estimates(empty)
    assert found["auc"] == Estimate(None, None, None, 0.0)
    assert found["accuracy"].value is None
    wide = estimates(replace(empty, counts=np.array([1, 0, 0, 0, 0, 0, 1, 1], dtype=np.int64)))["auc"]
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_the_same_release_has_the_same_intervals() -> None:
    score, label = persons(300)
    tally = tally_of(Evaluation(epsilon=1.0), score, label, CountNoise(1.0, 4, 3))
    assert estimates(tally) == estimates(tally)


# The promise


@pytest.mark.parametrize("retries", [0, 1, 4])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_a_ledger_of_the_promise_pays_for_the_evaluation_and_its_retries_and_no_more(
    epsilon: float, retries: int
) -> None:
    planned = plan_evaluation(contract_of(epsilon=epsilon, retries=retries))
    assert planned is not None
    terms = open_terms("test", epsilon=epsilon, delta=1e-5, order=planned.order)
    ledger, _ = open_ledger(terms)[0].reserve(bytes(16), planned.plan)
    assert ledger.available >= 0
    # To the part that the conversion takes at the highest order: of .1 one in two hundred.
    assert (1 + retries) * planned.plan.epsilon >= epsilon - 0.0012
    greedy = replace(planned.plan, epsilon=planned.plan.epsilon * 1.001 + 1e-9)
    with pytest.raises(BudgetExceeded):
        open_ledger(terms)[0].reserve(bytes(16), greedy)


def test_no_order_would_leave_more() -> None:
    found = counts_epsilon(0.5, 1e-5, 3)
    assert found is not None
    best, at = found
    assert 3 * pure_rdp(at, best) <= accounting.rdp_budget(0.5, 1e-5, at)
    for order in PURE_ORDERS:
        budget = accounting.rdp_budget(0.5, 1e-5, order)
        assert budget <= 0 or 3 * pure_rdp(order, best * 1.001) > budget


def test_many_releases_are_cheaper_than_the_sum_of_their_epsilons() -> None:
    """Of 200 releases the concentrated cost is less than the pure one: the planner takes it."""
    found = counts_epsilon(1.0, 1e-5, 200)
    assert found is not None
    assert found[0] > 1.5 / 200


def test_a_promise_that_leaves_nothing_is_the_studys_fault() -> None:
    for evaluation in ({"epsilon": 0.0005}, {"epsilon": 0.02, "retries": 1000}):
        with pytest.raises(ConfigError, match=r"evaluation\.epsilon"):
            plan_evaluation(contract_of(**evaluation))


def test_a_table_more_is_that_much_more_noise() -> None:
    one, two = (plan_evaluation(contract_of(epsilon=1.0, tables=t)) for t in (("score",), ("score", "right")))
    assert one is not None
    assert two is not None
    assert two.plan.cells == 2
    assert two.plan.decay == pytest.approx(one.plan.decay / 2)
    assert isinstance(evaluation_tables(contract_of(tables=("loss",)).evaluation), Tables)


@pytest.mark.parametrize(
    "evaluation",
    [
        {"epsilon": 0.0},
        {"epsilon": 65.0},
        {"tables": ()},
        {"tables": ("score", "score")},
        {"tables": ("other",)},
        {"bins": 1},
        {"low": 2.0, "high": 2.0},
    ],
)
def test_an_evaluation_that_makes_no_sense_cannot_exist(evaluation: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="evaluation"):
        contract_of(**evaluation)


def test_an_evaluation_needs_somebody_who_may_collude() -> None:
    with pytest.raises(ValueError, match=r"needs cohort\.colluders of at least 1"):
        tiny(evaluation={"epsilon": 1.0}, cohort={"colluders": 0})


def test_pure_epsilons_are_shown_as_they_add_up() -> None:
    """Basic composition; and with other plans, what these come to and the pure ones on top."""
    plan = SharedGeometric(epsilon=0.7, cells=1, length=4, releases=2, retries=0)
    assert epsilon_shown(((plan, 2),), 1e-5) == pytest.approx(1.4)
    gaussian = LocalGaussian(clip_norm=1.0, noise_multiplier=4.0, sample_rate=1.0, steps=1, releases=3, retries=0)
    alone = epsilon_shown(((gaussian, 3),), 1e-5)
    both = epsilon_shown(((gaussian, 3), (plan, 2)), 1e-5)
    assert alone < both <= alone + 1.4 + 1e-9
    # Many small ones: the Rényi bound is the smaller.
    small = replace(plan, epsilon=0.05)
    assert epsilon_shown(((small, 400),), 1e-5) < 400 * 0.05 / 2
    assert epsilon_shown((), 1e-5) == 0.0
    assert math.isclose(cost(plan, 4096.0) / 1e12, 0.7)
