"""An exported log on disk: C2SP tlog-tiles. Reads tiles and entry bundles, and nothing larger than they may be."""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from fedseal_verify import merkle
from fedseal_verify.errors import MalformedError, UnreadableError
from fedseal_verify.merkle import HASH_LENGTH, TILE_WIDTH

MAX_BUNDLE_BYTES = TILE_WIDTH * (2 + 65535)
ENTRIES = "entries"
_STEP = re.compile(r"x?([0-9]{3})")


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """``tile/<L>/<N>[.p/<W>]``; 1234067 is written ``x001/x234/067``."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03d}")
    number = "/".join(reversed(groups))
    return f"tile/{level}/{number}" + (f".p/{width}" if width < TILE_WIDTH else "")


def read_file(path: Path, limit: int) -> bytes:
    """A regular file of at most ``limit`` bytes.

    Raises:
        UnreadableError: missing, larger, not a file, or refused by the system.
    """
    try:
        if not path.is_file():
            raise UnreadableError("is missing")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except (OSError, ValueError):
        raise UnreadableError("cannot be read") from None
    if len(data) > limit:
        raise UnreadableError(f"is larger than {limit} bytes")
    return data


def split_bundle(data: bytes, width: int) -> list[bytes]:
    """The entries of a bundle of ``width``: each a big-endian uint16 length and that many bytes.

    Raises:
        MalformedError: it ends within an entry, or holds another number of them.
    """
    leaves: list[bytes] = []
    at, end = 0, len(data)
    while at < end:
        start = at + 2
        at = start + int.from_bytes(data[at:start], "big")
        if at > end or start > end:
            raise MalformedError(f"is cut off within its entry {len(leaves)}")
        leaves.append(data[start:at])
    if len(leaves) != width:
        raise MalformedError(f"holds {len(leaves)} entries instead of {width}")
    return leaves


def split_tile(data: bytes, width: int) -> list[bytes]:
    """The hashes of a tile of ``width``.

    Raises:
        MalformedError: another length.
    """
    if len(data) != width * HASH_LENGTH:
        raise MalformedError(f"has {len(data)} bytes instead of {width * HASH_LENGTH}")
    return [data[at : at + HASH_LENGTH] for at in range(0, len(data), HASH_LENGTH)]


def bundles(directory: Path, size: int) -> Iterator[tuple[int, list[bytes]]]:
    """The entries of the first ``size`` leaves, a bundle at a time, each with the index of its first entry.

    Raises:
        UnreadableError, MalformedError: with the file's name.
    """
    for index in range((size + TILE_WIDTH - 1) // TILE_WIDTH):
        first = index * TILE_WIDTH
        width = min(TILE_WIDTH, size - first)
        name = tile_path(ENTRIES, index, width)
        try:
            yield first, split_bundle(read_file(directory / name, MAX_BUNDLE_BYTES), width)
        except (MalformedError, UnreadableError) as error:
            raise type(error)(f"{name} {error}") from None


def entries_beyond(directory: Path, size: int) -> str | None:
    """The name of an entry bundle that reaches beyond ``size`` leaves, if there is one."""
    root = directory / "tile" / ENTRIES
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        end = _bundle_end(name.parts)
        if end is not None and end > size and path.is_file():
            return f"tile/{ENTRIES}/{name.as_posix()}"
    return None


def _bundle_end(parts: Sequence[str]) -> int | None:
    """Up to which leaf the bundle with this path reaches; None if it is the path of none."""
    width = TILE_WIDTH
    steps = list(parts)
    if len(steps) >= 2 and steps[-2].endswith(".p"):
        if not steps[-1].isascii() or not steps[-1].isdigit() or len(steps[-1]) > 3:
            return None
        width = int(steps.pop())
        steps[-1] = steps[-1].removesuffix(".p")
    index = 0
    for step in steps:
        match = _STEP.fullmatch(step)
        if not match:
            return None
        index = index * 1000 + int(match[1])
    return index * TILE_WIDTH + width


class TileReader:
    """Nodes of the tree, read from the hash tiles of an export; no entry is needed.

    Args:
        directory: the export.
        size: leaves of the tree whose tiles are read. A tile that has grown since serves as well.
    """

    def __init__(self, directory: Path, size: int) -> None:
        self._directory = directory
        self._size = size
        self._tile = lru_cache(maxsize=256)(self._read_tile)

    def _read_tile(self, level: int, index: int) -> list[bytes]:
        least = min(TILE_WIDTH, (self._size >> (8 * level)) - index * TILE_WIDTH)
        for width in (least, TILE_WIDTH, *range(least + 1, TILE_WIDTH)):
            name = tile_path(level, index, width)
            if (self._directory / name).is_file():
                try:
                    return split_tile(read_file(self._directory / name, width * HASH_LENGTH), width)
                except (MalformedError, UnreadableError) as error:
                    raise type(error)(f"{name} {error}") from None
        raise UnreadableError(f"{tile_path(level, index, least)} is missing")

    def subtree(self, start: int, end: int) -> bytes:
        """MTH(D[start:end]) of RFC 9162 for a range that is a subtree of the tree of ``size`` leaves.

        Raises:
            UnreadableError, MalformedError: with the tile's name.
        """
        width = end - start
        if width & (width - 1):
            middle = start + merkle.split_point(width)
            return merkle.node_hash(self.subtree(start, middle), self.subtree(middle, end))
        height = width.bit_length() - 1
        level = height // 8
        # A full tile is one hash of the level above: take the tile that holds whole hashes of this subtree.
        count = 1 << (height - 8 * level)
        position = start >> (8 * level)
        hashes = self._tile(level, position // TILE_WIDTH)
        at = position % TILE_WIDTH
        return merkle.full_root(hashes[at : at + count])

    def consistency_nodes(self, size1: int) -> list[bytes]:
        """A consistency proof from ``size1`` leaves to ``size`` (0 < size1 < size), for ``merkle.consistency_roots``.

        It begins with a subtree that both trees share, also where that is the whole first tree (RFC 9162, 2.1.4.1,
        leaves it out there, because the verifier has it).
        """
        start, end = 0, self._size
        tail: list[bytes] = []
        while size1 != end:
            middle = start + merkle.split_point(end - start)
            if size1 <= middle:
                tail.append(self.subtree(middle, end))
                end = middle
            else:
                tail.append(self.subtree(start, middle))
                start = middle
        return [self.subtree(start, end), *reversed(tail)]
