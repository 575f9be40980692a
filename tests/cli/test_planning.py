"""`fedseal privacy plan`: what a study costs, what a ledger has left, and whether the one fits the other."""

import json
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.books import gaussian, run_id
from support.commands import told
from support.flower import OPEN_POLICY
from support.keys import key, make_roster, signed
from support.studies import TINY, tiny

from fedseal import database
from fedseal.errors import BudgetExceeded, ExitCode
from fedseal.privacy import accounting
from fedseal.privacy.forecast import (
    all_plans,
    fits,
    most_releases,
    with_noise,
)
from fedseal.privacy.ledger import Ledger, Release, epsilon_enforced, epsilon_spent, open_ledger, open_terms
from fedseal.privacy.plan import NoPrivacy, PrivacyPlan, encode_plan
from fedseal.privacy.planning import plan_run
from fedseal.privacy.releases import Population
from fedseal.privacy.runs import RunRecord
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.study import Contract

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = gaussian(8.0, releases=3, retries=1)
LARGE = gaussian(40.0, 0.2, steps=5, releases=10, retries=2)


# Everyone in every step: a Gaussian is planned in no time.
EVERYONE = {"sample_rate": 1.0}


def contract_of(**changes: dict[str, Any]) -> Contract:
    """The contract of the study in these tests."""
    return tiny(**{**changes, "training": {**EVERYONE, **changes.get("training", {})}}).contract


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., Path]:
    """Makes the tiny study with everyone in every step, and one part of its contract replaced."""

    def make(before: str = "", after: str = "") -> Path:
        folder = tmp_path / "study"
        folder.mkdir(exist_ok=True)
        text = (TINY / "pyproject.toml").read_text(encoding="utf-8")
        assert before in text
        assert "sample_rate = 0.5" in text
        text = text.replace("sample_rate = 0.5", "sample_rate = 1.0").replace(before, after, 1)
        (folder / "pyproject.toml").write_text(text, encoding="utf-8")
        (folder / "task.py").write_bytes((TINY / "task.py").read_bytes())
        return folder

    return make


def make_store(folder: Path, *, epsilon: float = 8.0, order: float = 3.3, policy: str = OPEN_POLICY) -> SiteStore:
    """A site of four whose ledgers are new."""
    roster = make_roster(4, simulated=False)
    terms = tuple(open_terms(p.value, epsilon=epsilon, delta=1e-5, order=order) for p in Population)
    made = Enrolment(1, key("site-1"), signed(roster), roster.digest(), policy, terms)
    return SiteStore.create(folder / "site.sqlite", made)


def spend(store: SiteStore, run: int, plan: PrivacyPlan, charges: int, *, release: str = "update") -> None:
    """Reserve a plan and charge it some times."""
    with store.transaction() as transaction:
        ledger, entry = transaction.ledger("train", run_id(run), encode_plan(plan)).reserve(run_id(run), plan)
        transaction.append("train", entry)
        for n in range(charges):
            ledger, entry, _ = ledger.charge(Release(run_id(run), release, n + 1, 0, bytes([run, n]) * 16), plan)
            transaction.append("train", entry)
        transaction.put_run(RunRecord(run_id(run), charges))


@pytest.fixture
def store(tmp_path: Path) -> SiteStore:
    """Run 1 is done with its statistics and holds the rest of its training; run 2 has released without privacy."""
    made = make_store(tmp_path)
    spend(made, 1, SMALL, 4, release="moments")
    spend(made, 1, LARGE, 5)
    return made


def ledger_of(store: SiteStore) -> Ledger:
    from fedseal.privacy.chain import check_chain

    with store.transaction() as transaction:
        return check_chain(transaction.terms("train"), transaction.entries("train"))


def numbers(done: "subprocess.CompletedProcess[str]", code: ExitCode = ExitCode.OK) -> dict[str, Any]:
    """What --json printed; NaN and Infinity are no JSON."""

    def refuse(name: str) -> float:
        raise ValueError(name)

    assert done.returncode == code, done
    found: dict[str, Any] = json.loads(done.stdout, parse_constant=refuse)
    return found


# A study


