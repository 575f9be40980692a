"""What ran costs what others say it costs: a table of known epsilons, Opacus, and the ledger that has to afford it."""

import json
import logging
import math
import random
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dp_accounting
import pytest
from dp_accounting import rdp
from opacus.accountants import GaussianAccountant, PRVAccountant, RDPAccountant
from pydantic import ValidationError

from fedseal.errors import ConfigError
from fedseal.privacy import accounting
from fedseal.privacy.ledger import UNITS, Ledger, cost, open_ledger, open_terms
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan
from fedseal.privacy.planning import plan_run
from fedseal.study import Contract

TABLE: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "accounting.json").read_text())
CASES: list[dict[str, Any]] = TABLE["cases"]
Case = dict[str, Any]


def numbered(*numbers: int) -> pytest.MarkDecorator:
    """Cases of the table, by their number from 1."""
    return pytest.mark.parametrize("case", [pytest.param(CASES[n - 1], id=f"case {n}") for n in numbers])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Both libraries warn of orders they leave out."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def ratio(pair: list[int]) -> float:
    return pair[0] / pair[1]


def plan(noise: float, q: float = 1.0, *, steps: int = 1, releases: int = 1, retries: int = 0) -> LocalGaussian:
    return LocalGaussian(
        clip_norm=1.0, noise_multiplier=noise, sample_rate=q, steps=steps, releases=releases, retries=retries
    )


