"""A site's store that is restored from a backup: what its peers see, to the last charge, and what they cannot see."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    default_task,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
)
from support.keys import SERVER
from support.stores import advance, backup_of, known, put_back

from fedseal.privacy.ledger import epsilon_enforced
from fedseal.privacy.runs import CloseRun, sign_control
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.secagg.server_states import Finished
from fedseal.server.exchange import vector_of
from fedseal.wire import encode

VALUES = {site: float(site) for site in range(1, 6)}


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 5)


@pytest.fixture
def running(federation: Federation) -> Nodes:
    return Nodes(federation, ordinary_app(Script(VALUES, done=True)))


def round_of(running: Nodes, number: int, cohort: list[int], *, attempt: int = 0, run: bytes = b"r" * 16) -> Any:
    """A private round; its last state."""
    header = header_for(running.federation, PRIVATE, cohort=cohort, release_seq=number, attempt=attempt, run=run)
    return running.run(header)[0]


def blamed(running: Nodes, number: int, cohort: list[int], *, run: bytes = b"r" * 16, attempt: int = 0) -> set[int]:
    """Whom the others refuse to go on with, at the second exchange of a round."""
    header = header_for(running.federation, PRIVATE, cohort=cohort, release_seq=number, attempt=attempt, run=run)
    state, _ = running.run(header, until=Stage.SHARE)
    return {r.refusal.blamed for r in state.refused}


def test_a_store_restored_between_rounds_is_refused_from_then_on(running: Nodes) -> None:
    """At its first message, in the same run and in every later one, however often it asks; it is charged nothing."""
    federation = running.federation
    round_of(running, 1, [1, 2, 3])
    backup = backup_of(federation.sites[2])
    round_of(running, 2, [1, 2, 3])
    assert known(federation, 1)[2] == 2
    put_back(federation.sites[2], backup)
    assert federation.charges(2) == 1
    assert blamed(running, 3, [1, 2, 3]) == {2}
    assert blamed(running, 3, [1, 2, 3], attempt=1) == {2}
    assert blamed(running, 1, [1, 2, 3], run=b"n" * 16) == {2}
    assert federation.charges(2) == 1
    # The others go on without it.
    assert isinstance(round_of(running, 2, [1, 3, 4], run=b"n" * 16), Finished)
    # The twin: the store as it was is welcome.
    assert blamed(running, 3, [3, 4, 5], run=b"n" * 16) == set()


def test_one_peer_that_was_there_is_enough(running: Nodes) -> None:
    """The others of the new cohort have never met the site."""
    federation = running.federation
    round_of(running, 1, [1, 2, 3])
    backup = backup_of(federation.sites[2])
    round_of(running, 2, [1, 2, 3])
    put_back(federation.sites[2], backup)
    assert blamed(running, 1, [2, 3, 4, 5], run=b"n" * 16) == {2}


@pytest.mark.quick("1")
@pytest.mark.parametrize("lost", [1, 2])
def test_charges_with_strangers_make_a_restored_ledger_level_again(running: Nodes, lost: int) -> None:
    """The limit: among peers none of which was there, a restored site is charged again; after as many charges as it
    lost, those who were there see nothing any more. One charge fewer, and they do.
    """
    federation, strangers = running.federation, [2, 4, 5]
    round_of(running, 1, [1, 2, 3])
    backup = backup_of(federation.sites[2])
    for number in range(lost):
        round_of(running, 2 + number, [1, 2, 3])
    put_back(federation.sites[2], backup)
    for number in range(lost):
        assert blamed(running, 9, [1, 2, 3], run=b"%d" % number * 16) == {2}
        assert isinstance(round_of(running, 1 + number, strangers, run=b"s" * 16), Finished)
    assert federation.charges(2) == 1 + lost == known(federation, 1)[2]
    assert blamed(running, 9, [1, 2, 3], run=b"e" * 16) == set()
    # What the site's own ledger says is then too little by what was lost.
    with federation.site(2).transaction() as transaction:
        terms, charged = transaction.terms("train"), transaction.ledger("train", b"", b"").last.charged
    one = charged // (1 + lost)
    assert epsilon_enforced(terms, charged) < epsilon_enforced(terms, charged + lost * one)
    # The strangers remember their own rounds: from now on a ledger put back once more is seen by them too.
    put_back(federation.sites[2], backup)
    assert blamed(running, 9, strangers, run=b"f" * 16) == {2}


def test_a_backup_from_before_a_reservation_loses_nothing_that_counts(running: Nodes) -> None:
    """Reservations are no charges: the ledger makes them again, and peers have nothing to see."""
    federation = running.federation
    round_of(running, 1, [1, 2, 3])
    backup = backup_of(federation.sites[2])
    header = header_for(federation, PRIVATE, cohort=[1, 2, 3], run=b"o" * 16)
    running.run(header, until=Stage.ADVERTISE)
    running.send(2, encode(sign_control(CloseRun(b"o" * 16), SERVER)))
    put_back(federation.sites[2], backup)
    assert isinstance(round_of(running, 2, [1, 2, 3]), Finished)
    federation.site(2).verify_ledgers()


@dataclass
class Noisy(Script):
    """Every computation comes out differently, as with fresh noise."""

    drawn: list[float] = field(default_factory=list)

    def called(self, message: Message, context: Context) -> int:
        number = super().called(message, context)
        self.drawn.append(len(self.drawn) + 1.0)
        self.change = dict.fromkeys(VALUES, self.drawn[-1])
        return number


def test_a_backup_from_within_a_round_lets_that_round_be_answered_twice_on_one_charge(federation: Federation) -> None:
    """The other limit, which no counter can see: put back before the round ended, the site knows nothing of its
    answer, and gives a second one under the same masks. So backups are made of a site that stands still.
    """
    running = Nodes(federation, ordinary_app(Noisy(VALUES, done=True)))
    step = advance(running, running.open(header_for(federation, PRIVATE, cohort=[1, 2, 3])), 2)
    backup, asked = backup_of(federation.sites[2]), encode(step.requests[2])
    answers = [vector_of(running.send(2, asked, task=default_task())) for _ in range(2)]
    assert answers[0] is not None
    assert answers[1] is not None
    # Without a restore the very same bytes are sent again, and nothing is computed.
    assert answers[0].tobytes() == answers[1].tobytes()
    put_back(federation.sites[2], backup)
    second = vector_of(running.send(2, asked, task=default_task()))
    assert second is not None
    assert second.tobytes() != answers[0].tobytes()
    assert federation.charges(2) == 1
    state: Any = step
    while not isinstance(state.state, Finished):
        state = server.close(running.exchange(state, {}))
    assert state.state.survivors == (1, 2, 3)
    assert known(federation, 1)[2] == 1