@pytest.mark.slow
def test_a_study_is_told_what_its_promise_asks_for(fedseal: Run) -> None:
    found = numbers(fedseal("privacy", "plan", TINY, "--json"))
    contract = tiny().contract
    plans = plan_run(contract)
    study = found["study"]
    assert (found["ledger"], found["run"]) == (None, None)
    assert study["promise"] == {"epsilon": 8.0, "delta": 1e-5, "order": plans.order}
    (plan,) = study["plans"]
    assert plan["kind"] == "local"
    assert plan["noise_multiplier"] == plans.update.noise_multiplier  # type: ignore[union-attr]
    assert study["divergences"] == [plans.update.divergence(plans.order)]
    assert study["epsilon"] == accounting.spent_by(((plans.update, 3),), 1e-5)
    assert study["epsilon"] < study["epsilon_with_retries"] < study["epsilon_enforced"] <= 8.0
    # All attempts take all of it.
    assert study["epsilon_enforced"] > 7.99


@pytest.mark.slow
def test_neighbours_say_what_less_noise_or_more_rounds_would_cost(fedseal: Run, study: Callable[..., Path]) -> None:
    seen = numbers(fedseal("privacy", "plan", study(), "--json"))["study"]
    own, less, more, fewer, many = seen["neighbours"]
    assert [n["rounds"] for n in seen["neighbours"]] == [3, 3, 3, 2, 6]
    assert less["epsilon"] > own["epsilon"] == seen["epsilon"] > more["epsilon"]
    assert fewer["epsilon"] < own["epsilon"] < many["epsilon"]
    # The ledger's own arithmetic: what fits is accepted, one round more is not.
    terms = open_terms("train", epsilon=8.0, delta=1e-5, order=seen["promise"]["order"])
    for n in seen["neighbours"]:
        plan = replace(plan_run(contract_of()).update, noise_multiplier=n["noise_multiplier"])
        new = open_ledger(terms)[0]
        assert n["fitting"] >= 1
        assert fits(new, [replace(plan, releases=n["fitting"])])
        assert not fits(new, [replace(plan, releases=n["fitting"] + 1)])
        assert (n["enforced"] <= 8.0) == (n["rounds"] <= n["fitting"])
    assert [n["needed"] for n in (own, less, more)] == [own["noise_multiplier"]] * 3
    assert fewer["needed"] < own["needed"] < many["needed"]


def test_options_change_the_study(fedseal: Run, study: Callable[..., Path]) -> None:
    options = ("--epsilon", "2", "--delta", "1e-6", "--rounds", "10")
    seen = numbers(fedseal("privacy", "plan", study(), *options, "--json"))["study"]
    changed = contract_of(privacy={"epsilon": 2.0, "delta": 1e-6}, training={"rounds": 10})
    assert seen["promise"]["delta"] == 1e-6
    assert seen["plans"][0]["noise_multiplier"] == plan_run(changed).update.noise_multiplier  # type: ignore[union-attr]
    assert seen["plans"][0]["releases"] == 10


def test_people_are_shown_the_same(fedseal: Run, study: Callable[..., Path]) -> None:
    done = fedseal("privacy", "plan", study())
    assert (done.returncode, done.stderr) == (0, "")
    seen = numbers(fedseal("privacy", "plan", study(), "--json"))["study"]
    for number in (f"{seen['epsilon']:.3f}", f"{seen['neighbours'][0]['noise_multiplier']:.4g}"):
        assert number in done.stdout
    assert "Promise: epsilon 8 at delta 1e-05 to every person" in done.stdout


@pytest.mark.slow
def test_the_page_shows_what_is_printed(fedseal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "privacy.md").read_text(encoding="utf-8")
    start = page.index("    $ fedseal privacy plan examples/breast-cancer\n")
    block = page[start : page.index("\n\n", start)].splitlines()[1:]
    shown = [line.removeprefix("    ") for line in block]
    monkeypatch.setenv("COLUMNS", "110")
    printed = fedseal("privacy", "plan", root / "examples" / "breast-cancer").stdout.splitlines()
    assert len(shown) > 15
    assert shown == [line.rstrip() for line in printed[: len(shown)]]