def event_of(case: Case) -> dp_accounting.DpEvent:
    """The case as one of our plans, split into releases where its number of steps can be."""
    total = case["steps"]
    steps = next((s for s in (5, 2, 3) if total % s == 0), 1)
    made = plan(case["sigma"], ratio(case["q"]), steps=steps, releases=total // steps)
    assert made.steps * made.releases == total
    return made.event(made.releases)


def opacus(kind: type[Any], case: Case) -> Any:
    """An accountant of Opacus that has seen all steps of a case."""
    accountant = kind()
    accountant.history = [(case["sigma"], ratio(case["q"]), case["steps"])]
    return accountant


# The table


@pytest.mark.quick("case 1", "case 2", "case 3", "case 4", "case 5", "case 7", "case 9")
@numbered(1, 2, 3, 4, 5, 6, 7, 8, 9)
def test_the_epsilon_shown_is_that_of_the_table(case: Case) -> None:
    assert accounting.epsilon_pld(event_of(case), ratio(case["delta"])) == pytest.approx(case["pld"], abs=1e-4)


@numbered(1, 2, 3, 4, 5, 6, 7, 8)
def test_the_renyi_epsilon_is_that_of_the_table(case: Case) -> None:
    found = accounting.epsilon_rdp(event_of(case), ratio(case["delta"]))
    assert found == pytest.approx(case["dpa_rdp"], abs=case["tolerance"])


@numbered(9)
def test_at_much_noise_the_orders_of_opacus_end_too_early(case: Case) -> None:
    """The table's figure is for orders up to 63; the best one is far beyond."""
    delta = ratio(case["delta"])
    short = rdp.RdpAccountant(RDPAccountant.DEFAULT_ALPHAS)
    short.compose(event_of(case))
    assert short.get_epsilon(delta) == pytest.approx(case["dpa_rdp"], abs=case["tolerance"])
    assert case["pld"] < accounting.epsilon_rdp(event_of(case), delta) < case["dpa_rdp"] / 3


@numbered(1, 2, 3, 4, 5, 6, 7, 8)
def test_opacus_says_what_the_table_says_of_it(case: Case) -> None:
    found = opacus(RDPAccountant, case).get_epsilon(ratio(case["delta"]))
    assert found == pytest.approx(case["opacus_rdp"], rel=1e-6)


@numbered(1, 2, 3, 5, 7)
def test_opacus_and_our_event_agree_at_the_orders_of_opacus(case: Case) -> None:
    delta, same = ratio(case["delta"]), rdp.RdpAccountant(RDPAccountant.DEFAULT_ALPHAS)
    same.compose(event_of(case))
    assert opacus(RDPAccountant, case).get_epsilon(delta) == pytest.approx(same.get_epsilon(delta), rel=1e-9)


@numbered(1, 2, 3, 4, 5, 6, 7, 8)
def test_the_tight_accountant_of_opacus_brackets_ours(case: Case) -> None:
    found = opacus(PRVAccountant, case).get_epsilon(ratio(case["delta"]), eps_error=0.01)
    assert case["pld"] <= found <= case["pld"] + 0.012


@numbered(6, 8)
def test_gaussian_privacy_under_reports_and_so_is_never_used(case: Case) -> None:
    """The central limit theorem has not set in where noise and sampling rate are small."""
    assert opacus(GaussianAccountant, case).get_epsilon(ratio(case["delta"])) < 0.5 * case["pld"]


def test_three_runs_together_cost_what_the_table_says() -> None:
    known = TABLE["composition"]
    q, delta = ratio(known["q"]), ratio(known["delta"])
    events = tuple(plan(sigma, q, releases=steps).event(steps) for sigma, steps in known["runs"])
    together = dp_accounting.ComposedDpEvent(list(events))
    assert accounting.spent(events, delta) == pytest.approx(known["pld"], abs=1e-4)
    opacus_ = RDPAccountant()
    opacus_.history = [(sigma, q, steps) for sigma, steps in known["runs"]]
    assert opacus_.get_epsilon(delta) == pytest.approx(known["rdp"], abs=1e-4)
    # Opacus ends the series of a broken order earlier than dp-accounting; the two differ in the third digit.
    assert accounting.epsilon_rdp(together, delta) == pytest.approx(known["rdp"], abs=0.01)


# Events


def test_the_event_of_a_plan_is_what_runs() -> None:
    gauss = dp_accounting.GaussianDpEvent(1.5)
    sampled = dp_accounting.PoissonSampledDpEvent(0.25, gauss)
    assert plan(1.5, 0.25, steps=3, releases=7).event(7) == dp_accounting.SelfComposedDpEvent(sampled, 21)
    assert plan(1.5, 0.25, steps=3, releases=7).event(2) == dp_accounting.SelfComposedDpEvent(sampled, 6)
    assert plan(1.5, 1.0, steps=3, releases=7).event(1) == dp_accounting.SelfComposedDpEvent(gauss, 3)
    assert plan(1.5).event(0) == dp_accounting.NoOpDpEvent()


def test_the_clip_norm_does_not_change_the_cost() -> None:
    """Noise is a multiple of it."""
    assert replace(plan(1.5, 0.25), clip_norm=9.0).event(3) == plan(1.5, 0.25).event(3)


def test_a_release_without_privacy_has_no_finite_epsilon() -> None:
    event = NoPrivacy(releases=3, retries=1).event(1)
    numbers = [accounting.epsilon_pld(event, 1e-5), accounting.epsilon_rdp(event, 1e-5), accounting.rdp_at(event, 7.25)]
    numbers += [accounting.best_order(event, 1e-5)[1], accounting.spent((plan(1.0).event(1), event), 1e-5)]
    assert numbers == [math.inf] * 5
    assert NoPrivacy(releases=3, retries=1).event(0) == dp_accounting.NoOpDpEvent()


def test_nothing_released_costs_nothing() -> None:
    assert accounting.spent((), 1e-5) == 0.0
    assert accounting.epsilon_pld(plan(1.0).event(0), 1e-5) == 0.0


# Orders and budgets


def test_the_conversion_is_that_of_dp_accounting() -> None:
    rng = random.Random(7)
    for _ in range(500):
        order, delta = rng.uniform(1.1, 256), 10 ** rng.uniform(-9, -2)
        divergence = max(0.0, -accounting.conversion(order, delta)) + rng.uniform(1e-2, 10)
        epsilon = rdp.compute_epsilon([order], [divergence], delta)[0]
        assert divergence + accounting.conversion(order, delta) == pytest.approx(epsilon, rel=1e-12, abs=1e-12)
        assert accounting.rdp_budget(epsilon, delta, order) == pytest.approx(divergence, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("epsilon", "order", "budget"), TABLE["budgets"]["rows"])
def test_the_budget_of_a_plain_gaussian_is_that_of_the_table(epsilon: float, order: float, budget: float) -> None:
    delta = ratio(TABLE["budgets"]["delta"])
    assert accounting.rdp_budget(epsilon, delta, order) == pytest.approx(budget, abs=2e-3)
    # No other order carries more of such a plan: cost grows with the order in proportion.
    best = max(accounting.ORDERS, key=lambda a: accounting.rdp_budget(epsilon, delta, a) / a)
    assert best == pytest.approx(order, abs=0.2)


def test_orders_are_increasing_and_above_one() -> None:
    assert list(accounting.ORDERS) == sorted(set(accounting.ORDERS))
    assert accounting.ORDERS[0] > 1.01


@pytest.mark.parametrize("seed", range(10))
def test_the_filter_never_counts_less_than_the_tight_epsilon(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(5):
        q = rng.choice([1.0, rng.uniform(0.01, 0.5)])
        made = plan(rng.uniform(4.0, 8.0), q, steps=rng.randrange(1, 4), releases=rng.randrange(1, 8))
        order = rng.choice([a for a in accounting.ORDERS if 2 <= a <= 64])
        filtered = cost(made, order) * made.releases / UNITS + accounting.conversion(order, 1e-5)
        assert filtered >= accounting.epsilon_pld(made.event(made.releases), 1e-5)


# Calibration


def affordable(made: LocalGaussian, epsilon: float, delta: float, order: float, share: float = 1.0) -> bool:
    terms = open_terms("train", epsilon=epsilon, delta=delta, order=order)
    return cost(made, order) * made.attempts <= share * terms.budget


@pytest.mark.quick(
    "1.0-1-1-0.5-1.0",
    "1.0-1-1-3.0-0.3",
    "1.0-1-1-20.0-1.0",
    "0.1-5-20-0.5-1.0",
    "0.1-5-20-3.0-0.3",
    "0.01-50-100-0.5-1.0",
)
@pytest.mark.parametrize(("epsilon", "share"), [(0.5, 1.0), (3.0, 0.3), (20.0, 1.0)])
@pytest.mark.parametrize(("q", "steps", "releases"), [(1.0, 1, 1), (0.1, 5, 20), (0.01, 50, 100)])
def test_the_calibrated_noise_is_affordable_and_a_little_less_is_not(
    q: float, steps: int, releases: int, epsilon: float, share: float
) -> None:
    wanted = plan(1.0, q, steps=steps, releases=releases, retries=2)
    found = accounting.calibrate(
        lambda z: replace(wanted, noise_multiplier=z).event(wanted.attempts),
        epsilon=epsilon,
        delta=1e-5,
        charges=wanted.attempts,
        share=share,
    )
    enough, less = (replace(wanted, noise_multiplier=found.noise_multiplier * f) for f in (1.0, 0.999))
    assert affordable(enough, epsilon, 1e-5, found.order, share)
    carrying = [a for a in accounting.ORDERS if accounting.rdp_budget(epsilon, 1e-5, a) > 0]
    divergence = rdp.RdpAccountant(carrying)
    divergence.compose(less.event(less.attempts))
    budgets = [share * accounting.rdp_budget(epsilon, 1e-5, a) for a in carrying]
    assert all(r > b for r, b in zip(divergence.rdp, budgets, strict=True))


def test_the_calibrated_noise_of_thousands_of_attempts_is_affordable_to_the_last() -> None:
    """Every attempt is rounded up to 10^-12. The epsilon is one at which the noise found before just about fits."""
    wanted = plan(1.0, releases=9006, retries=1000)

    def event(noise: float) -> dp_accounting.DpEvent:
        return replace(wanted, noise_multiplier=noise).event(wanted.attempts)

    before = accounting.calibrate(event, epsilon=3.0, delta=1e-5, charges=1)
    divergence = accounting.rdp_at(event(before.noise_multiplier), before.order)
    epsilon = divergence + 1.2e-9 + accounting.conversion(before.order, 1e-5)
    found = accounting.calibrate(event, epsilon=epsilon, delta=1e-5, charges=wanted.attempts)
    assert affordable(replace(wanted, noise_multiplier=found.noise_multiplier), epsilon, 1e-5, found.order)


@pytest.mark.parametrize("epsilon", [1e-6, 0.01, 0.0195, 0.02])
def test_an_epsilon_that_no_noise_can_keep_is_a_config_error(epsilon: float) -> None:
    wanted = plan(1.0, releases=10_000, steps=100_000)
    with pytest.raises(ConfigError, match="no noise makes this plan fit") as caught:
        accounting.calibrate(
            lambda z: replace(wanted, noise_multiplier=z).event(wanted.attempts),
            epsilon=epsilon,
            delta=1e-5,
            charges=wanted.attempts,
        )
    assert "Raise epsilon" in caught.value.next_step


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan])
def test_an_epsilon_out_of_range_is_a_config_error(epsilon: float) -> None:
    with pytest.raises(ConfigError, match="expected epsilon > 0"):
        accounting.calibrate(lambda z: plan(z).event(1), epsilon=epsilon, delta=1e-5, charges=1)


