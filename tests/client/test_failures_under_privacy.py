"""Under a private plan a failure is paid for and told once: the charge comes before the data is touched, and a site
whose code failed leaves the run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp.strategy import FedAvg
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    code_of,
    default_task,
    flower_task,
    header_for,
    local_grid,
    make_federation,
    model,
    ordinary_app,
    refused_with,
    train_messages,
)
from support.keys import SERVER

from fedseal.client.release import DONE
from fedseal.client.requests import task_in
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.runs import CloseRun, sign_control
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Signed, Stage
from fedseal.server.exchange import control_of, vector_of
from fedseal.server.grid import SealedGrid
from fedseal.server.sealing import CohortRules
from fedseal.wire import decode, encode

OPENED, RESERVED, CHARGED, RELEASED = EntryKind.OPEN, EntryKind.RESERVE, EntryKind.CHARGE, EntryKind.RELEASE
SCRIPT = {1: 1.0, 2: 2.0, 3: 3.0}
SPOILED = ArrayRecord({"weight": Array(np.zeros(2, np.float32))})


class Crash(BaseException):
    """The process ends here: nothing catches this, as nothing catches a power cut."""


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


def nodes(federation: Federation, **script: Any) -> Nodes:
    return Nodes(federation, ordinary_app(Script(SCRIPT, done=True, **script)))


def opened(running: Nodes, header: Any) -> RefusalCode | None:
    """How site 2 answers a header: the code of its refusal, or None."""
    reply = running.send(2, running.opening(header))
    answer = decode(control_of(reply) or b"", Refusal, Signed)
    return RefusalCode(answer.code) if isinstance(answer, Refusal) else None


FAILURES: dict[str, dict[str, Any]] = {
    "exception": {"error": {2: ValueError("Jane Roe")}},
    "SystemExit": {"error": {2: SystemExit("Jane Roe")}},
    "out of memory": {"error": {2: MemoryError()}},
    "wrong shapes": {"alter": {2: lambda content: content.update({"arrays": SPOILED})}},
    "several arrays": {"alter": {2: lambda content: content.update({"more": model()})}},
    "no arrays": {"alter": {2: lambda content: content.pop("arrays")}},
    "another plan": {"alter": {2: lambda content: content[DONE].update({"plan": b""})}},
    "no plan": {"alter": {2: lambda content: content.pop(DONE)}},
}


@pytest.mark.quick("exception", "out of memory", "wrong shapes", "no plan")
@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_charged_and_ends_the_run_at_that_site(federation: Federation, name: str) -> None:
    running = nodes(federation, **FAILURES[name])
    state, _ = running.run(header_for(federation, PRIVATE), until=Stage.MASK)
    assert refused_with(state) == {2: RefusalCode.TASK}
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED, RELEASED]
    # Also the same request again is refused, and every later header of the run, whatever it asks for.
    repaired = nodes(federation)
    for header in (
        header_for(federation, PRIVATE),
        header_for(federation, PRIVATE, attempt=1),
        header_for(federation, PRIVATE, release_seq=2, value_range=1.0),
        header_for(federation, release_seq=3),
    ):
        assert opened(repaired, header) is RefusalCode.PROTOCOL
    assert federation.charges(2) == 1
    # Others go on, and another run is another matter.
    assert opened(repaired, header_for(federation, PRIVATE, run=b"o" * 16)) is None
    assert federation.kinds(1) == [OPENED, RESERVED, CHARGED]


def test_asking_for_the_failed_vector_again_computes_nothing(federation: Federation) -> None:
    script = Script(SCRIPT, done=True, error={2: ValueError("Jane Roe")})
    running = Nodes(federation, ordinary_app(script))
    _, seen = running.run(header_for(federation, PRIVATE), until=Stage.MASK)
    for _ in range(3):
        assert running.refusal(2, seen[Stage.MASK, 2][0], task=default_task()) is RefusalCode.PROTOCOL
    assert script.calls.count(2) == 1
    assert federation.charges(2) == 1


@pytest.mark.parametrize("run", [bytes(16), b"\xff" * 16])
def test_no_run_is_exempt(federation: Federation, run: bytes) -> None:
    """Nor one whose id stands in the ledger's opening entry."""
    running = nodes(federation, error={2: ValueError("Jane Roe")})
    running.run(header_for(federation, PRIVATE, run=run), until=Stage.MASK)
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED, RELEASED]
    assert federation.incidents(2)[-1][0] == "TASK"
    assert opened(running, header_for(federation, PRIVATE, run=run, attempt=1)) is RefusalCode.PROTOCOL


def test_without_privacy_a_failure_ends_nothing(federation: Federation) -> None:
    running = nodes(federation, error={2: ValueError("Jane Roe")})
    running.run(header_for(federation), until=Stage.MASK)
    assert federation.kinds(2) == [OPENED, RESERVED]
    assert opened(nodes(federation), header_for(federation, attempt=1)) is None


def test_the_charge_is_on_disk_before_the_app_sees_the_task(federation: Federation) -> None:
    charged: list[int] = []

    class Looking(Script):
        def called(self, *arguments: Any) -> int:
            number = super().called(*arguments)
            charged.append(federation.charges(number))
            return number

    running = Nodes(federation, ordinary_app(Looking(SCRIPT, done=True)))
    running.run(header_for(federation, PRIVATE), until=Stage.MASK)
    assert charged == [1, 1, 1]


