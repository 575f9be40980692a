"""Simulations whose clip norm adapts: real persons' gradients, real ledgers, and what the run's files say of it."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.studies import Watched, tiny, watched

from fedseal.client.gradient_sum import GradientSum
from fedseal.client.task import size
from fedseal.errors import ConfigError
from fedseal.privacy.ledger import EntryKind, cost
from fedseal.privacy.plan import AdaptiveSkellam, decode_plan
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.roster import public_persons
from fedseal.privacy.store import SiteStore
from fedseal.simulation.audit.auditor import prepare
from fedseal.simulation.simulate import Options, simulate
from fedseal.study import Study

ROUNDS = 5
RULE: dict[str, Any] = {"learning_rate": 1.5, "budget_share": 0.1, "highest": 50.0}


def study(**rule: Any) -> Study:
    return tiny(
        privacy={
            "plan": "distributed",
            "epsilon": 12.0,
            "delta": 1e-5,
            "clip_norm": 30.0,
            "retries": 1,
            "adaptive_clip": RULE | rule,
        },
        training={"rounds": ROUNDS, "learning_rate": 1.0},
        cohort={"minimum": 3, "colluders": 1, "largest_site": 200},
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("adaptive"), study())


def plan_of(run: Watched) -> AdaptiveSkellam:
    plan = run.trained.plans.update
    assert isinstance(plan, AdaptiveSkellam)
    return plan


@pytest.mark.slow
def test_every_release_is_charged_at_the_joint_cost_whatever_its_clip_norm(run: Watched) -> None:
    plan = plan_of(run)
    for site in run.material.splits:
        with SiteStore.open(run.folder / f"{site}.sqlite").transaction() as transaction:
            entries, terms = transaction.entries("train"), transaction.terms("train")
        kinds = [e.kind for e in entries]
        assert kinds == [EntryKind.OPEN, EntryKind.RESERVE, *[EntryKind.CHARGE] * ROUNDS, EntryKind.RELEASE]
        assert entries[-1].charged == ROUNDS * cost(plan, terms.order)
        # The twin: for the vector alone it would be less.
        assert cost(plan.vector, terms.order) < 0.95 * cost(plan, terms.order)
        assert {decode_plan(e.plan) for e in entries[1:]} == {plan}
    assert len({view.record.clip for view in run.trained.rounds}) == ROUNDS
    assert all(0 < p.epsilon <= p.epsilon_enforced <= 12.0 for p in run.trained.privacy.values())


@pytest.mark.slow
def test_the_share_that_is_counted_is_that_of_the_persons_but_for_its_noise(run: Watched) -> None:
    """Each round's against the gradients in the clear, at the model and the clip norm of the round."""
    plan, material = plan_of(run), run.material
    persons = sum(public_persons(size(s.train)) for s in material.splits.values())
    # Four shares where two are counted on.
    deviation = plan.count_deviation * math.sqrt(4 / 2) / persons
    before = material.first_model()
    errors = []
    for view in run.trained.rounds:
        step = view.record.clip
        assert step is not None
        counts = [
            GradientSum(material.task, s.train).counted(before, step.clip_norm, KeyedRandomness(1).stream("torch"))
            for s in material.splits.values()
        ]
        errors.append(step.unclipped - 0.5 - sum(c.unclipped for c in counts) / persons)
        before = view.record.model
    assert max(map(abs, errors)) < 5 * deviation
    # The twin: there is noise.
    assert max(map(abs, errors)) > deviation / 10


def test_from_far_too_large_it_comes_down_and_follows_its_own_rule(run: Watched) -> None:
    plan, steps = plan_of(run), [view.record.clip for view in run.trained.rounds]
    known = [s for s in steps if s is not None]
    assert known[0].clip_norm == 30.0
    assert known[-1].clip_norm < 2.5
    for step, following in pairwise(known):
        assert following.clip_norm == step.following == plan.following(step.clip_norm, step.unclipped)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(run: Watched, tmp_path: Path) -> None:
    again = watched(tmp_path, study())
    assert [v.record.clip for v in again.trained.rounds] == [v.record.clip for v in run.trained.rounds]
    for name, array in run.trained.model.items():
        assert np.array_equal(array, again.trained.model[name])


def test_a_runs_files_say_the_clip_norm_of_every_round(tmp_path: Path) -> None:
    done = simulate(study(), Options(rounds=2, baselines=False), tmp_path, Silent())
    result = json.loads((done.folder / "result.json").read_text())
    clips = [r["clip_norm"] for r in result["rounds"]]
    assert clips[0] == 30.0 != clips[1]
    assert clips == [v.record.clip.clip_norm for v in done.findings.main.rounds if v.record.clip is not None]
    assert all(isinstance(r["unclipped"], float) for r in result["rounds"])
    facts = next(iter(result["privacy"]["sites"].values()))["plan"]
    assert facts["clip_norm"] == 30.0
    assert facts["adaptive_clip"]["highest"] == 50.0
    report = (done.folder / "report.html").read_text()
    assert "<h2>Clip norm</h2>" in report
    assert "towards the 0.5 quantile of the norms, from 0.001 to 50" in report


@pytest.mark.slow
def test_the_comparison_without_privacy_needs_no_clip_norm(tmp_path: Path) -> None:
    """Its contract still has the table, and plan none does not use it."""
    done = simulate(study(), Options(plan="none", rounds=1, baselines=False), tmp_path, Silent())
    assert all(view.record.clip is None for view in done.findings.main.rounds)
    assert "<h2>Clip norm</h2>" not in (done.folder / "report.html").read_text()
    with pytest.raises(ConfigError, match="adaptive_clip goes with plans"):
        simulate(study(), Options(plan="local", baselines=False), tmp_path, Silent())


def test_an_audit_asks_for_a_fixed_one() -> None:
    with pytest.raises(ConfigError, match="this clip norm adapts"):
        prepare(study().contract, 40)


class Silent:
    """Nobody watches."""

    def begin(self, *_: object) -> None:
        """Nothing."""

    def phase(self, _: str) -> None:
        """Nothing."""

    def round(self, _: object) -> None:
        """Nothing."""
