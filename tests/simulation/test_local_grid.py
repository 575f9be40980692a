"""`LocalGrid` is a whole Flower Grid: messages are answered once and on the spot, nodes do not see one another, and
what Flower keeps in globals is put back.
"""

import inspect
import random
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray
from support.flower import flower_task
from support.grid_contract import counting_app, deaf, failing_app, messages, seen

from fedseal.privacy.plan import NoPrivacy
from fedseal.privacy.planning import RunPlans
from fedseal.server.app import RoundObserver
from fedseal.server.exchange import Parcel, Traffic, exchange
from fedseal.server.rounds import RoundRecord
from fedseal.simulation.grid import LocalGrid, Observer

NODES = (11, 12, 13)


@pytest.fixture(autouse=True)
def _flower() -> Iterator[None]:
    with flower_task():
        yield


def grid(**changes: Any) -> LocalGrid:
    nodes = {node: {"secret": f"of {node}"} for node in NODES}
    return LocalGrid(counting_app(), nodes, run_config={"shared": "yes"}, **changes)


def test_nothing_of_a_grid_is_missing() -> None:
    assert issubclass(LocalGrid, Grid)
    assert not inspect.isabstract(LocalGrid)
    abstract: frozenset[str] = getattr(Grid, "__abstractmethods__", frozenset())
    assert {"push_messages", "pull_messages", "send_and_receive", "get_node_ids"} <= abstract
    assert all(name in vars(LocalGrid) for name in abstract)
    assert isinstance(grid(), RoundObserver)


def test_a_message_it_makes_can_be_answered() -> None:
    local = grid()
    message = local.create_message(RecordDict(), "train", 12, "round 7", ttl=99.0)
    assert (message.metadata.dst_node_id, message.metadata.group_id, message.metadata.ttl) == (12, "round 7", 99.0)
    (reply,) = local.send_and_receive([message])
    assert reply.metadata.src_node_id == 12
    assert reply.metadata.group_id == "round 7"


def test_it_keeps_flowers_run() -> None:
    local = grid()
    run = Run.create_empty(77)
    local.set_run(run)
    assert local.run is run


def test_a_reply_is_handed_out_once() -> None:
    local = grid()
    ids = list(local.push_messages(messages(*NODES)))
    assert len(set(ids)) == 3
    first = list(local.pull_messages(ids[:2]))
    assert [r.metadata.src_node_id for r in first] == [11, 12]
    assert [r.metadata.reply_to_message_id for r in first] == ids[:2]
    assert [r.metadata.src_node_id for r in local.pull_messages(ids)] == [13]
    assert list(local.pull_messages(ids)) == []


def test_ids_are_never_given_twice() -> None:
    local = grid()
    ids = [i for _ in range(5) for i in local.push_messages(messages(11))]
    assert len(set(ids)) == 5
    assert [r["count"] for r in seen(local.pull_messages(ids))] == [1, 2, 3, 4, 5]


def test_pulling_what_was_never_pushed_gives_nothing() -> None:
    assert list(grid().pull_messages(["local-1", "elsewhere"])) == []


def test_a_node_that_does_not_answer_is_an_error_reply_as_a_superlinks() -> None:
    local = grid(deliver=deaf)
    replies = {r.metadata.src_node_id: r for r in local.send_and_receive(messages(*NODES))}
    assert {node: reply.has_content() for node, reply in replies.items()} == {11: True, 12: False, 13: True}
    assert replies[12].error.code == ErrorCode.NODE_UNAVAILABLE
    assert list(local.get_node_ids()) == list(NODES)


