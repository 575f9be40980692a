"""A scenario's run: what is measured when, who is trained on, and that nothing but scenario and seed decides."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from support.scenarios import SMALL, run, small

from fedseal.simulation.scenario.execute import Finished, Sources, execute
from fedseal.simulation.scenario.files import parse
from fedseal.simulation.scenario.outcome import ScenarioResult, run_digest
from fedseal.simulation.scenario.runner import Silent
from fedseal.simulation.scenario.setting import setting_of
from fedseal.simulation.scenario.sweeping import run_sweep
from fedseal.simulation.scenario.trainings import Trainings
from fedseal.simulation.scenario.verify import differences, rerun


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The small scenario, run once."""
    return execute(small(), Sources(Path()), tmp_path_factory.mktemp("runs"), Silent())


@pytest.fixture(scope="module")
def result(finished: Finished) -> ScenarioResult:
    """Its findings."""
    return finished.result


def test_the_first_training_comes_before_and_later_ones_after_a_step_is_judged(result: ScenarioResult) -> None:
    assert [(t.step, t.reason, t.windows) for t in result.trainings] == [(0, "first", (0,)), (2, "schedule", (2,))]
    # Step 2 met the model that knew nothing of the change; step 3 meets the new one.
    assert [row.model for row in result.steps] == [0, 0, 0, 1]
    accuracy, kept = result.series("accuracy.global"), result.series("accuracy.kept")
    assert accuracy[:3] == kept[:3]
    assert None not in accuracy + kept
    assert accuracy[3] > kept[3] + 0.05  # type: ignore[operator]
    assert result.steps[1].drifts == ()
    assert result.steps[2].drifts == ("concept (concept)",)


def test_accuracy_is_the_share_of_persons_of_all_sites(result: ScenarioResult) -> None:
    for row in result.steps:
        known = [a for a in row.sites.values() if a is not None]
        assert row.metrics["accuracy.global"] == pytest.approx(np.mean(known))
        assert row.metrics["accuracy.worst_site"] == min(known)
        assert row.metrics["accuracy.best_site"] == max(known)


def test_regret_adds_up(result: ScenarioResult) -> None:
    lost = [o - a for o, a in zip(result.series("accuracy.oracle"), result.series("accuracy.global"), strict=True)]  # type: ignore[operator]
    assert result.series("regret") == [pytest.approx(r) for r in np.cumsum(lost)]


def test_what_every_report_compares_with(result: ScenarioResult) -> None:
    assert [c.name for c in result.compared] == ["federated", "majority", "local", "plain", "pooled"]
    by_name = {c.name: c.accuracy for c in result.compared}
    assert result.whole["lift.majority"] == pytest.approx(by_name["federated"] - by_name["majority"])  # type: ignore[operator]
    assert result.whole["gap.plain"] == 0.0


