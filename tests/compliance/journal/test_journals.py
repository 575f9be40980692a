"""How the two logs meet: nothing lost when messages are, nothing doubled, nobody quoted who has not spoken."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from support.journals import RUN, Town, aggregated, contributed, finish, leaves_of, rewrite
from support.keys import key
from support.tampering import fresh

from fedseal.compliance.audit.verify import AuditCode, verify
from fedseal.compliance.events.bodies import Contributed, ForeignAnchor, Joined
from fedseal.compliance.events.leaf import Place, read_event, sign_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.journal import federation as federation_module
from fedseal.compliance.journal.attachment import CONFLICT, OK, UNPROCESSABLE, LogReply, read_reply, read_request
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log import checkpoint, quorum
from fedseal.errors import ConfigError, LocalError, PeerError

SITES = (1, 2, 3)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town.of(tmp_path, 3)


@pytest.fixture
def server(town: Town) -> FederationJournal:
    server = town.server()
    town.join(server, SITES)
    return server


def test_a_round_ends_in_a_log_that_holds(town: Town, server: FederationJournal) -> None:
    town.round(server, 1, SITES)
    town.exchange(server, SITES)
    server.commit()
    assert server.final_size() == server.size == 8
    with server._transaction() as (_, log):
        verdict = verify(log.leaves(0, log.size), log.checkpoint(), server.policy)
    assert (verdict.code, verdict.findings) == (AuditCode.OK, [])
    assert verdict.types["round.contributed/v1"] == 3


def test_a_sites_own_log_holds_too(town: Town, server: FederationJournal) -> None:
    town.round(server, 1, SITES)

    def check(journal: SiteJournal) -> AuditCode:
        note = journal.own.sign_checkpoint(key("site-1"))
        named = checkpoint.log_key(journal.origin, key("site-1").public)
        policy = quorum.Policy((quorum.LogEntry(named),), (), (), quorum.NONE)
        verdict = verify(journal.own.leaves(0, journal.own.size), note, policy, book=Book.SITE)
        assert verdict.findings == []
        return verdict.code

    assert town.at_site(1, check) == AuditCode.OK


def test_events_are_repeated_until_they_are_seen(town: Town, server: FederationJournal) -> None:
    """The answer that carried it is lost; so is the server's memory before its commit; then it arrives twice."""
    town.exchange(server, (1,))
    town.at_site(1, lambda j: j.share(contributed(j, 1), run=RUN))
    lost = town.at_site(1, lambda j: j.reply(None))
    server.take(1, lost)
    server = town.server()
    assert town.at_site(1, lambda j: j.unlogged()) == 1
    again = town.at_site(1, lambda j: j.reply(None))
    assert again.events == lost.events
    server.take(1, again)
    server.take(1, again)
    server.commit()
    server.take(1, again)
    server.commit()
    assert sum(leaf in again.events for leaf in leaves_of(town)) == 1
    assert town.at_site(1, lambda j: j.unlogged()) == 1
    town.exchange(server, (1,))
    assert town.at_site(1, lambda j: j.unlogged()) == 0


def test_a_request_whose_answer_was_lost_is_answered_again(town: Town, server: FederationJournal) -> None:
    """As after a kill between hearing and answering: the message comes again, and the site can take part."""
    town.round(server, 1, (1, 2))
    request = server.request_for(3)
    first = town.show(3, request)
    own, mirrored = town.at_site(3, lambda j: (j.own.size, j.mirror.size))
    again = town.show(3, request)
    assert (first.status, again.status, again.size) == (OK, OK, mirrored)
    assert again.cosignature
    assert town.at_site(3, lambda j: (j.own.size, j.mirror.size)) == (own, mirrored)
    server.take(3, again)
    town.round(server, 2, (1, 2))
    town.show(3, server.request_for(3))
    # Older ones are not: they would show less than was seen.
    assert town.show(3, request).status == CONFLICT


def test_a_late_site_catches_up(town: Town, server: FederationJournal) -> None:
    with patch.object(federation_module, "STRIDE", 4):
        for number in range(1, 6):
            town.round(server, number, (1, 2))
        sizes = []
        for _ in range(10):
            town.exchange(server, (3,))
            sizes.append(town.at_site(3, lambda j: j.mirror.size))
    assert sizes == sorted(sizes)
    assert sizes[0] < server.size == sizes[-1]


