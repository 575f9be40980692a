"""Files of C2SP tlog-tiles: where they stand, and what is in them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedseal.compliance.log.malformed import MalformedError
from fedseal.errors import LocalError
from fedseal.merkle import HASH_LENGTH

WIDTH = 256
MAX_ENTRY = 2**16 - 1
_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """The ``index``-th tile of ``level``, or bundle of entries where level is None, with ``width`` of 256 places."""

    level: int | None
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not 0 <= (self.level or 0) <= 63 or self.index < 0 or not 0 < self.width <= WIDTH:
            raise ValueError("no tile of a log")

    @property
    def path(self) -> str:
        """Where it is served, relative to the log's prefix."""
        digits = f"{self.index:03}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        *upper, last = (digits[i : i + 3] for i in range(0, len(digits), 3))
        place = "/".join([*(f"x{group}" for group in upper), last])
        suffix = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{'entries' if self.level is None else self.level}/{place}{suffix}"

    @property
    def start(self) -> int:
        """The place, within its level, of its first hash or entry."""
        return self.index * WIDTH

    @property
    def stop(self) -> int:
        """The place past its last."""
        return self.start + self.width


def parse_path(path: str) -> Tile:
    """The tile that stands at ``path``.

    Raises:
        MalformedError: none does.
    """
    found = _PATH.fullmatch(path)
    try:
        if found is None:
            raise ValueError
        level = None if found["level"] == "entries" else int(found["level"])
        tile = Tile(level, int(found["index"].replace("x", "").replace("/", "")), int(found["width"] or WIDTH))
    except ValueError:
        raise MalformedError("not the path of a tile") from None
    if tile.path != path:
        raise MalformedError("not the one path of a tile")
    return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of hashes of a tree of ``size`` leaves, level by level."""
    level, count = 0, size
    while count:
        yield from row(level, count)
        level, count = level + 1, count // WIDTH


def bundles_of(size: int) -> Iterator[Tile]:
    """Every bundle of entries of a log of ``size`` leaves."""
    return row(None, size)


def row(level: int | None, count: int) -> Iterator[Tile]:
    """The tiles that hold the first ``count`` places of a level."""
    full, partial = divmod(count, WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if partial:
        yield Tile(level, full, partial)


def encode_hashes(hashes: Sequence[bytes]) -> bytes:
    """The content of a tile."""
    return b"".join(hashes)


def decode_hashes(raw: bytes, width: int) -> tuple[bytes, ...]:
    """The ``width`` hashes of a tile.

    Raises:
        MalformedError: it holds another number of hashes.
    """
    if len(raw) != width * HASH_LENGTH:
        raise MalformedError("a tile of another width than its path says")
    return tuple(raw[i : i + HASH_LENGTH] for i in range(0, len(raw), HASH_LENGTH))


def encode_entries(leaves: Sequence[bytes]) -> bytes:
    """The content of a bundle: each entry behind its 16-bit length."""
    if any(len(leaf) > MAX_ENTRY for leaf in leaves):
        raise LocalError("an entry that is too long for a bundle")
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def decode_entries(raw: bytes, width: int) -> tuple[bytes, ...]:
    """The ``width`` entries of a bundle.

    Raises:
        MalformedError: it ends within an entry, or holds another number of them.
    """
    found, place = [], 0
    while place < len(raw):
        start = place + 2
        place = start + int.from_bytes(raw[place:start], "big")
        if start > len(raw) or place > len(raw):
            raise MalformedError("a bundle that ends within an entry")
        found.append(raw[start:place])
    if len(found) != width:
        raise MalformedError("a bundle of another width than its path says")
    return tuple(found)
