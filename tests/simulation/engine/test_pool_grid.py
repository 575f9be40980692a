"""`PoolGrid` does what `LocalGrid` does, whatever becomes of its processes."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from support.flower import flower_task
from support.grid_contract import NODES, GridContract, counting_app, failing_app, messages, seen

from fedseal.errors import ConfigError, LocalError
from fedseal.simulation.engine.pool import PoolGrid
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.grid import Deliver, LocalGrid

ROOT = Path(__file__).resolve().parents[3]


class TestLocalGrid(GridContract):
    def grid(self, app: ClientApp, *, deliver: Deliver | None = None) -> LocalGrid:
        return LocalGrid(app, self.configs, run_config={"shared": "yes"}, deliver=deliver)


class _Pooled(GridContract):
    count = 0

    @pytest.fixture(autouse=True)
    def _started(self) -> Iterator[None]:
        self.started: list[Workers] = []
        yield
        for workers in self.started:
            workers.close()

    def grid(self, app: ClientApp, *, deliver: Deliver | None = None) -> LocalGrid:
        self.started.append(Workers(app, self.count, deliver=deliver))
        return PoolGrid(self.started[-1], self.configs, run_config={"shared": "yes"})


class TestOneWorker(_Pooled):
    count = 1


class TestThreeWorkers(_Pooled):
    count = 3


@pytest.fixture(autouse=True)
def _flower() -> Iterator[None]:
    with flower_task():
        yield


def pid_app() -> ClientApp:
    """Says in which process it ran; node 11 remembers something."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == 11:
            context.state["state"] = ConfigRecord({"here": True})
        time.sleep(0.002)
        return Message(RecordDict({"seen": ConfigRecord({"pid": os.getpid()})}), reply_to=message)

    return app


def pids(grid: LocalGrid, *nodes: int) -> list[int]:
    return [row["pid"] for row in seen(grid.send_and_receive(messages(*nodes)))]


def test_the_work_is_spread_and_no_process_is_this_one() -> None:
    with Workers(pid_app(), 2) as workers:
        grid = PoolGrid(workers, {n: {} for n in range(100)}, run_config={})
        found = pids(grid, *range(20, 60))
        assert set(found) == set(workers.processes)
        assert os.getpid() not in found


def test_a_node_with_a_state_stays_where_it_is_and_a_sticky_grid_keeps_all_nodes_there() -> None:
    nodes = {n: dict[str, str]() for n in range(11, 51)}
    with Workers(pid_app(), 3) as workers:
        grid = PoolGrid(workers, nodes, run_config={})
        first = [pids(grid, *(range(11, 51) if turn % 2 else range(50, 10, -1))) for turn in range(4)]
        assert len({row[0] if turn % 2 else row[-1] for turn, row in enumerate(first)}) == 1
        grid = PoolGrid(workers, nodes, run_config={}, sticky=True)
        rows = [pids(grid, *range(11, 51)) for _ in range(3)]
        assert rows[0] == rows[1] == rows[2]
        assert set(rows[0]) == set(workers.processes)


def test_a_million_nodes_cost_nothing_until_they_run() -> None:
    asked = []

    class Nodes(dict[int, dict[str, int]]):
        def __missing__(self, node: int) -> dict[str, int]:
            asked.append(node)
            return {"number": node}

    with Workers(counting_app(), 2) as workers:
        grid = PoolGrid(workers, Nodes.fromkeys((), {}), run_config={})
        assert [row["number"] for row in seen(grid.send_and_receive(messages(15, 999_999)))] == [15, 999_999]
    assert asked == [15, 999_999]


def test_a_context_without_memories_is_not_kept() -> None:
    local = LocalGrid(counting_app(), {n: {} for n in NODES}, run_config={})
    local.send_and_receive(messages(*NODES))
    # Node 15 of the counting app leaves nothing.
    assert len(local._contexts) == len(NODES) - 1


def dying_app(how: int) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == 12:
            os.kill(os.getpid(), how) if how else os._exit(3)
        return Message(RecordDict(), reply_to=message)

    return app


@pytest.mark.parametrize(("how", "says"), [(signal.SIGKILL, "was ended by SIGKILL"), (0, "ended with code 3")])
def test_a_worker_that_ends_ends_the_run_and_all_workers(how: int, says: str) -> None:
    with Workers(dying_app(how), 2) as workers:
        processes = workers.processes
        grid = PoolGrid(workers, {n: {} for n in NODES}, run_config={})
        with pytest.raises(ConfigError, match=says) as caught:
            grid.send_and_receive(messages(*NODES))
        assert "fewer workers" in caught.value.next_step
        assert not any(alive(process) for process in processes)
        with pytest.raises(LocalError, match="have ended"):
            grid.send_and_receive(messages(11))


