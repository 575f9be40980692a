"""The SuperLink of a federation with resident nodes: the one file of this side that knows Flower's internals.

Sites reach one listener, over TLS, whose application holds nine calls of Flower's Fleet API and nothing else. There is
no control interface and no runtime interface: runs are made by this process, for itself, on the same state. Nothing
that sites could run is stored here, so nothing can be shipped to them.

The state is in memory. What has to survive a crash is in the server's own store, from which a run goes on; messages
that were on their way are made again, and a site answers them with the bytes it answered before.

What is used of Flower 1.41 that is not its public interface: the router of its Fleet API with the middleware that
authenticates nodes and translates protobuf, its in-memory state, and its objects. `tests/server/test_link.py` makes a
real exchange with it.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast

from anyio.to_thread import current_default_thread_limiter
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, status
from flwr.app import Error, Message, RecordDict
from flwr.app.message.message import remove_content_from_message
from flwr.common.constant import (
    HEARTBEAT_PATIENCE,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    ErrorCode,
    SubStatus,
)
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkState
from flwr.serverapp import Grid
from flwr.supercore.constant import NOOP_FEDERATION_ID, NodeStatus, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.protobuf.routing import ProtobufRoute
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router as fleet_router
from google.protobuf.message import DecodeError
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send

from fedseal.errors import ConfigError, LocalError
from fedseal.server.bell import Bell
from fedseal.server.gate import PATHS, Gate
from fedseal.server.listening import Listener, Listening
from fedseal.server.one_pass import OnePass

Setting = bool | int | float | str

# Seconds that a site's question for work is held while there is none; clients wait longer than that.
HOLD = 10.0
# Seconds that the server's own question for replies is held.
REPLY_HOLD = 0.25
# Seconds that a node may be away before its answers are given up: it may be restarting.
GRACE = 30.0
# How often a message is given out in a row, to a site that asks for work without having answered it; from then on once
# in so many seconds: the line may have lost all of them, and the stage's deadline may be an hour away.
DELIVERIES = 4
AGAIN = 60.0
# Seconds that a message lives, as Flower is told: ten years. It ends with its exchange.
FOREVER = 10 * 365 * 86_400.0
# What Flower's objects and protobuf raise for bytes that are none of theirs.
UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
    DecodeError,
)


class SiteState(InMemoryLinkState):
    """Flower's state for nodes that work at one message at a time.

    A node that asks for work while a message it was given has no complete answer has lost that message: the
    connection broke, or its process ended. It is given it again. A node's question is held until there is work, so
    that nobody has to ask often, and one whose process was killed comes back at once.

    Who is there, and how long a message is kept, does not depend on the time of day, which somebody may set: Flower's
    own state would forget all nodes, all messages and all answers when a clock is set ahead.
    """

    def __init__(self) -> None:
        super().__init__(NoOpFederationManager(), InMemoryObjectStore())
        self.work, self.replies = Bell(), Bell()
        # How often each message was given out, and when last.
        self._given: dict[str, tuple[int, float]] = {}
        self._asking: dict[int, object] = {}
        # Until when each node counts as being there, by the monotonic clock.
        self._there_until: dict[int, float] = {}
        self.expelled = 0

    def close(self) -> None:
        """Let nobody wait any longer."""
        self.work.end()
        self.replies.end()

    def knows(self, public_key: bytes) -> bool:
        """Whether a key is that of a node that is let in now."""
        with self.lock:
            return public_key in self.node_public_key_to_node_id

    def activate_node(self, node_id: int, heartbeat_interval: float) -> bool:
        """As Flower's; a node that has not left is let in, too: it has proved to be the same one by its key."""
        with self.lock:
            self.deactivate_node(node_id)
            self._heard(node_id, heartbeat_interval)
            return super().activate_node(node_id, heartbeat_interval)

    def acknowledge_node_heartbeat(self, node_id: int, heartbeat_interval: float) -> bool:
        """As Flower's."""
        with self.lock:
            self._heard(node_id, heartbeat_interval)
            return super().acknowledge_node_heartbeat(node_id, heartbeat_interval)

    def get_message_ins(self, node_id: int, limit: int | None, *, run_id: int | None = None) -> list[Message]:
        """As Flower's; waits while there is no message. Of two questions of a node at once the older one gets none."""
        messages: list[Message] = []
        question = object()
        with self.lock:
            older = self._asking.get(node_id)
            self._asking[node_id] = question
        if older is not None:
            self.work.ring()

        def found() -> bool:
            with self.lock:
                if self._asking.get(node_id) is not question:
                    return True
                self._give_again(node_id)
                messages.extend(super(SiteState, self).get_message_ins(node_id, limit, run_id=run_id))
                for message in messages:
                    number = message.metadata.message_id
                    times, _ = self._given.get(number, (0, 0.0))
                    self._given[number] = times + 1, time.monotonic()
                return bool(messages)

        self.work.wait_for(found, HOLD)
        with self.lock:
            if self._asking.get(node_id) is question:
                del self._asking[node_id]
        return messages

    def expel(self, node_id: int) -> None:
        """Know a node no more: its next call is refused, and a question of it that is held gets nothing.

        Not by Flower's `delete_node`, which lets a node that has left its key go on signing itself in.
        """
        with self.lock:
            node = self.nodes.pop(node_id)
            del self.node_public_key_to_node_id[node.public_key]
            self.owner_to_node_ids[node.owner_aid].discard(node_id)
            self._asking.pop(node_id, None)
            self._there_until.pop(node_id, None)
            self.expelled += 1
        self.work.ring()

    def delete_messages(self, message_ins_ids: set[str]) -> None:
        """As Flower's."""
        super().delete_messages(message_ins_ids)
        for number in message_ins_ids:
            self._given.pop(number, None)

    def store_message_res(self, message: Message) -> str | None:
        """As Flower's; an answer takes the place of another one to the same message that has not arrived whole. The
        node broke off and has answered again, and may say more of its log than before. Flower would refuse the new
        one and wait for the rest of the old.
        """
        with self.lock:
            asked = message.metadata.reply_to_message_id
            earlier = self.message_ins_id_to_message_res_id.get(asked)
            if earlier is None or earlier == message.metadata.message_id or self.answered(asked):
                return super().store_message_res(message)
            del self.message_ins_id_to_message_res_id[asked]
            stored = super().store_message_res(message)
            if stored is None:
                self.message_ins_id_to_message_res_id[asked] = earlier
            else:
                del self.message_res_store[earlier]
                self.object_store.delete(earlier)
            return stored

    def store_object(self, run_id: int, session_id: str, object_id: str, object_content: bytes) -> bool:
        """As Flower's."""
        stored = super().store_object(run_id, session_id, object_id, object_content)
        self.replies.ring()
        return stored

    def answered(self, number: str) -> bool:
        """Whether a message has an answer all of whose objects have arrived."""
        with self.lock:
            reply = self.message_ins_id_to_message_res_id.get(number)
        return reply is not None and (self.message_res_store[reply].has_error() or self.contents(reply) is not None)

    def contents(self, number: str) -> dict[str, bytes] | None:
        """All objects of a message by name; None while one is missing."""
        store = self.object_store
        if number not in store:
            return None
        names = [node.object_id for node in iterate_object_tree(store.get_object_tree(number))]
        found = {name: store.get(name) for name in names}
        return None if not all(found.values()) else cast(dict[str, bytes], found)

    def _give_again(self, node: int) -> None:
        for number, message in self.message_ins_store.items():
            metadata = message.metadata
            lost = metadata.dst_node_id == node and metadata.delivered_at and not self.answered(number)
            times, last = self._given.get(number, (0, 0.0))
            if lost and (times < DELIVERIES or time.monotonic() - last >= AGAIN):
                metadata.delivered_at = ""

    def _heard(self, node: int, heartbeat_interval: float) -> None:
        if node in self.nodes:
            self._there_until[node] = time.monotonic() + HEARTBEAT_PATIENCE * heartbeat_interval

    def _check_and_tag_offline_nodes(self, node_ids: list[int] | None = None) -> None:
        now = time.monotonic()
        with self.lock:
            for number in node_ids or self.nodes:
                node = self.nodes.get(number)
                if node is not None and node.status == NodeStatus.ONLINE and self._there_until.get(number, 0.0) <= now:
                    node.status = NodeStatus.OFFLINE

    def _check_stored_messages(self, message_ids: set[str], run_id: int | None = None) -> None:
        """Nothing: a message ends with its exchange, which has a deadline of its own."""

    def _cleanup_expired_task_tokens_locked(self) -> None:
        """Nothing: a task of this process ends with it, and Flower would end it if the clock were set ahead."""


