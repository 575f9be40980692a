"""People of a site: its own store says who they are, and the federation's log hears of them with its next answer."""

import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.flower import make_federation
from support.keys import key

from fedseal.compliance.events.bodies import PersonAdded
from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.registry.aliases import TYPES, replay
from fedseal.compliance.registry.directory import Directory
from fedseal.compliance.registry.entries import Entries
from fedseal.compliance.registry.people import Parties
from fedseal.database import connect
from fedseal.errors import ConfigError, PolicyRefused
from fedseal.server.store import ServerStore
from fedseal.simulation.witnessing import witness_all

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Directory]:
    federation = make_federation(tmp_path, 2)
    with ServerStore.open(federation.server).engine.begin() as connection:
        yield Directory(connection)


def test_names_are_kept_changed_and_forgotten(directory: Directory) -> None:
    directory.put("act_1", "Ana")
    directory.put("act_2", "Ben")
    directory.put("act_1", "Ana B.")
    assert directory.names() == {"act_1": "Ana B.", "act_2": "Ben"}
    directory.forget("act_1")
    assert directory.names() == {"act_2": "Ben"}


def test_a_sites_person_is_in_the_log_when_the_site_has_answered(tmp_path: Path) -> None:
    from fedseal.cli.person import _write
    from fedseal.cli.site import opened

    federation = make_federation(tmp_path, 2)
    body = PersonAdded(person="act_" + 32 * "1", key=key("zoe").public.hex(), roles=())
    _write(body, None, federation.sites[2], "Zoe")
    store = ServerStore.open(federation.server)
    identity = store.identity
    journal = FederationJournal(store.engine, identity.key, identity.roster, faulty=0, now=lambda: datetime.now(UTC))
    parties, entries = Parties.of(identity.roster), Entries(store.engine, journal.origin)
    assert replay(entries.of(TYPES), parties).persons == {}
    final = witness_all(journal, federation.sites.values())
    (person,) = replay(entries.of(TYPES), parties).persons.values()
    assert (person.org, person.key) == ("site-2", key("zoe").public)
    assert final == journal.size
    # What a site has mirrored replays to the same registry as the server's log.
    mirror = Entries(connect(federation.sites[1], reading=True), journal.origin)
    assert replay(mirror.of(TYPES), parties) == replay(entries.of(TYPES), parties)
    with opened(federation.sites[2]) as (_, transaction):
        assert Directory(transaction.connection).names() == {body.person: "Zoe"}
    # The server neither changes nor removes another organisation's person.
    with pytest.raises(PolicyRefused, match="another organisation"):
        _write(body, federation.server, None, "Zoe")


def test_real_sites_are_not_asked_behind_their_backs(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, 2)
    store = ServerStore.open(federation.server)
    roster = store.identity.roster
    journal = FederationJournal(store.engine, store.identity.key, roster, faulty=0, now=lambda: datetime.now(UTC))
    object.__setattr__(roster, "simulated", False)
    with pytest.raises(ConfigError, match="not simulated"):
        witness_all(journal, federation.sites.values())
    object.__setattr__(roster, "simulated", True)
    assert witness_all(journal, federation.sites.values()) == journal.size
