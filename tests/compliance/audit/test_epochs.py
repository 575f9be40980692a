"""A log that goes on from epoch to epoch: sites come and leave, keys change, and every entry stays verifiable."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import delete
from support.enrolled import settled
from support.journals import Clock, aggregated, contributed

from fedseal.compliance.audit.recover import recover
from fedseal.compliance.audit.source import LogCopy, open_log
from fedseal.compliance.audit.verify import AuditCode, verify
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.events.bodies import Joined, PersonAdded, PolicyChanged
from fedseal.compliance.events.fields import Role
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.journal.attachment import LogReply, LogRequest
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.journal.tables import AUTHORS, TYPES
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.export import export
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import CHECKPOINTS, COSIGNATURES, HEADS, LEAVES, TILES
from fedseal.compliance.registry.entries import Entries, names_of
from fedseal.compliance.registry.people import Parties, People
from fedseal.privacy.membership.documents import Reason
from fedseal_verify.cli import main as verify_apart

T = TypeVar("T")
RUN = bytes(16)


class Town:
    """A federation's seats with their journals, and no messages but those of the log."""

    def __init__(self, folder: Path) -> None:
        self.seats = settled(folder, "north", "south", "east")
        self.clock = Clock(self.seats.now)
        self.rounds = 0

    def server(self) -> FederationJournal:
        store, identity = self.seats.server, self.seats.server.identity
        return FederationJournal(
            store.engine, identity.key, identity.roster, faulty=0, now=self.clock, former=identity.former
        )

    def at(self, name: str, act: Callable[[SiteJournal], T]) -> T:
        store = self.seats.site(name)
        with store.transaction() as transaction:
            return act(SiteJournal(transaction.connection, store.identity, self.clock()))

    def exchange(self, server: FederationJournal) -> None:
        def answered(request: LogRequest) -> Callable[[SiteJournal], LogReply]:
            return lambda journal: journal.reply(journal.hear(request))

        for entry in server.roster.sites:
            server.take(entry.site, self.at(entry.name, answered(server.request_for(entry.site))))

    def say(self, name: str) -> None:
        """A site signs something for the federation's log, and has told nobody yet."""
        entry = next(e for e in self.seats.server.identity.roster.sites if e.name == name)
        body = Joined(site=entry.site, name=name, key=entry.signing_key.hex(), roster="sha256:" + "0" * 64)
        self.at(name, lambda journal: journal.share(body))

    def round(self) -> FederationJournal:
        """A round of all sites of the roster, as an honest server writes it."""
        server = self.server()
        self.rounds += 1
        numbers = [entry.site for entry in server.roster.sites]
        self.exchange(server)
        for entry in server.roster.sites:
            self.at(entry.name, lambda journal: journal.share(contributed(journal, self.rounds), run=RUN))
            server.take(entry.site, self.at(entry.name, lambda journal: journal.reply(None)))
        server.commit([Fact(aggregated(self.rounds, numbers), RUN)])
        self.exchange(server)
        self.exchange(server)
        server.commit()
        return server

    def checked(self, where: Path, *, own: bool = False) -> tuple[AuditCode, LogCopy]:
        with open_log(where, own=own) as copy:
            verdict = verify_copy(copy)
            assert not verdict.findings, verdict.findings
            return verdict.code, copy


@pytest.fixture
def town(tmp_path: Path) -> Town:
    made = Town(tmp_path / "town")
    made.round()
    return made


def test_the_log_holds_through_all_that_happens_to_a_federation(town: Town, tmp_path: Path) -> None:
    seats = town.seats
    seats.take(seats.admit([seats.rotate("north")]), "north", "south", "east")
    town.round()
    seats.take(seats.admit([seats.rotate()]), "north", "south", "east")
    town.round()
    seats.take(seats.admit([seats.apply("west")]), "north", "south", "east", "west")
    town.round()
    seats.take(seats.remove("south", Reason.REVOKED), "north", "east", "west")
    seats.take(seats.admit([seats.rotate("north"), seats.rotate()]), "north", "east", "west")
    server = town.round()
    assert server.final_size() > 0
    store = seats.server_folder / "server.sqlite"
    code, _ = town.checked(store)
    assert code is AuditCode.OK
    with open_log(store) as copy:
        bodies = [read_event(leaf).body for leaf in copy.leaves()]
        assert sum(isinstance(body, PolicyChanged) for body in bodies) == 4
        export(copy.log, tmp_path / "export", copy.policy)
    # The program that shares no code with ours says so, too.
    assert verify_apart(["log", str(tmp_path / "export")]) == 0
    for name in ("north", "east", "west"):
        town.checked(seats.site_folder(name) / "site.sqlite")
        assert town.checked(seats.site_folder(name) / "site.sqlite", own=True)[0] is AuditCode.OK
    # Who has left still can verify what it has.
    town.checked(seats.site_folder("south") / "site.sqlite")
    assert town.checked(seats.site_folder("south") / "site.sqlite", own=True)[0] is AuditCode.OK


