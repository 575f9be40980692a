"""Enrolling a simulated federation: what its stores hold, what its sites allow, and that its ledgers start empty."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.keys import key, make_roster, signed
from support.studies import tiny

from fedseal.compliance.default_policy import default_policy
from fedseal.compliance.policy import read_policy
from fedseal.errors import ConfigError
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.planning import plan_run
from fedseal.privacy.releases import Population
from fedseal.privacy.roster import public_persons
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.store import ServerStore
from fedseal.simulation.federation import Federation, enrol, incidents, site_privacy
from fedseal.study import Contract

PERSONS = {"north": 37, "south": 120, "west": 4}
SEED = 11


def contract(**changes: object) -> Contract:
    return tiny(**changes).contract


def enrolled(folder: Path, **changes: object) -> Federation:
    chosen = contract(**changes)
    return enrol(folder / "federation", chosen, plan_run(chosen), PERSONS, SEED)


def test_every_store_is_marked_as_simulated_and_carries_the_seed(tmp_path: Path) -> None:
    federation = enrolled(tmp_path)
    assert list(federation.site_stores) == list(PERSONS)
    for number, path in enumerate(federation.site_stores.values(), start=1):
        identity = SiteStore.open(path).identity
        assert identity.simulated
        assert (identity.number, identity.seed) == (number, SEED)
    assert ServerStore.open(federation.server_store).identity.roster.simulated


def test_only_the_owner_may_read_a_store(tmp_path: Path) -> None:
    federation = enrolled(tmp_path)
    for path in (*federation.site_stores.values(), federation.server_store):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_all_share_one_roster_in_which_the_counts_are_rounded(tmp_path: Path) -> None:
    federation = enrolled(tmp_path)
    rosters = [SiteStore.open(p).identity.roster for p in federation.site_stores.values()]
    rosters.append(ServerStore.open(federation.server_store).identity.roster)
    assert len({r.digest() for r in rosters}) == 1
    assert {e.name: e.persons for e in rosters[0].sites} == {"north": 40, "south": 120, "west": 10}
    assert rosters[0].federation == "simulated-tiny"


@given(st.integers(0, 10**6))
def test_the_public_number_is_a_ten_near_the_real_one(persons: int) -> None:
    published = public_persons(persons)
    assert published % 10 == 0
    assert published >= 10
    assert abs(published - persons) <= 5 or (persons < 5 and published == 10)


def test_keys_are_new_in_every_federation_although_the_seed_is_the_same(tmp_path: Path) -> None:
    one, two = enrolled(tmp_path / "1"), enrolled(tmp_path / "2")
    keys = [
        SiteStore.open(path).identity.key.public
        for federation in (one, two)
        for path in federation.site_stores.values()
    ]
    assert len(set(keys)) == 2 * len(PERSONS)


@pytest.mark.parametrize("plan", ["none", "local"])
def test_the_policy_allows_exactly_the_contracts_plan(plan: str) -> None:
    found = read_policy(default_policy(contract(privacy={"plan": plan})))
    assert found.releases.update == (plan,)
    assert found.releases.moments == (plan,)
    assert found.releases.evaluation == ()


def test_the_policys_cohort_is_the_contracts(tmp_path: Path) -> None:
    federation = enrolled(tmp_path, cohort={"minimum": 3, "colluders": 1})
    for path in federation.site_stores.values():
        found = read_policy(SiteStore.open(path).identity.policy)
        assert (found.cohort.minimum, found.cohort.colluders) == (3, 1)


def test_there_is_a_ledger_for_each_population_with_the_contracts_promise(tmp_path: Path) -> None:
    federation = enrolled(tmp_path, privacy={"epsilon": 2.5, "delta": 1e-6})
    order = plan_run(contract(privacy={"epsilon": 2.5, "delta": 1e-6})).order
    for path in federation.site_stores.values():
        with SiteStore.open(path).transaction() as transaction:
            assert transaction.populations() == sorted(p.value for p in Population)
            terms = [transaction.terms(p) for p in transaction.populations()]
        assert [(t.epsilon, t.delta, t.order, t.unit) for t in terms] == [(2.5, 1e-6, order, "person")] * len(
            Population
        )


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 3.0])
def test_without_a_plan_a_ledger_opens_at_any_promise(tmp_path: Path, epsilon: float) -> None:
    """The comparison without privacy has the study's promise, however small, and counts nothing against it."""
    federation = enrolled(tmp_path, privacy={"plan": "none", "epsilon": epsilon})
    assert all(site_privacy(path).epsilon_budget == epsilon for path in federation.site_stores.values())


@pytest.mark.parametrize("name", ["server", "server.sqlite", "initial", "data"])
def test_a_site_may_be_called_like_anything_the_run_makes(tmp_path: Path, name: str) -> None:
    chosen = contract()
    federation = enrol(tmp_path / "federation", chosen, plan_run(chosen), {name: 20, "b": 20}, SEED)
    assert SiteStore.open(federation.site_stores[name]).identity.name == name
    assert ServerStore.open(federation.server_store).identity.roster.simulated


def test_ledgers_start_empty(tmp_path: Path) -> None:
    for path in enrolled(tmp_path).site_stores.values():
        with SiteStore.open(path).transaction() as transaction:
            for population in transaction.populations():
                assert [e.kind for e in transaction.entries(population)] == [EntryKind.OPEN]
                ledger = transaction.ledger(population, bytes(16), b"")
                assert ledger.available == ledger.terms.budget
        facts = site_privacy(path)
        assert (facts.epsilon, facts.epsilon_enforced, facts.releases) == (0.0, 0.0, 0)
        assert (facts.epsilon_budget, facts.delta) == (8.0, 1e-5)
        assert incidents(path) == []


def test_the_ledgers_afford_the_whole_run_and_not_two_of_it(tmp_path: Path) -> None:
    """The noise is calibrated to the promise: a run with all its retries takes nearly everything."""
    plan = plan_run(contract()).update
    for path in enrolled(tmp_path).site_stores.values():
        with SiteStore.open(path).transaction() as transaction:
            ledger, _ = transaction.ledger("train", bytes(16), b"").reserve(b"r" * 16, plan)
        assert 0 <= ledger.available < 0.01 * ledger.terms.budget


def test_a_federation_is_enrolled_once(tmp_path: Path) -> None:
    enrolled(tmp_path)
    with pytest.raises(FileExistsError):
        enrolled(tmp_path)


@pytest.mark.parametrize(("simulated", "seed"), [(True, None), (False, SEED)])
def test_a_seed_belongs_to_a_simulation_and_nowhere_else(tmp_path: Path, simulated: bool, seed: int | None) -> None:
    roster = make_roster(3, simulated=simulated)
    enrolment = Enrolment(1, key("site-1"), signed(roster), roster.digest(), default_policy(contract()), (), seed)
    with pytest.raises(ConfigError, match="a seed belongs to a simulated federation"):
        SiteStore.create(tmp_path / "site.sqlite", enrolment)
    assert not (tmp_path / "site.sqlite").exists()
