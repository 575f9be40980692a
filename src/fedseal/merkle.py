"""Merkle tree hashes, inclusion and their verification as RFC 9162 (2.1) defines them, over SHA-256.

Pure functions on lists of bytes.
"""

import hashlib
from collections.abc import Sequence

HASH_LENGTH = 32


def leaf_hash(leaf: bytes) -> bytes:
    """RFC 9162, 2.1.1: ``HASH(0x00 || d)``."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 9162, 2.1.1: ``HASH(0x01 || left || right)``. The two prefixes keep a leaf from posing as a node."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """The Merkle tree hash of ``leaf_hashes``; the empty tree hashes to ``HASH()``."""
    if not leaf_hashes:
        return hashlib.sha256().digest()
    if len(leaf_hashes) == 1:
        return leaf_hashes[0]
    split = _split(len(leaf_hashes))
    return node_hash(root(leaf_hashes[:split]), root(leaf_hashes[split:]))


def inclusion_path(leaf_hashes: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The sibling hashes that lead from leaf ``index`` to the root (RFC 9162, 2.1.3.1), nearest first.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise IndexError("no such leaf")
    if len(leaf_hashes) == 1:
        return ()
    split = _split(len(leaf_hashes))
    if index < split:
        return (*inclusion_path(leaf_hashes[:split], index), root(leaf_hashes[split:]))
    return (*inclusion_path(leaf_hashes[split:], index - split), root(leaf_hashes[:split]))


def inclusion_paths(leaf_hashes: Sequence[bytes]) -> list[tuple[bytes, ...]]:
    """All inclusion paths at once, in O(n log n) instead of O(n^2)."""
    if len(leaf_hashes) <= 1:
        return [() for _ in leaf_hashes]
    split = _split(len(leaf_hashes))
    left, right = leaf_hashes[:split], leaf_hashes[split:]
    left_root, right_root = root(left), root(right)
    return [(*path, right_root) for path in inclusion_paths(left)] + [
        (*path, left_root) for path in inclusion_paths(right)
    ]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether ``path`` proves that the leaf hash ``leaf`` stands at ``index`` of a tree of ``size`` leaves (RFC 9162,
    2.1.3.2).
    """
    if not 0 <= index < size or any(len(h) != HASH_LENGTH for h in (leaf, expected_root, *path)):
        return False
    position, last, computed = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if position & 1 or position == last:
            computed = node_hash(sibling, computed)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, sibling)
        position >>= 1
        last >>= 1
    return last == 0 and computed == expected_root


def _split(size: int) -> int:
    """The largest power of two smaller than ``size`` (RFC 9162, 2.1.1)."""
    return 1 << (size - 1).bit_length() - 1
