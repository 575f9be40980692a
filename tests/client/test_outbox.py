"""The outbox: a release that a rule holds back waits as a question, and is answered once a person has said so."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    ANSWERS,
    PRIVATE,
    Federation,
    Nodes,
    Script,
    flower_task,
    header_for,
    local_grid,
    make_federation,
    model,
    ordinary_app,
    train_messages,
)
from support.stores import advance

from fedseal.compliance.audit.source import open_log
from fedseal.compliance.events.fields import Decision
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.policy import read_policy
from fedseal.compliance.site_rules.adopt import adopt_policy
from fedseal.compliance.site_rules.held import MOST_WAITING, Waiting, decide, decide_run, hold, waiting
from fedseal.errors import RoundAborted
from fedseal.privacy.secagg.messages import Refusal, RefusalCode
from fedseal.server import sealing
from fedseal.server.exchange import control_of
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.wire import decode

HOLD = """
version = 2
[cohort]
minimum = 2
[releases]
update = ["none", "local"]
[outbox]
otherwise = "hold"
"""
RUN = b"r" * 16


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """Three sites, of which the first holds everything back."""
    made = make_federation(tmp_path, 3)
    adopt_policy(made.site(1), read_policy(HOLD), datetime.now(UTC))
    return made


def held(federation: Federation) -> list[Waiting]:
    with federation.site(1).transaction() as transaction:
        return waiting(transaction.connection)


def say(federation: Federation, decision: Decision) -> None:
    """A person decides the only thing that waits."""
    with federation.site(1).transaction() as transaction:
        (found,) = waiting(transaction.connection)
        decide(transaction.connection, found.number, decision, 1, None)


@pytest.fixture
def running(federation: Federation) -> Nodes:
    return Nodes(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)))


def ask(
    running: Nodes, *, seq: int = 1, attempt: int = 0, fl_round: int = 1, value_range: float = 100.0
) -> RefusalCode | None:
    """The code with which site 1 refuses a round; None if it takes part."""
    header = header_for(
        running.federation, PRIVATE, release_seq=seq, attempt=attempt, fl_round=fl_round, value_range=value_range
    )
    reply = running.send(1, running.opening(header))
    answer: Any = decode(control_of(reply) or b"", *ANSWERS)
    return RefusalCode(answer.code) if isinstance(answer, Refusal) else None


def test_what_waits_is_a_question_and_nothing_is_charged(federation: Federation, running: Nodes) -> None:
    assert ask(running) is RefusalCode.WAITING
    (found,) = held(federation)
    asked = found.asked
    assert (asked.run, asked.release.value, asked.round, asked.plan) == (RUN.hex(), "update", 1, "local")
    assert (asked.population, asked.cohort, asked.largest) == ("train", (1, 2, 3), 1.0)
    assert 0 < asked.share < 100
    assert federation.kinds(1) == [0]
    with federation.site(1).transaction() as transaction:
        assert transaction.run(RUN).release_seq == 0


def test_asked_again_it_is_the_same_entry_and_approved_it_is_answered(federation: Federation, running: Nodes) -> None:
    for attempt in range(3):
        assert ask(running, attempt=attempt) is RefusalCode.WAITING
    assert len(held(federation)) == 1
    say(federation, Decision.APPROVED)
    assert ask(running, attempt=3) is None
    # Also from a server that went on after a crash, and counts from another number.
    assert ask(running, seq=2) is None
    assert ask(running, seq=3, fl_round=2) is RefusalCode.WAITING


def test_an_approval_is_for_what_was_asked_and_nothing_wider(federation: Federation, running: Nodes) -> None:
    ask(running)
    say(federation, Decision.APPROVED)
    assert ask(running, seq=2, value_range=50.0) is RefusalCode.WAITING
    assert ask(running, seq=3) is None


def test_what_is_denied_is_refused_for_good(federation: Federation, running: Nodes) -> None:
    ask(running)
    say(federation, Decision.DENIED)
    assert ask(running, attempt=1) is RefusalCode.POLICY
    assert held(federation) == []


def test_a_run_is_decided_as_a_whole_and_a_no_outweighs_a_yes(federation: Federation, running: Nodes) -> None:
    with federation.site(1).transaction() as transaction:
        decide_run(transaction.connection, RUN, Decision.APPROVED, 1, None)
    assert ask(running) is None
    with federation.site(1).transaction() as transaction:
        decide_run(transaction.connection, RUN, Decision.DENIED, 2, None)
    assert ask(running, seq=2) is RefusalCode.POLICY


def test_a_release_denied_while_it_runs_is_not_computed(federation: Federation, running: Nodes) -> None:
    """The check before the data is touched."""
    with federation.site(1).transaction() as transaction:
        decide_run(transaction.connection, RUN, Decision.APPROVED, 1, None)
    script = Script({1: 1.0, 2: 2.0, 3: 3.0}, done=True)
    late = Nodes(federation, ordinary_app(script))
    step = advance(late, late.open(header_for(federation, PRIVATE)), 2)
    with federation.site(1).transaction() as transaction:
        decide_run(transaction.connection, RUN, Decision.DENIED, 2, None)
    late.exchange(step, {})
    assert sorted(script.calls) == [2, 3]
    assert federation.charges(1) == 0


def test_whoever_asks_does_not_fill_the_disk(federation: Federation, running: Nodes) -> None:
    ask(running)
    (found,) = held(federation)
    with federation.site(1).transaction() as transaction:
        for number in range(MOST_WAITING + 3):
            hold(transaction.connection, number.to_bytes(32, "big"), RUN, found.asked, found.last_at + 1 + number)
        left = waiting(transaction.connection)
    assert len(left) == MOST_WAITING
    assert found.key not in {each.key for each in left}


# The server


def sealed(federation: Federation, *, patience: float, minimum: int = 3) -> SealedGrid:
    return SealedGrid(
        local_grid(federation, ordinary_app(Script({1: 1.0, 2: 2.0, 3: 3.0}))),
        FedAvg(),
        store=federation.server,
        max_examples=100,
        cohort=CohortRules(minimum=minimum, retries=0, patience=patience),
    )


def while_it_waits(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> list[float]:
    """What happens at the site while the server pauses, by the number of the pause; the pauses."""
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        act(len(pauses))

    monkeypatch.setattr(sealing, "sleep_before_asking_again", sleep)
    return pauses


def test_a_run_goes_on_when_a_person_has_approved(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(pause: int) -> None:
        if pause == 3:
            say(federation, Decision.APPROVED)

    pauses = while_it_waits(monkeypatch, act)
    grid = sealed(federation, patience=3600)
    (reply,) = grid.send_and_receive(train_messages(grid, model()))
    assert pauses == [1.0, 2.0, 4.0]
    assert reply.content["fedseal"]["survivors"] == [1, 2, 3]
    assert [federation.charges(site) for site in (1, 2, 3)] == [1, 1, 1]
    # In the log it waited once, however often it was asked.
    with open_log(federation.server) as copy:
        kinds = [read_event(leaf).kind.name for leaf in copy.leaves()]
    assert (kinds.count("round.dropped/v1"), kinds.count("run.refused/v1")) == (1, 1)


def test_a_server_without_patience_and_one_that_is_refused_do_not_wait(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = while_it_waits(monkeypatch, lambda _: None)
    grid = sealed(federation, patience=0)
    with pytest.raises(RoundAborted, match="failed 1 times") as caught:
        list(grid.send_and_receive(train_messages(grid, model())))
    assert "waiting (1)" in caught.value.next_step
    say(federation, Decision.DENIED)
    grid = sealed(federation, patience=3600)
    with federation.site(1).transaction() as transaction:
        decide_run(transaction.connection, grid.run_id, Decision.DENIED, 1, None)
    with pytest.raises(RoundAborted):
        list(grid.send_and_receive(train_messages(grid, model())))
    assert pauses == []


def test_enough_others_do_not_wait(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = while_it_waits(monkeypatch, lambda _: None)
    grid = sealed(federation, patience=3600, minimum=2)
    (reply,) = grid.send_and_receive(train_messages(grid, model()))
    assert reply.content["fedseal"]["survivors"] == [2, 3]
    assert pauses == []


def test_patience_ends(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100_000, 400))
    monkeypatch.setattr(sealing, "seconds", lambda: float(next(now)))
    pauses = while_it_waits(monkeypatch, lambda _: None)
    grid = sealed(federation, patience=3600)
    with pytest.raises(RoundAborted):
        list(grid.send_and_receive(train_messages(grid, model())))
    assert 5 < len(pauses) < 12
    assert max(pauses) == 60.0