@pytest.mark.parametrize("kind", ["distributed", "client"])
def test_shared_noise_depends_on_the_model_which_is_counted(
    fedseal: Run, study: Callable[..., Path], kind: str
) -> None:
    counted, said, large = (
        numbers(fedseal("privacy", "plan", study(), "--plan", kind, *more, "--json"))["study"]
        for more in ((), ("--values", "4"), ("--values", "4000000"))
    )
    assert counted == said
    assert counted["plans"][0]["length"] == 4
    assert counted["plans"][0]["kind"] == kind
    assert large["plans"][0]["length"] == 4_000_000


@pytest.mark.slow
def test_moments_have_a_plan_of_their_own(fedseal: Run, study: Callable[..., Path]) -> None:
    federated = '[tool.fedseal.normalisation]\nkind = "federated"\nlow = [-9, -9, -9]\nhigh = [9, 9, 9]\n\n'
    folder = study("[tool.fedseal.cohort]", federated + "[tool.fedseal.cohort]")
    seen = numbers(fedseal("privacy", "plan", folder, "--json"))["study"]
    assert [plan["releases"] for plan in seen["plans"]] == [1, 3]
    assert "moments" in fedseal("privacy", "plan", folder).stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), ("nothing to plan for", "--store")),
        (("--epsilon", "3"), ("nothing to plan for",)),
        ((TINY, "--epsilon", "0"), ("privacy.epsilon",)),
        ((TINY, "--rounds", "0"), ("training.rounds",)),
        ((TINY, "--delta", "2"), ("privacy.delta",)),
        ((TINY, "--epsilon", "0.01"), ("no noise makes this plan fit", "Raise epsilon")),
    ],
)
def test_what_cannot_be_planned_is_refused(fedseal: Run, arguments: tuple[Any, ...], says: tuple[str, ...]) -> None:
    told(fedseal("privacy", "plan", *arguments), ExitCode.CONFIG, *says)


def test_a_study_without_a_promise_says_how_to_get_one(fedseal: Run, study: Callable[..., Path]) -> None:
    folder = study('plan = "local"', 'plan = "none"')
    told(fedseal("privacy", "plan", folder), ExitCode.CONFIG, "plan is none", "--epsilon 3")
    assert (
        numbers(fedseal("privacy", "plan", folder, "--epsilon", "3", "--json"))["study"]["plans"][0]["kind"] == "local"
    )


# A ledger


def test_a_ledger_says_what_was_spent_on_what_and_who_holds_the_rest(fedseal: Run, store: SiteStore) -> None:
    found = numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))["ledger"]
    ledger = ledger_of(store)
    with store.transaction() as transaction:
        entries = transaction.entries("train")
    assert found["epsilon"] == epsilon_spent(ledger.terms, entries)
    assert found["epsilon_enforced"] == epsilon_enforced(ledger.terms, ledger.last.charged)
    assert found["budget"] == found["charged"] + found["reserved"] + found["available"] == ledger.terms.budget
    rows = [(r["run"], r["release"], r["charges"], r["plan"]["noise_multiplier"]) for r in found["spent"]]
    assert rows == [(run_id(1).hex(), "moments", 4, 8.0), (run_id(1).hex(), "update", 5, 40.0)]
    assert sum(row["units"] for row in found["spent"]) == found["charged"]
    # Together less than the sum, each less than all.
    assert max(r["epsilon"] for r in found["spent"]) < found["epsilon"] < sum(r["epsilon"] for r in found["spent"])
    assert [(r["run"], r["attempts"]) for r in found["reserved_by"]] == [(run_id(1).hex(), 7)]
    assert found["reserved_by"][0]["units"] == found["reserved"]


def test_what_is_said_to_fit_is_accepted_and_one_more_is_not(fedseal: Run, store: SiteStore) -> None:
    found = numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))["ledger"]["releases_that_fit"]
    by_noise = {row["plan"]["noise_multiplier"]: row["releases"] for row in found}
    assert set(by_noise) == {8.0, 40.0}
    for plan in (SMALL, LARGE):
        assert fits(ledger_of(store), [replace(plan, releases=by_noise[plan.noise_multiplier])])
        assert not fits(ledger_of(store), [replace(plan, releases=by_noise[plan.noise_multiplier] + 1)])