def test_the_files_of_a_run(finished: Finished) -> None:
    names = {path.name for path in finished.folder.iterdir()}
    wanted = {"result.json", "scenario.toml", "metrics.parquet", "events.jsonl", "junit.xml", "report.html", "study"}
    assert names == wanted | {"model.safetensors"}
    table = pd.read_parquet(finished.folder / "metrics.parquet")
    columns = ["scenario", "strategy", "seed", "step", "round", "site", "metric", "value"]
    assert list(table.columns) == columns
    assert not table.duplicated(["step", "round", "site", "metric"]).any()
    last = table.query("step == 3 and site == 'all' and metric == 'accuracy.global'")["value"]
    assert last.tolist() == [finished.result.series("accuracy.global")[-1]]
    page = (finished.folder / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Oracle" in page
    assert 'src="' not in page
    events = [json.loads(line) for line in (finished.folder / "events.jsonl").read_text().splitlines()]
    assert [e["event"] for e in events if e["event"] == "training"] == ["training", "training"]
    # The study is one like any other: its task can be loaded and used.
    assert "Tabular(" in (finished.folder / "study" / "task.py").read_text(encoding="utf-8")


def test_a_run_is_run_again_and_is_the_same(finished: Finished) -> None:
    found = rerun(finished.folder)
    assert found.differences == []
    assert found.digest == finished.result.digest == run_digest(finished.result)


def test_verify_names_what_differs(finished: Finished, tmp_path: Path) -> None:
    forged = finished.result.model_dump()
    forged["steps"][2]["metrics"]["accuracy.global"] = 0.999
    before = ScenarioResult.model_validate(forged)
    (line,) = differences(before, finished.result)
    assert line.startswith("steps[2].metrics.accuracy.global: was 0.999, is ")
    assert run_digest(before) != finished.result.digest


def test_another_seed_is_another_run(result: ScenarioResult, tmp_path: Path) -> None:
    scenario = small()
    other = scenario.model_copy(update={"scenario": scenario.scenario.model_copy(update={"seed": 2})})
    assert run(other, tmp_path / "other", baselines=False).digest != result.digest


def test_a_site_more_leaves_the_others_persons_as_they_were() -> None:
    scenario = small()
    more = scenario.model_copy(update={"population": scenario.population.model_copy(update={"sites": 5})})
    one, other = setting_of(scenario, Path()).world, setting_of(more, Path()).world
    for site in range(4):
        assert np.array_equal(one.window(site, 3).x, other.window(site, 3).x)
        assert np.array_equal(one.test(site, 3, 20).x, other.test(site, 3, 20).x)


def test_who_withdraws_and_whose_labels_are_late_is_not_trained_on(tmp_path: Path) -> None:
    text = "\n[[consent]]\nshare = 0.5\nat = 3\n\n[labels]\ndelay_steps = 1\n"
    trainings = Trainings(setting_of(small(text), Path()), tmp_path)
    trainings.models[0] = {}
    world = trainings.setting.world
    cohort = trainings.cohort(3)
    assert cohort.windows == (2,)
    gone = set(world.withdrawn(3).tolist())
    assert gone
    trained_on = {person for rows in cohort.train.values() for person in rows.persons.tolist()}
    assert trained_on
    assert not trained_on & gone
    known = {p for site in range(4) for p in world.window(site, 2).persons.tolist()}
    assert trained_on == known - gone
    # The twin: before they withdraw they are trained on.
    assert {p for rows in trainings.cohort(2).train.values() for p in rows.persons.tolist()} & gone


@pytest.mark.slow
def test_a_person_of_two_trainings_pays_for_both(tmp_path: Path) -> None:
    scenario = small()
    text = scenario.model_copy(
        update={
            "run": scenario.run.model_validate(
                scenario.run.model_dump() | {"privacy": {"plan": "local", "epsilon": 4.0}, "train_on": 3}
            )
        }
    )
    spent = run(text, tmp_path / "private", baselines=False).series("eps.spent")
    assert None not in spent
    assert spent[0] == spent[1] < 4.0  # type: ignore[operator]
    # Window 0 is in both trainings; with train_on = 1 nobody is.
    assert spent[2] > spent[1]  # type: ignore[operator]


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    scenario = small("\n[sweep]\nseed = [1, 2]\n")
    told: list[tuple[int, int, str]] = []

    def progress(there: int, wanted: int, name: str) -> None:
        told.append((there, wanted, name))

    first = run_sweep(scenario, Sources(Path()), tmp_path, progress, baselines=False)
    assert first.resumed == 0
    assert told == [(0, 2, ""), (1, 2, "fedavg-epsnone-seed1"), (2, 2, "fedavg-epsnone-seed2")]
    assert [len(group.seeds) for group in first.comparison.groups] == [2]
    cell = next((first.folder / "cells").glob("fedavg-epsnone-seed2-*"))
    # A killed run leaves a hidden folder and no half cell; a damaged result is none.
    (cell / "result.json").write_text("{", encoding="utf-8")
    again = run_sweep(scenario, Sources(Path()), tmp_path, progress, baselines=False)
    assert again.resumed == 1
    assert again.comparison.groups == first.comparison.groups
    third = run_sweep(scenario, Sources(Path()), tmp_path, progress, baselines=False)
    assert third.resumed == 2
    assert third.folder == first.folder


def test_real_protocol_and_modelled_give_the_same_accuracies(tmp_path: Path) -> None:
    text = SMALL[: SMALL.index("[[drift]]")].replace("steps = 4", "") + '\n[run]\nrounds = 2\nsecagg = "real"\n'
    real, model = (parse(t, "small.toml") for t in (text, text.replace("real", "model")))
    found = [run(s, tmp_path / name, baselines=False) for name, s in (("real", real), ("model", model))]
    assert found[0].trainings[0].model_sha256 == found[1].trainings[0].model_sha256
    assert found[0].steps[0].metrics == found[1].steps[0].metrics
