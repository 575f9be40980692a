"""Canonical, versioned encoding of frozen dataclasses: one value has one encoding, one encoding one value.

A field's type says how it is written::

    @dataclass(frozen=True, slots=True)
    class Opening:
        TAG: ClassVar[int] = 9
        dealer: U32
        salt: Bytes16
        entries: tuple[Entry, ...]          # Entry: another frozen dataclass, written in place

Integers are big-endian of fixed width, byte strings have a fixed width or a 32-bit length, text is UTF-8 with a
length, tuples have a 32-bit count, floats are finite IEEE-754 doubles without a negative zero, an optional value has
one flag byte. A message on its own starts with ``b"FS"``, the format version and its tag. `decode` refuses trailing
bytes, lengths beyond the end of the buffer, unknown tags and versions, and anything that would not encode to the very
same bytes. Nothing here depends on the order of a dictionary or on a field's name.
"""

import math
import struct
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Protocol, TypeVar

from fedseal.errors import FedsealError

MAGIC = b"FS"
VERSION = 1
MAX_BLOB = 1 << 20
MAX_ITEMS = 1 << 17


class DecodeError(FedsealError):
    """Bytes that are no canonical encoding of the expected message.

    Callers turn it into the fault of whoever sent them.
    """


class EncodeError(FedsealError):
    """A value that its declared type does not admit (out of range, wrong length): a bug of ours."""


@dataclass(frozen=True, slots=True)
class Uint:
    """An unsigned integer of ``width`` bytes."""

    width: int


@dataclass(frozen=True, slots=True)
class Fixed:
    """Exactly ``length`` bytes."""

    length: int


@dataclass(frozen=True, slots=True)
class Blob:
    """At most ``limit`` bytes after a 32-bit length."""

    limit: int = MAX_BLOB


@dataclass(frozen=True, slots=True)
class Text:
    """At most ``limit`` bytes of UTF-8 after a 32-bit length."""

    limit: int = 256


@dataclass(frozen=True, slots=True)
class Double:
    """A finite IEEE-754 double; zero has one sign."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One byte, 0 or 1."""


U8 = Annotated[int, Uint(1)]
U16 = Annotated[int, Uint(2)]
U32 = Annotated[int, Uint(4)]
U64 = Annotated[int, Uint(8)]
F64 = Annotated[float, Double()]
Bool = Annotated[bool, Flag()]
Bytes16 = Annotated[bytes, Fixed(16)]
Bytes32 = Annotated[bytes, Fixed(32)]
Bytes33 = Annotated[bytes, Fixed(33)]
Bytes64 = Annotated[bytes, Fixed(64)]
Bytes = Annotated[bytes, Blob()]
Str = Annotated[str, Text()]


class Message(Protocol):
    """A frozen dataclass that may stand at the top of an encoding."""

    TAG: ClassVar[int]


M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Codec:
    """How one type is written and read back.

    ``read`` takes the buffer and a position and returns the value and the next one.
    """

    write: Callable[[bytearray, Any], None]
    read: Callable[[memoryview, int], tuple[Any, int]]


def encode(message: Message) -> bytes:
    """The canonical bytes of ``message``, with magic, version and tag.

    Raises:
        EncodeError: a field holds a value its type does not admit.
    """
    out = bytearray(MAGIC)
    out += bytes((VERSION, message.TAG))
    _codec(type(message)).write(out, message)
    return bytes(out)


def decode(data: bytes, *expected: type[M]) -> M:
    """The message that ``data`` is, if it is one of the expected kinds and canonically encoded.

    Raises:
        DecodeError: anything else.
    """
    if len(data) < 4 or data[:2] != MAGIC:
        raise DecodeError("not a fedseal message")
    if data[2] != VERSION:
        raise DecodeError(f"message format version {data[2]}, this build speaks {VERSION}")
    kind = next((k for k in expected if data[3] == k.TAG), None)
    if kind is None:
        names = ", ".join(k.__name__ for k in expected)
        raise DecodeError(f"unexpected message tag {data[3]}, expected {names}")
    value, end = _codec(kind).read(memoryview(data), 4)
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes after the end of the message")
    return typing.cast(M, value)


def tag_of(data: bytes) -> int | None:
    """What kind of message some bytes say they are; None if they are no message. Nothing else of them is checked."""
    return data[3] if len(data) > 3 and data[2] == VERSION else None


