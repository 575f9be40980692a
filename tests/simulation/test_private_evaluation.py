"""A private run that ends with one private evaluation: ledgers, result, report, resumption."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support.doors import Walker
from support.flower import flower_task
from support.studies import Watched, material, tiny, watched

from fedseal.client.app import app as client_app
from fedseal.client.counting import count_persons
from fedseal.client.task import build_model
from fedseal.client.trainer import load
from fedseal.compliance.default_policy import default_policy
from fedseal.errors import BudgetExceeded, ConfigError, DataError, PolicyRefused
from fedseal.privacy.inference.evaluation import PERSONS, estimates, evaluation_tables
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.planning import ledger_terms, plan_run
from fedseal.privacy.store import SiteStore
from fedseal.server.app import RESUME_KEY
from fedseal.server.app import app as server_app
from fedseal.server.store import ServerStore
from fedseal.simulation import federation
from fedseal.simulation.engine import processes
from fedseal.simulation.grid import LocalGrid, Observer
from fedseal.simulation.registration import measures
from fedseal.simulation.report import render
from fedseal.simulation.result import Result
from fedseal.simulation.simulate import Finished, Options, simulate
from fedseal.simulation.training import node_configs, run_config

EVALUATION = {"epsilon": 6.0, "bins": 4, "tables": ("score", "right")}


def study(**changes: Any) -> Any:
    return tiny(**({"evaluation": EVALUATION, "training": {"rounds": 2}} | changes))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    return watched(tmp_path_factory.mktemp("evaluated"), study())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, progress: Any) -> Finished:
    out = tmp_path_factory.mktemp("runs")
    return simulate(study(), Options(baselines=False, other_epsilons=(2.0,)), out, progress)


@pytest.mark.slow
def test_test_persons_are_charged_once_and_training_persons_nothing_for_it(evaluated: Watched) -> None:
    planned = evaluated.trained.plans.evaluation
    assert planned is not None
    for site in evaluated.material.splits:
        with SiteStore.open(evaluated.folder / f"{site}.sqlite").transaction() as transaction:
            test, train = transaction.entries("test"), transaction.entries("train")
            terms = transaction.terms("test")
        assert [e.kind for e in test] == [EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE, EntryKind.RELEASE]
        assert {e.release_name for e in test if e.kind == EntryKind.CHARGE} == {"evaluation"}
        assert decode_plan(test[2].plan) == planned.plan
        assert (terms.epsilon, terms.order) == (6.0, planned.order)
        assert test[-1].charged <= terms.budget
        assert sum(e.kind == EntryKind.CHARGE for e in train) == 2
    for facts in evaluated.trained.test_privacy.values():
        assert facts.plan == "histogram"
        assert facts.epsilon == pytest.approx(planned.plan.epsilon)
        assert facts.epsilon <= facts.epsilon_enforced <= 6.0


def test_what_is_released_is_the_final_models_table_and_noise(evaluated: Watched) -> None:
    tally, trained = evaluated.trained.evaluation, evaluated.trained
    assert tally is not None
    assert tally.noise is not None
    tables = evaluation_tables(trained.contract.evaluation)
    module = build_model(evaluated.material.task)
    load(module, trained.model)
    exact = sum(
        count_persons(tables, evaluated.material.task, split.test, (module, split.test), {})
        for split in evaluated.material.splits.values()
    )
    noise = tally.counts - exact
    assert noise.any()
    assert float(np.square(noise).mean()) < 20 * tally.noise.variance
    found = estimates(tally)[PERSONS]
    assert found.low is not None
    assert found.high is not None
    assert found.low <= int(np.sum(exact)) / 2 <= found.high


@pytest.mark.slow
def test_the_result_has_both_and_says_which_is_which(finished: Finished) -> None:
    text = (finished.folder / "result.json").read_text(encoding="utf-8")
    result = Result.model_validate_json(text)
    evaluation = result.evaluation
    assert evaluation is not None
    assert set(evaluation.estimates) >= {"persons", "accuracy", "auc", "brier", "recall_0", "recall_1"}
    assert evaluation.estimates["accuracy"].oracle == result.final.global_.accuracy
    assert evaluation.estimates["auc"].oracle == result.final.global_.auc
    assert evaluation.estimates["persons"].oracle == sum(s.test for s in result.sites.values())
    assert evaluation.estimates["brier"].oracle is None
    assert evaluation.epsilon <= evaluation.epsilon_spent * (1 + 1e-9)
    assert evaluation.epsilon_spent <= evaluation.epsilon_budget == 6.0
    assert evaluation.noise_deviation > 0
    table = pd.read_parquet(finished.folder / "metrics.parquet")
    private = table[table.source == "private"].set_index("metric")["value"]
    assert private["accuracy"] == evaluation.estimates["accuracy"].value
    assert json.loads(text)["evaluation"]["plan"] == "histogram"


def test_the_report_shows_the_interval_beside_the_oracle(finished: Finished) -> None:
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "The private evaluation" in page
    assert "95 % noise interval" in page
    assert "Private evaluation with noise intervals, beside the oracle" in page
    assert page.count("only a simulation knows") == 1


GROUPED = EVALUATION | {
    "tables": ("score",),
    "subgroup": "ward",
    "groups": ("a", "b", "c", "other"),
    "smallest_group": 5,
}


@pytest.mark.slow
def test_a_card_by_subgroup_stands_in_result_report_and_registry(tmp_path: Path, progress: Any) -> None:
    finished = simulate(study(evaluation=GROUPED), Options(baselines=False), tmp_path, progress)
    result = Result.model_validate_json((finished.folder / "result.json").read_text(encoding="utf-8"))
    assert result.evaluation is not None
    card = result.evaluation.card
    assert card is not None
    assert card.subgroups is not None
    hidden = [name for name, group in card.subgroups.groups.items() if group.hidden]
    assert len(hidden) != 1
    assert "other" not in hidden
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "can its scores be believed, and for whom?" in page
    assert page.count(">hidden</td>") == len(hidden)
    registered = {m.name for m in measures(result)}
    assert "auc~ward%3Dother" in registered
    assert not any(name.startswith("persons") or f"~ward%3D{h}" in name for h in hidden for name in registered)


@pytest.mark.parametrize(
    ("changes", "message"), [({"subgroup": "floor"}, "no column 'floor'"), ({"groups": ("a", "b")}, "none of 0 to 1")]
)
def test_groups_that_the_data_does_not_have_are_said_before_anything_is_trained(
    changes: dict[str, Any], message: str, tmp_path: Path, progress: Any
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        simulate(study(evaluation=GROUPED | changes), Options(baselines=False), tmp_path, progress)


def test_what_a_run_is_compared_with_spends_nothing_on_test_persons(finished: Finished) -> None:
    (store,) = (finished.folder / "epsilon-2").glob("hospital-1.sqlite")
    with SiteStore.open(store).transaction() as transaction:
        assert [e.kind for e in transaction.entries("test")] == [EntryKind.OPEN]


def test_a_study_without_one_has_none(plain_run: Finished) -> None:
    result = Result.model_validate_json((plain_run.folder / "result.json").read_text(encoding="utf-8"))
    assert result.evaluation is None
    assert "The private evaluation" not in render(result, tiny(privacy={"plan": "none"}).contract)


@pytest.mark.slow
def test_the_same_seed_evaluates_alike(evaluated: Watched, tmp_path: Path) -> None:
    again = watched(tmp_path, study()).trained.evaluation
    assert again is not None
    assert evaluated.trained.evaluation is not None
    assert again.counts.tolist() == evaluated.trained.evaluation.counts.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["none", "distributed"])
def test_any_plan_of_training_may_end_with_one(plan: str, tmp_path: Path) -> None:
    run = watched(tmp_path, study(privacy={"plan": plan}, cohort={"largest_site": 200}))
    assert run.trained.evaluation is not None
    assert run.trained.evaluation.sites == 4
    assert {p.plan for p in run.trained.privacy.values()} == {plan}


def test_a_policy_that_does_not_name_it_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = default_policy
    monkeypatch.setattr(federation, "default_policy", lambda c: policy(c).replace('evaluation = ["histogram"]', ""))
    with pytest.raises(PolicyRefused, match="release 'evaluation' under plan 'histogram' is not allowed"):
        watched(tmp_path, study())


def test_test_persons_whose_budget_is_smaller_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = ledger_terms

    def poorer(contract: Any, plans: Any) -> Any:
        evaluation = contract.evaluation.model_copy(update={"epsilon": 5.0})
        return terms(contract.model_copy(update={"evaluation": evaluation}), plans)

    monkeypatch.setattr(federation, "ledger_terms", poorer)
    with pytest.raises(BudgetExceeded, match="budget of population 'test'"):
        watched(tmp_path, study())


def test_everything_that_leaves_a_run_with_an_evaluation_has_its_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walker = Walker()

    class WalkedGrid(LocalGrid):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"deliver": walker})

    monkeypatch.setattr(processes, "LocalGrid", WalkedGrid)
    watched(tmp_path, study())
    assert walker.kinds == {"Signed", "ShareReply", "ControlMessage"}
    # Four sites; HELLO, five exchanges for two updates and the evaluation, CLOSE.
    assert sum(1 for raw in walker.bytes if raw[:2] == b"FS") == 4 * (2 + 5 * 3)


@pytest.mark.slow
def test_a_run_that_was_cut_off_after_its_evaluation_does_not_repeat_it(tmp_path: Path) -> None:
    """The server dies when it is told the outcome; resumed, it takes it from its checkpoint."""
    wanted = study()
    gathered = material(wanted, tmp_path / "data")
    plans = plan_run(wanted.contract)
    made = federation.enrol(tmp_path / "federation", wanted.contract, plans, dict.fromkeys(gathered.splits, 40), 5)
    config = run_config(gathered, wanted.contract, made)
    seen: list[Any] = []
    runs: list[bytes] = []

    def serve(more: dict[str, str], evaluated: Any) -> None:
        observer = Observer(lambda *a: runs.append(a[2]), lambda _: None, lambda _: None, evaluated)
        grid = LocalGrid(client_app, node_configs(gathered, made), run_config={**config, **more}, observer=observer)
        grid.serve(server_app, seed=5)

    def dies(tally: Any) -> None:
        seen.append(tally)
        raise KeyboardInterrupt

    with flower_task():
        with pytest.raises(KeyboardInterrupt):
            serve({}, dies)
        serve({RESUME_KEY: runs[0].hex()}, seen.append)
    assert seen[0].counts.tolist() == seen[1].counts.tolist()
    assert (seen[0].noise, seen[0].sites) == (seen[1].noise, seen[1].sites)
    names = [status for _, _, status, _ in ServerStore.open(made.server_store).attempts(runs[0])]
    assert names == ["finished"] * 3
    for store in made.site_stores.values():
        with SiteStore.open(store).transaction() as transaction:
            assert sum(e.kind == EntryKind.CHARGE for e in transaction.entries("test")) == 1
