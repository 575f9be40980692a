"""Runs as a site sees them: bound by a signed HELLO, moving forward only, closed for good.

A site keeps, per run, the highest pair (release_seq, attempt) it has answered. A header at or below it is a replay
and is refused; a closed run never reopens; runs do not disturb each other. Pure: the site's store keeps what these
functions return.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from fedseal.errors import PeerError
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify
from fedseal.wire import U32, U64, Blob, Bytes16, Bytes32, Bytes64, Message, encode


@dataclass(frozen=True, slots=True)
class Hello:
    """The server asks a node who it is. ``nonce`` makes the answer fresh."""

    TAG: ClassVar[int] = 70

    run: Bytes16
    roster_hash: Bytes32
    node: U64
    nonce: Bytes32


@dataclass(frozen=True, slots=True)
class Introduction:
    """A site's answer: this Flower node is this site, in this run."""

    TAG: ClassVar[int] = 71

    run: Bytes16
    roster_hash: Bytes32
    node: U64
    nonce: Bytes32
    site: U32


@dataclass(frozen=True, slots=True)
class CloseRun:
    """The server ends a run: no further release of it will be asked for."""

    TAG: ClassVar[int] = 72

    run: Bytes16


@dataclass(frozen=True, slots=True)
class RunClosed:
    """A site's answer: it will not answer for this run again, and has taken back what it had reserved."""

    TAG: ClassVar[int] = 73

    run: Bytes16
    site: U32


@dataclass(frozen=True, slots=True)
class ControlMessage:
    """A run message with its author's signature."""

    TAG: ClassVar[int] = 74

    payload: Annotated[bytes, Blob(1024)]
    signature: Bytes64


def sign_control(message: Message, key: SigningKey) -> ControlMessage:
    """Sign a run message."""
    raw = encode(message)
    return ControlMessage(raw, key.sign(DOMAIN + b"run\x00" + raw))


def control_signed_by(message: ControlMessage, public_key: bytes) -> bool:
    """Whether the owner of ``public_key`` signed this."""
    return verify(public_key, message.signature, DOMAIN + b"run\x00" + message.payload)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Where a run stands at a site."""

    run: bytes
    release_seq: int = 0
    attempt: int = 0
    closed: bool = False


def admit(record: RunRecord, header: Header) -> RunRecord:
    """The run after answering ``header`` for the first time.

    Raises:
        PeerError: the run is closed, or the header is not newer than what was answered before.
    """
    if record.closed:
        raise PeerError(
            "a header for a run that is closed", peer="server", next_step="Start a new run; a closed one never reopens."
        )
    if (header.release_seq, header.attempt) <= (record.release_seq, record.attempt):
        raise PeerError(
            "a header at or behind one that was answered before",
            peer="server",
            next_step="A repeated round needs a new attempt number.",
        )
    return replace(record, release_seq=header.release_seq, attempt=header.attempt)
