"""The walker of everything that leaves a site: two doors, no third.

Allowed is one ConfigRecord with one byte string that decodes to a message of the protocol, and perhaps one more with a
cosignature and signed events of the closed schema; and at MASK one ArrayRecord with one flat integer array.
"""

from typing import Any

from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.registry import Author, Book
from fedseal.compliance.journal.attachment import LogReply
from fedseal.compliance.log.note import parse_signature
from fedseal.errors import FedsealError
from fedseal.privacy.runs import ControlMessage, Introduction, RunClosed
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    Masked,
    Openings,
    Refusal,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
)
from fedseal.wire import DecodeError, decode, encode

OUTER: tuple[Any, ...] = (Signed, ShareReply, Refusal, ControlMessage)
PAYLOADS: dict[Stage, Any] = {
    Stage.ADVERTISE: Advertisement,
    Stage.SHARE: ShareHead,
    Stage.MASK: Masked,
    Stage.CONSISTENCY: Confirmation,
    Stage.UNMASK: Openings,
}


class Leak(AssertionError):  # noqa: N818
    """Something left a site that has no door."""


def walk(reply: Message) -> Any:
    """Check everything a reply carries; the decoded message.

    Raises:
        Leak: a record, key, type or byte that is not in the closed list.
    """
    if reply.has_error():
        raise Leak("a Flower error, whose text quotes the exception")
    content = reply.content
    if set(content.config_records) != {"fedseal"} or content.metric_records:
        raise Leak(f"records {sorted(content)}")
    if not {"message"} <= set(content["fedseal"]) <= {"message", "log"}:
        raise Leak("another key beside the control bytes")
    raw: Any = content["fedseal"]["message"]
    if "log" in content["fedseal"]:
        _check_log(content["fedseal"]["log"])
    try:
        message: Any = decode(raw, *OUTER)
        inner: Any = _inner(message)
    except DecodeError as error:
        raise Leak(f"bytes that are no message: {error.message}") from None
    vectors = list(content.array_records.values())
    if isinstance(inner, Masked) != bool(vectors):
        raise Leak("an array beside something else than a masked vector")
    if vectors:
        _check_vector(vectors)
    if encode(message) != raw:
        raise Leak("bytes that are not canonical")
    return message


def _check_log(raw: Any) -> None:
    """A cosignature line and events that a site may sign for the federation's log; nothing else, in the one form."""
    try:
        reply = decode(raw, LogReply)
        events = [read_event(leaf) for leaf in reply.events]
        line = None if not reply.cosignature else parse_signature(reply.cosignature.decode("utf-8"))
    except (FedsealError, UnicodeDecodeError) as error:
        raise Leak(f"a log reply that is none: {error}") from None
    if encode(reply) != raw or (line is not None and f"{line.line}\n".encode() != reply.cosignature):
        raise Leak("a log reply that is not canonical")
    for event in events:
        if Author.SITE not in event.kind.authors or Book.FEDERATION not in event.kind.books:
            raise Leak(f"an event {event.kind.name}")


def _inner(message: Any) -> Any:
    match message:
        case Signed():
            return decode(message.payload, PAYLOADS[Stage(message.stage)])
        case ShareReply():
            return decode(message.head.payload, ShareHead)
        case ControlMessage():
            kinds: tuple[Any, ...] = (Introduction, RunClosed)
            return decode(message.payload, *kinds)
    return message


def _check_vector(records: list[ArrayRecord]) -> None:
    (record,) = records
    if set(record) != {"vector"}:
        raise Leak(f"arrays {sorted(record)}")
    array = record["vector"]
    if array.dtype not in ("uint32", "uint64") or len(array.shape) != 1:
        raise Leak(f"an array of {array.dtype} with shape {array.shape}")


class Walker:
    """Delivers messages and walks every reply; keeps all bytes that left."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.bytes: list[bytes] = []
        self.events: list[str] = []
        self.said: list[bytes] = []

    def __call__(self, app: ClientApp, message: Message, context: Context) -> Message:
        reply = app(message, context)
        walked = walk(reply)
        self.kinds.add(type(walked).__name__)
        self.bytes.append(encode(walked))
        if isinstance(said := reply.content["fedseal"].get("log"), bytes):
            self.said.append(said)
            self.events += [read_event(leaf).kind.name for leaf in decode(said, LogReply).events]
        self.bytes += [a.data for r in reply.content.array_records.values() for a in r.values()]
        return reply

    def holds(self, needle: bytes) -> bool:
        return any(needle in raw for raw in (*self.bytes, *self.said))