@pytest.mark.parametrize(("delta", "share"), [(0.0, 1.0), (1.0, 1.0), (-0.1, 1.0), (1e-5, 0.0), (1e-5, 1.1)])
def test_a_delta_or_share_out_of_range_is_a_config_error(delta: float, share: float) -> None:
    with pytest.raises(ConfigError, match="expected epsilon > 0"):
        accounting.calibrate(lambda z: plan(z).event(1), epsilon=1.0, delta=delta, charges=1, share=share)


# Plans of a run


def contract(*, federated: bool = False, plan_: str = "local", **changes: Any) -> Contract:
    """A study's contract."""
    privacy = {"plan": plan_, "epsilon": changes.pop("epsilon", 3.0), "retries": changes.pop("retries", 2)}
    normalisation = {"kind": "federated", "low": [0.0, -1.0], "high": [1.0, 1.0]} if federated else {}
    training = {"rounds": 20, "local_steps": 5, "sample_rate": 0.1, "learning_rate": 0.1} | changes
    tables = {"training": training, "privacy": privacy, "normalisation": normalisation}
    return Contract.model_validate({"version": 1, "name": "study"} | tables)


def reserved(ledger: Ledger, run: bytes, plans: list[PrivacyPlan]) -> Ledger:
    for each in plans:
        ledger = ledger.reserve(run, each)[0]
    return ledger