def test_a_store_of_before_gets_its_tables(town: Town) -> None:
    with town.federation.site(1).transaction() as transaction:
        assert "log_outbox" not in str(transaction.connection.execute(text("SELECT name FROM sqlite_master")).all())
    assert town.at_site(1, lambda j: j.own.size) == 1


# The server is behind, or another


def test_a_rolled_back_server_is_told_at_its_start_and_writes_nothing(town: Town, server: FederationJournal) -> None:
    before = leaves_of(town)
    town.round(server, 1, SITES)
    town.exchange(server, SITES)
    rewrite(town, before)
    server = town.server()
    reply = town.show(1, server.greeting())
    assert reply.status == CONFLICT
    with pytest.raises(LocalError, match="rolled back"):
        server.take(1, reply)
    assert leaves_of(town) == before
    assert town.at_site(1, lambda j: j.halted) is None


def test_a_rewritten_log_stops_the_site_for_good(town: Town, server: FederationJournal) -> None:
    town.round(server, 1, SITES)
    town.exchange(server, SITES)
    server.commit()
    leaves = leaves_of(town)
    rewrite(town, [*leaves[:-1], *fresh(2, 3)])
    server = town.server()
    reply = town.show(1, server.request_for(1))
    assert reply.status == UNPROCESSABLE
    evidence = town.at_site(1, lambda j: j.halted)
    assert evidence is not None
    assert evidence.known.startswith(server.origin)
    assert server.origin.encode() in evidence.offered
    with pytest.raises(PeerError, match="contradicts") as caught:
        server.take(1, reply)
    assert "audit evidence" in caught.value.next_step
    # Also when the server shows the true log again.
    rewrite(town, leaves)
    town.show(1, town.server().request_for(1))
    assert town.at_site(1, lambda j: j.halted) == evidence


def test_a_smaller_history_that_is_another_stops_the_site_too(town: Town, server: FederationJournal) -> None:
    town.round(server, 1, SITES)
    town.exchange(server, SITES)
    rewrite(town, [*leaves_of(town)[:3], *fresh(1, 3)])
    assert town.show(2, town.server().greeting()).status == UNPROCESSABLE
    assert town.at_site(2, lambda j: j.halted) is not None


def test_a_restored_site_is_asked_again(town: Town, server: FederationJournal) -> None:
    """The server thinks that the site has seen more than its store has: it is told, and shows it all."""
    town.round(server, 1, SITES)
    town.exchange(server, SITES)
    server._sizes[1] = server.size
    server._requests.clear()
    path = town.federation.sites[1]
    path.unlink()
    for extra in ("-wal", "-shm"):
        path.with_name(path.name + extra).unlink(missing_ok=True)
    town.federation.sites[1].with_name("again").mkdir()
    fresh_town = Town.of(town.federation.sites[1].with_name("again"), 3)
    reply = fresh_town.show(1, server.request_for(1))
    assert (reply.status, reply.size) == (CONFLICT, 0)
    server.take(1, reply)
    assert fresh_town.show(1, server.request_for(1)).status == OK


# Nobody else's words


def events_of(journal: SiteJournal) -> tuple[bytes, ...]:
    return journal.pending()