@cache
def _codec(kind: Any) -> Codec:
    """The codec of a type, built once from its annotations."""
    if typing.get_origin(kind) is Annotated:
        return _annotated(typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return _sequence(_codec(typing.get_args(kind)[0]))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return _optional(_codec(next(a for a in typing.get_args(kind) if a is not type(None))))
    return _structure(kind)


def _annotated(arguments: tuple[Any, ...]) -> Codec:
    base, spec = arguments[0], arguments[1]
    match spec:
        case Uint(width):
            return _uint(width)
        case Fixed(length):
            return _fixed(length, base)
        case Blob(limit):
            return _blob(limit, base)
        case Text(limit):
            return _text(limit)
        case Double():
            return _double()
        case Flag():
            return _flag()
    raise EncodeError(f"no codec for {spec!r}")


def _take(data: memoryview, at: int, length: int) -> tuple[bytes, int]:
    end = at + length
    if end > len(data):
        raise DecodeError("message ends too early")
    return bytes(data[at:end]), end


def _uint(width: int) -> Codec:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not int or not 0 <= value < 1 << 8 * width:
            raise EncodeError(f"expected an unsigned integer of {width} bytes, got {type(value).__name__}")
        out += value.to_bytes(width, "big")

    def read(data: memoryview, at: int) -> tuple[int, int]:
        raw, end = _take(data, at, width)
        return int.from_bytes(raw, "big"), end

    return Codec(write, read)


def _fixed(length: int, base: Any) -> Codec:
    """``bytes``, or a type that wraps them and gives them back through ``reveal()`` (a secret)."""

    def write(out: bytearray, value: Any) -> None:
        raw = value if base is bytes else value.reveal()
        if type(raw) is not bytes or len(raw) != length:
            raise EncodeError(f"expected {length} bytes")
        out += raw

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        raw, end = _take(data, at, length)
        return (raw if base is bytes else base(raw)), end

    return Codec(write, read)


def _blob(limit: int, base: Any) -> Codec:
    def write(out: bytearray, value: Any) -> None:
        raw = value if base is bytes else value.reveal()
        if type(raw) is not bytes or len(raw) > limit:
            raise EncodeError(f"expected at most {limit} bytes")
        out += len(raw).to_bytes(4, "big")
        out += raw

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        raw, end = _counted(data, at, limit)
        return (raw if base is bytes else base(raw)), end

    return Codec(write, read)


def _counted(data: memoryview, at: int, limit: int) -> tuple[bytes, int]:
    prefix, at = _take(data, at, 4)
    length = int.from_bytes(prefix, "big")
    if length > limit:
        raise DecodeError(f"a field of {length} bytes, at most {limit} are allowed")
    return _take(data, at, length)


def _text(limit: int) -> Codec:
    def write(out: bytearray, value: Any) -> None:
        try:
            raw = value.encode("utf-8")
        except UnicodeEncodeError:
            raise EncodeError("expected text that UTF-8 can write") from None
        if len(raw) > limit:
            raise EncodeError(f"expected text of at most {limit} bytes")
        out += len(raw).to_bytes(4, "big")
        out += raw

    def read(data: memoryview, at: int) -> tuple[str, int]:
        raw, end = _counted(data, at, limit)
        try:
            return raw.decode("utf-8"), end
        except UnicodeDecodeError:
            raise DecodeError("text that is not UTF-8") from None

    return Codec(write, read)


def _double() -> Codec:
    def admissible(value: float) -> bool:
        return math.isfinite(value) and not (value == 0.0 and math.copysign(1.0, value) < 0)

    def write(out: bytearray, value: Any) -> None:
        if type(value) is not float or not admissible(value):
            raise EncodeError("expected a finite float without negative zero")
        out += struct.pack(">d", value)

    def read(data: memoryview, at: int) -> tuple[float, int]:
        raw, end = _take(data, at, 8)
        value: float = struct.unpack(">d", raw)[0]
        if not admissible(value):
            raise DecodeError("a number that is not finite, or a negative zero")
        return value, end

    return Codec(write, read)


def _flag() -> Codec:
    def write(out: bytearray, value: Any) -> None:
        if type(value) is not bool:
            raise EncodeError("expected a truth value")
        out.append(int(value))

    def read(data: memoryview, at: int) -> tuple[bool, int]:
        raw, end = _take(data, at, 1)
        if raw not in (b"\x00", b"\x01"):
            raise DecodeError("a truth value that is neither 0 nor 1")
        return raw == b"\x01", end

    return Codec(write, read)


def _sequence(item: Codec) -> Codec:
    def write(out: bytearray, value: Any) -> None:
        if len(value) > MAX_ITEMS:
            raise EncodeError(f"more than {MAX_ITEMS} items")
        out += len(value).to_bytes(4, "big")
        for entry in value:
            item.write(out, entry)

    def read(data: memoryview, at: int) -> tuple[tuple[Any, ...], int]:
        prefix, at = _take(data, at, 4)
        count = int.from_bytes(prefix, "big")
        # Every item takes at least one byte, so a count beyond the rest of the buffer is refused before any work is
        # done.
        if count > MAX_ITEMS or count > len(data) - at:
            raise DecodeError(f"a list of {count} items does not fit its message")
        items = []
        for _ in range(count):
            entry, at = item.read(data, at)
            items.append(entry)
        return tuple(items), at

    return Codec(write, read)


def _optional(item: Codec) -> Codec:
    flag = _flag()

    def write(out: bytearray, value: Any) -> None:
        flag.write(out, value is not None)
        if value is not None:
            item.write(out, value)

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        present, at = flag.read(data, at)
        return item.read(data, at) if present else (None, at)

    return Codec(write, read)


def _structure(kind: Any) -> Codec:
    hints = typing.get_type_hints(kind, include_extras=True)
    parts = [(f.name, _codec(hints[f.name])) for f in fields(kind)]

    def write(out: bytearray, value: Any) -> None:
        for name, codec in parts:
            codec.write(out, getattr(value, name))

    def read(data: memoryview, at: int) -> tuple[Any, int]:
        values = {}
        for name, codec in parts:
            values[name], at = codec.read(data, at)
        try:
            return kind(**values), at
        except ValueError as error:
            # A message checks itself in __post_init__: what contradicts itself cannot exist, and says so in our own
            # words.
            raise DecodeError(f"{kind.__name__}: {error}") from None

    return Codec(write, read)