def test_nobody_waits_for_a_node_that_does_not_answer() -> None:
    """With a Grid that gives no reply at all, the same exchange waits until its deadline."""

    class Silent(LocalGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            return [reply for reply in super().pull_messages(message_ids) if reply.has_content()]

    def waited(local: LocalGrid) -> tuple[list[int], float]:
        slept: list[float] = []
        replies = exchange(
            local,
            {node: Parcel(b"") for node in NODES},
            "train",
            group="1",
            timeout=60.0,
            traffic=Traffic(),
            clock=lambda: sum(slept),
            sleep=slept.append,
        )
        return sorted(node for node, _ in replies), sum(slept)

    nodes = {node: {"secret": "none"} for node in NODES}
    assert waited(LocalGrid(counting_app(), nodes, run_config={}, deliver=deaf)) == ([11, 13], 0)
    answered, seconds = waited(Silent(counting_app(), nodes, run_config={}, deliver=deaf))
    assert (answered, round(seconds)) == ([11, 13], 60)


def test_an_app_that_fails_is_an_error_reply_in_flowers_words(caplog: pytest.LogCaptureFixture) -> None:
    local = LocalGrid(failing_app(ZeroDivisionError("by nought")), {n: {} for n in NODES}, run_config={})
    replies = {r.metadata.src_node_id: r for r in local.send_and_receive(messages(*NODES))}
    assert {node: reply.has_content() for node, reply in replies.items()} == {11: True, 12: False, 13: True}
    error = replies[12].error
    # As flwr/supernode/runtime/run_clientapp.py has it.
    assert (error.code, error.reason) == (
        ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
        "<class 'ZeroDivisionError'>:<'by nought'>",
    )
    assert "the ClientApp of node 12 raised an exception" in caplog.text
    assert "ZeroDivisionError: by nought" in caplog.text


def test_an_exchange_notes_the_code_of_an_error_and_not_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A reason quotes what a site's code said, which may be data; this log is the server's."""
    local = LocalGrid(failing_app(ValueError("a diagnosis")), {n: {} for n in NODES}, run_config={})
    parcels = {node: Parcel(b"") for node in NODES}
    replies = list(exchange(local, parcels, "train", group="1", timeout=60.0, traffic=Traffic()))
    assert [node for node, _ in replies] == [11, 13]
    noted = [record.getMessage() for record in caplog.records if record.name == "fedseal.server.exchange"]
    assert noted == ["node 12: Flower's error 2"]


def test_flowers_strategies_go_on_without_a_node_that_fails() -> None:
    local = LocalGrid(failing_app(ValueError("broken")), {n: {} for n in NODES}, run_config={})
    arrays, _ = FedAvg().aggregate_train(1, local.send_and_receive(messages(*NODES)))
    assert arrays is not None
    # The mean of 11 and 13: node 12 is missing, and nothing else.
    assert arrays["w"].numpy().tolist() == [12.0]
    assert FedAvg().aggregate_train(1, local.send_and_receive(messages(12)))[0] is None


def test_an_interrupt_is_no_answer() -> None:
    local = LocalGrid(failing_app(KeyboardInterrupt()), {n: {} for n in NODES}, run_config={})
    with pytest.raises(KeyboardInterrupt):
        local.send_and_receive(messages(*NODES))


def test_a_node_keeps_its_state_and_sees_nobody_elses() -> None:
    local = grid()
    local.send_and_receive(messages(11, 11, 12))
    found = {row["node"]: row for row in seen(local.send_and_receive(messages(*NODES)))}
    assert {node: row["count"] for node, row in found.items()} == {11: 3, 12: 2, 13: 1}
    assert {node: row["secret"] for node, row in found.items()} == {n: f"of {n}" for n in NODES}
    assert {row["shared"] for row in found.values()} == {"yes"}


def test_what_a_node_does_to_its_run_configuration_stays_there() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        before = context.run_config["shared"]
        context.run_config["shared"] = f"spoiled by {context.node_id}"
        return Message(RecordDict({"seen": ConfigRecord({"before": before})}), reply_to=message)

    local = LocalGrid(app, {11: {}, 12: {}}, run_config={"shared": "yes"})
    assert [row["before"] for row in seen(local.send_and_receive(messages(11, 12)))] == ["yes", "yes"]


def test_two_grids_share_no_state() -> None:
    one, two = grid(), grid()
    one.send_and_receive(messages(11, 11))
    assert [row["count"] for row in seen(two.send_and_receive(messages(11)))] == [1]


# serve()


def identity() -> tuple[Any, Any, Any]:
    return (TaskIdentity._run_id, TaskIdentity._node_id, TaskIdentity._task_id)


def served(main: Any, *, seed: int | None = None) -> LocalGrid:
    app = ServerApp()
    app.main()(main)
    local = grid()
    local.serve(app, seed=seed)
    return local


def test_a_server_app_gets_the_grid_and_the_runs_configuration() -> None:
    found: list[Any] = []

    def main(inner: Grid, context: Context) -> None:
        found.extend((inner, dict(context.run_config), context.node_config))
        found.append(seen(inner.send_and_receive(messages(13))))

    local = served(main)
    assert found[0] is local
    assert found[1:3] == [{"shared": "yes"}, {}]
    assert found[3][0]["node"] == 13


@pytest.mark.parametrize("fails", [False, True])
def test_flowers_task_identity_is_put_back(fails: bool) -> None:
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 901, 902, 903
    inside: list[Any] = []

    def main(_: Grid, __: Context) -> None:
        inside.append(identity())
        if fails:
            raise ValueError("broken server")

    if fails:
        with pytest.raises(ValueError, match="broken server"):
            served(main)
    else:
        served(main)
    assert inside == [(1, 1, 1)]
    assert identity() == (901, 902, 903)


@pytest.mark.parametrize("fails", [False, True])
def test_pythons_random_state_is_put_back(fails: bool) -> None:
    random.seed(5)
    before = random.getstate()
    drawn: list[float] = []

    def main(_: Grid, __: Context) -> None:
        drawn.append(random.random())
        if fails:
            raise ValueError("broken server")

    for _ in range(2):
        if fails:
            with pytest.raises(ValueError, match="broken server"):
                served(main, seed=3)
        else:
            served(main, seed=3)
    assert drawn[0] == drawn[1] == random.Random(3).random()
    assert random.getstate() == before


def test_without_a_seed_pythons_generator_runs_on() -> None:
    random.seed(5)
    served(lambda _, __: random.random())
    expected = random.Random(5)
    expected.random()
    assert random.random() == expected.random()


def test_what_the_server_announces_reaches_the_observer_and_no_observer_is_needed() -> None:
    told: list[Any] = []

    def planned(plans: RunPlans, moments: Any, run: bytes) -> None:
        told.append((plans, moments, run))

    def finished(model: dict[str, NDArray[Any]]) -> None:
        told.append(model)

    plans = RunPlans(NoPrivacy(releases=1, retries=0), None, 7.25)
    record = RoundRecord(1, 0.0, 3, 1, 1.0, 0.0, {}, {}, {})
    model = {"w": np.zeros(2)}
    for local in (grid(observer=Observer(planned, told.append, finished)), grid()):
        local.run_planned(plans, None, b"run")
        local.round_finished(record)
        local.run_finished(model)
    assert told == [(plans, None, b"run"), record, model]
