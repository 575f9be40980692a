"""The resident node with a server that does what it is told: what is answered, refused, tried again and survived."""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from support.linked import echo, words

from fedseal.client import node as nodes
from fedseal.client.fleet import DeclinedError, NotAdmittedError, RunRecord, UnreachableError, identify
from fedseal.client.mod import DATA_KEY, STORE_KEY, STUDY_KEY
from fedseal.client.node import NumberFile, ResidentNode
from fedseal.client.site_config import Site

Happening = Message | Exception | None
TASK = "task:Task"


class ScriptedServer:
    """Answers questions for work by a script, then stops the node."""

    def __init__(self, script: list[Happening], config: dict[str, object] | None = None) -> None:
        self.script, self.config = deque(script), config if config is not None else {"fedseal-task": TASK}
        self.node, self.joined, self.beats, self.left = 0, list[int](), 0, False
        self.answers: list[tuple[Message, Message]] = []
        self.failures: deque[Exception] = deque()
        self.known = True
        self.done: Callable[[], None] = lambda: None

    def join(self, before: int = 0) -> int:
        self.joined.append(before)
        self.node = 100 + len(self.joined)
        return self.node

    def leave(self) -> None:
        self.left = True

    def beat(self) -> bool:
        self.beats += 1
        return self.known

    def next(self) -> Message | None:
        if not self.script:
            self.done()
            return None
        happening = self.script.popleft()
        if isinstance(happening, Exception):
            raise happening
        return happening

    def run(self, run: int) -> RunRecord:
        if run == 13:
            raise DeclinedError("over")
        return RunRecord(self.config, 1)  # type: ignore[arg-type]

    def answer(self, message: Message, reply: Message) -> None:
        if self.failures:
            raise self.failures.popleft()
        self.answers.append((message, reply))


def message(number: int = 1, kind: str = "train", run: int = 7) -> Message:
    identify(run, 1)
    made = Message(words(number), dst_node_id=101, message_type=kind)
    made.metadata.__dict__["_message_id"] = f"message-{number}"
    return made


