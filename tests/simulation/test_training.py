"""One simulated training, the deployed apps under it: what the ledgers say is what is shown and what was promised, and
what comes out of the secure sum is the exact mean.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.studies import RANGES, Watched, material, tiny, watched

from fedseal.client.metrics import LOSS, measure, pooled, values
from fedseal.client.task import batch_of, size
from fedseal.client.trainer import load
from fedseal.privacy.chain import check_chain
from fedseal.privacy.ledger import EntryKind, Ledger
from fedseal.privacy.plan import LocalGaussian, PlanKind, decode_plan
from fedseal.privacy.planning import plan_run
from fedseal.privacy.releases import Population
from fedseal.privacy.store import SiteStore
from fedseal.simulation.books import epsilon_after
from fedseal.simulation.output import sealed_scores
from fedseal.simulation.simulate import Finished
from fedseal.simulation.training import Material, initial_model, train

SITES = [f"hospital-{i}" for i in range(1, 5)]


def ledger(path: Path, population: Population = Population.TRAIN) -> Ledger:
    """A site's ledger, replayed from its first entry."""
    with SiteStore.open(path).transaction() as transaction:
        return check_chain(transaction.terms(population.value), transaction.entries(population.value))


def charged_plans(path: Path) -> list[Any]:
    with SiteStore.open(path).transaction() as transaction:
        entries = transaction.entries(Population.TRAIN.value)
    return [decode_plan(e.plan) for e in entries if e.kind == EntryKind.CHARGE]


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("private"), tiny())


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("plain"), tiny(privacy={"plan": "none"}))


# What is promised, what is spent.


def test_the_epsilon_shown_after_a_round_is_that_of_every_sites_ledger(private: Watched) -> None:
    assert len(private.trained.rounds) == len(private.spent) == 3
    for view, ledgers in zip(private.trained.rounds, private.spent, strict=True):
        assert list(ledgers) == SITES
        for epsilon in ledgers.values():
            assert view.epsilon == pytest.approx(epsilon, abs=1e-9)


def test_epsilon_grows_and_stays_below_the_promise(private: Watched) -> None:
    shown = [view.epsilon for view in private.trained.rounds]
    assert shown == sorted(set(shown), key=float)  # type: ignore[arg-type]
    for facts in private.trained.privacy.values():
        assert 0 < facts.epsilon <= facts.epsilon_enforced <= facts.epsilon_budget == 8.0
        assert facts.epsilon == pytest.approx(private.spent[-1]["hospital-1"], abs=1e-9)


@pytest.mark.parametrize("kind", ["private", "plain"])
def test_every_site_is_charged_once_a_round(kind: str, request: pytest.FixtureRequest) -> None:
    run: Watched = request.getfixturevalue(kind)
    assert list(run.trained.privacy) == SITES
    assert [p.releases for p in run.trained.privacy.values()] == [3] * 4
    for name in SITES:
        assert charged_plans(run.folder / f"{name}.sqlite") == [plan_run(run.study.contract).update] * 3


