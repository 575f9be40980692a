"""Between Flower's records and ours.

What leaves a site is built here and nowhere else: control bytes, and one flat integer array.
"""

import copy
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedseal.errors import PeerError
from fedseal.inputs import input_digest
from fedseal.privacy.secagg.masks import RingVector

CONTROL = "fedseal"
BYTES = "message"
VECTOR = "vector"


def control_bytes(message: Message) -> bytes:
    """The control bytes of a request; PeerError if it has none: an unsealed message."""
    record = message.content.config_records.get(CONTROL)
    raw = None if record is None else record.get(BYTES)
    if not isinstance(raw, bytes):
        raise PeerError("a message without fedseal's control record", peer="server")
    return raw


def sealed_reply(message: Message, control: bytes, vector: RingVector | None = None) -> Message:
    """The one form of everything that leaves a site."""
    content = RecordDict({CONTROL: ConfigRecord({BYTES: control})})
    if vector is not None:
        content[VECTOR] = ArrayRecord({VECTOR: Array(vector)})
    return Message(content, reply_to=message)


def arrays_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """An ArrayRecord as numpy arrays, in its order."""
    return {name: array.numpy() for name, array in record.items()}


def received_digest(message: Message) -> bytes:
    """The digest of all that came beside the control record."""
    arrays = {name: arrays_of(record) for name, record in message.content.array_records.items()}
    settings = {name: dict(record) for name, record in message.content.config_records.items() if name != CONTROL}
    return input_digest(arrays, settings)


def for_the_app(message: Message, facts: ConfigRecord) -> Message:
    """The request as the app's own function gets it: without our control bytes, with the facts of the release."""
    content = RecordDict({name: record for name, record in message.content.items() if name != CONTROL})
    content[CONTROL] = facts
    inner = copy.copy(message)
    inner.content = content
    return inner