@pytest.mark.parametrize(
    ("epsilon", "changes"),
    [
        (3.0, {}),
        (0.5, {"rounds": 200, "retries": 20}),
        (10.0, {"sample_rate": 1.0}),
        (1.0, {"rounds": 1, "retries": 0}),
    ],
)
def test_both_plans_of_a_run_fit_the_ledger_to_the_last_attempt(epsilon: float, changes: dict[str, Any]) -> None:
    study = contract(federated=True, epsilon=epsilon, **changes)
    plans = plan_run(study)
    assert isinstance(plans.moments, LocalGaussian)
    assert isinstance(plans.update, LocalGaussian)
    terms = open_terms("train", epsilon=epsilon, delta=1e-5, order=plans.order)
    ledger = reserved(open_ledger(terms)[0], b"r" * 16, [plans.moments, plans.update])
    # And they leave next to nothing: neither gets more noise than it needs.
    assert 0 <= ledger.available < 1e-3 * terms.budget
    assert plans.moments.attempts == 1 + study.privacy.retries
    assert plans.update.attempts == study.training.rounds + study.privacy.retries
    events = tuple(p.event(p.attempts) for p in (plans.moments, plans.update))
    assert accounting.spent(events, 1e-5) <= epsilon


def test_a_run_without_federated_normalisation_has_the_whole_budget() -> None:
    alone, beside = plan_run(contract()), plan_run(contract(federated=True))
    assert alone.moments is None
    assert isinstance(alone.update, LocalGaussian)
    assert isinstance(beside.update, LocalGaussian)
    assert alone.update.noise_multiplier < beside.update.noise_multiplier


