"""A federation that is enrolled for real: no seed, no mark of a simulation, secrets for their owners only."""

import stat
from pathlib import Path

import pytest
from support.studies import tiny

from fedseal.privacy.planning import plan_run
from fedseal.privacy.randomness import SystemRandomness
from fedseal.privacy.roster import SignedRoster, open_roster
from fedseal.privacy.store import SiteStore
from fedseal.server.store import ServerStore
from fedseal.simulation.deployed.enrolment import Enrolled, enrol_for_real
from fedseal.wire import decode

PERSONS = {"north": 113, "server": 20, "west": 41}


@pytest.fixture
def enrolled(tmp_path: Path) -> Enrolled:
    contract = tiny().contract
    return enrol_for_real(tmp_path / "federation", contract, plan_run(contract), PERSONS)


def test_every_site_draws_from_the_operating_system(enrolled: Enrolled) -> None:
    for name, path in enrolled.site_stores.items():
        identity = SiteStore.open(path).identity
        assert (identity.name, identity.seed, identity.simulated) == (name, None, False)
        assert isinstance(identity.randomness(), SystemRandomness)


def test_all_have_pinned_the_roster_that_the_root_signed(enrolled: Enrolled) -> None:
    signed = decode(enrolled.roster.read_bytes(), SignedRoster)
    roster = open_roster(signed, pinned=bytes.fromhex(enrolled.roster_hash))
    assert [s.name for s in roster.sites] == list(PERSONS)
    assert ServerStore.open(enrolled.server_store).identity.roster == roster
    assert all(SiteStore.open(path).identity.roster == roster for path in enrolled.site_stores.values())


def test_what_is_published_of_a_sites_size_is_rounded(enrolled: Enrolled) -> None:
    roster = ServerStore.open(enrolled.server_store).identity.roster
    assert [s.persons for s in roster.sites] == [110, 20, 40]


def test_every_party_has_a_key_of_its_own(enrolled: Enrolled) -> None:
    keys = [SiteStore.open(path).identity.key.public for path in enrolled.site_stores.values()]
    server = ServerStore.open(enrolled.server_store).identity
    assert len({*keys, server.key.public, server.roster.root_key}) == 5


def test_secrets_are_for_their_owners_only(enrolled: Enrolled) -> None:
    for path in (enrolled.root_key, enrolled.server_store, *enrolled.site_stores.values()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(path.parent.stat().st_mode) == 0o700 for path in enrolled.site_stores.values())
