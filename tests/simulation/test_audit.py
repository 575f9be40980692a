"""The audit through the whole pipeline: a correct build stands, every planted defect is caught."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.sabotage import clip_times_three, half_variance, noise_off

from fedseal.client.probe import check_model, check_per_person
from fedseal.client.task import SiteData, batch_of, build_model, size
from fedseal.errors import ConfigError, ExitCode
from fedseal.privacy.accounting import epsilon_pld
from fedseal.privacy.plan import LocalGaussian, SharedSkellam
from fedseal.simulation.audit.auditor import VICTIM, prepare
from fedseal.simulation.audit.canaries import DIMENSION, NOBODY, QUIET, Canaries, Design, quiet
from fedseal.simulation.audit.claim import changed_claim, default_claim
from fedseal.simulation.audit.run import Audited, AuditOptions, audit
from fedseal.study import Contract

CHEAP = AuditOptions(canaries=1000, seed=11)


def short(rounds: int = 2) -> Contract:
    return changed_claim(default_claim(), rounds=rounds)


@pytest.fixture(scope="module")
def stands() -> Audited:
    return audit(short(), CHEAP)


def test_a_correct_build_is_not_falsified(stands: Audited) -> None:
    assert not stands.falsified
    assert stands.lower_bound < stands.epsilon <= stands.promise
    assert stands.noise.ratio == pytest.approx(1.0, abs=5 * math.sqrt(2 / stands.noise.coordinates))
    assert stands.noise.coordinates == 2 * QUIET
    assert stands.reach is not None
    assert stands.reach.low < 1.1
    assert stands.reach.high > 0.9


def test_the_claim_is_that_of_the_plan(stands: Audited) -> None:
    plan = prepare(short(), 1000).plan
    assert isinstance(plan, LocalGaussian)
    assert stands.epsilon == epsilon_pld(plan.event(2), 1e-5)
    assert (stands.promise, stands.delta, stands.rounds) == (3.0, 1e-5, 2)
    assert stands.draws == pytest.approx(2 * 5 * 0.2)


@pytest.mark.slow
def test_a_seed_repeats_an_audit() -> None:
    first, again, other = (audit(short(1), replace(CHEAP, canaries=100, seed=s)) for s in (1, 1, 2))
    assert replace(again, cpu_seconds=0.0) == replace(first, cpu_seconds=0.0)
    assert other.noise != first.noise


@pytest.mark.quick("half variance-distributed")
@pytest.mark.parametrize("plan", ["local", "distributed"])
@pytest.mark.parametrize(
    ("build", "seen"), [(half_variance, "noise"), (clip_times_three, "reach")], ids=["half variance", "clip x 3"]
)
def test_a_defect_in_the_mechanism_is_caught(
    build: Callable[[], AbstractContextManager[None]], seen: str, plan: Literal["local", "distributed"]
) -> None:
    with build():
        found = audit(changed_claim(short(), plan=plan), CHEAP)
    assert found.falsified
    assert found.noise_falsifies == (seen == "noise")
    assert found.reach_falsifies == (seen == "reach")


@pytest.mark.slow
def test_without_noise_every_guess_is_right() -> None:
    with noise_off():
        found = audit(default_claim(), AuditOptions(seed=3))
    assert found.guesses_falsify
    assert found.lower_bound > 5
    assert found.guesses.right == found.guesses.made
    assert found.noise.ratio < 1e-6


@pytest.mark.slow
def test_correct_builds_stand_and_noise_off_never_does() -> None:
    assert sum(audit(short(), replace(CHEAP, seed=s)).falsified for s in range(40)) <= 2
    with noise_off():
        assert all(audit(default_claim(), AuditOptions(seed=s)).lower_bound > 5 for s in range(10))


@pytest.mark.slow
def test_an_audit_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    audit(short(1), replace(CHEAP, canaries=10))
    assert list(tmp_path.iterdir()) == []


# Noise in shares


@pytest.mark.slow
def test_under_plan_distributed_the_auditor_knows_one_share_and_the_claim_stands() -> None:
    claim = changed_claim(short(), plan="distributed")
    target = prepare(claim, 1000)
    assert isinstance(target.plan, SharedSkellam)
    # Three sites of which two are counted on: what is left without one share is the plan's noise, and no more.
    assert target.mechanism.noise_multiplier == pytest.approx(target.plan.noise_multiplier, rel=1e-9)
    assert VICTIM not in target.accomplices
    assert len(target.accomplices) == 1
    found = audit(claim, CHEAP)
    assert not found.falsified
    assert found.lower_bound < found.epsilon <= found.promise
    assert found.noise.ratio == pytest.approx(1.0, abs=5 * math.sqrt(2 / found.noise.coordinates))
    assert found.reach is not None
    assert found.reach.low < 1.1
    assert found.reach.high > 0.9


@pytest.mark.slow
def test_under_plan_distributed_nothing_is_hidden_without_noise() -> None:
    with noise_off():
        found = audit(changed_claim(short(), plan="distributed"), replace(CHEAP, canaries=2000))
    assert found.lower_bound > 5
    assert found.guesses.right == found.guesses.made


# What cannot be audited


def test_what_cannot_be_audited_is_refused() -> None:
    plain = default_claim().model_copy(update={"privacy": default_claim().privacy.model_copy(update={"plan": "none"})})
    with pytest.raises(ConfigError, match="plan is none"):
        audit(plain, CHEAP)
    # An epsilon makes it a claim.
    assert changed_claim(plain, epsilon=2.0).privacy.plan == "local"
    for count in (9, 4097):
        with pytest.raises(ConfigError, match="canaries"):
            audit(default_claim(), AuditOptions(canaries=count))


@pytest.mark.parametrize("changes", [{"epsilon": 0.0}, {"delta": 0.0}, {"delta": 0.5}, {"rounds": 0}])
def test_a_claim_out_of_range_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError) as caught:
        changed_claim(default_claim(), **changes)  # type: ignore[arg-type]
    assert caught.value.exit_code == ExitCode.CONFIG
    assert f"--{next(iter(changes))} has to be" in caught.value.message


@pytest.mark.quick("1e-06-0.5")
@pytest.mark.parametrize(("clip", "epsilon"), [(1e-6, 0.5), (1e6, 3.0)])
def test_the_clip_norm_changes_no_verdict(clip: float, epsilon: float) -> None:
    claim = changed_claim(short(1), epsilon=epsilon)
    scaled = claim.model_copy(update={"privacy": claim.privacy.model_copy(update={"clip_norm": clip})})
    found = audit(scaled, replace(CHEAP, canaries=200))
    assert not found.falsified
    assert found.noise.ratio == pytest.approx(1.0, abs=5 * math.sqrt(2 / QUIET))


# Canaries


def test_canaries_are_orthogonal_and_as_long_as_they_should_be() -> None:
    design = Design(700, 5, 4.0)
    vectors = design.vectors(np.arange(700)).double()
    assert torch.allclose(vectors @ vectors.T, 16.0 * torch.eye(700, dtype=torch.float64), atol=1e-4)
    assert not vectors[:, -QUIET:].any()
    released = vectors[[3, 9]].sum(dim=0).numpy()
    scores = design.scores(released)
    assert np.flatnonzero(np.abs(scores) > 1e-3).tolist() == [3, 9]
    assert scores[[3, 9]] == pytest.approx([4.0, 4.0], rel=1e-6)
    assert quiet(released).shape == (QUIET,)
    assert not torch.equal(vectors, Design(700, 6, 4.0).vectors(np.arange(700)).double())


def test_a_canarys_gradient_is_its_vector_wherever_the_model_is(tmp_path: Path) -> None:
    design, task = Design(50, 5, 4.0), Canaries()
    design.write(tmp_path / "site", np.array([7, NOBODY, 31]))
    persons = task.data(SiteData("site", tmp_path / "site")).train
    assert size(persons) == 3
    module = build_model(task)
    check_model(module)
    check_per_person(task, module, persons)
    losses = task.loss(module, batch_of(persons, np.arange(3)))
    expected = design.vectors(np.array([7, NOBODY, 31]))
    for loss, vector in zip(losses, expected, strict=True):
        module.zero_grad()
        loss.backward(retain_graph=True)
        (weight,) = module.parameters()
        assert weight.grad is not None
        assert torch.equal(weight.grad.reshape(DIMENSION), vector)