def test_what_a_fault_raises_itself_ends_the_run() -> None:
    def broken(app: ClientApp, message: Message, context: Context) -> Message | None:
        raise ValueError("not the app's")

    with Workers(counting_app(), 2, deliver=broken) as workers:
        grid = PoolGrid(workers, {n: {} for n in NODES}, run_config={})
        with pytest.raises(Exception, match="ValueError in a worker: not the app's"):
            grid.send_and_receive(messages(*NODES))


def test_workers_serve_the_last_grid_alone_and_none_once_closed() -> None:
    with Workers(counting_app(), 1) as workers:
        first = PoolGrid(workers, {11: {}}, run_config={})
        first.send_and_receive(messages(11, 11))
        second = PoolGrid(workers, {11: {}}, run_config={})
        assert [row["count"] for row in seen(second.send_and_receive(messages(11)))] == [1]
        with pytest.raises(LocalError, match="another grid"):
            first.send_and_receive(messages(11))
    with pytest.raises(LocalError, match="have ended"):
        PoolGrid(workers, {11: {}}, run_config={})
    with pytest.raises(ConfigError, match="at least one"):
        Workers(counting_app(), 0)


def test_what_a_worker_logs_is_logged_here_at_the_levels_set_here(caplog: pytest.LogCaptureFixture) -> None:
    with Workers(failing_app(ValueError("of the app")), 1) as workers:
        grid = PoolGrid(workers, {n: {} for n in NODES}, run_config={})
        logging.getLogger("fedseal.simulation.grid").setLevel(logging.CRITICAL)
        try:
            grid.send_and_receive(messages(12))
        finally:
            logging.getLogger("fedseal.simulation.grid").setLevel(logging.NOTSET)
        assert caplog.text == ""
        grid.send_and_receive(messages(12))
        assert "of the app" in caplog.text


def test_long_messages_in_both_directions_do_not_block() -> None:
    """Longer than any pipe holds, in records that are not arrays."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"echo": message.content["long"]}), reply_to=message)

    with Workers(app, 2) as workers:
        grid = PoolGrid(workers, {n: {} for n in range(40)}, run_config={})
        sent = [
            messages(n, content=RecordDict({"long": ConfigRecord({"b": bytes([n]) * 300_000})}))[0] for n in range(40)
        ]
        for number, reply in enumerate(grid.send_and_receive(sent)):
            assert reply.content.config_records["echo"]["b"] == bytes([number]) * 300_000


def test_a_state_outlives_the_round_whose_arrays_it_holds() -> None:
    """The memory that a round's model came in is used again by the next one."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        kept = context.state.get("kept")
        context.state["kept"] = message.content["arrays"]
        content = RecordDict({"metrics": MetricRecord({"num-examples": 1})})
        if isinstance(kept, ArrayRecord):
            content["arrays"] = kept
        return Message(content, reply_to=message)

    with Workers(app, 2) as workers:
        grid = PoolGrid(workers, {n: {} for n in NODES}, run_config={})
        for turn in range(4):
            sent = RecordDict({"arrays": ArrayRecord({"w": Array(np.full(50_000, turn, np.float32))})})
            for reply in grid.send_and_receive(messages(*NODES, content=sent)):
                if turn:
                    assert set(reply.content.array_records["arrays"]["w"].numpy()) == {turn - 1}


SCRIPT = """
    import os, sys, time
    from flwr.app import Message, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.supercore.task_identity import TaskIdentity
    from fedseal.simulation.engine.pool import PoolGrid
    from fedseal.simulation.engine.workers import Workers

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    app = ClientApp()

    @app.train()
    def train(message, context):
        os.write(1, b"running\\n")
        time.sleep(60)

    with Workers(app, 2) as workers:
        print(*workers.processes, flush=True)
        grid = PoolGrid(workers, {1: {}, 2: {}}, run_config={})
        grid.send_and_receive([Message(RecordDict(), dst_node_id=n, message_type="train") for n in (1, 2)])
"""


def alive(process: int) -> bool:
    try:
        return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind_however_a_simulation_is_ended(how: int) -> None:
    """Neither processes nor shared memory, nor a wait for the minute that the app would take."""
    shared = set(Path("/dev/shm").iterdir())  # noqa: S108
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    processes = [int(word) for word in run.stdout.readline().split()]
    assert len(processes) == 2
    assert [run.stdout.readline() for _ in range(2)] == ["running\n", "running\n"]
    run.send_signal(how)
    run.wait(timeout=20)
    deadline = time.monotonic() + 10
    while any(alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(process) for process in processes)
    assert set(Path("/dev/shm").iterdir()) <= shared  # noqa: S108
