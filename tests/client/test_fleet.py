"""What the node's side uses of Flower, against a real server: see also tests/server/test_link.py."""

import contextlib
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import given, settings
from hypothesis import strategies as st
from support.linked import Keys, ask, echo, number_in, words

from fedseal.client.fleet import (
    PARALLEL,
    DeclinedError,
    Fleet,
    NotAdmittedError,
    UnreachableError,
    identify,
    inflated,
    refusal,
)
from fedseal.server import link as linked
from fedseal.server.link import Link
from fedseal.simulation.deployed.processes import free_ports

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("keys"), "a", "b")


@pytest.fixture(scope="module")
def link(keys: Keys) -> Iterator[Link]:
    with pytest.MonkeyPatch.context() as patched, keys.link() as running:
        patched.setattr(linked, "HOLD", 0.4)
        yield running


@pytest.mark.parametrize("off", [-3 * HOUR, 3 * HOUR], ids=["behind", "ahead"])
def test_a_site_whose_clock_is_wrong_signs_by_the_servers(keys: Keys, link: Link, off: timedelta) -> None:
    fleet = keys.fleet("a", link)
    fleet._signature._now = lambda: datetime.now(UTC) + off
    fleet.join()
    assert fleet.beat()
    assert abs(fleet.ahead + off) < timedelta(seconds=5)


