"""Flower's Fleet API as a resident site speaks it: the one file of this side that knows Flower's internals.

What is used of Flower 1.41 that is not its public interface: the Fleet client and its protobuf messages, the three
headers by which a node signs itself in, and the way a message is taken apart into objects that are named by their
content. `tests/client/test_fleet.py` makes a real exchange with it, so that a release of Flower that moves any of this
is seen there.

Flower's own connection is not used: on a 401 it interrupts the process it runs in, and it sleeps between retries.
"""

import contextlib
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Protocol, TypeVar, cast

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Error, Message
from flwr.app.message.message import remove_content_from_message
from flwr.app.user_config import UserConfig
from flwr.common.constant import TIMESTAMP_HEADER, ErrorCode
from flwr.common.serde import message_from_proto, message_to_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors.http.utils import add_headers
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_client import FleetHttpClient
from google.protobuf.message import DecodeError

# Seconds. A server that hears nothing for twice this interval counts the node as gone.
HEARTBEAT_INTERVAL = 30.0
CALL_TIMEOUT = 60.0
OBJECT_TIMEOUT = 120.0
FASTEST_RETRY, SLOWEST_RETRY = 0.01, 0.5
# A message has five objects and one more for every 5 MB; a server works at one at a time.
PARALLEL = 4
# What of a clock's difference is not worth correcting; Flower's servers accept 300 seconds.
CLOCK_TOLERANCE = timedelta(seconds=60)

Q_contra = TypeVar("Q_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)


class FleetError(Exception):
    """A call has failed; what is to be done depends on the class. Never leaves the site."""


class UnreachableError(FleetError):
    """Nobody answered, or the server could not: the same call may succeed later."""


class NotAdmittedError(FleetError):
    """The server does not know the key, or not as the node it was: join again.

    Args:
        message: what the server made of it.
        date: what time it is at the server, as HTTP says it.
    """

    def __init__(self, message: str, date: str | None = None) -> None:
        super().__init__(message)
        self.date = date


class DeclinedError(FleetError):
    """The server will not have this call, whenever it comes: the run is over, or the message no longer wanted."""


class Call(Protocol[Q_contra, R_co]):
    """One method of Flower's client."""

    def __call__(self, request: Q_contra, /) -> R_co: ...


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What the server says of a run: unsigned, so nothing is believed of it that a round's header does not bind."""

    config: UserConfig
    series: int


class Fleet:
    """One site's connection to a SuperLink. Safe to use from the thread that serves and the one that sends heartbeats.

    Args:
        address: the SuperLink's, as host:port.
        trust: which servers are believed; verifies names and certificates.
        key: the node's private key, registered at the SuperLink.
    """

    def __init__(self, address: str, trust: SSLContext, key: ec.EllipticCurvePrivateKey) -> None:
        self._signature = _Signature(key)
        self._client = FleetHttpClient(
            f"https://{address}", interceptors=[self._signature], verify=trust, timeout=CALL_TIMEOUT
        )
        self._pool = ThreadPoolExecutor(PARALLEL, thread_name_prefix="fleet")
        self._public_key = public_key_to_bytes(key.public_key())
        self._node = Node()

    @property
    def ahead(self) -> timedelta:
        """How far the server's clock is ahead of this machine's, where that is too far to sign by this one."""
        return self._signature.ahead

    @property
    def node(self) -> int:
        """The node's number at the server; 0 before it has joined."""
        return self._node.node_id

    def join(self, before: int = 0) -> int:
        """Tell the server that this node is there, and learn its number.

        Args:
            before: the number it had in a process that has ended without leaving. A stock SuperLink lets it in again
                only after a minute, unless it is told that the old one has left.

        Raises:
            NotAdmittedError, UnreachableError: it is not in.
        """
        request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_INTERVAL)
        try:
            response = self._call(self._client.ActivateNode, request)
        except DeclinedError:
            self._withdraw(before)
            try:
                response = self._call(self._client.ActivateNode, request)
            except DeclinedError as error:
                raise NotAdmittedError(f"the server does not let this node's key in: {error}") from None
        self._node = Node(node_id=response.node_id)
        return self.node

    def leave(self) -> None:
        """Tell the server that this node is going, if it can be told, and close the connection."""
        self._withdraw(self.node)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def beat(self) -> bool:
        """Say that the node is alive; whether the server knows it."""
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_INTERVAL)
        return bool(self._call(self._client.SendNodeHeartbeat, request).success)

    def next(self) -> Message | None:
        """The next message for this node, with all it carries; None if there is none now.

        Raises:
            DeclinedError: there was one, and it is no longer to be had.
        """
        response = self._call(self._client.PullMessages, PullMessagesRequest(node=self._node))
        if not response.messages_list:
            return None
        head = message_from_proto(response.messages_list[0])
        run, number = head.metadata.run_id, head.metadata.message_id
        names = [node.object_id for node in iterate_object_tree(cast(ObjectTree, response.message_object_trees[0]))]
        contents = dict(zip(names, self._pool.map(lambda name: self._pull(run, name), names), strict=True))
        return inflated(number, contents)

    def run(self, run: int) -> RunRecord:
        """What the server says of a run; DeclinedError if it is over."""
        response = self._call(self._client.GetRun, GetRunRequest(node=self._node, run_id=run))
        found = run_from_proto(response.run)
        return RunRecord(found.override_config, found.series_id)

    def answer(self, message: Message, reply: Message) -> None:
        """Send the reply to a message, then tell the server that the message may be forgotten.

        In this order, so that a server of ours can give the message out again if this process does not live that long.
        A reply that is sent twice is the same object twice: nothing in it depends on when it was made.

        Flower's nodes also say how long their app took. That is a number of one site, and is left out.

        Raises:
            DeclinedError: it is no longer wanted.
        """
        # By the server's clock, which made the message: this site's may have been set in between.
        reply.metadata.created_at, reply.metadata.ttl = message.metadata.created_at, message.metadata.ttl
        run = message.metadata.run_id
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            contents = {name: found.deflate() for name, found in objects.items()}
        response = self._call(self._client.PushMessages, request)
        wanted = [name for name in contents if name in set(response.objects_to_push)]
        list(self._pool.map(lambda name: self._push(run, response.session_id, name, contents[name]), wanted))
        received = ConfirmMessageReceivedRequest(
            node=self._node, run_id=run, message_object_id=message.metadata.message_id
        )
        # What it is told it may know already, with the run over.
        with contextlib.suppress(FleetError):
            self._call(self._client.ConfirmMessageReceived, received)

    def _pull(self, run: int, name: str) -> bytes:
        """An object; waits for one that is announced and not there yet."""
        end, pause = time.monotonic() + OBJECT_TIMEOUT, FASTEST_RETRY
        while time.monotonic() < end:
            request = PullObjectRequest(node=self._node, run_id=run, object_id=name)
            response = self._call(self._client.PullObject, request)
            if not response.object_found:
                break
            if response.object_available:
                return response.object_content
            time.sleep(pause)
            pause = min(2 * pause, SLOWEST_RETRY)
        raise DeclinedError("an object of the message is not there")

    def _push(self, run: int, session: str, name: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=self._node, run_id=run, object_id=name, object_content=content, session_id=session
        )
        if not self._call(self._client.PushObject, request).stored:
            raise DeclinedError("the server did not take an object")

    def _withdraw(self, node: int) -> None:
        if node:
            try:
                self._call(self._client.DeactivateNode, DeactivateNodeRequest(node_id=node))
            except FleetError:
                return

    def _call(self, method: Call[Q_contra, R_co], request: Q_contra) -> R_co:
        ahead = self._signature.ahead
        try:
            return self._once(method, request)
        except NotAdmittedError as error:
            # Wrongly dated, as far as the server is concerned: once more by the server's clock, also if it was another
            # call at the same time that has learned of it.
            if self._signature.believe(error.date) or self._signature.ahead != ahead:
                return self._once(method, request)
            raise

    def _once(self, method: Call[Q_contra, R_co], request: Q_contra) -> R_co:
        try:
            return method(request)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == httpx.codes.UNAUTHORIZED:
                raise NotAdmittedError(
                    "the server does not accept this node's key, number or clock", error.response.headers.get("date")
                ) from None
            if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.TOO_MANY_REQUESTS:
                raise UnreachableError(f"the server answers with {status}") from None
            raise DeclinedError(f"the server answers with {status}") from None
        except httpx.HTTPError as error:
            raise UnreachableError(f"no connection: {error}") from None
        # Flower's client raises it for an answer that is not protobuf: a proxy's page, perhaps.
        except ValueError:
            raise UnreachableError("the server's answer cannot be read") from None


