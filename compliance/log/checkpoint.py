"""Checkpoints of C2SP (c2sp.org/tlog-checkpoint) without extension lines, their cosignatures, and the names of logs."""

from dataclasses import dataclass
from urllib.parse import quote

from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import (
    MAX_TIME,
    TIME_LENGTH,
    Algorithm,
    Note,
    Signature,
    VerifierKey,
    cosigned_message,
    from_base64,
    is_key_name,
    parse_note,
    sign,
    to_base64,
)
from fedseal.errors import LocalError
from fedseal.merkle import HASH_LENGTH
from fedseal.privacy.secagg.keys import SigningKey

MAX_SIZE = 2**63 - 1

# What the other messages begin with that a party signs with the same key. A checkpoint begins with its origin.
RESERVED = ("DSSEv1 ", "cosignature/v1\n", "subtree/v1\n", "fedseal/sa1/")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of the log ``origin`` at ``size`` leaves. ``str()`` gives the text that is signed."""

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        if not is_origin(self.origin):
            raise ValueError("no origin of a log")
        if not 0 <= self.size <= MAX_SIZE or len(self.root) != HASH_LENGTH:
            raise ValueError("no size, or no root, of a log")

    def __str__(self) -> str:
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n"


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness: the name under which its cosignatures stand, and its key."""

    name: str
    key: SigningKey

    @property
    def vkey(self) -> VerifierKey:
        """What its cosignatures are verified with."""
        return witness_key(self.name, self.key.public)


def is_origin(text: str) -> bool:
    """Whether a log may be called so: a key's name, and no beginning of another message that is signed."""
    return is_key_name(text) and not f"{text}\n".startswith(RESERVED)


def server_origin(federation: str) -> str:
    """The name of the log that a federation's server keeps."""
    return f"{_component(federation)}/server"


def site_origin(federation: str, site: str) -> str:
    """The name of the log that a site keeps, and of the site as a witness."""
    return f"{_component(federation)}/site/{_component(site)}"


def log_key(origin: str, public: bytes) -> VerifierKey:
    """What the checkpoints of the log ``origin`` are verified with."""
    return VerifierKey(origin, Algorithm.ED25519, public)


def witness_key(name: str, public: bytes) -> VerifierKey:
    """What the cosignatures of the witness ``name`` are verified with."""
    return VerifierKey(name, Algorithm.COSIGNATURE, public)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint whose text this is: exactly three lines.

    Raises:
        MalformedError: it is none, or has extension lines.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedError("a checkpoint has three lines")
    try:
        return Checkpoint(lines[0], parse_decimal(lines[1]), from_base64(lines[2]))
    except ValueError:
        raise MalformedError("a checkpoint that cannot be read") from None


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> Note:
    """The note with the log's own signature."""
    text = str(checkpoint)
    return Note(text, (sign(text, checkpoint.origin, key),))


def cosign(checkpoint: Checkpoint, cosigner: Cosigner, time: int) -> Signature:
    """A witness' cosignature/v1 at ``time``, in seconds since 1970.

    It says: this is the largest consistent state of that log which the witness has seen.
    """
    if not 0 <= time <= MAX_TIME:
        raise LocalError("a time before 1970 or beyond 63 bits")
    value = cosigner.key.sign(cosigned_message(str(checkpoint), time))
    return Signature(cosigner.name, cosigner.vkey.identifier, time.to_bytes(TIME_LENGTH, "big") + value)


def read_checkpoint(note: str | bytes) -> tuple[Checkpoint, Note]:
    """A signed checkpoint, taken apart and not verified.

    Raises:
        MalformedError: it is none.
    """
    found = parse_note(note)
    return parse_checkpoint(found.text), found


def parse_decimal(text: str) -> int:
    """An ASCII decimal without leading zeroes, of at most 63 bits.

    Raises:
        MalformedError: it is none.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or (text[0] == "0" and text != "0"):
        raise MalformedError("not a decimal number")
    number = int(text)
    if number > MAX_SIZE:
        raise MalformedError("a number beyond 63 bits")
    return number


def _component(name: str) -> str:
    """``name`` with everything percent-encoded that names of keys or parts of a path cannot hold."""
    if not name:
        raise LocalError("a log's name needs the name of a federation or a site")
    return quote(name, safe="", errors="strict")
