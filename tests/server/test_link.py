"""The link holds what it uses of Flower to its word: every test talks to a listening server, over TLS, as sites do."""

import http.client
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Array, ArrayRecord, Message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import in_memory_linkstate
from flwr.server.utils import validator
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER
from flwr.supercore.corestate import in_memory_corestate
from numpy.typing import NDArray
from support.linked import Cable, Keys, answering, ask, echo, number_in, words

from fedseal.client.fleet import HEARTBEAT_INTERVAL, DeclinedError, Fleet, UnreachableError
from fedseal.errors import ConfigError
from fedseal.server import link as linked
from fedseal.server.gate import LARGEST_BODY
from fedseal.server.link import Link, LinkGrid
from fedseal.server.listening import Listener


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"), "a", "b", "c")


@pytest.fixture(scope="module")
def link(keys: Keys) -> Iterator[Link]:
    # So that nobody waits long for a question that is held when a test ends.
    with pytest.MonkeyPatch.context() as patched, keys.link() as running:
        patched.setattr(linked, "HOLD", 0.4)
        yield running


@pytest.fixture
def grid(link: Link) -> Iterator[LinkGrid]:
    with link.run({"fedseal-task": "task:Task", "rounds": 3}) as running:
        yield running


def pulled(grid: LinkGrid, numbers: list[str], within: float = 10.0) -> list[Message]:
    end, found = time.monotonic() + within, list[Message]()
    while len(found) < len(numbers) and time.monotonic() < end:
        found += grid.pull_messages(numbers)
    return found