class _Signature:
    """Flower's node authentication: the time, signed, and the public key; and which Flower this is.

    Args:
        key: the node's.
        now: replaced in tests.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, now: Callable[[], datetime] | None = None) -> None:
        self._key = key
        self._now = now or (lambda: datetime.now(UTC))
        self._ahead = timedelta()
        self._lock = threading.Lock()
        self._fixed = {
            FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes(key.public_key())).decode("ascii"),
            **dict(RuntimeVersionMetadata.from_local_component("SuperNode").as_metadata()),
        }

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Sign one request."""
        stamp = (self._now() + self._ahead).isoformat()
        signature = b64encode(sign_message(self._key, stamp.encode("ascii"))).decode("ascii")
        headers = {**self._fixed, TIMESTAMP_HEADER: stamp, FLEET_HTTP_SIGNATURE_HEADER: signature}
        add_headers(context.request, headers)
        return call_next(context)

    def believe(self, date: str | None) -> bool:
        """Date signatures by the server's clock if this machine's is far from it; whether that changed anything.

        Only the server checks the date, over a connection that has proved to be its own.
        """
        try:
            server = None if date is None else parsedate_to_datetime(date)
        except ValueError:
            server = None
        if server is None:
            return False
        with self._lock:
            ahead = server - self._now()
            if abs(ahead - self._ahead) < CLOCK_TOLERANCE:
                return False
            self._ahead = ahead
        return True

    @property
    def ahead(self) -> timedelta:
        """How far the server's clock is ahead of this machine's; zero where it is not far."""
        return self._ahead


def inflated(number: str, contents: dict[str, bytes]) -> Message:
    """A message from its objects, which a server has sent.

    Args:
        number: the message's, which is the name of its head.
        contents: all objects by name; emptied.

    Raises:
        DeclinedError: they are no message.
    """
    try:
        message = inflate_object_from_contents(number, contents)
    # What Flower's objects and protobuf raise for bytes that are none of theirs.
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
        DecodeError,
    ):
        message = None
    if not isinstance(message, Message):
        raise DeclinedError("an object that is no message")
    message.metadata.__dict__["_message_id"] = number
    return message


def identify(run: int, node: int) -> None:
    """Say to Flower which run this process works for; it keeps that in a class, and makes messages by it."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, node, 1


def refusal(message: Message, reason: str) -> Message:
    """A reply that says that the site's own code was not run, in fixed words."""
    return Message(Error(ErrorCode.INVALID_FAB, reason), reply_to=message)
