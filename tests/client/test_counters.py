"""How often a site was charged, as its peers remember it: a ledger that was put back is noticed, and runs that go on
at the same time do not stand in each other's way for good.
"""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    code_of,
    default_task,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)
from support.keys import SERVER, key
from support.stores import advance, backup_of, known, put_back

from fedseal.errors import PeerError
from fedseal.privacy.plan import PrivacyPlan
from fedseal.privacy.releases import EVALUATION, REGISTRY
from fedseal.privacy.runs import CloseRun, sign_control
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.keys import signed_message
from fedseal.privacy.secagg.messages import Advertisement, Refusal, RefusalCode, ShareRequest, Signed, Stage
from fedseal.privacy.secagg.server_states import Aborted, Finished
from fedseal.server.exchange import control_of, vector_of
from fedseal.wire import decode, encode

SCRIPT = {1: 1.0, 2: 2.0, 3: 3.0}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


@pytest.fixture
def running(federation: Federation) -> Nodes:
    return Nodes(federation, ordinary_app(Script(SCRIPT, done=True)))


@pytest.mark.quick("1-local", "3-none")
@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_ledger_that_lost_its_last_charges_is_seen_by_the_others(
    running: Nodes, lost: int, plan: PrivacyPlan | None
) -> None:
    """Also if it is one charge only: a confirmation proves that its author was charged in that round."""
    federation = running.federation
    for number in range(1, 4):
        if number == 4 - lost:
            backup = backup_of(federation.sites[2])
        running.run(header_for(federation, plan, release_seq=number))
    assert known(federation, 1) == {1: 3, 2: 3, 3: 3}
    put_back(federation.sites[2], backup)
    state, _ = running.run(header_for(federation, plan, release_seq=4), until=Stage.SHARE)
    assert [(r.site, r.refusal.blamed) for r in state.refused] == [(1, 2), (3, 2)]
    assert "restored from a backup" in running.incident(1)


def test_a_site_that_charged_and_did_not_confirm_is_believed(running: Nodes) -> None:
    """Its next advertisement says one more than was proven: counters may run ahead of what peers know."""
    federation = running.federation
    advance(running, running.open(header_for(federation)), 3)
    assert known(federation, 1) == {1: 0, 2: 0, 3: 0}
    finished, _ = running.run(header_for(federation, attempt=1))
    assert isinstance(finished, Finished)
    assert known(federation, 1) == {1: 2, 2: 2, 3: 2}


def test_two_runs_at_once_do_not_count_a_charge_twice(running: Nodes) -> None:
    """The reviewer's: run B advertises a charge that run A confirms later. Honest rounds go on afterwards."""
    federation = running.federation
    first = advance(running, running.open(header_for(federation, run=b"A" * 16)), 3)
    second = advance(running, running.open(header_for(federation, run=b"B" * 16)), 2)
    first = advance(running, first, 2)
    second = advance(running, second, 3)
    assert isinstance(first.state, Finished)
    assert isinstance(second.state, Finished)
    for site in (1, 2, 3):
        assert federation.charges(site) == 2
        assert set(known(federation, site).values()) == {2}
    third, _ = running.run(header_for(federation, run=b"C" * 16))
    assert isinstance(third, Finished)
    assert all(federation.incidents(site) == [] for site in (1, 2, 3))


def test_an_advertisement_that_another_run_overtook_is_asked_for_again(running: Nodes) -> None:
    """Run B's advertisements are older than what run A proves meanwhile: the attempt ends before anything is charged,
    and the next one finishes.
    """
    federation = running.federation
    second = advance(running, running.open(header_for(federation, PRIVATE, run=b"B" * 16)), 1)
    running.run(header_for(federation, run=b"A" * 16))
    second = advance(running, second, 1)
    assert isinstance(second.state, Aborted)
    assert federation.charges(1) == 1
    again, _ = running.run(header_for(federation, PRIVATE, run=b"B" * 16, attempt=1))
    assert isinstance(again, Finished)
    assert again.survivors == (1, 2, 3)


@pytest.mark.quick("1")
@pytest.mark.parametrize("seed", range(4))
def test_honest_runs_at_once_all_finish(running: Nodes, seed: int) -> None:
    """Whatever the order of the exchanges, nobody is ever thought to have been charged more often than he was."""
    federation, chance = running.federation, random.Random(seed)
    kinds: list[tuple[dict[str, Any], str]] = [
        ({}, "train"),
        ({"plan": PRIVATE}, "train"),
        ({"kind": REGISTRY[EVALUATION]}, "evaluate"),
        ({}, "train"),
    ]

    def begin(run: int, attempt: int) -> server.Step:
        return running.open(header_for(federation, run=bytes([run]) * 16, attempt=attempt, **kinds[run][0]))

    rounds, attempts = {run: begin(run, 0) for run in range(len(kinds))}, dict.fromkeys(range(len(kinds)), 0)
    while rounds:
        run = chance.choice(list(rounds))
        step = server.close(running.exchange(rounds.pop(run), {}, kind=kinds[run][1]))
        if isinstance(step.state, Aborted):
            attempts[run] += 1
            step = begin(run, attempts[run])
        if not isinstance(step.state, Finished):
            rounds[run] = step
        for site in (1, 2, 3):
            with federation.site(site).transaction() as transaction:
                charged = transaction.charges()
            assert all(known(federation, peer).get(site, 0) <= charged for peer in (1, 2, 3))
    # Each other run may overtake an attempt once.
    assert all(count < len(kinds) for count in attempts.values())
    assert federation.charges(1) == 3