def test_without_that_it_is_not_let_in(keys: Keys, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = keys.fleet("a", link)
    monkeypatch.setattr(fleet._signature, "_now", lambda: datetime.now(UTC) + HOUR)
    monkeypatch.setattr(fleet._signature, "believe", lambda _: False)
    with pytest.raises(NotAdmittedError):
        fleet.join()


@pytest.mark.parametrize("date", [None, "", "yesterday", "Sat, 99 Nov 2026 00:00:00 GMT"])
def test_a_date_that_is_none_is_not_believed(keys: Keys, link: Link, date: str | None) -> None:
    fleet = keys.fleet("a", link)
    assert not fleet._signature.believe(date)
    assert fleet.ahead == timedelta()


def test_a_clock_that_is_set_while_the_site_works_does_not_age_its_answer(
    keys: Keys, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flower dates a reply by the site's clock, and lets a server refuse one that seems to come too late."""
    fleet = keys.fleet("a", link)
    fleet.join()
    with link.run({}) as grid:
        numbers = ask(grid, fleet.node, 3)
        message = fleet.next()
        assert message is not None
        reply = echo(message)
        reply.metadata.created_at += 48 * 3600
        fleet.answer(message, reply)
        (found,) = grid.pull_messages(numbers)
        assert number_in(found) == 3


def test_a_clock_that_is_set_between_the_parts_of_an_answer_holds_none_of_them_up(
    keys: Keys, link: Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four parts go at once, and all four are refused; that one of them has learned of the server's clock is enough."""
    fleet = keys.fleet("a", link)
    fleet.join()
    off, refused, believe = timedelta(), threading.Barrier(PARALLEL), fleet._signature.believe
    pushed = fleet._client.PushMessages

    def set_ahead(request: PushMessagesRequest) -> PushMessagesResponse:
        nonlocal off
        response = pushed(request)
        off = HOUR
        return response

    def together(date: str | None) -> bool:
        refused.wait(10)
        return believe(date)

    monkeypatch.setattr(fleet._signature, "_now", lambda: datetime.now(UTC) + off)
    monkeypatch.setattr(fleet._signature, "believe", together)
    monkeypatch.setattr(fleet._client, "PushMessages", set_ahead)
    with link.run({}) as grid:
        numbers = ask(grid, fleet.node, 3)
        message = fleet.next()
        assert message is not None
        fleet.answer(message, Message(words(4, ArrayRecord({"x": Array(np.zeros(3))})), reply_to=message))
        (found,) = grid.pull_messages(numbers)
        assert number_in(found) == 4


def test_the_same_answer_is_the_same_object_whenever_it_is_made(keys: Keys, link: Link) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    with link.run({}) as grid:
        ask(grid, fleet.node)
        message = fleet.next()
        assert message is not None
        numbers = set()
        for _ in range(2):
            reply = echo(message)
            fleet.answer(message, reply)
            numbers.add(reply.metadata.message_id)
        assert len(numbers) == 1


def test_beside_the_answer_nothing_of_the_site_leaves(keys: Keys, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stock node says how long its app took."""
    fleet = keys.fleet("a", link)
    fleet.join()
    sent: list[PushMessagesRequest] = []
    pushed = fleet._client.PushMessages

    def recorded(request: PushMessagesRequest) -> PushMessagesResponse:
        sent.append(request)
        return pushed(request)

    monkeypatch.setattr(fleet._client, "PushMessages", recorded)
    with link.run({}) as grid:
        ask(grid, fleet.node)
        message = fleet.next()
        assert message is not None
        fleet.answer(message, echo(message))
    (request,) = sent
    assert {field.name for field, _ in request.ListFields()} == {"node", "messages_list", "message_object_trees"}
    assert request.messages_list[0].metadata.created_at == message.metadata.created_at


def test_a_refusal_arrives_as_flowers_error(keys: Keys, link: Link) -> None:
    fleet = keys.fleet("a", link)
    fleet.join()
    with link.run({}) as grid:
        ask(grid, fleet.node)
        message = fleet.next()
        assert message is not None
        fleet.answer(message, refusal(message, "No."))
        found: list[Message] = list(grid.pull_messages([message.metadata.message_id]))
        assert [(reply.error.code, reply.error.reason) for reply in found] == [(7, "No.")]


def test_a_key_that_is_not_registered_is_not_let_in(keys: Keys, link: Link, tmp_path: Path) -> None:
    stranger = Keys.make(tmp_path, "x").nodes["x"]
    fleet = Fleet(f"127.0.0.1:{link.port}", keys.trust(), stranger)
    with pytest.raises(NotAdmittedError):
        fleet.join()


def test_a_server_of_another_authority_is_not_talked_to(keys: Keys, link: Link, tmp_path: Path) -> None:
    other = Keys.make(tmp_path).certificate.authority
    trust = ssl.create_default_context(cafile=str(other))
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        Fleet(f"127.0.0.1:{link.port}", trust, keys.nodes["a"]).join()


def test_a_server_that_is_not_there_is_unreachable(keys: Keys) -> None:
    (port,) = free_ports(1)
    with pytest.raises(UnreachableError):
        Fleet(f"127.0.0.1:{port}", keys.trust(), keys.nodes["a"]).join()


def test_a_server_that_has_restarted_does_not_know_the_number_and_gives_another(keys: Keys) -> None:
    with keys.link() as first:
        fleet = keys.fleet("a", first)
        before = fleet.join()
    with pytest.raises(UnreachableError):
        fleet.next()
    with keys.link(first.port):
        with pytest.raises(NotAdmittedError):
            fleet.next()
        with pytest.raises(NotAdmittedError):
            fleet.beat()
        assert fleet.join() != before
        assert fleet.beat()


@lru_cache(maxsize=1)
def objects() -> dict[str, bytes]:
    """A message in its objects, by name; its head is the last."""
    identify(1, 1)
    array = ArrayRecord({"x": Array(np.arange(5, dtype=np.float32))})
    message = Message(words(4, array), dst_node_id=2, message_type="train")
    return {name: found.deflate() for name, found in get_all_nested_objects(message).items()}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_a_server_sends_is_a_message_or_declined(data: st.DataObject) -> None:
    """Bytes of its objects are changed, cut and swapped; names are taken out."""
    contents = dict(objects())
    head = list(contents)[-1]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(list(contents)))
        raw = bytearray(contents[name])
        place = data.draw(st.integers(0, len(raw)))
        match data.draw(st.sampled_from(["change", "cut", "insert", "swap", "drop"])):
            case "change":
                raw[place : place + 1] = data.draw(st.binary(min_size=1, max_size=4))
            case "cut":
                del raw[place:]
            case "insert":
                raw[place:place] = data.draw(st.binary(max_size=40))
            case "swap":
                raw = bytearray(contents[data.draw(st.sampled_from(list(contents)))])
            case "drop":
                del contents[name]
                break
        contents[name] = bytes(raw)
    with contextlib.suppress(DeclinedError):
        assert isinstance(inflated(head, contents), Message)


def test_an_unchanged_one_is_read() -> None:
    contents = dict(objects())
    head = list(contents)[-1]
    assert number_in(inflated(head, contents)) == 4