def test_a_release_without_privacy_makes_the_number_unbounded_and_the_filter_goes_on(
    fedseal: Run, store: SiteStore
) -> None:
    before = numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))["ledger"]
    spend(store, 2, NoPrivacy(releases=5, retries=0), 2)
    after = numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))["ledger"]
    assert after["epsilon"] is None
    assert after["epsilon_enforced"] == pytest.approx(before["epsilon_enforced"], abs=1e-11)
    assert after["releases_that_fit"] == before["releases_that_fit"]
    done = fedseal("privacy", "plan", "--store", store.path)
    assert "unbounded: released without privacy" in done.stdout
    assert done.stdout.count("not counted") == 2


def test_a_new_ledger_and_another_population(fedseal: Run, store: SiteStore) -> None:
    done = fedseal("privacy", "plan", "--store", store.path, "--population", "test")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing was spent, and nobody holds anything." in done.stdout
    found = numbers(fedseal("privacy", "plan", "--store", store.path, "--population", "test", "--json"))["ledger"]
    assert (found["charged"], found["epsilon"], found["epsilon_enforced"], found["spent"]) == (0, 0.0, 0.0, [])


def test_a_store_is_only_read_and_a_running_site_is_not_held_up(fedseal: Run, store: SiteStore) -> None:
    """Another process is in the middle of a transaction, and goes on; what it has not finished is not seen."""
    before = store.path.read_bytes(), numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))
    with closing(sqlite3.connect(store.path, isolation_level=None)) as running:
        running.execute("BEGIN IMMEDIATE")
        running.execute("DELETE FROM entries WHERE counter > 5")
        assert numbers(fedseal("privacy", "plan", "--store", store.path, "--json")) == before[1]
        running.execute("ROLLBACK")
    assert numbers(fedseal("privacy", "plan", "--store", store.path, "--json")) == before[1]
    assert sorted(p.name for p in store.path.parent.glob("site.sqlite*")) == ["site.sqlite"]