@pytest.fixture
def site(tmp_path: Path) -> Site:
    study = SimpleNamespace(folder=tmp_path / "study", contract=SimpleNamespace(task=TASK))
    return cast(
        Site, SimpleNamespace(address="here:1", store=tmp_path / "s.sqlite", data=tmp_path / "data", study=study)
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FIRST_RETRY", "SLOWEST_RETRY", "FASTEST_POLL", "SLOWEST_POLL"):
        monkeypatch.setattr(nodes, name, 0.001)


def served(
    site: Site, script: list[Happening], app: Callable[[Message, Context], Message], **changes: object
) -> ScriptedServer:
    server = ScriptedServer(script)
    for name, value in changes.items():
        setattr(server, name, value)
    node = ResidentNode(server, site, cast(ClientApp, app))
    server.done = node.stop
    node.run()
    assert server.left
    return server


def plain(message: Message, context: Context) -> Message:
    return echo(message)


def test_messages_are_answered_in_their_order_with_what_the_site_names(site: Site) -> None:
    seen: list[Context] = []

    def app(message: Message, context: Context) -> Message:
        seen.append(context)
        return echo(message)

    server = served(site, [None, message(1), None, message(2, "evaluate")], app)
    assert [m.metadata.message_id for m, _ in server.answers] == ["message-1", "message-2"]
    assert seen[0].node_config == {
        STORE_KEY: str(site.store),
        DATA_KEY: str(site.data),
        STUDY_KEY: str(site.study.folder),
    }
    assert seen[0].run_config == {"fedseal-task": TASK}
    assert (seen[0].node_id, seen[0].run_id) == (101, 7)


def test_a_task_that_was_not_approved_is_refused_and_no_code_runs(site: Site) -> None:
    called: list[Message] = []

    def app(message: Message, context: Context) -> Message:
        called.append(message)
        return echo(message)

    server = served(site, [message()], app, config={"fedseal-task": "os:system"})
    assert [reply.error.code for _, reply in server.answers] == [7]
    assert not called


@pytest.mark.parametrize("kind", ["query", "query.files", "system", "train.other"])
def test_other_kinds_of_messages_are_refused(site: Site, kind: str) -> None:
    odd = message()
    odd.metadata.__dict__["_message_type"] = kind
    assert [reply.error.code for _, reply in served(site, [odd], plain).answers] == [7]


@pytest.mark.parametrize(
    ("trouble", "joins"),
    [(UnreachableError("no connection"), 2), (NotAdmittedError("unknown"), 2), (DeclinedError("gone"), 1)],
    ids=lambda value: type(value).__name__,
)
def test_trouble_when_asking_for_work_is_survived(site: Site, trouble: Exception, joins: int) -> None:
    server = served(site, [message(1), trouble, message(2)], plain)
    assert len(server.answers) == 2
    assert len(server.joined) == joins


def test_an_answer_is_sent_until_it_has_arrived(site: Site) -> None:
    failures = deque([UnreachableError("no connection")] * 3)
    assert len(served(site, [message()], plain, failures=failures).answers) == 1


def test_an_answer_that_nobody_wants_is_not_sent_again(site: Site) -> None:
    server = served(site, [message(1), message(2)], plain, failures=deque([DeclinedError("over")]))
    assert [m.metadata.message_id for m, _ in server.answers] == ["message-2"]


def test_after_a_restart_of_the_server_the_node_joins_again(site: Site) -> None:
    server = served(site, [message(1), message(2)], plain, failures=deque([NotAdmittedError("unknown")]))
    assert [m.metadata.message_id for m, _ in server.answers] == ["message-2"]
    # It says which number it had, so that a server of another make lets it in.
    assert server.joined == [0, 101]


def test_a_message_of_a_run_that_is_over_is_passed_over(site: Site) -> None:
    server = served(site, [message(1, run=13), message(2)], plain)
    assert [m.metadata.message_id for m, _ in server.answers] == ["message-2"]


def test_heartbeats_go_on_while_the_site_trains(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "HEARTBEAT_EVERY", 0.01)
    server = ScriptedServer([message()])
    counts: list[int] = []

    def app(message: Message, context: Context) -> Message:
        before, end = server.beats, time.monotonic() + 5
        while server.beats < before + 3 and time.monotonic() < end:
            time.sleep(0.005)
        counts.append(server.beats - before)
        return echo(message)

    node = ResidentNode(server, site, cast(ClientApp, app))
    server.done = node.stop
    node.run()
    assert counts[0] >= 3


def test_a_server_that_does_not_know_the_node_is_joined_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "HEARTBEAT_EVERY", 0.01)
    server = ScriptedServer([])
    server.known = False
    node = ResidentNode(server, site, cast(ClientApp, plain))
    thread = threading.Thread(target=node.run)
    thread.start()
    end = time.monotonic() + 5
    while len(server.joined) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    node.stop()
    thread.join(5)
    assert len(server.joined) >= 2


def test_it_stops_after_the_message_that_it_works_at(site: Site) -> None:
    server = ScriptedServer([message(1), message(2)])

    def app(message: Message, context: Context) -> Message:
        assert node.busy
        node.stop()
        return echo(message)

    node = ResidentNode(server, site, cast(ClientApp, app))
    node.run()
    assert [m.metadata.message_id for m, _ in server.answers] == ["message-1"]
    assert not node.busy


def test_the_number_is_kept_while_the_node_is_connected(tmp_path: Path, site: Site) -> None:
    file = NumberFile(site.store)
    assert file.read() == 0
    file.write(12345678901234567890)
    assert NumberFile(site.store).read() == 12345678901234567890
    file._path.write_bytes(b"\xff\xfe nonsense")
    assert file.read() == 0
    served(site, [message()], plain)
    assert list(tmp_path.glob("*.node*")) == []
