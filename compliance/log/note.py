"""Signed notes of C2SP (c2sp.org/signed-note): text, an empty line, and signature lines that name their keys.

Two types of signature are known: Ed25519 over the text (0x01), and a witness' cosignature/v1 with its time (0x04,
c2sp.org/tlog-cosignature). A party has one Ed25519 key for both; see docs/decisions/0023.
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from fedseal.compliance.log.malformed import MalformedError
from fedseal.errors import FedsealError
from fedseal.privacy.secagg.keys import KEY_LENGTH, SigningKey, verify

MAX_NOTE = 1 << 20
ID_LENGTH = 4
SIGNATURE_LENGTH = 64
TIME_LENGTH = 8
MAX_TIME = 2**63 - 1


class SignatureError(FedsealError):
    """A signature by a known key does not hold, or no known key has signed."""


class Algorithm(IntEnum):
    """The signature types that are known, by the byte that stands in a key's identifier."""

    ED25519 = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key under a name: what C2SP calls a vkey. ``str()`` gives its text."""

    name: str
    algorithm: Algorithm
    public: bytes

    def __post_init__(self) -> None:
        if not is_key_name(self.name) or len(self.public) != KEY_LENGTH:
            raise ValueError("no name, or no key, of a signed note")

    @property
    def identifier(self) -> bytes:
        """``SHA-256(name || 0x0A || algorithm || public key)[:4]``."""
        named = self.name.encode("utf-8") + b"\n"
        return hashlib.sha256(named + bytes([self.algorithm]) + self.public).digest()[:ID_LENGTH]

    def __str__(self) -> str:
        return f"{self.name}+{self.identifier.hex()}+{to_base64(bytes([self.algorithm]) + self.public)}"


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: the key's name and identifier, and what they signed with."""

    name: str
    identifier: bytes
    value: bytes

    @property
    def line(self) -> str:
        """The line without its newline."""
        return f"\u2014 {self.name} {to_base64(self.identifier + self.value)}"

    @property
    def time(self) -> int:
        """Of a cosignature: the seconds since 1970 at which its witness says it was made.

        Raises:
            MalformedError: it is no cosignature/v1.
        """
        if len(self.value) != TIME_LENGTH + SIGNATURE_LENGTH:
            raise MalformedError("a signature without a time")
        return int.from_bytes(self.value[:TIME_LENGTH], "big")

    def is_by(self, key: VerifierKey) -> bool:
        """Whether the line claims to be by ``key``."""
        return self.name == key.name and self.identifier == key.identifier


@dataclass(frozen=True, slots=True)
class Note:
    """``text`` ends in a newline; there is at least one signature. ``str()`` gives the whole note."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(signature.line + "\n" for signature in self.signatures)


def is_key_name(name: str) -> bool:
    """Whether keys may be called so: not empty, no space of any kind, no plus, no control character."""
    return bool(name) and not any(c.isspace() or c == "+" or c < " " or "\ud800" <= c <= "\udfff" for c in name)


def parse_vkey(text: str) -> VerifierKey:
    """The key that ``name+identifier+base64`` stands for.

    Raises:
        MalformedError: it does not parse, is of an unknown type, or its identifier is another key's.
    """
    name, _, rest = text.partition("+")
    identifier, _, encoded = rest.partition("+")
    raw = from_base64(encoded)
    try:
        key = VerifierKey(name, Algorithm(raw[0]), raw[1:])
    except (IndexError, ValueError):
        raise MalformedError("a verifier key that cannot be read") from None
    if identifier != key.identifier.hex():
        raise MalformedError("a verifier key whose identifier is not its own")
    return key


def parse_note(raw: str | bytes) -> Note:
    """Take a signed note apart. Nothing is verified.

    Raises:
        MalformedError: it is none.
    """
    text, signatures = _halves(_readable(raw))
    lines = signatures.removesuffix("\n").split("\n")
    return Note(text, tuple(parse_signature(line) for line in lines))


def parse_signature(line: str) -> Signature:
    """The signature in a line, which may end in its newline.

    Raises:
        MalformedError: it is none.
    """
    dash, _, rest = line.removesuffix("\n").partition(" ")
    name, _, encoded = rest.partition(" ")
    if dash != "\u2014" or not is_key_name(name):
        raise MalformedError("a signature line that cannot be read")
    raw = from_base64(encoded)
    if len(raw) <= ID_LENGTH:
        raise MalformedError("a signature line without a signature")
    return Signature(name, raw[:ID_LENGTH], raw[ID_LENGTH:])


def sign(text: str, name: str, key: SigningKey) -> Signature:
    """Sign ``text``, which ends in a newline, as ``name``."""
    return Signature(name, VerifierKey(name, Algorithm.ED25519, key.public).identifier, key.sign(text.encode("utf-8")))


def cosigned_message(text: str, time: int) -> bytes:
    """What a witness signs at ``time``: two lines, and the checkpoint's text."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def holds(signature: Signature, text: str, key: VerifierKey) -> bool:
    """Whether ``signature`` is ``key``'s over ``text``."""
    if not signature.is_by(key):
        return False
    if key.algorithm is Algorithm.ED25519:
        return verify(key.public, signature.value, text.encode("utf-8"))
    if len(signature.value) != TIME_LENGTH + SIGNATURE_LENGTH or signature.time > MAX_TIME:
        return False
    return verify(key.public, signature.value[TIME_LENGTH:], cosigned_message(text, signature.time))


def signers(note: Note, keys: Iterable[VerifierKey]) -> tuple[VerifierKey, ...]:
    """Those of ``keys`` that have signed ``note``. Lines of other keys are ignored.

    Raises:
        SignatureError: a line by one of the keys does not hold: then the whole note is refused.
    """
    by_key: dict[tuple[str, bytes], list[Signature]] = {}
    for signature in note.signatures:
        by_key.setdefault((signature.name, signature.identifier), []).append(signature)
    found = []
    for key in keys:
        lines = by_key.get((key.name, key.identifier), [])
        if not all(holds(signature, note.text, key) for signature in lines):
            raise SignatureError(f"the signature of {key.name} does not hold")
        if lines:
            found.append(key)
    return tuple(found)


def to_base64(raw: bytes) -> str:
    """RFC 4648, section 4."""
    return base64.b64encode(raw).decode("ascii")


def from_base64(text: str) -> bytes:
    """Its inverse, which reads no other spelling.

    Raises:
        MalformedError: it is not base64 as `to_base64` writes it.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("not base64") from None
    if to_base64(raw) != text:
        raise MalformedError("base64, but not in its one form")
    return raw


def _readable(raw: str | bytes) -> str:
    if len(raw) > MAX_NOTE:
        raise MalformedError("a note that is too long")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        text.encode("utf-8")
    except UnicodeError:
        raise MalformedError("a note that is not UTF-8") from None
    if any(c < " " and c != "\n" for c in text):
        raise MalformedError("a note with a control character")
    return text


def _halves(note: str) -> tuple[str, str]:
    """Text and signature lines; the last empty line is between them."""
    place = note.rfind("\n\n")
    text, signatures = note[: place + 1], note[place + 2 :]
    if place < 0 or not signatures.endswith("\n"):
        raise MalformedError("a note without signatures")
    return text, signatures
