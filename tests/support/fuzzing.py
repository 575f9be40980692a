"""What a parser promises about any bytes, and inputs that try it: valid ones, changed as a careful attacker would.

A change is one of a few kinds: a flipped bit, a cut, a splice, a doubled or missing part, a huge length or number, deep
nesting, characters that parsers stumble over. All are drawn from a seed, so that what was found is found again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

LARGEST = 1 << 16
# A step towards a megabyte of brackets would only test the file's size.
DEEP = 3000
PIECES = (
    b"\x00",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\xc3\x28",
    b"\r",
    b"\n",
    b"\n\n",
    b'"',
    b"'",
    b",",
    b"-1",
    b"1e999",
    b"1e-999",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"{}",
    b"[]",
    b"../",
    b"\xe2\x80\xae",
    b"9" * 400,
    b"9" * 5000,
)
NESTS = (b"[", b"{", b'{"a":', b"(", b"[[", b"a.", b'"')


@dataclass(frozen=True, slots=True)
class Target:
    """A parser that meets bytes of somebody else.

    Attributes:
        name: of the target.
        parse: the parser.
        refuses: the errors that it names. Anything else is a fault.
        corpus: makes valid inputs.
        encode: where one value has one encoding: writes it again.
        total: whether a valid input is one that is parsed; False where the corpus holds what is refused, too.
    """

    name: str
    parse: Callable[[bytes], object]
    refuses: tuple[type[Exception], ...]
    corpus: Callable[[], Sequence[bytes]]
    encode: Callable[[object], bytes] | None = None
    total: bool = True


class ContractError(Exception):
    """A parser that did something else than it promises."""


def judge(target: Target, raw: bytes) -> bool:
    """Whether a parser takes these bytes; ContractError if it keeps its promise in neither way.

    What it raises beside its named errors is not caught: it is the fault that is looked for.
    """
    try:
        value = target.parse(raw)
    except target.refuses:
        return False
    if target.encode is not None and target.encode(value) != raw:
        raise ContractError(f"{target.name} takes bytes that it would not have written")
    return True


def changed(random: Random, corpus: Sequence[bytes]) -> bytes:
    """One input of a corpus, changed one to four times."""
    raw = bytearray(random.choice(corpus))
    for _ in range(random.choice((1, 1, 2, 4))):
        raw = random.choice(CHANGES)(random, raw, corpus)
        del raw[LARGEST:]
    return bytes(raw)


def _place(random: Random, raw: bytearray) -> int:
    return random.randrange(len(raw) + 1)


def _part(random: Random, raw: bytes | bytearray) -> tuple[int, int]:
    start = random.randrange(len(raw) + 1)
    return start, min(len(raw), start + random.choice((1, 2, 4, 8, 32, len(raw))))


def _flip(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    if raw:
        raw[random.randrange(len(raw))] ^= 1 << random.randrange(8)
    return raw


def _cut(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    return raw[: _place(random, raw)]


def _without(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    start, stop = _part(random, raw)
    return raw[:start] + raw[stop:]


def _doubled(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    start, stop = _part(random, raw)
    return raw[:stop] + raw[start:stop] * random.choice((1, 1, 2, 50)) + raw[stop:]


def _spliced(random: Random, raw: bytearray, corpus: Sequence[bytes]) -> bytearray:
    other = random.choice(corpus)
    start, stop = _part(random, other)
    return raw[: _place(random, raw)] + other[start:stop] + raw[_place(random, raw) :]


def _inserted(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    place = _place(random, raw)
    return raw[:place] + random.choice(PIECES) + raw[place:]


def _overwritten(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    place, piece = _place(random, raw), random.choice(PIECES)
    return raw[:place] + piece + raw[place + len(piece) :]


def _nested(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    place = _place(random, raw)
    return raw[:place] + random.choice(NESTS) * random.choice((2, 40, DEEP)) + raw[place:]


def _renumbered(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    """A written number by another one."""
    numbers = list(re.finditer(rb"[0-9]+", raw))
    if not numbers:
        return raw
    found = random.choice(numbers)
    new = random.choice((b"0", b"00", b"-1", b"1.5", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"1e5", b"0x1"))
    return raw[: found.start()] + new + raw[found.end() :]


def _lengthened(random: Random, raw: bytearray, _: Sequence[bytes]) -> bytearray:
    """Four bytes by a length that the rest does not have."""
    place = _place(random, raw)
    length = random.choice((0, 1, len(raw), 0xFFFF, 1 << 17, 1 << 20, (1 << 31) - 1, (1 << 32) - 1))
    return raw[:place] + length.to_bytes(4, random.choice(("big", "little"))) + raw[place + 4 :]


CHANGES: tuple[Callable[[Random, bytearray, Sequence[bytes]], bytearray], ...] = (
    _flip,
    _flip,
    _cut,
    _without,
    _doubled,
    _spliced,
    _inserted,
    _overwritten,
    _nested,
    _renumbered,
    _lengthened,
)