def test_an_exchange_with_three_nodes_brings_back_what_each_was_sent(keys: Keys, link: Link, grid: LinkGrid) -> None:
    # Nine megabytes: two objects of an array.
    array = ArrayRecord({"x": Array(np.random.default_rng(1).random(9_000_000 // 8))})
    fleets = [keys.fleet(name, link) for name in keys.nodes]
    with answering(fleets, echo):
        nodes = list(grid.get_node_ids())
        assert nodes == sorted(fleet.node for fleet in fleets)
        assert link.online() == ["a", "b", "c"]
        for number in range(2):
            sent = [Message(words(number, array), dst_node_id=node, message_type="train") for node in nodes]
            replies = list(grid.send_and_receive(sent, timeout=60))
            assert sorted(reply.metadata.src_node_id for reply in replies) == nodes
            for reply in replies:
                assert number_in(reply) == number
                assert np.array_equal(reply.content.array_records["array"]["x"].numpy(), array["x"].numpy())
    # Nothing is kept of it.
    assert not link.state.message_ins_store
    assert not link.state.message_res_store
    assert len(link.state.object_store) == 0


def test_bytes_of_a_node_that_are_no_message_are_its_own_loss(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleets = [keys.fleet(name, link) for name in ("a", "b")]
    honest = link.state.contents

    def spoilt(number: str) -> dict[str, bytes] | None:
        found, reply = honest(number), link.state.message_res_store.get(number)
        if found is None or reply is None or reply.metadata.src_node_id != fleets[1].node:
            return found
        return {name: b"\xff" + raw[:-1] for name, raw in found.items()}

    monkeypatch.setattr(link.state, "contents", spoilt)
    with answering(fleets, echo):
        sent = [Message(words(1), dst_node_id=fleet.node, message_type="train") for fleet in fleets]
        replies = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive(sent, timeout=60)}
    good, bad = (replies[fleet.node] for fleet in fleets)
    assert number_in(good) == 1
    assert bad.has_error() and bad.error.code == ErrorCode.UNKNOWN


def test_sites_learn_a_runs_configuration_while_it_lasts(keys: Keys, link: Link) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    with link.run({"rounds": 3, "fedseal-task": "task:Task"}) as grid:
        number = grid.run.run_id
        assert fleet.run(number).config == {"rounds": 3, "fedseal-task": "task:Task"}
    with pytest.raises(DeclinedError):
        fleet.run(number)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/control/start-run", 404),
        ("/v1/control/register-node", 404),
        ("/v1/runtime/acquire-task", 404),
        ("/v1/runtime/push-messages", 404),
        ("/v1/fleet/register-node", 404),
        ("/v1/fleet/unregister-node", 404),
        ("/v1/fleet/get-fab", 404),
        ("/v1/fleet/../control/start-run", 404),
        ("/v1/fleet/%2e%2e/control/start-run", 404),
        ("/v1/fleet/pull-messages/", 404),
        ("//v1/fleet/pull-messages", 404),
        ("/openapi.json", 404),
        ("/docs", 404),
        ("/health", 404),
        # The twin: this one is there, for whoever proves to be a node.
        ("/v1/fleet/pull-messages", 401),
        ("/v1/fleet/activate-node", 401),
    ],
)
def test_nothing_but_the_nine_calls_is_there(keys: Keys, link: Link, path: str, code: int) -> None:
    assert posted(keys, link, path, b"") == code


def test_a_body_is_not_read_before_it_says_how_long_it_is(keys: Keys, link: Link) -> None:
    path = "/v1/fleet/push-object"
    assert posted(keys, link, path, b"", key="a") == 401
    assert posted(keys, link, path, b"", length=str(LARGEST_BODY + 1), key="a") == 413
    assert posted(keys, link, path, b"", length="", key="a") == 411
    assert posted(keys, link, path, b"", method="GET", key="a") == 404


def test_nothing_is_read_in_the_name_of_a_stranger(keys: Keys, link: Link) -> None:
    """No body, of whatever length, and no key that Flower's check of signatures stumbles over."""
    path = "/v1/fleet/push-object"
    others = X25519PrivateKey.generate().public_key(), ec.generate_private_key(ec.SECP256R1()).public_key()
    pems = [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in others]
    for named in (None, b"", b"no base64!", b64encode(b"no key"), *map(b64encode, pems)):
        # None of these bytes is sent: were they read before the answer, it would not come.
        assert posted(keys, link, path, b"", length=str(LARGEST_BODY), named=named) == 401
        assert posted(keys, link, path, b"", length="", named=named) == 401


def posted(
    keys: Keys,
    link: Link,
    path: str,
    body: bytes,
    *,
    length: str | None = None,
    method: str = "POST",
    key: str | None = None,
    named: bytes | None = None,
) -> int:
    """The status of a request without a signature, with the key of a node or with what is ``named`` for it."""
    connection = http.client.HTTPSConnection("127.0.0.1", link.port, timeout=10, context=keys.trust())
    try:
        connection.putrequest(method, path)
        connection.putheader("Content-Type", "application/protobuf")
        if length != "":
            connection.putheader("Content-Length", length or str(len(body)))
        if key is not None:
            named = b64encode(keys.public(key))
        if named is not None:
            connection.putheader(FLEET_HTTP_PUBLIC_KEY_HEADER, named)
        connection.endheaders(body or None)
        return connection.getresponse().status
    finally:
        connection.close()


def test_a_node_answers_in_its_own_name_only(keys: Keys, link: Link, grid: LinkGrid) -> None:
    honest, forger = keys.fleet("a", link), keys.fleet("b", link)
    honest.join(), forger.join()
    numbers = ask(grid, honest.node)
    message = honest.next()
    assert message is not None
    with pytest.raises(DeclinedError, match="403"):
        forger.answer(message, Message(words(666), reply_to=message))
    assert pulled(grid, numbers, 0.5) == []
    honest.answer(message, Message(words(1), reply_to=message))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [1]


def test_a_killed_node_comes_back_at_once_and_is_given_its_message_again(
    keys: Keys, link: Link, grid: LinkGrid
) -> None:
    killed = keys.fleet("a", link)
    killed.join()
    numbers = ask(grid, killed.node, 5)
    assert killed.next() is not None
    again = keys.fleet("a", link)
    assert again.join() == killed.node
    message = again.next()
    assert message is not None
    assert number_in(message) == 5
    again.answer(message, echo(message))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [5]
    assert again.next() is None


def test_a_message_that_nobody_survives_is_given_out_a_few_times_and_then_now_and_again(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    ask(grid, fleet.node)
    given = [fleet.next() for _ in range(linked.DELIVERIES + 1)]
    assert [message is not None for message in given] == [True] * linked.DELIVERIES + [False]
    # It may have been the line that lost them all.
    monkeypatch.setattr(linked, "AGAIN", 0.0)
    assert fleet.next() is not None


class KilledError(Exception):
    """A process that ends here."""


@contextmanager
def cut_off_after(objects: int) -> Iterator[None]:
    """Answers end after so many of their objects have been sent."""
    pushed, left = Fleet._push, iter(range(objects))

    def push(self: Fleet, run: int, session: str, name: str, content: bytes) -> None:
        if next(left, None) is None:
            raise KilledError
        pushed(self, run, session, name, content)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Fleet, "_push", push)
        yield


def test_a_reply_that_was_cut_off_is_waited_for_and_sent_again(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet, other = keys.fleet("a", link), keys.fleet("b", link)
    fleet.join(), other.join()
    numbers = [
        *grid.push_messages(
            [Message(words(n), dst_node_id=f.node, message_type="train") for n, f in ((1, fleet), (2, other))]
        )
    ]
    message, others = fleet.next(), other.next()
    assert message is not None and others is not None

    with cut_off_after(0), pytest.raises(KilledError):
        fleet.answer(message, echo(message))
    # The other's is not held up by it.
    other.answer(others, echo(others))
    assert [number_in(reply) for reply in pulled(grid, numbers[1:])] == [2]
    assert list(grid.pull_messages(numbers[:1])) == []
    again = fleet.next()
    assert again is not None
    fleet.answer(again, echo(again))
    assert [number_in(reply) for reply in pulled(grid, numbers[:1])] == [1]


def half_answered(fleet: Fleet, grid: LinkGrid, objects: int) -> tuple[list[str], Message]:
    """The number of a message and the message, to which a node has begun to answer with 2 and sent so many objects."""
    numbers = ask(grid, fleet.node, 1)
    message = fleet.next()
    assert message is not None
    with cut_off_after(objects), pytest.raises(KilledError):
        fleet.answer(message, Message(words(2), reply_to=message))
    return numbers, message


@pytest.mark.parametrize("objects", [0, 1, 2])
def test_another_answer_takes_the_place_of_one_that_was_cut_off(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch, objects: int
) -> None:
    """A node that answers anew may say more of its log than the time before: then it is another message to Flower."""
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers, _ = half_answered(fleet, grid, objects)
    again = fleet.next()
    assert again is not None
    fleet.answer(again, Message(words(3), reply_to=again))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [3]
    assert not link.state.message_res_store
    assert len(link.state.object_store) == 0


def test_another_answer_does_not_take_the_place_of_a_whole_one(keys: Keys, link: Link, grid: LinkGrid) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers = ask(grid, fleet.node, 1)
    message = fleet.next()
    assert message is not None
    for number in (2, 3):
        fleet.answer(message, Message(words(number), reply_to=message))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [2]


def test_an_answer_that_is_refused_leaves_the_one_that_was_cut_off(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers, message = half_answered(fleet, grid, 0)
    held = dict(link.state.message_ins_id_to_message_res_id)
    late = Message(words(3), reply_to=message)
    late.metadata.ttl = message.metadata.ttl + 3600
    late.metadata.__dict__["_message_id"] = "f" * 64
    assert link.state.store_message_res(late) is None
    assert link.state.message_ins_id_to_message_res_id == held
    fleet.answer(message, Message(words(2), reply_to=message))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [2]


def test_a_message_that_its_node_has_lost_is_not_waited_for(keys: Keys, link: Link, grid: LinkGrid) -> None:
    """Flower's nodes say that they have a message before they work at it; one that is then killed asks again."""
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers = ask(grid, fleet.node)
    message = fleet.next()
    assert message is not None
    fleet._client.ConfirmMessageReceived(
        ConfirmMessageReceivedRequest(
            node=Node(node_id=fleet.node), run_id=grid.run.run_id, message_object_id=message.metadata.message_id
        )
    )
    assert pulled(grid, numbers, 0.5) == []
    assert fleet.next() is None
    (reply,) = pulled(grid, numbers)
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_node_that_has_left_and_stays_away_has_answered_with_an_error(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers = ask(grid, fleet.node)
    assert list(grid.pull_messages(numbers)) == []
    fleet.leave()
    assert "a" not in link.online()
    assert list(grid.pull_messages(numbers)) == []
    monkeypatch.setattr(linked, "GRACE", 0.0)
    (reply,) = pulled(grid, numbers)
    assert reply.error.code == ErrorCode.NODE_UNAVAILABLE


def test_an_answer_that_has_arrived_counts_though_its_node_has_left(keys: Keys, link: Link, grid: LinkGrid) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers = ask(grid, fleet.node, 4)
    message = fleet.next()
    assert message is not None
    fleet.answer(message, echo(message))
    fleet.leave()
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [4]


def set_servers_clock(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    """For Flower's state, not for the check of signatures: that a node signs by the server's clock is tested there."""
    for module in (in_memory_corestate, in_memory_linkstate, validator):
        monkeypatch.setattr(module, "now", lambda: datetime.now(UTC) + timedelta(days=days))


@pytest.mark.parametrize("days", [1, -1])
@pytest.mark.parametrize("before", ["it is given out", "it is answered", "the answer is taken"])
def test_nothing_depends_on_the_time_of_day(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch, days: int, before: str
) -> None:
    """Flower dates messages and the last sign of every node by it; somebody sets the server's clock."""
    fleet = keys.fleet("a", link)
    fleet.join()

    def set_clock(moment: str) -> None:
        if moment == before:
            set_servers_clock(monkeypatch, days)

    numbers = ask(grid, fleet.node, 4)
    set_clock("it is given out")
    message = fleet.next()
    assert message is not None
    set_clock("it is answered")
    fleet.answer(message, echo(message))
    set_clock("the answer is taken")
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [4]
    assert fleet.node in grid.get_node_ids()


@pytest.mark.parametrize("other", [0, 1])
@pytest.mark.parametrize("objects", [0, 1, 2])
def test_a_clock_that_is_set_while_an_answer_arrives_costs_no_answer(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch, objects: int, other: int
) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    numbers, _ = half_answered(fleet, grid, objects)
    set_servers_clock(monkeypatch, 1)
    fleet = keys.fleet("a", link)
    fleet.join()
    again = fleet.next()
    assert again is not None
    assert list(grid.pull_messages(numbers)) == []
    fleet.answer(again, Message(words(2 + other), reply_to=again))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [2 + other]


def test_a_node_that_says_nothing_for_too_long_is_away(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    assert "a" in link.online()
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + 2 * HEARTBEAT_INTERVAL - 5)
    assert "a" in link.online()
    monkeypatch.setattr(time, "monotonic", lambda: real() + 2 * HEARTBEAT_INTERVAL)
    assert "a" not in link.online()
    # It is heard of again.
    assert fleet.beat()
    assert "a" in link.online()


def test_a_node_that_is_restarted_finds_the_message_that_came_meanwhile(keys: Keys, link: Link, grid: LinkGrid) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    fleet.leave()
    numbers = ask(grid, fleet.node, 9)
    assert list(grid.pull_messages(numbers)) == []
    again = keys.fleet("a", link)
    again.join()
    message = again.next()
    assert message is not None
    again.answer(message, echo(message))
    assert [number_in(reply) for reply in pulled(grid, numbers)] == [9]


def test_a_network_that_is_cut_in_the_middle_of_an_answer_costs_nothing_but_time(
    keys: Keys, link: Link, grid: LinkGrid
) -> None:
    values = np.random.default_rng(2).random(2_000_000)
    with Cable(link.port) as cable:
        fleet = keys.fleet("a", link, port=cable.port)
        fleet.join()
        numbers = ask(grid, fleet.node)
        message = fleet.next()
        assert message is not None
        # Of sixteen megabytes.
        cable.cut_after(3_000_000)
        for _ in range(2):
            with pytest.raises(UnreachableError):
                fleet.answer(message, answer_with(values, message))
        assert list(grid.pull_messages(numbers)) == []
        cable.mend()
        fleet.answer(message, answer_with(values, message))
        (reply,) = pulled(grid, numbers)
        assert np.array_equal(reply.content.array_records["array"]["x"].numpy(), values)


def answer_with(values: NDArray[np.float64], message: Message) -> Message:
    return Message(words(6, ArrayRecord({"x": Array(values)})), reply_to=message)


def test_what_is_open_when_the_next_exchange_begins_is_dropped(keys: Keys, link: Link, grid: LinkGrid) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    old = ask(grid, fleet.node, 1)
    slow = fleet.next()
    assert slow is not None
    ask(grid, fleet.node, 2)
    fleet.answer(slow, echo(slow))
    assert list(grid.pull_messages(old)) == []
    message = fleet.next()
    assert message is not None
    assert number_in(message) == 2


def test_a_question_is_held_until_there_is_work(keys: Keys, link: Link, grid: LinkGrid) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    begun = time.monotonic()
    assert fleet.next() is None
    assert time.monotonic() - begun >= linked.HOLD


def test_a_node_holds_one_question_and_the_older_one_takes_nothing(
    keys: Keys, link: Link, grid: LinkGrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site that asks many times at once must not take the server's threads, nor lose messages to dead connections."""
    monkeypatch.setattr(linked, "HOLD", 20.0)
    fleet = keys.fleet("a", link)
    fleet.join()
    with ThreadPoolExecutor(6) as pool:
        begun = time.monotonic()
        questions = [pool.submit(fleet.next) for _ in range(6)]
        while sum(question.done() for question in questions) < 5:
            assert time.monotonic() - begun < 10
            time.sleep(0.01)
        assert all(question.result() is None for question in questions if question.done())
        ask(grid, fleet.node, 8)
        found = [question.result(10) for question in questions]
    assert [number_in(message) for message in found if message is not None] == [8]


def test_a_port_in_use_and_a_key_of_another_certificate_are_named(keys: Keys, link: Link, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot listen"), keys.link(link.port):
        pass
    other = Keys.make(tmp_path).certificate
    with (
        pytest.raises(ConfigError, match="cannot be used"),
        Link(Listener("127.0.0.1", 0, keys.certificate.certificate, other.key), {}),
    ):
        pass