def test_a_task_that_is_not_the_headers_costs_nothing(federation: Federation) -> None:
    """It is refused before the charge: a server cannot spend the budget with requests that no app sees."""
    running = nodes(federation)
    state, _ = running.run(header_for(federation, PRIVATE, input_digest=bytes(32)), until=Stage.MASK)
    assert refused_with(state) == dict.fromkeys((1, 2, 3), RefusalCode.PROTOCOL)
    assert federation.kinds(1) == [OPENED, RESERVED]
    assert opened(running, header_for(federation, PRIVATE, attempt=1)) is None


def test_a_message_type_of_another_release_costs_nothing(federation: Federation) -> None:
    running = nodes(federation)
    state, _ = running.run(header_for(federation, PRIVATE), until=Stage.SHARE)
    raw = encode(server.close(state).requests[2])
    assert running.refusal(2, raw, task=default_task(), kind="evaluate") is RefusalCode.PROTOCOL
    assert federation.kinds(2) == [OPENED, RESERVED]
    assert vector_of(running.send(2, raw, task=default_task())) is not None


def test_a_plan_that_is_used_up_is_refused_before_the_app_runs(federation: Federation) -> None:
    plan = LocalGaussian(clip_norm=1.0, noise_multiplier=100.0, sample_rate=0.5, steps=1, releases=1, retries=1)
    script = Script(SCRIPT, done=True)
    running = Nodes(federation, ordinary_app(script))
    for attempt in range(3):
        state, _ = running.run(header_for(federation, plan, attempt=attempt), until=Stage.MASK)
    assert refused_with(state) == dict.fromkeys((1, 2, 3), RefusalCode.BUDGET)
    assert script.calls.count(1) == federation.charges(1) == 2


def mask_request(running: Nodes, header: Any) -> bytes:
    """What site 2 is asked at MASK."""
    state, _ = running.run(header, until=Stage.SHARE)
    return encode(server.close(state).requests[2])


def test_a_retry_after_a_crash_in_the_app_is_not_charged_twice(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies while the app computes, so nothing after it runs; then the request comes again."""
    header = header_for(federation, PRIVATE)
    running = nodes(federation)
    raw = mask_request(running, header)
    with monkeypatch.context() as patch:
        # A dead process runs no `finally`.
        patch.setattr("fedseal.client.session.Session._give_up", lambda *_: None)
        running.app = ordinary_app(Script(SCRIPT, done=True, error={2: Crash()}))
        for _ in range(2):
            with pytest.raises(Crash):
                running.send(2, raw, task=default_task())
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED]
    reply = nodes(federation).send(2, raw, task=default_task())
    assert vector_of(reply) is not None
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED]
    federation.site(2).verify_ledgers()


def test_a_retry_after_a_crash_before_the_answer_is_not_charged_twice(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app is done and the process dies before the answer is on disk."""
    running = nodes(federation)
    raw = mask_request(running, header_for(federation, PRIVATE))

    def die(*_: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr("fedseal.client.session.Session._keep", die)
        with pytest.raises(Crash):
            running.send(2, raw, task=default_task())
    assert vector_of(running.send(2, raw, task=default_task())) is not None
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED]


def test_a_round_that_was_overtaken_while_the_app_computed_stays_charged(federation: Federation) -> None:
    """A newer header arrives meanwhile: the vector is dropped, the run goes on."""
    running = nodes(federation)
    raw = mask_request(running, header_for(federation, PRIVATE))
    newer = header_for(federation, PRIVATE, release_seq=2)

    class Overtaken(Script):
        def called(self, *arguments: Any) -> int:
            assert opened(running, newer) is None
            return super().called(*arguments)

    overtaken = Nodes(federation, ordinary_app(Overtaken(SCRIPT, done=True)))
    assert code_of(overtaken.send(2, raw, task=default_task())) is RefusalCode.PROTOCOL
    assert federation.kinds(2) == [OPENED, RESERVED, CHARGED]
    assert opened(running, header_for(federation, PRIVATE, release_seq=3)) is None


@pytest.mark.parametrize("rival", ["close", "newer header"])
def test_what_a_rival_request_ended_is_not_charged(
    federation: Federation, rival: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes between the first look at the round and the charge."""
    script = Script(SCRIPT, done=True)
    running = Nodes(federation, ordinary_app(script))
    raw = mask_request(running, header_for(federation, PRIVATE))
    close = encode(sign_control(CloseRun(b"r" * 16), SERVER))
    control = close if rival == "close" else running.opening(header_for(federation, PRIVATE, release_seq=2))
    original = task_in

    def task(*arguments: Any) -> Any:
        running.send(2, control)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("fedseal.client.session.task_in", task)
        assert running.refusal(2, raw, task=default_task()) is RefusalCode.PROTOCOL
    assert federation.charges(2) == 0
    assert script.calls == []


def test_a_federation_trains_on_without_the_site_that_failed(tmp_path: Path) -> None:
    """Round 1 loses site 5, round 2 is over the other four: no retry, no abort, and nothing of its reason."""
    federation = make_federation(tmp_path, 5)
    script = Script(dict.fromkeys(range(1, 6), 1.0), done=True, error={5: ValueError("Jane Roe")})
    grid = local_grid(federation, ordinary_app(script))
    rules = CohortRules(minimum=3, colluders=1, retries=0)
    sealed = SealedGrid(grid, FedAvg(), store=federation.server, max_examples=10, plan=PRIVATE, cohort=rules)
    for _ in range(2):
        list(sealed.send_and_receive(train_messages(grid, model())))
        assert sealed.last_sum is not None
        assert sealed.last_sum.sites == 4
    assert [federation.charges(site) for site in (1, 5)] == [2, 1]
    assert script.calls.count(5) == 1
    assert [code for code, _ in federation.incidents(5)] == ["TASK", "PROTOCOL"]
