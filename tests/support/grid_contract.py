"""What every engine of a simulation has to do: the same answers, errors and memories as `LocalGrid`.

A subclass whose name begins with Test makes a grid; it inherits the checks.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from support.flower import flower_task

from fedseal.simulation.grid import Deliver, LocalGrid, Setting, answer_of

NODES = (11, 12, 13, 14, 15)


def messages(*nodes: int, content: RecordDict | None = None) -> list[Message]:
    """Train messages of one group."""
    return [Message(content or RecordDict(), dst_node_id=n, message_type="train", group_id="1") for n in nodes]


def counting_app() -> ClientApp:
    """Each node counts its messages in its own context, and says what it sees there; node 15 remembers nothing."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        state = context.state.config_records.get("state")
        count = 1 if state is None else int(str(state["count"])) + 1
        if context.node_id != 15:
            context.state["state"] = ConfigRecord({"count": count})
        seen: dict[str, Any] = {"count": count, "node": context.node_id, **context.node_config, **context.run_config}
        return Message(RecordDict({"seen": ConfigRecord(seen)}), reply_to=message)

    return app


def adding_app() -> ClientApp:
    """Writes into the arrays it received, adds its node's number and returns them; says how many it has returned."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        received = {name: array.numpy() for name, array in message.content.array_records["arrays"].items()}
        for array in received.values():
            array += np.asarray(context.node_id, array.dtype)
        arrays = ArrayRecord({name: Array(array) for name, array in received.items()})
        message.content["arrays"] = arrays
        metrics = MetricRecord({"num-examples": context.node_id, "parts": [0.5, float(context.node_id)]})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


def failing_app(error: BaseException) -> ClientApp:
    """Raises at node 12."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == 12:
            raise error
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(np.full(1, context.node_id, np.float32))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        return Message(content, reply_to=message)

    return app


def deaf(app: ClientApp, message: Message, context: Context) -> Message | None:
    """Node 12 does not answer."""
    return None if context.node_id == 12 else answer_of(app, message, context)


def seen(replies: Iterable[Message]) -> list[dict[str, Any]]:
    """What the counting app's nodes saw."""
    return [dict(reply.content.config_records["seen"]) for reply in replies]


def model() -> RecordDict:
    """Arrays of several kinds, one of them in the order of columns, and settings."""
    arrays: dict[str, NDArray[Any]] = {
        "w": np.arange(12, dtype=np.float32).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
    }
    record = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return RecordDict({"arrays": record, "config": ConfigRecord({"lr": 0.5, "list": [1, 2]})})