def test_charges_of_all_ledgers_are_counted_together(running: Nodes) -> None:
    """A ledger of test persons that is put back is noticed as well."""
    federation = running.federation
    running.run(header_for(federation))
    running.run(header_for(federation, release_seq=2, kind=REGISTRY[EVALUATION]), kind="evaluate")
    assert federation.charges(1) == 1
    assert known(federation, 2) == {1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize("change", ["DELETE FROM entries", "UPDATE entries SET entry = zeroblob(9)"])
def test_a_ledger_that_was_changed_from_outside_begins_no_run(running: Nodes, change: str) -> None:
    """An old entry, which no charge looks at: every entry is checked at a run's first header."""
    federation = running.federation
    for number in (1, 2):
        running.run(header_for(federation, release_seq=number))
    connection = sqlite3.connect(federation.sites[1])
    connection.execute(f"{change} WHERE population = 'train' AND counter = 3")
    connection.commit()
    connection.close()
    # The run under way goes on; it reads the newest entries only.
    assert vector_of(running.send(1, running.opening(header_for(federation, release_seq=3)))) is None
    assert federation.incidents(1) == []
    code = running.refusal(1, running.opening(header_for(federation, run=b"o" * 16)))
    assert code is RefusalCode.INTERNAL
    assert "ledger" in running.incident(1)


def claiming(reply: Signed, site: int, counter: int) -> Signed:
    """A site's advertisement with another counter, signed by the site, as only that site can."""
    honest = encode(replace(decode(reply.payload, Advertisement), ledger_counter=0))
    payload = honest[:-8] + counter.to_bytes(8, "big")
    signature = key(f"site-{site}").sign(signed_message(Stage.ADVERTISE.label, reply.header_hash, payload))
    return replace(reply, payload=payload, signature=signature)


def advertised(running: Nodes, header: Any) -> dict[int, Signed]:
    """All sites' advertisements."""
    raw = running.opening(header)
    return {s: decode(control_of(running.send(s, raw)) or b"", Signed) for s in (1, 2, 3)}


@pytest.mark.parametrize("counter", [1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_counter_that_no_ledger_reaches_is_refused(running: Nodes, counter: int) -> None:
    """By the server, and by the sites if the server passes it on: one more would not fit a store."""
    federation = running.federation
    header = header_for(federation)
    answers = advertised(running, header)
    false = claiming(answers[3], 3, counter)
    with pytest.raises(PeerError):
        server.receive(running.open(header).state, 3, false)
    request = ShareRequest(header.digest(), (answers[1], answers[2], false))
    reply = decode(control_of(running.send(1, encode(request))) or b"", Refusal)
    assert RefusalCode(reply.code) in (RefusalCode.BAD_PEER, RefusalCode.PROTOCOL)
    assert known(federation, 1) == {}
    # The site goes on without the one that claims this.
    finished, _ = running.run(header_for(federation, cohort=[1, 2], attempt=1))
    assert isinstance(finished, Finished)


def test_the_largest_counter_fits_the_stores_of_the_others(running: Nodes) -> None:
    """A site that claims it harms nobody but itself: whatever it says later is behind it."""
    federation, largest = running.federation, (1 << 62) - 1
    header = header_for(federation)
    step = running.open(header)
    state = running.exchange(step, {})
    members = tuple(claiming(a, 3, largest) if a.site == 3 else a for a in state.advertisements.values())
    request = encode(ShareRequest(header.digest(), members))
    running.send(1, request)
    assert known(federation, 1) == {1: 0, 2: 0, 3: largest}
    state, _ = running.run(header_for(federation, attempt=1), until=Stage.SHARE)
    assert [(r.site, r.refusal.blamed) for r in state.refused] == [(1, 3)]


@pytest.mark.quick("local")
@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
def test_answers_at_the_same_time_are_one_answer(federation: Federation, plan: PrivacyPlan | None) -> None:
    """Threads ask for the same vector while the run is closed or a newer header comes: one vector, one charge."""

    class Slow(Script):
        def called(self, *arguments: Any) -> int:
            time.sleep(random.random() * 0.02)
            return super().called(*arguments)

    running = Nodes(federation, ordinary_app(Slow(SCRIPT, done=True)))
    for trial in range(9):
        run = bytes([trial]) * 16
        step = advance(running, running.open(header_for(federation, plan, run=run)), 2)
        asked = encode(step.requests[1])
        rivals = [b"", running.opening(header_for(federation, plan, run=run, release_seq=2))]
        rivals.append(encode(sign_control(CloseRun(run), SERVER)))
        replies: list[Message] = []

        def ask(control: bytes, into: list[Message]) -> None:
            into.append(running.send(1, control, task=default_task()))

        threads = [threading.Thread(target=ask, args=(asked, replies)) for _ in range(4)]
        if rivals[trial % 3]:
            threads.append(threading.Thread(target=ask, args=(rivals[trial % 3], [])))
        random.shuffle(threads)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        vectors = [v.tobytes() for v in map(vector_of, replies) if v is not None]
        assert len(set(vectors)) <= 1
        assert {code_of(r) for r in replies if vector_of(r) is None} <= {RefusalCode.PROTOCOL}
        with federation.site(1).transaction() as transaction:
            charges = [e.kind for e in transaction.entries("train") if e.run == run].count(2)
        assert charges <= 1
        assert charges == 1 or not vectors
        if trial % 3 == 0:
            assert len(vectors) == 4
    federation.site(1).verify_ledgers()
