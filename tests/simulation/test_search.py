"""A private search: every trial on the same ledgers, a number of trials that nobody chose, and what it costs whom."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.studies import material, tiny

from fedseal.errors import BudgetExceeded, ConfigError
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.planning import plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.store import SiteStore
from fedseal.privacy.tuning import epsilon_selected, refusal_delta, trials_of
from fedseal.simulation import search as searching
from fedseal.simulation.search import Found, Search, Trial, most_trials, read_search, search
from fedseal.study import Study

CANDIDATES = [{"learning_rate": 0.5}, {"learning_rate": 0.001}, {"learning_rate": 0.5, "clip_norm": 0.5}]


def study(**changes: Any) -> Study:
    wanted = {"evaluation": {"epsilon": 1.0, "bins": 4}, "training": {"rounds": 1}, "privacy": {"retries": 0}}
    return tiny(**(wanted | changes))


def wanted(**changes: Any) -> Search:
    return Search.model_validate(
        {"version": 1, "mean": 3.0, "shape": 1.0, "most": 12, "candidate": CANDIDATES, **changes}
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Found, list[tuple[int, int, Trial]], Path]:
    folder = tmp_path_factory.mktemp("search")
    gathered = material(study(), folder / "data", seed=12)
    seen: list[tuple[int, int, Trial]] = []
    return search(gathered, study().contract, wanted(), folder / "f", lambda *a: seen.append(a)), seen, folder / "f"


@pytest.mark.slow
def test_every_trial_is_charged_to_the_same_ledgers(found: tuple[Found, Any, Path]) -> None:
    result, seen, folder = found
    count = len(result.trials)
    assert count > 1
    assert [(at, of) for at, of, _ in seen] == [(i + 1, count) for i in range(count)]
    for store in folder.glob("*.sqlite"):
        with SiteStore.open(store).transaction() as transaction:
            for population in ("train", "test"):
                entries, terms = transaction.entries(population), transaction.terms(population)
                assert sum(e.kind == EntryKind.CHARGE for e in entries) == count
                assert len({e.run for e in entries if e.kind == EntryKind.CHARGE}) == count
                assert entries[-1].charged <= terms.budget


@pytest.mark.slow
def test_what_it_costs_stands_beside_what_one_trial_costs(found: tuple[Found, Any, Path]) -> None:
    result, _, _ = found
    for cost in result.costs.values():
        assert cost.one < cost.charged <= cost.budget
        assert cost.one < cost.selected
        # Of twelve trials at most: seven in a thousand searches do not take place, which no delta allows.
        assert cost.delta_selected > 0.1


def divergence(plan: PrivacyPlan, order: float) -> float:
    return plan.divergence(order)


@pytest.mark.slow
def test_left_out_the_most_trials_leave_delta_alone() -> None:
    contract = study().contract
    plans = [plan_run(candidate.applied(contract), Extent(4, 4)) for candidate in wanted().candidate]
    most = most_trials(plans, wanted(most=None), 1e-5)
    number = trials_of(3.0, 1.0)
    worst = max(epsilon_selected(partial(divergence, p.update), number, 1e-5) for p in plans)
    assert refusal_delta(number, most, worst) <= 1.1e-5
    with pytest.raises(ConfigError, match="no ledger can be opened"):
        most_trials(plans, wanted(most=None, mean=900.0), 1e-5)


@pytest.mark.slow
def test_trials_of_one_candidate_draw_their_own_noise(found: tuple[Found, Any, Path]) -> None:
    result, _, _ = found
    chosen = [trial.candidate for trial in result.trials]
    first, second = (i for i, c in enumerate(chosen) if chosen.count(c) > 1)
    assert chosen[first] == chosen[second]
    assert result.trials[first].score.value != result.trials[second].score.value


@pytest.mark.slow
def test_the_best_score_is_kept(found: tuple[Found, Any, Path]) -> None:
    result, _, _ = found
    scores = [trial.score.value or 0.0 for trial in result.trials]
    assert scores[result.best] == max(scores)
    assert result.contract == wanted().candidate[result.trials[result.best].candidate].applied(study().contract)


@pytest.mark.slow
def test_a_ledger_for_fewer_trials_refuses_one_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: were a single trial charged, the second would not notice."""
    terms = searching.search_terms
    monkeypatch.setattr(searching, "search_terms", lambda plans, _, delta: terms(plans, 1, delta))
    gathered = material(study(), tmp_path / "data", seed=12)
    seen: list[Any] = []
    with pytest.raises(BudgetExceeded, match="budget of population"):
        search(gathered, study().contract, wanted(), tmp_path / "f", lambda *a: seen.append(a))
    assert len(seen) == 1


def test_more_trials_than_the_ledgers_are_for_do_not_begin(tmp_path: Path) -> None:
    gathered = material(study(), tmp_path / "data", seed=12)
    with pytest.raises(BudgetExceeded, match="more than 1 trials were drawn"):
        search(gathered, study().contract, wanted(most=1, mean=50.0), tmp_path / "f", lambda *_: None)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"privacy": {"plan": "none"}}, "needs a private plan"), ({"evaluation": {"epsilon": None}}, "needs a private")],
)
def test_a_study_that_promises_nothing_has_nothing_to_search_privately(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    gathered = material(study(), tmp_path / "data")
    with pytest.raises(ConfigError, match=message):
        search(gathered, study(**changes).contract, wanted(), tmp_path / "f", lambda *_: None)


def test_a_file_says_where_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "search.toml"
    path.write_text("version = 1\n[[candidate]]\nlearning_rat = 0.1\n")
    with pytest.raises(ConfigError, match="learning_rat") as caught:
        read_search(path)
    assert "learning_rate" in caught.value.next_step
    path.write_text("version = 1\nmean = 3\n[[candidate]]\nlearning_rate = 0.1\n")
    assert read_search(path).candidate[0].learning_rate == 0.1
    with pytest.raises(ConfigError, match="does not go with the study"):
        read_search(path).candidate[0].model_copy(update={"rounds": -1}).applied(study().contract)
