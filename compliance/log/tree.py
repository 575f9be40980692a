"""A growing Merkle tree (RFC 6962, section 2; RFC 9162, section 2.1): appending to it, and proofs from stored hashes.

What is stored are the hashes of every eighth level, as C2SP tlog-tiles has them: "tile level" L holds the roots of
the complete subtrees of 256^L leaves. A reader hands them out; every other node is computed from at most 128 of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from fedseal.errors import LocalError
from fedseal.merkle import HASH_LENGTH, leaf_hash, node_hash

EMPTY_ROOT = sha256().digest()
TILE_HEIGHT = 8

# (tile level, first, past the last) -> the hashes there
Reader = Callable[[int, int, int], Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class Frontier:
    """What has to be remembered of a tree to append to it: the roots of its complete subtrees, largest first.

    There is one for every one bit of ``size``.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.size < 0 or len(self.hashes) != self.size.bit_count():
            raise ValueError("a frontier has one hash for every one bit of its size")

    @property
    def root(self) -> bytes:
        """The Merkle tree hash of all leaves so far."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, found = self.hashes
        for left in reversed(rest):
            found = node_hash(left, found)
        return found

    def extend(self, leaf_hashes: Iterable[bytes]) -> tuple["Frontier", list[list[bytes]]]:
        """The frontier with ``leaf_hashes`` appended, and for each tile level the hashes that came with them."""
        stack, size, levels = list(self.hashes), self.size, [[]]  # type: list[bytes], int, list[list[bytes]]
        for found in leaf_hashes:
            levels[0].append(found)
            height, carry = 0, size
            while carry & 1:
                found = sha256(b"\x01" + stack.pop() + found).digest()
                height, carry = height + 1, carry >> 1
                if not height % TILE_HEIGHT:
                    _put(levels, height // TILE_HEIGHT, found)
            stack.append(found)
            size += 1
        return Frontier(size, tuple(stack)), levels


EMPTY = Frontier(0, ())


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The Merkle tree hash of ``leaves`` (not their hashes), read once and held nowhere."""
    return EMPTY.extend(leaf_hash(leaf) for leaf in leaves)[0].root


def root(size: int, read: Reader) -> bytes:
    """The Merkle tree hash of the first ``size`` leaves."""
    return _subtree(0, size, read) if size else EMPTY_ROOT


def inclusion_path(index: int, size: int, read: Reader) -> tuple[bytes, ...]:
    """PATH(index, D[size]) of RFC 9162, 2.1.3.1, nearest first.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise IndexError("no such leaf")
    path, low, high = [], 0, size
    while high - low > 1:
        middle = low + split(high - low)
        if index < middle:
            path.append(_subtree(middle, high, read))
            high = middle
        else:
            path.append(_subtree(low, middle, read))
            low = middle
    return tuple(reversed(path))


def consistency_proof(old: int, new: int, read: Reader) -> tuple[bytes, ...]:
    """PROOF(old, D[new]) of RFC 9162, 2.1.4.1; empty where both sizes are equal or ``old`` is zero (C2SP tlog-witness).

    Raises:
        IndexError: ``old`` is larger than ``new``, or negative.
    """
    if not 0 <= old <= new:
        raise IndexError("a log does not shrink")
    if old in (0, new):
        return ()
    proof, low, high = [], 0, new
    while old != high:
        middle = low + split(high - low)
        if old <= middle:
            proof.append(_subtree(middle, high, read))
            high = middle
        else:
            proof.append(_subtree(low, middle, read))
            low = middle
    # The old tree's own root is known to whoever asks, so it is left out where it is a node of the new tree.
    if low:
        proof.append(_subtree(low, high, read))
    return tuple(reversed(proof))


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether ``proof`` shows that the tree of ``new`` leaves begins with that of ``old`` (RFC 9162, 2.1.4.2).

    Four rules at the edges: an old size of zero is refused, also beside a new one of zero (whoever has seen nothing
    asks for no proof); equal sizes have equal roots and an empty proof; unequal sizes an unempty one; a hash has
    exactly 32 bytes.
    """
    if not 0 < old <= new or any(len(h) != HASH_LENGTH for h in (old_root, new_root, *proof)):
        return False
    if old == new:
        return not proof and old_root == new_root
    if not proof:
        return False
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    left = right = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            left, right = node_hash(sibling, left), node_hash(sibling, right)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            right = node_hash(right, sibling)
        position, last = position >> 1, last >> 1
    return last == 0 and left == old_root and right == new_root


def split(size: int) -> int:
    """The largest power of two smaller than ``size`` >= 2 (RFC 9162, 2.1.1)."""
    return 1 << (size - 1).bit_length() - 1


def _subtree(low: int, high: int, read: Reader) -> bytes:
    """MTH(D[low:high]): as RFC 9162 splits it, so that ``low`` is a multiple of the largest complete part."""
    parts = []
    while low < high:
        height = (high - low).bit_length() - 1
        parts.append(_node(height, low >> height, read))
        low += 1 << height
    found = parts.pop()
    while parts:
        found = node_hash(parts.pop(), found)
    return found


def _node(height: int, index: int, read: Reader) -> bytes:
    """The root of the complete subtree of 2^height leaves, the ``index``-th of its kind."""
    level, above = divmod(height, TILE_HEIGHT)
    hashes = list(read(level, index << above, (index + 1) << above))
    if len(hashes) != 1 << above:
        raise LocalError("the log's stored hashes are incomplete", next_step="Restore the log from a mirror.")
    while len(hashes) > 1:
        hashes = [node_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]


def _put(levels: list[list[bytes]], level: int, found: bytes) -> None:
    while len(levels) <= level:
        levels.append([])
    levels[level].append(found)