def test_what_a_run_did_not_need_is_given_back(private: Watched) -> None:
    """The retry that never happened."""
    plan = plan_run(private.study.contract).update
    for name in SITES:
        found = ledger(private.folder / f"{name}.sqlite")
        assert found.last.kind == EntryKind.RELEASE
        assert found.last.amount > 0
        assert found.reservations == {}
        assert found.available + found.last.charged == found.terms.budget
        assert found.last.charged == 3 * (found.last.amount // (plan.attempts - 3))


def test_persons_who_are_tested_on_are_charged_nothing(private: Watched) -> None:
    for name in SITES:
        found = ledger(private.folder / f"{name}.sqlite", Population.TEST)
        assert (found.counter, found.last.charged) == (1, 0)


def test_without_a_plan_nothing_is_promised(plain: Watched) -> None:
    assert all(view.epsilon is None for view in plain.trained.rounds)
    assert all(math.isinf(p.epsilon) and p.plan == "none" for p in plain.trained.privacy.values())
    assert epsilon_after(plan_run(plain.study.contract), 1, 1e-5) is None


def test_before_the_first_round_nothing_is_spent() -> None:
    assert epsilon_after(plan_run(tiny().contract), 0, 1e-5) == 0.0


def test_a_baseline_is_charged_to_ledgers_of_its_own(private_run: Finished) -> None:
    """The comparison without noise would void the promise if the run's own ledgers paid for it."""
    for name in SITES:
        own = charged_plans(private_run.folder / "federation" / f"{name}.sqlite")
        other = charged_plans(private_run.folder / "plain" / f"{name}.sqlite")
        assert {p.kind for p in own} == {PlanKind.LOCAL}
        assert {p.kind for p in other} == {PlanKind.NONE}


# What is trained.


@pytest.mark.parametrize("kind", ["private", "plain"])
def test_the_model_gets_better_than_the_one_everybody_began_with(kind: str, request: pytest.FixtureRequest) -> None:
    run: Watched = request.getfixturevalue(kind)
    oracle = run.material.oracle
    before = oracle.judge_arrays(initial_model(run.material.task, run.material.seed), None).everyone[LOSS]
    after = run.trained.rounds[-1].judged.everyone[LOSS]
    assert before is not None
    assert after is not None
    assert after < before - 0.03
    assert oracle.judge_arrays(run.trained.model, None) == run.trained.rounds[-1].judged


def test_the_sealed_metrics_are_the_exact_means_over_all_validation_persons(plain_run: Finished) -> None:
    """By hand: the model that the round began with, measured on every site's validation persons."""
    study = tiny(privacy={"plan": "none"})
    shared = material(study, plain_run.folder / "again")
    models = [initial_model(shared.task, shared.seed)]
    models += [view.record.model for view in plain_run.findings.main.rounds[:-1]]
    for start, view in zip(models, plain_run.findings.main.rounds, strict=True):
        module = shared.task.model()
        load(module, start)
        parts = [measure(shared.task, module, split.validation) for split in shared.splits.values()]
        expected = values(shared.task, pooled(parts))
        found = sealed_scores(plain_run.findings, view)
        assert found is not None
        assert found.loss == pytest.approx(expected["loss"], abs=1e-4)
        assert found.accuracy == pytest.approx(expected["accuracy"], abs=1e-4)
        assert found.auc == pytest.approx(expected["auc"], abs=1e-3)


def test_under_a_private_plan_no_metric_leaves_a_site(private_run: Finished) -> None:
    for view in private_run.findings.main.rounds:
        assert view.record.metrics == {}
        assert sealed_scores(private_run.findings, view) is None


def test_the_federation_is_the_weighted_mean_of_its_sites(plain: Watched, tmp_path: Path) -> None:
    """All persons in every step, one step: federated averaging is then gradient descent on everybody."""
    study = tiny(privacy={"plan": "none"}, training={"rounds": 1, "local_steps": 1, "sample_rate": 1.0})
    shared = material(study, tmp_path / "data")
    start = initial_model(shared.task, shared.seed)
    found = train(shared, study.contract, tmp_path / "federation").model
    batches = [batch_of(s.train, np.arange(size(s.train))) for s in shared.splits.values()]
    features = np.concatenate([b[0].numpy() for b in batches]).astype(np.float64)
    labels = np.concatenate([b[1].numpy() for b in batches]).astype(np.float64)
    residual = 1 / (1 + np.exp(-(features @ start["weight"].T.astype(np.float64) + start["bias"])[:, 0])) - labels
    rate = study.contract.training.learning_rate
    np.testing.assert_allclose(found["bias"], start["bias"] - rate * residual.mean(), atol=1e-5)
    np.testing.assert_allclose(
        found["weight"][0], start["weight"][0] - rate * (residual[:, None] * features).mean(axis=0), atol=1e-5
    )


@pytest.mark.slow
def test_fedadam_trains_another_model_of_the_same_type(plain: Watched, tmp_path: Path) -> None:
    adam = watched(tmp_path, tiny(privacy={"plan": "none"}, training={"strategy": "fedadam", "rounds": 4}))
    losses = [view.judged.everyone[LOSS] for view in adam.trained.rounds]
    assert losses == sorted(losses, reverse=True, key=lambda v: v or 0.0)
    assert len(set(losses)) == 4
    for name, array in adam.trained.model.items():
        assert array.dtype == plain.trained.model[name].dtype == np.float32
        assert not np.array_equal(adam.trained.rounds[2].record.model[name], plain.trained.model[name])


# Federated normalisation.


def moments_by_hand(shared: Material) -> tuple[Any, Any]:
    rows = np.concatenate(
        [batch_of(s.train, np.arange(size(s.train)))[0].numpy() for s in shared.splits.values()]
    ).astype(np.float64)
    return rows.mean(axis=0), rows.std(axis=0)


@pytest.mark.slow
def test_without_noise_the_federations_moments_are_those_of_all_training_persons(tmp_path: Path) -> None:
    run = watched(tmp_path, tiny(privacy={"plan": "none"}, normalisation=RANGES))
    mean, deviation = moments_by_hand(run.material)
    assert run.trained.moments is not None
    np.testing.assert_allclose(run.trained.moments.mean, mean, atol=1e-4)
    np.testing.assert_allclose(run.trained.moments.deviation, deviation, atol=1e-4)
    assert [p.releases for p in run.trained.privacy.values()] == [4] * 4


@pytest.mark.slow
def test_private_moments_are_noisy_and_charged_beside_the_updates(tmp_path: Path) -> None:
    run = watched(tmp_path, tiny(normalisation=RANGES))
    mean, _ = moments_by_hand(run.material)
    assert run.trained.moments is not None
    assert np.abs(np.array(run.trained.moments.mean) - mean).max() > 1e-3
    plans = plan_run(run.study.contract)
    assert isinstance(plans.moments, LocalGaussian)
    for name in SITES:
        assert charged_plans(run.folder / f"{name}.sqlite") == [plans.moments, *[plans.update] * 3]
        found = ledger(run.folder / f"{name}.sqlite")
        assert found.available + found.last.charged == found.terms.budget
    for view, ledgers in zip(run.trained.rounds, run.spent, strict=True):
        assert view.epsilon == pytest.approx(ledgers["hospital-3"], abs=1e-9)
    last = run.trained.rounds[-1].epsilon
    assert last is not None
    assert last <= 8.0