class LinkGrid(Grid):
    """A Flower Grid on the state itself: what a ServerApp sends is there for sites at once, and replies are seen as
    soon as they are complete. One exchange at a time: whatever of an earlier one is open when the next begins is
    dropped.

    Args:
        state: shared with the listener.
        run: Flower's run.
    """

    def __init__(self, state: SiteState, run: Run) -> None:
        self._state = state
        self._run = run
        # The heads of the messages that are open, by number.
        self._waiting: dict[str, Message] = {}
        self._away: dict[int, float] = {}
        self._expelled = state.expelled

    def set_run(self, run: Run) -> None:
        """Set Flower's run."""
        self._run = run

    @property
    def run(self) -> Run:
        """Flower's run."""
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are connected, in the order of their numbers.

        Raises:
            ConfigError: a site has left the federation since the run was begun, which would wait for it for ever.
        """
        if self._state.expelled != self._expelled:
            raise ConfigError(
                "a site has left the federation, or has other keys, since this run was begun",
                next_step="Order a new run. Sites give back what this one had reserved: fedseal site close-run",
            )
        return self._connected()

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Put messages where their nodes find them; what several carry is stored once."""
        self._drop(set(self._waiting))
        with no_object_id_recompute():
            for message in messages:
                # One each: Flower ends a session when what it has announced so far is there.
                session = self._state.start_session(self._run.run_id)
                # Flower would refuse the answer to a message that has outlived its time of day.
                message.metadata.ttl = FOREVER
                number = message.object_id
                message.metadata.__dict__["_message_id"] = number
                objects = get_all_nested_objects(message)
                # A copy, as if it had travelled: the state writes into it.
                head = message_from_proto(message_to_proto(remove_content_from_message(message)))
                stored, missing = self._state.store_message_and_object_tree(head, get_object_tree(message), session)
                if not stored:
                    continue
                for name in missing:
                    self._state.store_object(self._run.run_id, session, name, objects[name].deflate())
                self._waiting[number] = head
        self._state.work.ring()
        return list(self._waiting)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are complete, each once; waits a moment if there is none.

        A node that has left or fallen silent and does not come back soon has answered with Flower's error.
        """
        wanted = self._waiting.keys() & set(message_ids)
        found: list[Message] = []

        def complete() -> bool:
            # In one piece: a message whose reply has been taken and that is still there would be given out again.
            with self._state.lock:
                ready = {number for number in wanted if self._state.answered(number)}
                gone = self._gone(wanted - ready)
                found.extend(self._taken(ready))
                found.extend(gone)
            return bool(found)

        if wanted:
            self._state.replies.wait_for(complete, REPLY_HOLD)
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull until all have answered or the time is over."""
        waiting = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            new = list(self.pull_messages(waiting))
            replies += new
            waiting -= {reply.metadata.reply_to_message_id for reply in new}
        return replies

    def close(self) -> None:
        """Drop whatever is still open."""
        self._drop(set(self._waiting))
        self._state.cleanup_run(self._run.run_id)

    def _taken(self, ready: set[str]) -> list[Message]:
        replies = []
        for asked in ready:
            # Not by Flower's `get_message_res`: to it a node that has left since has not answered.
            number = self._state.message_ins_id_to_message_res_id[asked]
            reply = self._state.message_res_store[number]
            contents = None if reply.has_error() else self._state.contents(number)
            if contents is not None:
                reply = self._inflated(reply, contents)
            replies.append(reply)
        self._drop(ready)
        return replies

    def _connected(self) -> list[int]:
        return sorted(self._state.get_nodes(self._run.run_id))

    def _inflated(self, head: Message, contents: dict[str, bytes]) -> Message:
        """A reply with what it holds; Flower's error in its place where a node's objects are no message.

        One site's bytes must not end the run of all.
        """
        number = head.metadata.message_id
        try:
            whole = inflate_object_from_contents(number, contents)
        except UNREADABLE:
            whole = None
        if not isinstance(whole, Message) or whole.metadata.reply_to_message_id != head.metadata.reply_to_message_id:
            asked = self._state.message_ins_store[head.metadata.reply_to_message_id]
            return Message(Error(ErrorCode.UNKNOWN, "The reply is no message."), reply_to=asked)
        whole.metadata.__dict__["_message_id"] = number
        return whole

    def _gone(self, open_numbers: set[str]) -> list[Message]:
        """Errors in the place of what nodes that have been away for too long would have answered."""
        online, now = set(self._connected()), time.monotonic()
        asked = [self._waiting[number] for number in open_numbers]
        away = {m.metadata.dst_node_id for m in asked} - online
        self._away = {node: self._away.get(node, now) for node in away}
        lost = [
            m
            for m in asked
            # Flower forgets a message that its node says it has received, and then asks for again.
            if m.metadata.message_id not in self._state.message_ins_store
            or (
                (node := m.metadata.dst_node_id) in away
                and (now - self._away[node] >= GRACE or node not in self._state.nodes)
            )
        ]
        self._drop({message.metadata.message_id for message in lost})
        reason = "The node is not connected."
        return [Message(Error(ErrorCode.NODE_UNAVAILABLE, reason), reply_to=message) for message in lost]

    def _drop(self, numbers: set[str]) -> None:
        with self._state.lock:
            replies = {self._state.message_ins_id_to_message_res_id.get(number) for number in numbers}
            self._state.delete_messages(numbers)
            for name in (*numbers, *replies):
                if name is not None:
                    self._state.object_store.delete(name)
        for number in numbers:
            self._waiting.pop(number, None)