@pytest.mark.parametrize("lie", ["other key", "other site", "gap", "server's type", "own log's type", "other name"])
def test_what_a_site_has_not_signed_as_its_next_entry_does_not_enter(
    town: Town, server: FederationJournal, lie: str
) -> None:
    body = town.at_site(1, lambda j: contributed(j, 1))
    place = server.place_of(key("site-1").public)
    now = "2026-11-28T09:00:00.000000Z"
    signer, org, run = key("site-1"), "site-1", RUN.hex()
    match lie:
        case "other key":
            leaf = sign_event(body, key("mallory"), Place(), org=org, time=now, run=run)
        case "other site":
            leaf = sign_event(body, signer, place, org="site-2", time=now, run=run)
        case "gap":
            leaf = sign_event(body, signer, replace(place, seq=place.seq + 1), org=org, time=now, run=run)
        case "server's type":
            leaf = sign_event(aggregated(1, SITES), signer, place, org=org, time=now, run=run)
        case "own log's type":
            anchor = ForeignAnchor(origin=server.origin, size=1, root="sha256:" + 64 * "0")
            leaf = sign_event(anchor, signer, place, org=org, time=now)
            # This type may stand in either log: the twin of the others.
            server.take(1, LogReply(0, 0, b"", (leaf,)))
            server.commit()
            assert leaf in leaves_of(town)
            return
        case _:
            joined = Joined(site=1, name="site-3", key=signer.public.hex(), roster="sha256:" + 64 * "0")
            leaf = sign_event(joined, signer, place, org=org, time=now)
    before = leaves_of(town)
    with pytest.raises(PeerError):
        server.take(1, LogReply(0, 0, b"", (leaf,)))
    server.commit()
    assert leaves_of(town) == before


def test_a_cosignature_that_does_not_hold_is_not_kept(town: Town, server: FederationJournal) -> None:
    reply = town.show(1, server.request_for(1))
    other = town.show(2, server.request_for(2))
    for wrong in (other.cosignature, b"", b"nonsense", reply.cosignature[:-4] + b"AAA\n"):
        with pytest.raises(PeerError, match="cosignature"):
            server.take(1, LogReply(OK, reply.size, wrong, ()))
    server.commit([Fact(aggregated(9, SITES), RUN)])
    assert server.final_size() < server.size


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_attachment_makes_anything_but_a_named_error(raw: bytes) -> None:
    for read in (read_request, lambda r: read_reply(r, 1)):
        with pytest.raises(PeerError):
            read(raw)


# Quorums


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_two_histories_never_both_become_final(data: st.DataObject) -> None:
    """Sites that lie cosign both; each honest one cosigns what it is shown first."""
    sites = data.draw(st.integers(2, 30))
    liars = data.draw(st.integers(0, (sites - 1) // 2))
    needed = quorum.quorum_size(sites, liars)
    split = data.draw(st.integers(0, sites - liars))
    assert not (split + liars >= needed and sites - split >= needed)


def test_with_a_plain_majority_they_would() -> None:
    """The twin: among 5 of whom 1 lies, 3 on each side is a majority of both."""
    assert quorum.quorum_size(5, 1) == 4
    assert 2 + 1 >= 5 // 2 + 1 and 5 - 2 >= 5 // 2 + 1


def test_a_split_view_in_the_flesh(town: Town, server: FederationJournal) -> None:
    """One site is shown another history: that side has no quorum, and the site stops when it meets the true one."""
    true = leaves_of(town)
    rewrite(town, [*true, *fresh(2, 5)])
    other = town.server()
    other.take(3, town.show(3, other.request_for(3)))
    other.commit()
    assert other.final_size() == 0
    rewrite(town, true)
    server = town.server()
    finish(town, server)
    finish(town, server)
    for site in (1, 2):
        server.take(site, town.show(site, server.request_for(site)))
    server.commit()
    assert server.final_size() == server.size
    assert town.show(3, server.greeting()).status in (CONFLICT, UNPROCESSABLE)
    assert town.at_site(3, lambda j: j.halted) is not None


def test_a_log_needs_witnesses_who_can_outvote_liars(town: Town) -> None:
    assert policy_of(town.federation.roster, 1).groups[0].threshold == 3
    with pytest.raises(ConfigError, match="quorum"):
        policy_of(town.federation.roster, 3)


def test_more_liars_than_before_is_written_down(town: Town, server: FederationJournal) -> None:
    later = town.server(faulty=1)
    assert read_event(leaves_of(town)[-1]).kind.name == "log.policy_changed/v1"
    assert town.server(faulty=0).policy == later.policy != server.policy


def test_what_stands_in_the_outbox_is_what_was_signed(town: Town) -> None:
    leaf = town.at_site(1, lambda j: j.share(contributed(j, 3), run=RUN))
    event = read_event(leaf)
    assert isinstance(event.body, Contributed)
    assert town.at_site(1, lambda j: (j.has_shared(Contributed, RUN), j.has_shared(Contributed, bytes(15) + b"1"))) == (
        True,
        False,
    )
