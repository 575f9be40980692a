"""Whole runs with noise inside the sealed sum: real protocol, real ledgers, two kinds of plan."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.studies import RANGES, Watched, tiny, watched

from fedseal.client.gradient_sum import GradientSum
from fedseal.client.task import size
from fedseal.privacy.ledger import EntryKind, cost
from fedseal.privacy.plan import SharedSkellam, decode_plan
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.roster import public_persons
from fedseal.privacy.store import SiteStore
from fedseal.simulation.output import plan_facts

ROUNDS = 4


def study(plan: str, **changes: Any) -> Any:
    tables: dict[str, dict[str, Any]] = {
        "privacy": {"plan": plan, "epsilon": 8.0, "delta": 1e-5, "clip_norm": 1.0, "retries": 1},
        "training": {"rounds": ROUNDS, "learning_rate": 1.0},
        "cohort": {"minimum": 3, "colluders": 1, "largest_site": 200},
    }
    return tiny(**{name: tables.get(name, {}) | changes.get(name, {}) for name in {*tables, *changes}})


@pytest.fixture(scope="module")
def distributed(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("distributed"), study("distributed"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("client"), study("client"))


def update_plan(run: Watched) -> SharedSkellam:
    plan = run.trained.plans.update
    assert isinstance(plan, SharedSkellam)
    return plan


@pytest.mark.quick("distributed")
@pytest.mark.parametrize("name", ["distributed", "client"])
def test_every_release_is_charged_before_it_is_computed(name: str, request: pytest.FixtureRequest) -> None:
    run: Watched = request.getfixturevalue(name)
    plan = update_plan(run)
    assert plan.kind.label == name
    for site in run.material.splits:
        with SiteStore.open(run.folder / f"{site}.sqlite").transaction() as transaction:
            entries, terms = transaction.entries("train"), transaction.terms("train")
        kinds = [e.kind for e in entries]
        assert kinds == [EntryKind.OPEN, EntryKind.RESERVE, *[EntryKind.CHARGE] * ROUNDS, EntryKind.RELEASE]
        assert entries[-1].charged == ROUNDS * cost(plan, terms.order)
        assert [decode_plan(e.plan) for e in entries[1:]] == [plan] * (ROUNDS + 2)
    shown = [view.epsilon for view in run.trained.rounds]
    assert all(e is not None and 0 < e <= 8.0 for e in shown)
    assert shown == sorted(shown, key=lambda e: e or 0.0)
    for facts in run.trained.privacy.values():
        assert facts.plan == name
        assert 0 < facts.epsilon <= facts.epsilon_enforced <= 8.0
    assert plan_facts(run.trained, ROUNDS).kind == name


def test_a_round_is_one_step_along_the_mean_gradient_but_for_its_noise(distributed: Watched) -> None:
    """The first round's model against the step made from all sites' clipped gradients in the clear."""
    material, plan = distributed.material, update_plan(distributed)
    before, after = material.first_model(), distributed.trained.rounds[0].record.model
    total = {name: np.zeros(a.shape) for name, a in before.items()}
    persons = 0
    for split in material.splits.values():
        found = GradientSum(material.task, split.train).at(before, 1.0, KeyedRandomness(1).stream("torch"))
        total = {name: total[name] + found[name] for name in total}
        persons += public_persons(size(split.train))
    # Four shares where two are counted on.
    deviation = plan.noise_multiplier * plan.clip_norm * math.sqrt(4 / 2) / persons
    steps = np.concatenate([((after[n] - before[n]) + total[n] / persons).ravel() for n in sorted(total)])
    assert np.abs(steps).max() < 5 * deviation
    # The twin: with the noise taken for none of it, it is there.
    assert np.abs(steps).max() > deviation / 10
    assert distributed.trained.rounds[0].record.clipped == 0.0


@pytest.mark.slow
def test_both_learn(distributed: Watched, client: Watched) -> None:
    for run in (distributed, client):
        assert all(np.isfinite(a).all() for a in run.trained.model.values())
    losses = [view.judged.everyone["loss"] for view in distributed.trained.rounds]
    assert (losses[-1] or 9.0) < (losses[0] or 0.0)


@pytest.mark.slow
def test_the_federations_moments_may_be_shared_too(tmp_path: Path) -> None:
    run = watched(tmp_path, study("distributed", normalisation=RANGES | {"budget_share": 0.3}))
    moments, plan = run.trained.moments, run.trained.plans.moments
    assert isinstance(plan, SharedSkellam)
    assert moments is not None
    features = np.concatenate([s.train.tensors[0].numpy() for s in run.material.splits.values()])  # type: ignore[attr-defined]
    persons = sum(public_persons(size(s.train)) for s in run.material.splits.values())
    # The range is 14 wide: 7 for each unit of u; roster numbers are rounded, too.
    error = 7 * 5 * plan.noise_multiplier * plan.clip_norm * math.sqrt(2) / persons + 7 * len(features) * 0.02
    np.testing.assert_allclose(moments.mean, features.mean(axis=0), atol=min(error, 3.0))
    charged = {p.releases for p in run.trained.privacy.values()}
    assert charged == {ROUNDS + 1}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(distributed: Watched, tmp_path: Path) -> None:
    again = watched(tmp_path, study("distributed"))
    for name, array in distributed.trained.model.items():
        assert np.array_equal(array, again.trained.model[name])
