"""What goes wrong in a simulated training is told by site and reason, charged, and ends with the code of its kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.studies import RANGES, TINY, FirstAttemptFails, material, tiny, watched

from fedseal.errors import BudgetExceeded, ConfigError, ExitCode, PolicyRefused, RoundAborted
from fedseal.privacy.planning import plan_run
from fedseal.simulation.books import epsilon_after
from fedseal.simulation.federation import incidents
from fedseal.simulation.simulate import Options, Progress, simulate
from fedseal.simulation.training import train
from fedseal.study import Study, load_study


def changed_study(folder: Path, change: Callable[[str], str], **contract: Any) -> Study:
    """The tiny study with another task.py."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text((TINY / "pyproject.toml").read_text())
    (folder / "task.py").write_text(change((TINY / "task.py").read_text()))
    return Study(load_study(folder).folder, tiny(**contract).contract)


def sick_at(*sites: str) -> Callable[[str], str]:
    """Training raises at these sites, and nowhere else: their persons are far from the others."""

    def change(text: str) -> str:
        text = text.replace(
            "parts = by_hash", f"features = features + (1000 if site.name in {sites!r} else 0)\n        parts = by_hash"
        )
        return text.replace(
            "features, labels = batch\n",
            "features, labels = batch\n"
            "        if torch.is_grad_enabled() and features.mean() > 500:\n"
            "            raise RuntimeError('the scanner is broken')\n",
        )

    return change


def test_a_loss_that_raises_names_the_site_and_the_error(tmp_path: Path) -> None:
    study = changed_study(tmp_path / "study", sick_at("hospital-3"), cohort={"minimum": 4})
    with pytest.raises(RoundAborted, match="round 1") as caught:
        train(material(study, tmp_path / "data"), study.contract, tmp_path / "federation")
    assert caught.value.exit_code == ExitCode.ABORTED
    assert caught.value.next_step.startswith("hospital-3 refused (task): ")
    assert "RuntimeError: the scanner is broken" in caught.value.next_step


def test_one_failing_site_leaves_the_run_and_does_not_stop_the_others(tmp_path: Path) -> None:
    """Its one attempt was charged before anything was computed."""
    study = changed_study(tmp_path / "study", sick_at("hospital-2"), cohort={"minimum": 3})
    run = watched(tmp_path, study)
    assert [view.record.sites for view in run.trained.rounds] == [3, 3, 3]
    assert [p.releases for p in run.trained.privacy.values()] == [3, 1, 3, 3]
    assert incidents(run.folder / "hospital-1.sqlite") == []
    assert [code for code, _ in incidents(run.folder / "hospital-2.sqlite")] == ["TASK", "PROTOCOL", "PROTOCOL"]
    assert [view.epsilon for view in run.trained.rounds] == [
        pytest.approx(spent["hospital-1"], abs=1e-9) for spent in run.spent
    ]


def test_a_study_too_small_for_its_cohort_is_refused_before_anything_is_written(
    tmp_path: Path, progress: Progress
) -> None:
    with pytest.raises(ConfigError, match="4 sites, but the study's cohorts need at least 5") as caught:
        simulate(tiny(cohort={"minimum": 5}), Options(), tmp_path / "out", progress)
    assert "minimum and colluders" in caught.value.next_step
    assert not (tmp_path / "out").exists()


def test_colluders_count_towards_the_smallest_cohort(tmp_path: Path, progress: Progress) -> None:
    """With m colluders a sum over m + 1 sites would be one honest site's own."""
    with pytest.raises(ConfigError, match="need at least 5"):
        simulate(tiny(cohort={"minimum": 2, "colluders": 3}), Options(), tmp_path / "out", progress)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"normalisation": RANGES}], ids=["updates", "moments too"])
def test_a_round_that_was_repeated_is_shown_with_what_both_attempts_cost(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every site was charged for the first attempt, and what is charged is shown."""
    monkeypatch.setattr("fedseal.simulation.engine.processes.LocalGrid", FirstAttemptFails)
    run = watched(tmp_path, tiny(training={"rounds": 2}, privacy={"retries": 2}, **changes))
    assert [view.record.attempts for view in run.trained.rounds] == [2, 2]
    assert [p.releases for p in run.trained.privacy.values()] == [4 + (2 if changes else 0)] * 4
    for view, ledgers in zip(run.trained.rounds, run.spent, strict=True):
        assert view.epsilon == pytest.approx(max(ledgers.values()), abs=1e-9)
    once = epsilon_after(plan_run(run.study.contract), 1, 1e-5)
    assert once is not None
    assert (run.trained.rounds[0].epsilon or 0.0) > 1.05 * once


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["local", "none"])
def test_attempts_that_were_used_up_end_the_run_as_a_budget_that_is(
    plan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three rounds and one retry are four attempts; two rounds that had to be repeated leave none for the third."""
    monkeypatch.setattr("fedseal.simulation.engine.processes.LocalGrid", FirstAttemptFails)
    with pytest.raises(BudgetExceeded, match="round 3") as caught:
        watched(tmp_path, tiny(privacy={"plan": plan}))
    assert "hospital-1 refused (budget): this run has used up what its plan reserved" in caught.value.message
    assert caught.value.next_step == "Start a new run with a plan for the rounds that remain."
    assert "fedseal." not in caught.value.explain()


def test_a_policy_that_forbids_the_plan_ends_the_run_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fedseal.simulation.federation.default_policy",
        lambda _: 'version = 1\n[releases]\nupdate = ["none"]\nmoments = []\nevaluation = []\n',
    )
    with pytest.raises(PolicyRefused, match=r"round 1, 3 are needed; hospital-1 refused \(policy\)"):
        watched(tmp_path, tiny())


@pytest.mark.slow
def test_the_last_reason_is_told_and_not_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One site leaves in the first round and the others go on; what ends the run is something else."""
    monkeypatch.setattr("fedseal.simulation.engine.processes.LocalGrid", FirstAttemptFails)
    study = changed_study(tmp_path / "study", sick_at("hospital-1"), cohort={"colluders": 0})
    with pytest.raises(BudgetExceeded) as caught:
        watched(tmp_path, study)
    assert "scanner" not in caught.value.explain()
    assert "hospital-2 refused (budget)" in caught.value.message


def test_where_sites_have_left_one_by_one_the_reason_is_why_they_left(tmp_path: Path) -> None:
    """The other refusals say only that a run which was left is closed."""
    study = changed_study(tmp_path / "study", sick_at("hospital-2", "hospital-4"), cohort={"minimum": 3})
    with pytest.raises(RoundAborted, match="round 1") as caught:
        watched(tmp_path, study)
    assert caught.value.next_step.startswith("hospital-2 refused (task): RuntimeError: the scanner is broken")


# What would fail at every site is said before anything is trained.


def test_a_site_larger_than_the_contract_allows(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(
        ConfigError, match=r"hospital-\d has \d+ training persons, more than the study's largest_site, 40"
    ):
        simulate(tiny(cohort={"largest_site": 40}), Options(), tmp_path / "out", progress)
    assert list((tmp_path / "out").iterdir()) == []


def test_ranges_for_other_features_than_the_data_has(tmp_path: Path, progress: Progress) -> None:
    ranges = {"kind": "federated", "low": [0.0, 0.0], "high": [1.0, 1.0]}
    with pytest.raises(ConfigError, match=r"hospital-1: .*for 2 features, the data has shape \(3,\)") as caught:
        simulate(tiny(normalisation=ranges), Options(), tmp_path / "out", progress)
    assert "low and high" in caught.value.next_step