def test_reading_does_not_stop_a_site_from_charging(store: SiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one reads, a site charges at once; the reader goes on with what it began with. The twin: `fedseal site
    close-run`, which writes, would have to be waited for.
    """
    monkeypatch.setattr(database, "PATIENCE", 200)
    database.engine_for.cache_clear()
    reader, writer = SiteStore.open(store.path, reading=True), SiteStore.open(store.path)
    with reader.transaction() as reading:
        lines = len(reading.entries("train"))
        thread = threading.Thread(target=spend, args=(writer, 3, LARGE, 1))
        thread.start()
        thread.join()
        assert len(reading.entries("train")) == lines
        with pytest.raises(Exception, match="readonly"):
            reading.put_run(RunRecord(run_id(9)))
    assert ledger_of(writer).counter == lines + 2
    database.engine_for.cache_clear()


@pytest.mark.parametrize("name", ["missing", "notes.txt"])
def test_what_is_no_store_is_named(fedseal: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("no database", encoding="utf-8")
    told(fedseal("privacy", "plan", "--store", tmp_path / name), ExitCode.CONFIG, name, "site store")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["notes.txt"]


def test_a_damaged_ledger_is_not_reckoned_with(fedseal: Run, store: SiteStore) -> None:
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("DELETE FROM entries WHERE population = 'train' AND counter = 3")
    told(fedseal("privacy", "plan", "--store", store.path), ExitCode.CONFIG, "ledger entry", "Restore it")


# A study and a ledger


def test_a_run_that_fits_is_accepted_by_the_site(fedseal: Run, study: Callable[..., Path], store: SiteStore) -> None:
    found = numbers(fedseal("privacy", "plan", study(), "--epsilon", "4", "--store", store.path, "--json"))["run"]
    plans = plan_run(contract_of(privacy={"epsilon": 4.0}))
    assert (found["accepted"], found["refusal"]) == (True, None)
    assert fits(ledger_of(store), all_plans(plans))
    assert found["rounds_that_fit"] >= 3
    assert found["epsilon_after"] < found["epsilon_enforced_after"] <= 8.0
    spend(store, 5, plans.update, 3)
    # Afterwards the ledger says what was foretold.
    assert numbers(fedseal("privacy", "plan", "--store", store.path, "--json"))["ledger"]["epsilon"] == pytest.approx(
        found["epsilon_after"], rel=1e-9
    )


@pytest.mark.slow
def test_a_run_that_does_not_fit_is_refused_with_the_sites_own_words(
    fedseal: Run, study: Callable[..., Path], store: SiteStore
) -> None:
    done = fedseal("privacy", "plan", study(), "--store", store.path, "--json")
    found = numbers(done, ExitCode.BUDGET)["run"]
    plans = plan_run(contract_of())
    with pytest.raises(BudgetExceeded) as caught:
        ledger_of(store).reserve(run_id(7), plans.update)
    assert found["refusal"] == {"class": "BudgetExceeded", "message": caught.value.message}
    assert caught.value.message in " ".join(done.stderr.split())
    told(fedseal("privacy", "plan", study(), "--store", store.path), ExitCode.BUDGET, "would cost", "is left")
    # What is said to fit does: so many rounds, so much noise, or this promise.
    ledger = ledger_of(store)
    assert fits(ledger, [replace(plans.update, releases=found["rounds_that_fit"])])
    assert not fits(ledger, [replace(plans.update, releases=found["rounds_that_fit"] + 1)])
    assert fits(ledger, [with_noise(plans.update, found["noise_factor_that_fits"])])
    assert not fits(ledger, [with_noise(plans.update, found["noise_factor_that_fits"] / 1.001)])
    promise = found["epsilon_that_fits"]
    again = fedseal("privacy", "plan", study(), "--store", store.path, "--epsilon", promise, "--json")
    assert numbers(again)["run"]["accepted"]
    told(
        fedseal("privacy", "plan", study(), "--store", store.path, "--epsilon", 1.03 * promise), ExitCode.BUDGET, "cost"
    )


def test_where_nothing_is_left_nothing_fits(fedseal: Run, study: Callable[..., Path], tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number, noise in enumerate((8.0, 1e3, 1e6)):
        plan = gaussian(noise, releases=1, retries=0)
        spend(store, number, replace(plan, releases=most_releases(ledger_of(store), plan)), 1)
    assert ledger_of(store).available < 10
    done = fedseal("privacy", "plan", study(), "--store", store.path)
    assert done.returncode == ExitCode.BUDGET
    found = numbers(fedseal("privacy", "plan", study(), "--store", store.path, "--json"), ExitCode.BUDGET)["run"]
    assert found["rounds_that_fit"] == 0
    assert (found["epsilon_that_fits"], "none does" in done.stdout) == (None, True)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ('update = ["none", "local"]', 'update = ["none"]', "release 'update' under plan 'local' is not allowed"),
        ("minimum = 2", "minimum = 4", "a sum over as few as 3 sites"),
        ("minimum = 2", "minimum = 2\ncolluders = 2", "a round safe against 1 colluding sites"),
    ],
)
def test_a_run_that_the_policy_forbids_is_refused_like_at_the_site(
    fedseal: Run, study: Callable[..., Path], tmp_path: Path, before: str, after: str, says: str
) -> None:
    assert before in OPEN_POLICY
    order = plan_run(contract_of()).order
    store = make_store(tmp_path, order=order, policy=OPEN_POLICY.replace(before, after))
    done = fedseal("privacy", "plan", study(), "--store", store.path, "--json")
    found = numbers(done, ExitCode.POLICY)["run"]
    assert found["refusal"]["class"] == "PolicyRefused"
    assert says in " ".join(done.stderr.split())
    # The twin.
    (tmp_path / "other").mkdir()
    open_ = make_store(tmp_path / "other", order=order)
    assert numbers(fedseal("privacy", "plan", study(), "--store", open_.path, "--json"))["run"]["accepted"]


def test_a_federation_that_is_too_small_for_the_study_says_so(
    fedseal: Run, store: SiteStore, study: Callable[..., Path]
) -> None:
    folder = study("minimum = 3", "minimum = 5")
    told(fedseal("privacy", "plan", folder, "--store", store.path), ExitCode.CONFIG, "lists 4 sites", "asks for 5")


def test_a_run_without_privacy_is_judged_by_the_policy(
    fedseal: Run, store: SiteStore, study: Callable[..., Path]
) -> None:
    folder = study('plan = "local"', 'plan = "none"')
    found = numbers(fedseal("privacy", "plan", folder, "--store", store.path, "--json"))["run"]
    assert (found["accepted"], found["epsilon_after"]) == (True, None)


# The evaluation of test persons

EVALUATION = "[tool.fedseal.evaluation]\nepsilon = 2.0\nbins = 10\n\n[tool.fedseal.simulation]\npopulation"
EVALUATED_POLICY = OPEN_POLICY.replace('evaluation = ["none"]', 'evaluation = ["histogram"]')


def test_a_study_is_told_what_its_evaluation_costs(fedseal: Run, study: Callable[..., Path]) -> None:
    folder = study("[tool.fedseal.simulation]\npopulation", EVALUATION)
    found = numbers(fedseal("privacy", "plan", folder, "--json"))["study"]["evaluation"]
    assert found["plan"]["kind"] == "histogram"
    assert (found["plan"]["length"], found["plan"]["cells"]) == (20, 1)
    assert 1.99 < found["epsilon"] == found["plan"]["epsilon"] <= found["enforced"] <= found["promise"] == 2.0
    assert found["deviation"] == pytest.approx(0.602, abs=0.001)
    assert "What it releases of test persons" in fedseal("privacy", "plan", folder).stdout
    assert numbers(fedseal("privacy", "plan", study(), "--json"))["study"]["evaluation"] is None


def test_an_evaluation_is_tried_on_the_ledger_of_test_persons(
    fedseal: Run, study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = study("[tool.fedseal.simulation]\npopulation", EVALUATION)
    make_store(tmp_path, epsilon=3.0, order=256.0, policy=EVALUATED_POLICY)
    path = tmp_path / "site.sqlite"
    run = numbers(fedseal("privacy", "plan", folder, "--store", path, "--population", "test", "--json"))["run"]
    assert run["accepted"] is True
    assert 2.0 < run["epsilon_enforced_after"] <= 3.0


def test_what_fits_is_said_where_an_evaluation_does_not(
    fedseal: Run, study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = study("[tool.fedseal.simulation]\npopulation", EVALUATION)
    make_store(tmp_path, epsilon=1.5, order=256.0, policy=EVALUATED_POLICY)
    arguments = ("privacy", "plan", folder, "--store", tmp_path / "site.sqlite", "--population", "test")
    run = numbers(fedseal(*arguments, "--json"), ExitCode.BUDGET)["run"]
    assert 1.4 < run["epsilon_that_fits"] <= 1.5
    assert run["refusal"]["class"] == "BudgetExceeded"
    again = study("[tool.fedseal.simulation]\npopulation", EVALUATION.replace("2.0", str(run["epsilon_that_fits"])))
    assert numbers(fedseal(*arguments, "--json"))["run"]["accepted"] is True
    assert again == folder


def test_a_policy_without_it_refuses_the_evaluation(fedseal: Run, study: Callable[..., Path], tmp_path: Path) -> None:
    folder = study("[tool.fedseal.simulation]\npopulation", EVALUATION)
    make_store(tmp_path, epsilon=40.0, order=3.3)
    path = tmp_path / "site.sqlite"
    for population in ("test", "train"):
        done = fedseal("privacy", "plan", folder, "--store", path, "--population", population, "--json")
        refusal = numbers(done, ExitCode.POLICY)["run"]["refusal"]
        assert "release 'evaluation' under plan 'histogram'" in refusal["message"]


def test_a_study_without_an_evaluation_has_nothing_about_test_persons(fedseal: Run, tmp_path: Path) -> None:
    make_store(tmp_path)
    done = fedseal("privacy", "plan", TINY, "--store", tmp_path / "site.sqlite", "--population", "test")
    assert done.returncode == ExitCode.CONFIG
    assert "no private evaluation" in done.stderr
