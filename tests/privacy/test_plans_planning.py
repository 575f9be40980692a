"""From a promise to shared noise: affordable to the last retry, as fine as the ring allows, never wrapping."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, SelfComposedDpEvent
from pydantic import ValidationError

from fedseal.errors import ConfigError
from fedseal.privacy import accounting
from fedseal.privacy.ledger import cost, open_terms
from fedseal.privacy.plan import PlanKind, SharedSkellam, Unit
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.releases import MOMENTS, REGISTRY, UPDATE, release_layout
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.shares import Room
from fedseal.study import Contract


def contract(plan: str = "distributed", **changes: Any) -> Contract:
    tables: dict[str, dict[str, Any]] = {
        "training": {"rounds": 20, "learning_rate": 1.0},
        "privacy": {"plan": plan, "epsilon": 3.0, "delta": 1e-5, "clip_norm": 0.5, "retries": 2},
        "cohort": {"minimum": 3, "colluders": 2, "largest_site": 1000},
        "normalisation": {},
    }
    for name, values in changes.items():
        tables[name] = tables[name] | values
    return Contract.model_validate({"version": 1, "name": "planned", **tables})


FEDERATED = {"kind": "federated", "low": [0.0] * 5, "high": [1.0] * 5, "budget_share": 0.2}


def shared(plans: RunPlans) -> list[SharedSkellam]:
    found = [plans.update] if plans.moments is None else [plans.update, plans.moments]
    return [plan for plan in found if isinstance(plan, SharedSkellam)]


@pytest.mark.parametrize("plan", ["distributed", "client"])
@pytest.mark.parametrize("normalisation", [{}, FEDERATED], ids=["task", "federated"])
@pytest.mark.parametrize("values", [14, 100_000])
def test_a_ledger_affords_all_rounds_and_retries_and_hardly_more(
    plan: str, normalisation: dict[str, Any], values: int
) -> None:
    plans = plan_run(contract(plan, normalisation=normalisation), Extent(values, 8))
    budget = open_terms("train", epsilon=3.0, delta=1e-5, order=plans.order).budget
    whole = sum(cost(p, plans.order) * p.attempts for p in shared(plans))
    assert 0.998 * budget <= whole <= budget
    assert len(shared(plans)) == (2 if normalisation else 1)
    update = shared(plans)[0]
    assert (update.length, update.clip_norm, update.releases, update.retries) == (values, 0.5, 20, 2)
    assert update.kind.label == plan


@pytest.mark.parametrize("plan", ["distributed", "client"])
@pytest.mark.parametrize(("sites", "largest"), [(3, 100), (8, 1000), (60, 5000), (8, 1_000_000)])
def test_no_cohort_of_the_run_can_wrap(plan: str, sites: int, largest: int) -> None:
    cohort = {"minimum": 3, "colluders": 1, "largest_site": largest}
    plans = plan_run(contract(plan, cohort=cohort, normalisation=FEDERATED), Extent(500, sites))
    for release, found in zip((UPDATE, MOMENTS), shared(plans), strict=True):
        for n in range(3, sites + 1):
            honest = minimum_sites(threshold(n, 1), 3, 1, 0) - 1
            layout = release_layout(
                REGISTRY[release],
                values=found.length,
                value_range=1.0,
                weight_key="num-examples",
                largest_weight=largest,
                metrics={},
                sites=n,
                ring_bits=plans.ring_bits,
                room=Room(found, n, honest),
            )
            assert layout.capacity() >= n


def test_rounding_costs_next_to_nothing() -> None:
    """In words of 32 bits where they are enough, of 64 where persons are many or vectors long."""
    for largest, values, bits in ((200, 500, 32), (1_000_000, 500, 64), (5000, 1_000_000, 64)):
        plans = plan_run(contract(cohort={"largest_site": largest}), Extent(values, 8))
        assert plans.ring_bits == bits
        update = shared(plans)[0]
        assert math.sqrt(values) / update.resolution <= 0.005
        # Beside what one Gaussian of a trusted server costs at that order.
        gaussian = plans.order / (2 * update.noise_multiplier**2)
        assert update.divergence(plans.order) <= gaussian * 1.011


def test_the_noise_of_a_sum_is_that_of_one_gaussian_at_a_trusted_server() -> None:
    """Against the ledger's own calibration of a Gaussian with everyone in every step."""
    update = shared(plan_run(contract(), Extent(50, 8)))[0]

    found = accounting.calibrate(
        lambda z: SelfComposedDpEvent(GaussianDpEvent(z), 22), epsilon=3.0, delta=1e-5, charges=22
    )
    # Whole orders only: half a percent.
    assert found.noise_multiplier <= update.noise_multiplier <= 1.005 * found.noise_multiplier


def test_a_smaller_promise_takes_more_noise() -> None:
    loose, tight = (
        shared(plan_run(contract(privacy={"epsilon": e}), Extent(50, 8)))[0].noise_multiplier for e in (4.0, 1.0)
    )
    assert tight > 3 * loose


def test_with_another_person_a_site_makes_another_update_so_its_noise_is_for_two_clip_norms() -> None:
    person, site = (shared(plan_run(contract(p), Extent(50, 8)))[0] for p in ("distributed", "client"))
    assert (person.unit, site.unit) == (Unit.PERSON, Unit.SITE)
    assert site.noise_multiplier == pytest.approx(2 * person.noise_multiplier, rel=1e-3)
    assert site.kind is PlanKind.CLIENT


def test_a_site_is_charged_for_a_move_from_one_end_of_the_ball_to_the_other() -> None:
    """Two updates of the clip norm that point opposite ways, rounded: the exact divergence is below the charge."""
    site = shared(plan_run(contract("client"), Extent(4, 8)))[0]
    one = np.array([site.resolution, 0, 0, 0])
    moved = float(np.linalg.norm(one - -one))
    alone = replace(site, unit=int(Unit.PERSON))
    gaussian = 8.0 * moved**2 / (2 * site.variance)
    assert alone.divergence(8.0) < gaussian <= site.divergence(8.0)


def test_a_shared_plan_needs_to_know_the_run() -> None:
    with pytest.raises(ConfigError, match="depends on the model's size"):
        plan_run(contract())


def test_a_promise_that_no_noise_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match="no noise makes this plan fit"):
        plan_run(contract(privacy={"epsilon": 1e-4, "delta": 1e-9}), Extent(50, 8))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": {"colluders": 0}}, "needs cohort.colluders of at least 1"),
        ({"training": {"strategy": "scaffold"}}, "scaffold corrects local steps"),
    ],
)
@pytest.mark.parametrize("plan", ["distributed", "client"])
def test_a_contract_that_shared_noise_does_not_go_with_is_refused(
    plan: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        contract(plan, **changes)


def test_batches_go_with_whole_sites_and_not_with_persons() -> None:
    for training in ({"batch_size": 8}, {"batch_level": True}):
        contract("client", training=training)
        with pytest.raises(ValidationError, match="goes with plans none and client"):
            contract("distributed", training=training)
