"""Signed notes, checkpoints and cosignatures: C2SP signed-note, tlog-checkpoint, tlog-cosignature.

Only what fedseal's logs use: Ed25519 by the log (0x01) and timestamped Ed25519 by witnesses (0x04).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedseal_verify.errors import MalformedError
from fedseal_verify.merkle import EMPTY_ROOT, HASH_LENGTH

LOG = 0x01
WITNESS = 0x04
MAX_NOTE_BYTES = 1 << 20
MAX_SIGNATURES = 1024
KEY_LENGTH = 32
SIGNATURE_LENGTH = 64
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_HEX8 = re.compile(r"[0-9a-f]{8}")


def strict_base64(text: str, what: str) -> bytes:
    """Standard base64 in its one canonical spelling.

    Raises:
        MalformedError: anything else, also with stray bits in the last character.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError(f"{what} is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise MalformedError(f"{what} is not base64 in its canonical spelling")
    return data


def decimal(text: str, what: str) -> int:
    """A number below 2**63 without sign or leading zeros."""
    if not _DECIMAL.fullmatch(text) or int(text) >= 1 << 63:
        raise MalformedError(f"{what} is not a decimal number without leading zeros below 2^63")
    return int(text)


@dataclass(frozen=True)
class Key:
    """A verifier key (vkey) of a log or a witness."""

    name: str
    algorithm: int
    public: bytes

    @cached_property
    def key_id(self) -> bytes:
        """``SHA-256(name || 0x0A || algorithm || public key)[:4]`` (signed-note, "Signatures")."""
        coded = self.name.encode("utf-8", "surrogateescape")
        return hashlib.sha256(coded + b"\n" + bytes([self.algorithm]) + self.public).digest()[:4]

    @cached_property
    def event_id(self) -> str:
        """What events call this key: the first 8 hex digits of ``SHA-256(public key)``."""
        return hashlib.sha256(self.public).hexdigest()[:8]

    @cached_property
    def _ed25519(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.public)

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether ``signature`` is this key's Ed25519 signature of ``message``."""
        try:
            self._ed25519.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


def parse_vkey(text: str) -> Key:
    """``name+hex(key id)+base64(algorithm || public key)``, algorithm 0x01 or 0x04.

    Raises:
        MalformedError: another form, another algorithm, or a key id that is not this key's.
    """
    name, _, rest = text.partition("+")
    hex_id, _, coded = rest.partition("+")
    if not _is_key_name(name) or not _HEX8.fullmatch(hex_id):
        raise MalformedError("a key is not of the form name+keyid+base64")
    data = strict_base64(coded, f"the key of {name}")
    if len(data) != 1 + KEY_LENGTH or data[0] not in (LOG, WITNESS):
        raise MalformedError(f"the key of {name} is neither Ed25519 (0x01) nor an Ed25519 cosignature key (0x04)")
    key = Key(name, data[0], data[1:])
    if key.key_id.hex() != hex_id:
        raise MalformedError(f"the key of {name} has key id {key.key_id.hex()}, not {hex_id} as written")
    return key


@dataclass(frozen=True)
class Signature:
    """One signature line of a note."""

    name: str
    key_id: bytes
    data: bytes

    def is_by(self, key: Key) -> bool:
        """Whether the line names this key. It says nothing of the signature."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True)
class Checkpoint:
    """A signed note that holds a checkpoint: what a log said of itself, and who signed it."""

    text: bytes
    origin: str
    size: int
    root: bytes
    signatures: tuple[Signature, ...]

    @property
    def note(self) -> str:
        """The note again, as it was read."""
        lines = [f"— {s.name} {base64.b64encode(s.key_id + s.data).decode()}\n" for s in self.signatures]
        return self.text.decode() + "\n" + "".join(lines)


def parse_checkpoint(data: bytes) -> Checkpoint:
    """Read a signed note of three lines: origin, size, root.

    Raises:
        MalformedError: with the rule of signed-note or tlog-checkpoint that is broken.
    """
    text, signatures = _parse_note(data)
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise MalformedError("a checkpoint has exactly three lines: origin, size, root")
    if not lines[0]:
        raise MalformedError("the checkpoint has no origin")
    size = decimal(lines[1], "the checkpoint's size")
    root = strict_base64(lines[2], "the checkpoint's root")
    if len(root) != HASH_LENGTH:
        raise MalformedError("the checkpoint's root is not 32 bytes")
    if size == 0 and root != EMPTY_ROOT:
        raise MalformedError("the checkpoint gives the empty log a root that is not SHA-256 of nothing")
    return Checkpoint(text.encode(), lines[0], size, root, signatures)


def _parse_note(data: bytes) -> tuple[str, tuple[Signature, ...]]:
    if len(data) > MAX_NOTE_BYTES:
        raise MalformedError("the note is larger than 1 MiB")
    try:
        note = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("the note is not UTF-8") from None
    if any(character < " " and character != "\n" for character in note):
        raise MalformedError("the note holds control characters")
    # The text may hold blank lines itself: the last one divides (signed-note, "Format").
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise MalformedError("the note has no blank line before its signatures, or does not end with a newline")
    text, lines = note[: at + 1], note[at + 2 : -1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise MalformedError(f"the note has more than {MAX_SIGNATURES} signatures")
    return text, tuple(_parse_signature(line) for line in lines)


def _parse_signature(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, coded = rest.partition(" ")
    if dash != "—" or not _is_key_name(name):
        raise MalformedError("a signature line is not of the form: em dash, key name, base64")
    data = strict_base64(coded, f"the signature of {name}")
    if len(data) < 5:
        raise MalformedError(f"the signature of {name} is too short")
    return Signature(name, data[:4], data[4:])


def _is_key_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(character.isspace() for character in name)


def log_signature_holds(checkpoint: Checkpoint, keys: Sequence[Key]) -> bool:
    """Whether the log signed this checkpoint with one of its keys; every line in their names has to hold.

    A log has two keys while one succeeds the other.
    """
    own = [(key, each) for key in keys for each in checkpoint.signatures if each.is_by(key)]
    return bool(own) and all(key.verifies(each.data, checkpoint.text) for key, each in own)


def cosigned_at(checkpoint: Checkpoint, key: Key) -> int | None:
    """The time (Unix seconds) at which a witness says it cosigned; None when it did not.

    Raises:
        MalformedError: a line in the witness's name does not verify.
    """
    times = [_cosignature_time(checkpoint.text, each, key) for each in checkpoint.signatures if each.is_by(key)]
    return max(times, default=None)


def _cosignature_time(text: bytes, signature: Signature, key: Key) -> int:
    if len(signature.data) != 8 + SIGNATURE_LENGTH:
        raise MalformedError("it has not the length of a timestamped Ed25519 cosignature")
    time = int.from_bytes(signature.data[:8], "big")
    if not cosignature_holds(text, time, signature.data[8:], key):
        raise MalformedError("it does not verify")
    return time


def cosignature_holds(text: bytes, time: int, signature: bytes, key: Key) -> bool:
    """Whether ``signature`` is over ``cosignature/v1``, the time and the checkpoint's text (tlog-cosignature)."""
    return key.verifies(signature, b"cosignature/v1\ntime %d\n" % time + text)


def strangers(checkpoint: Checkpoint, keys: Iterable[Key]) -> int:
    """How many signature lines are by none of ``keys``; they prove nothing and are left aside."""
    known = list(keys)
    return sum(not any(each.is_by(key) for key in known) for each in checkpoint.signatures)
