"""What rides on the messages between server and site: new entries with a checkpoint one way, a cosignature and the
site's own signed events the other. One byte string beside the control bytes, never part of what a round signs.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedseal.errors import PeerError
from fedseal.wire import U16, U64, Blob, DecodeError, decode

# An entry's limit is tlog-tiles'; a message brings at most so many.
LARGEST_ENTRY = 1 << 14
MOST_ENTRIES = 2048
MOST_EVENTS = 256

# HTTP statuses, as C2SP's witnesses answer: cosigned; another size or root than asked for; no consistent history.
OK, CONFLICT, UNPROCESSABLE = 200, 409, 422

Entry = Annotated[bytes, Blob(LARGEST_ENTRY)]


@dataclass(frozen=True, slots=True)
class LogRequest:
    """The server asks a site to witness its log.

    ``body`` is that of C2SP's add-checkpoint: the size the site last cosigned, a consistency proof, a checkpoint.
    ``entries`` are the leaves between that size and the checkpoint's, for the site's mirror.
    """

    TAG: ClassVar[int] = 80

    body: Annotated[bytes, Blob(1 << 18)]
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if len(self.entries) > MOST_ENTRIES:
            raise ValueError("more entries than a message may bring")


@dataclass(frozen=True, slots=True)
class LogReply:
    """A site's answer: what its witness says (HTTP's status numbers, 0 where nothing was asked), the size it has
    cosigned, its cosignature line, and its events that it has not seen in the log yet.
    """

    TAG: ClassVar[int] = 81

    status: U16
    size: U64
    cosignature: Annotated[bytes, Blob(1024)]
    events: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if self.size >= 1 << 53 or len(self.events) > MOST_EVENTS:
            raise ValueError("a size that no log reaches, or more events than a message may bring")


def read_request(raw: bytes) -> LogRequest:
    """The request in an attachment; PeerError if there is none."""
    try:
        return decode(raw, LogRequest)
    except DecodeError as error:
        raise PeerError(f"log entries that cannot be read: {error.message}", peer="server") from None


def read_reply(raw: bytes, site: int) -> LogReply:
    """The reply in an attachment; PeerError if there is none."""
    try:
        return decode(raw, LogReply)
    except DecodeError as error:
        raise PeerError(f"a log reply that cannot be read: {error.message}", peer=f"site {site}") from None