def test_without_former_keys_the_same_log_does_not_hold(town: Town) -> None:
    seats = town.seats
    seats.take(seats.admit([seats.rotate("north")]), "north", "south", "east")
    town.round()
    with open_log(seats.server_folder / "server.sqlite") as copy:
        roster = seats.server.identity.roster
        blind = verify(copy.leaves(), copy.log.checkpoint(), policy_of(roster, 0))
    assert blind.code is AuditCode.TAMPERED
    assert {finding.what for finding in blind.findings} == {"signed by a key that nobody has named"}


def test_what_was_on_its_way_under_the_old_key_still_arrives(town: Town) -> None:
    seats = town.seats
    town.say("north")
    old = seats.site("north").identity.key.public
    seats.take(seats.admit([seats.rotate("north")]), "north", "south", "east")
    town.say("north")
    waiting = [read_event(leaf) for leaf in town.at("north", lambda journal: journal.pending())]
    assert len({event.keyid for event in waiting}) == 2
    assert waiting[-1].seq == 0
    assert any(event.signed_by(old) for event in waiting)
    town.round()
    assert town.at("north", lambda journal: journal.unlogged()) == 0
    assert town.checked(seats.server_folder / "server.sqlite")[0] is AuditCode.OK


def test_the_old_key_cosigns_nothing_any_more(town: Town) -> None:
    seats = town.seats
    before = seats.site("north").identity
    seats.take(seats.admit([seats.rotate("north")]), "north", "south", "east")
    server = town.server()
    old = policy_of(before.roster, 0)
    assert {w.key.public for w in server.policy.witnesses} > {w.key.public for w in old.witnesses}
    members = server.policy.groups[0].members
    assert [w.key.public for w in server.policy.witnesses if w.name in members] == [
        entry.signing_key for entry in seats.server.identity.roster.sites
    ]


def test_commitments_stay_what_they_were(town: Town) -> None:
    seats = town.seats
    before = town.at("north", lambda journal: journal.commitment("policy", b"x"))
    for _ in range(2):
        seats.take(seats.admit([seats.rotate("north")]), "north")
    assert town.at("north", lambda journal: journal.commitment("policy", b"x")) == before
    assert town.at("south", lambda journal: journal.commitment("policy", b"x")) != before


def test_a_ledger_holds_under_the_keys_that_it_was_written_with(town: Town) -> None:
    seats = town.seats
    for _ in range(3):
        seats.take(seats.admit([seats.rotate("north")]), "north")
        seats.site("north").verify_ledgers()
    history = seats.site("north").identity.history
    assert len(history.keys) == 3
    # The opening entry is the first key's, whatever came later.
    current = seats.site("north").identity.key.public
    assert history.signer("train", 1, current) == history.keys[0].public != current
    assert history.signer("train", 2, current) == current


def test_a_server_that_lost_its_log_gets_it_back_across_epochs(town: Town) -> None:
    seats = town.seats
    seats.take(seats.admit([seats.rotate(), seats.rotate("south")]), "north", "south", "east")
    town.round()
    identity = seats.server.identity
    with seats.server.engine.begin() as connection:
        size = Log(connection, "town/server").size
        for table in (LEAVES, HEADS, TILES, CHECKPOINTS, COSIGNATURES, TYPES, AUTHORS):
            connection.execute(delete(table))
    with seats.site("north").transaction() as theirs, seats.server.engine.begin() as connection:
        mirror = Log(theirs.connection, "town/server")
        found = recover(connection, identity.key, identity.roster, mirror, 1, identity.former)
    assert found.before == 0
    assert size - 1 <= found.after <= size
    town.checked(seats.server_folder / "server.sqlite")


def test_whom_a_former_key_has_added_stays_added(town: Town) -> None:
    seats = town.seats
    person = PersonAdded(person="act_" + "ab" * 16, key="cd" * 32, roles=(Role.AUDITOR,))
    town.server().commit([Fact(person)])
    seats.take(seats.admit([seats.rotate()]), "north", "south", "east")
    journal, identity = town.server(), seats.server.identity
    for parties, known in ((Parties.of(identity.roster, identity.former), 1), (Parties.of(identity.roster), 0)):
        people = People(parties)
        for entry in Entries(seats.server.engine, journal.origin).of(names_of(PersonAdded)):
            people.take(entry)
        assert len(people.known) == known
