"""The Merkle tree of RFC 9162, section 2.1, over SHA-256: hashes, proofs, and a tree that grows by tiles of 256.

The tree keeps at most 256 hashes a level, so a log of any size is hashed in constant memory.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

HASH_LENGTH = 32
TILE_WIDTH = 256
EMPTY_ROOT = hashlib.sha256().digest()


@dataclass(frozen=True)
class Tile:
    """Consecutive tree hashes: entry ``i`` is the root of the ``256**level`` leaves from ``(256 * index + i)`` on."""

    level: int
    index: int
    hashes: list[bytes]


def leaf_hashes(leaves: Sequence[bytes]) -> list[bytes]:
    """``HASH(0x00 || d)`` of every leaf."""
    sha256 = hashlib.sha256
    return [sha256(b"\x00" + leaf).digest() for leaf in leaves]


def node_hash(left: bytes, right: bytes) -> bytes:
    """``HASH(0x01 || left || right)``."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def full_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a power of two of hashes, level by level: most of a log's nodes are hashed here."""
    sha256 = hashlib.sha256
    row = hashes
    while len(row) > 1:
        joined = b"".join(row)
        row = [sha256(b"\x01" + joined[at : at + 64]).digest() for at in range(0, len(joined), 64)]
    return row[0]


def split_point(size: int) -> int:
    """The largest power of two smaller than ``size`` (``size`` at least 2)."""
    return 1 << ((size - 1).bit_length() - 1)


def root(hashes: Sequence[bytes]) -> bytes:
    """MTH of section 2.1.1, over leaf hashes or over the roots of equally large full subtrees.

    The last of them may be the root of a smaller subtree: the split falls on the same leaf either way.
    """
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) & (len(hashes) - 1) == 0:
        return full_root(hashes)
    split = split_point(len(hashes))
    return node_hash(full_root(hashes[:split]), root(hashes[split:]))


class TileTree:
    """A tree that takes leaf hashes 256 at a time and gives out every tile as it becomes full."""

    def __init__(self) -> None:
        self._rows: list[list[bytes]] = []
        self._full: list[int] = []

    def append(self, hashes: list[bytes]) -> Iterator[Tile]:
        """Take the next full tile of 256 leaf hashes; yield it and the tiles above that it completes.

        The iterator must be exhausted before the next call.
        """
        level, done = 0, hashes
        while True:
            if level == len(self._rows):
                self._rows.append([])
                self._full.append(0)
            yield Tile(level, self._full[level], done)
            self._full[level] += 1
            row = self._rows[level]
            row.append(full_root(done))
            if len(row) < TILE_WIDTH:
                return
            self._rows[level], done = [], row
            level += 1

    def partial(self, last: Sequence[bytes] = ()) -> Iterator[Tile]:
        """The partial tiles of the tree that ends with ``last``, fewer than 256 leaf hashes more."""
        if last:
            yield Tile(0, self._full[0] if self._full else 0, list(last))
        for below, row in enumerate(self._rows):
            if row:
                level = below + 1
                index = self._full[level] if level < len(self._full) else 0
                yield Tile(level, index, list(row))

    def root(self, last: Sequence[bytes] = ()) -> bytes:
        """The root of the tree that ends with ``last``, at most 256 leaf hashes more; the tree stays as it is."""
        if not last and not self._rows:
            return EMPTY_ROOT
        tail = [root(last)] if last else []
        for row in self._rows:
            hashes = [*row, *tail]
            tail = [root(hashes)] if hashes else []
        return tail[0]


def inclusion_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root that ``path`` gives for leaf hash ``leaf`` at ``index`` of ``size`` (section 2.1.3.2); None if the path
    does not fit that place.
    """
    if not 0 <= index < size or any(len(each) != HASH_LENGTH for each in (leaf, *path)):
        return None
    here, last, computed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if here & 1 or here == last:
            computed = node_hash(sibling, computed)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        here, last = here >> 1, last >> 1
    return computed if last == 0 else None


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> bool:
    """Whether ``path`` proves that ``leaf`` (a leaf hash) stands at ``index`` of the tree of ``size`` leaves."""
    return inclusion_root(leaf, index, size, path) == expected


def consistency_roots(size1: int, size2: int, nodes: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """The roots of both trees that ``nodes`` lead to (section 2.1.4.2, from step 3 on), or None if they do not fit.

    ``nodes`` begins with a subtree that both trees share; where ``size1`` is a power of two that is the first tree
    itself, which a proof on the wire leaves out. If the second root is the true one, so is the first: both are hashed
    from the same nodes. That is what makes a disagreement about the first root evidence.
    """
    if not 0 < size1 < size2 or not nodes or any(len(each) != HASH_LENGTH for each in nodes):
        return None
    here, last = size1 - 1, size2 - 1
    while here & 1:
        here, last = here >> 1, last >> 1
    first = second = nodes[0]
    for node in nodes[1:]:
        if last == 0:
            return None
        if here & 1 or here == last:
            first, second = node_hash(node, first), node_hash(node, second)
            while not here & 1 and here:
                here, last = here >> 1, last >> 1
        else:
            second = node_hash(second, node)
        here, last = here >> 1, last >> 1
    return (first, second) if last == 0 else None


def verify_consistency(size1: int, size2: int, path: Sequence[bytes], root1: bytes, root2: bytes) -> bool:
    """Whether ``path`` proves that the tree (size1, root1) is a prefix of (size2, root2) (section 2.1.4.2).

    Nothing is proven about the empty tree: ``size1`` of 0 is refused. Hashes are exactly 32 bytes.
    """
    if not 0 < size1 <= size2 or len(root1) != HASH_LENGTH or len(root2) != HASH_LENGTH:
        return False
    if size1 == size2:
        return not path and root1 == root2
    if not path:
        return False
    nodes = [root1, *path] if size1 & (size1 - 1) == 0 else path
    return consistency_roots(size1, size2, nodes) == (root1, root2)
