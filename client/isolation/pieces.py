"""Messages in pieces, and the names of the calls: what both sides of the socket have in common."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

from google.protobuf.wrappers_pb2 import BytesValue

from fedseal.wire import DecodeError

SERVICE = "fedseal.isolation.Study"
PIECE = 1 << 20
# With protobuf's own bytes.
LARGEST_PIECE = PIECE + 64
OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_PIECE),
    ("grpc.max_send_message_length", LARGEST_PIECE),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
)


class Call(StrEnum):
    """What may be asked of the study's process; see `isolation.proto`."""

    DESCRIBE = "Describe"
    LOAD = "Load"
    TRAIN = "Train"
    EVALUATE = "Evaluate"
    PAST = "Past"
    COMPARE = "Compare"


def cut(message: bytes) -> Iterator[BytesValue]:
    """A message in pieces, at least one."""
    for begin in range(0, max(len(message), 1), PIECE):
        yield BytesValue(value=message[begin : begin + PIECE])


def joined(pieces: Iterable[BytesValue], limit: int) -> bytes:
    """A message from its pieces; DecodeError as soon as it is longer than ``limit`` bytes."""
    found = bytearray()
    for piece in pieces:
        if len(found) + len(piece.value) > limit:
            raise DecodeError(f"more than the {limit} bytes that this call can need")
        found += piece.value
    return bytes(found)
