"""One exchange with some nodes: push, poll, and stop at the deadline. A missing reply is a dropout, not a hang."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedseal.operation.events import NodeFailed
from fedseal.operation.logs import say
from fedseal.privacy.npy import from_npy
from fedseal.privacy.secagg.masks import RingVector, ring_dtype

CONTROL = "fedseal"
BYTES = "message"
VECTOR = "vector"
LOG = "log"

log = logging.getLogger(__name__)

FASTEST_POLL = 0.02
SLOWEST_POLL = 0.2


@dataclass(slots=True)
class Traffic:
    """Bytes and seconds of one stage, seen from the server.

    Array bytes are those of the payload, without Flower's framing.
    """

    down: int = 0
    up: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """What one node is sent: control bytes, at MASK the strategy's own records, and what it is shown of the log."""

    control: bytes
    task: Mapping[str, ArrayRecord | ConfigRecord] = field(default_factory=dict)
    log: bytes | None = None


def exchange(
    grid: Grid,
    parcels: Mapping[int, Parcel],
    message_type: str,
    *,
    group: str,
    timeout: float,
    traffic: Traffic,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[int, Message]]:
    """Send to each node and yield the replies as they come, with the node that the transport says they are from.

    Args:
        grid: any Flower Grid.
        parcels: by node id.
        message_type: Flower's message type.
        group: Flower's group id; the round.
        timeout: seconds until whoever has not answered is given up.
        traffic: counts bytes and seconds.
        clock, sleep: replaced in tests.
    """
    start = clock()
    messages = [_message(node, parcel, message_type, group, traffic) for node, parcel in parcels.items()]
    # A dictionary keeps the order in which the nodes were asked; a set of strings has another one in every process.
    open_ids = dict.fromkeys(grid.push_messages(messages))
    pause = FASTEST_POLL
    while open_ids:
        arrived = 0
        for reply in grid.pull_messages(list(open_ids)):
            if reply.metadata.reply_to_message_id not in open_ids:
                continue
            del open_ids[reply.metadata.reply_to_message_id]
            arrived += 1
            if reply.has_content():
                traffic.up += _size(reply.content)
                yield reply.metadata.src_node_id, reply
            else:
                # Not its reason, which may quote what a site's code said.
                say(log, NodeFailed(reply.metadata.src_node_id, reply.error.code))
        if not open_ids or clock() - start >= timeout:
            break
        if not arrived:
            sleep(min(pause, max(timeout - (clock() - start), 0.0)))
            pause = min(2 * pause, SLOWEST_POLL)
    traffic.seconds += clock() - start


def _message(node: int, parcel: Parcel, message_type: str, group: str, traffic: Traffic) -> Message:
    content = RecordDict(dict(parcel.task))
    content[CONTROL] = ConfigRecord(
        {BYTES: parcel.control} if parcel.log is None else {BYTES: parcel.control, LOG: parcel.log}
    )
    traffic.down += _size(content)
    return Message(content, dst_node_id=node, message_type=message_type, group_id=group)


def _size(content: RecordDict) -> int:
    return arrays_size(content) + sum(len(_bytes(content, name) or b"") for name in (BYTES, LOG))


def arrays_size(records: Mapping[str, Any]) -> int:
    """The bytes of the arrays among some records."""
    return sum(len(a.data) for record in records.values() if isinstance(record, ArrayRecord) for a in record.values())


def _bytes(content: RecordDict, name: str) -> bytes | None:
    # Not by `config_records`: Flower's views of a RecordDict refer to it and it to them, and a server would hold the
    # vectors of a whole round until Python looks for such circles.
    record = content.get(CONTROL)
    raw = record.get(name) if isinstance(record, ConfigRecord) else None
    return raw if isinstance(raw, bytes) else None


def control_of(reply: Message) -> bytes | None:
    """The control bytes of a reply; None if it has none."""
    return _bytes(reply.content, BYTES)


def log_of(reply: Message) -> bytes | None:
    """What a reply says about the log; None if it says nothing."""
    return _bytes(reply.content, LOG)


def vector_of(reply: Message) -> RingVector | None:
    """The masked vector of a reply; None if it does not carry exactly one flat array of the right kind."""
    record = reply.content.get(VECTOR)
    if not isinstance(record, ArrayRecord) or set(record) != {VECTOR}:
        return None
    array: Array = record[VECTOR]
    if array.dtype not in ("uint32", "uint64") or len(array.shape) != 1 or array.stype != "numpy.ndarray":
        return None
    # Read where they are; Flower's way copies them, but reads what another numpy writes.
    if (found := from_npy(array.data, ring_dtype(32 if array.dtype == "uint32" else 64), array.shape[0])) is not None:
        return found
    try:
        return array.numpy()
    except (ValueError, OSError, EOFError):
        return None