def test_a_run_without_privacy_has_plans_that_say_so() -> None:
    assert plan_run(contract(plan_="none")).update == NoPrivacy(releases=20, retries=2)
    assert plan_run(contract(plan_="none")).moments is None
    assert plan_run(contract(plan_="none", federated=True)).moments == NoPrivacy(releases=1, retries=2)


def with_tables(**tables: dict[str, Any]) -> Contract:
    """A study's contract with some keys of some tables."""
    made = contract(federated="normalisation" in tables).model_dump()
    return Contract.model_validate(
        {name: made[name] | tables.get(name, {}) if name in tables else made[name] for name in made}
    )


@pytest.mark.parametrize(
    "tables",
    [
        {"training": {"sample_rate": 1e-7}},
        {"privacy": {"clip_norm": 1e-7}},
        {"privacy": {"clip_norm": 1e7}},
        {"normalisation": {"clip_norm": 1e-7}},
        {"normalisation": {"clip_norm": 1e7}},
        {"normalisation": {"budget_share": 1e-13}},
        {"normalisation": {"budget_share": 1e-15}},
    ],
    ids=str,
)
def test_a_contract_outside_what_a_plan_may_be_is_the_operators_fault(tables: dict[str, dict[str, Any]]) -> None:
    """Refused when the contract is checked or when the run is planned, but never with a traceback."""
    try:
        study = with_tables(**tables)
    except ValidationError:
        return
    with pytest.raises(ConfigError):
        plan_run(study)


# The Rényi bound that nothing at all costs at the highest order: no promise below it can be kept.
LEAST_EPSILON = accounting.conversion(max(accounting.ORDERS), 1e-5)


@pytest.mark.parametrize(("above", "retries"), [(3e-9, 2), (1e-5, 1000)], ids=["nothing left", "next to nothing"])
def test_a_share_too_small_for_the_moments_is_named(above: float, retries: int) -> None:
    """Less than nothing is left of the budget for them, or less than the largest noise needs."""
    least = {"epsilon": LEAST_EPSILON + above, "retries": retries}
    training = {"rounds": 1, "local_steps": 1, "sample_rate": 1e-6}
    enough, small = (
        with_tables(training=training, privacy=least, normalisation={"budget_share": share}) for share in (0.5, 1e-3)
    )
    with pytest.raises(ConfigError, match=r"normalisation\.budget_share 0\.001 leaves too little") as caught:
        plan_run(small)
    assert "Raise budget_share" in caught.value.next_step
    assert plan_run(enough).moments is not None


@pytest.mark.parametrize(
    ("table", "key", "good", "bad"),
    [
        ("training", "update_range", [1e-6, 100.0, 1e6], [1e300, 1e7, 1e-7, 0.0]),
        ("privacy", "delta", [1e-9, 0.05], [0.1, 0.999, 1.0, 0.0]),
        ("normalisation", "budget_share", [1e-3, 0.999], [1e-4, 0.9999]),
    ],
)
def test_numbers_that_promise_or_train_nothing_are_refused(
    table: str, key: str, good: list[float], bad: list[float]
) -> None:
    for value in good:
        assert getattr(getattr(with_tables(**{table: {key: value}}), table), key) == value
    for value in bad:
        with pytest.raises(ValidationError, match=key):
            with_tables(**{table: {key: value}})


@pytest.mark.parametrize("federated", [False, True])
def test_a_contract_whose_promise_cannot_be_kept_is_a_config_error(federated: bool) -> None:
    with pytest.raises(ConfigError):
        plan_run(contract(federated=federated, epsilon=0.01))