class GridContract:
    """The checks. ``configs``: what each node is told."""

    configs: ClassVar[Mapping[int, Mapping[str, Setting]]] = {n: {"secret": f"of {n}"} for n in NODES}

    @pytest.fixture(autouse=True)
    def _flower(self) -> Iterator[None]:
        with flower_task():
            yield

    def grid(self, app: ClientApp, *, deliver: Deliver | None = None) -> LocalGrid:
        """The engine under test, with `configs`, and run configuration ``shared = yes``."""
        raise NotImplementedError

    def test_replies_stand_in_the_order_of_the_messages(self) -> None:
        replies = list(self.grid(counting_app()).send_and_receive(messages(14, 11, 15, 12, 13)))
        assert [reply.metadata.src_node_id for reply in replies] == [14, 11, 15, 12, 13]
        assert [row["node"] for row in seen(replies)] == [14, 11, 15, 12, 13]
        assert {(r.metadata.group_id, r.metadata.message_type, r.metadata.dst_node_id) for r in replies} == {
            ("1", "train", 1)
        }

    def test_a_reply_says_which_message_it_answers_and_is_handed_out_once(self) -> None:
        grid = self.grid(counting_app())
        ids = list(grid.push_messages(messages(*NODES)))
        replies = list(grid.pull_messages(ids))
        assert [reply.metadata.reply_to_message_id for reply in replies] == ids
        assert list(grid.pull_messages(ids)) == []

    def test_a_node_keeps_its_state_and_sees_nobody_elses(self) -> None:
        grid = self.grid(counting_app())
        grid.send_and_receive(messages(11, 11, 12))
        found = {row["node"]: row for row in seen(grid.send_and_receive(messages(*NODES)))}
        assert {node: row["count"] for node, row in found.items()} == {11: 3, 12: 2, 13: 1, 14: 1, 15: 1}
        assert {node: row["secret"] for node, row in found.items()} == {n: f"of {n}" for n in NODES}
        assert {row["shared"] for row in found.values()} == {"yes"}

    def test_messages_to_one_node_are_answered_in_their_order(self) -> None:
        replies = self.grid(counting_app()).send_and_receive(messages(11, 12, 11, 13, 11, 12))
        assert [(row["node"], row["count"]) for row in seen(replies)] == [
            (11, 1), (12, 1), (11, 2), (13, 1), (11, 3), (12, 2)
        ]  # fmt: skip

    def test_two_grids_share_no_state(self) -> None:
        one = self.grid(counting_app())
        one.send_and_receive(messages(11, 11))
        assert [row["count"] for row in seen(self.grid(counting_app()).send_and_receive(messages(11)))] == [1]

    def test_arrays_arrive_as_they_were_sent_and_are_each_nodes_own(self) -> None:
        content = model()
        before = {name: array.numpy() for name, array in content.array_records["arrays"].items()}
        grid = self.grid(adding_app())
        # A content for each message: in one process an app may write into it.
        sent = [messages(n, content=RecordDict(dict(content.items())))[0] for n in NODES]
        for reply, node in zip(grid.send_and_receive(sent), NODES, strict=True):
            arrays = reply.content.array_records["arrays"]
            assert list(arrays) == list(before)
            for name, array in arrays.items():
                found = array.numpy()
                assert (found.dtype, found.shape) == (before[name].dtype, before[name].shape)
                np.testing.assert_array_equal(found, before[name] + np.asarray(node, found.dtype))
                assert found.flags.writeable
            assert dict(reply.content.metric_records["metrics"]) == {"num-examples": node, "parts": [0.5, node]}
        for name, array in content.array_records["arrays"].items():
            np.testing.assert_array_equal(array.numpy(), before[name])

    def test_a_node_that_does_not_answer_is_an_error_reply(self) -> None:
        replies = {
            r.metadata.src_node_id: r
            for r in self.grid(counting_app(), deliver=deaf).send_and_receive(messages(*NODES))
        }
        assert [node for node, reply in replies.items() if not reply.has_content()] == [12]
        assert replies[12].error.code == ErrorCode.NODE_UNAVAILABLE

    def test_an_app_that_fails_is_an_error_reply_in_flowers_words(self, caplog: pytest.LogCaptureFixture) -> None:
        grid = self.grid(failing_app(ZeroDivisionError("by nought")))
        replies = {r.metadata.src_node_id: r for r in grid.send_and_receive(messages(*NODES))}
        assert [node for node, reply in replies.items() if not reply.has_content()] == [12]
        # As flwr/supernode/runtime/run_clientapp.py has it.
        assert (replies[12].error.code, replies[12].error.reason) == (
            ErrorCode.CLIENT_APP_RAISED_EXCEPTION,
            "<class 'ZeroDivisionError'>:<'by nought'>",
        )
        assert "the ClientApp of node 12 raised an exception" in caplog.text
        assert "ZeroDivisionError: by nought" in caplog.text

    def test_flowers_strategies_go_on_without_a_node_that_fails(self) -> None:
        grid = self.grid(failing_app(ValueError("broken")))
        arrays, _ = FedAvg().aggregate_train(1, grid.send_and_receive(messages(11, 12, 13)))
        assert arrays is not None
        # The mean of 11 and 13: node 12 is missing, and nothing else.
        assert arrays["w"].numpy().tolist() == [12.0]

    @pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit("enough")])
    def test_an_interrupt_is_no_answer(self, error: BaseException) -> None:
        grid = self.grid(failing_app(error))
        with pytest.raises(type(error)):
            grid.send_and_receive(messages(*NODES))

    def test_a_node_that_there_is_not_is_refused(self) -> None:
        with pytest.raises(KeyError):
            self.grid(counting_app()).send_and_receive(messages(11, 99))

    def test_what_a_node_does_to_its_run_configuration_stays_there(self) -> None:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            before = context.run_config["shared"]
            context.run_config["shared"] = f"spoiled by {context.node_id}"
            return Message(RecordDict({"seen": ConfigRecord({"before": before})}), reply_to=message)

        grid = self.grid(app)
        for expected in (["yes", "yes"], ["spoiled by 11", "spoiled by 12"]):
            assert [row["before"] for row in seen(grid.send_and_receive(messages(11, 12)))] == expected