class Link:
    """A running SuperLink; a context manager.

    Args:
        listener: where sites connect.
        nodes: the public keys that are let in, as PEM, by the names of their sites.
    """

    def __init__(self, listener: Listener, nodes: Mapping[str, bytes]) -> None:
        self._listener = listener
        self.state = SiteState()
        self._names = {
            self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0): name for name, key in nodes.items()
        }
        self._listening: Listening | None = None
        self.port = listener.port

    def __enter__(self) -> Self:
        self._listening = Listening(self._listener, site_app(self.state, len(self._names)))
        self.port = self._listening.port
        return self

    def __exit__(self, *_: object) -> None:
        self.state.close()
        if self._listening is not None:
            self._listening.end()

    def admit(self, nodes: Mapping[str, bytes]) -> None:
        """Let these nodes in and no others, while the listener goes on: whoever is not among them is refused at once.

        Args:
            nodes: the public keys, as PEM, by the names of their sites.
        """
        held = {name: self.state.get_node_info(node_ids=[node])[0].public_key for node, name in self._names.items()}
        for node, name in list(self._names.items()):
            if nodes.get(name) != held[name]:
                del self._names[node]
                self.state.expel(node)
        for name, key in nodes.items():
            if held.get(name) != key:
                self._names[self.state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)] = name

    def show_anew(self) -> None:
        """Read the certificate and its key again; connections from now on are shown them.

        Raises:
            ConfigError: they cannot be used; the old ones stay in use.
        """
        if self._listening is not None:
            self._listening.show_anew()

    def alive(self) -> bool:
        """Whether the listener still listens."""
        return self._listening is not None and self._listening.alive()

    def online(self) -> list[str]:
        """The sites whose nodes are connected."""
        infos = self.state.get_node_info(node_ids=list(self._names))
        return sorted(self._names[info.node_id] for info in infos if info.status == "online")

    @contextmanager
    def run(self, config: Mapping[str, Setting]) -> Iterator[LinkGrid]:
        """A run of Flower's, begun and in the end finished. One at a time in a process.

        Args:
            config: the run's configuration; sites get it.
        """
        number = self.state.create_run(
            "fedseal", None, None, dict(config), NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        (run,) = self.state.get_run_info(run_ids=[number])
        task = run.primary_task_id
        if task is None or self.state.claim_task(task) is None or not self.state.activate_task(task):
            raise LocalError("Flower's run could not be started")
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = number, SUPERLINK_NODE_ID, task
        grid = LinkGrid(self.state, run)
        done = SubStatus.FAILED
        try:
            yield grid
            done = SubStatus.COMPLETED
        finally:
            self.state.finish_task(task, done, "")
            grid.close()


def site_app(state: SiteState, sites: int) -> FastAPI:
    """The application that sites reach.

    Args:
        state: shared with the grids.
        sites: how many may have a question held at the same time.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        # Every question that is held takes a thread.
        current_default_thread_limiter().total_tokens = 40 + 2 * sites
        yield

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(Gate, knows=state.knows),
            Middleware(
                OnePass,
                dispatches=(
                    http_error_translator,
                    ProtobufTranslationMiddleware(_nowhere).dispatch,
                    NodeAuthMiddleware(_nowhere).dispatch,
                ),
            ),
        ],
    )
    app.state.linkstate_factory = _Shared(state)
    app.state.enable_supernode_auth = True
    selected = APIRouter(route_class=ProtobufRoute)
    selected.routes.extend(route for route in fleet_router.routes if getattr(route, "path", "") in PATHS)
    app.include_router(selected, dependencies=[Depends(speaks_for_itself)])
    return app


async def _nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """What Flower's middlewares are told stands behind them. Only their `dispatch` is used, which does not look."""


def speaks_for_itself(request: Request) -> None:
    """Let a node send replies of its own only: Flower's signature is not compared with the sender that they name."""
    asked = getattr(request.state, "protobuf_request", None)
    if isinstance(asked, PushMessagesRequest) and any(
        message.metadata.src_node_id != asked.node.node_id for message in asked.messages_list
    ):
        raise HTTPException(status.HTTP_403_FORBIDDEN, "a reply in another node's name")


@dataclass(frozen=True, slots=True)
class _Shared:
    """What Flower asks for its state."""

    value: LinkState

    def state(self) -> LinkState:
        return self.value
