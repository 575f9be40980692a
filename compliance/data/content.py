"""The content root of a dataset: one hash for who is in it and what it says of them.

    leaf = HMAC-SHA256(K_subject, id) || HMAC-SHA256(K_rows, tag || canonical rows)    64 bytes, the first 32: the tag
    root = Merkle tree hash (RFC 9162) over all leaves, sorted by their tags

The same content under the same keys has the same root, whatever its files look like. Leaves being sorted, two that are
neighbours prove that nobody stands between them: **non-membership**. A proof shows leaves of one or two persons, which
say nothing to whoever lacks the keys; whoever verifies one is given K_subject (an auditor, at the site).

A proof shows what the tree says. That the tree was made of the data, sorted and without omissions, is checked by making
it again from the data.
"""

import hmac
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar

from fedseal import merkle
from fedseal.compliance.data.keys import KeyedHash
from fedseal.compliance.data.rows import Schema, normal, subject_header
from fedseal.errors import DataError, LocalError
from fedseal.privacy.secret import Secret
from fedseal.wire import U64, Bytes32, Bytes64

TAG_LENGTH = 32
LEAF_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Placed:
    """A leaf, where it stands, and the hashes that lead from it to the root."""

    TAG: ClassVar[int] = 130

    leaf: Bytes64
    index: U64
    path: tuple[Bytes32, ...]

    @property
    def tag(self) -> bytes:
        """The tag of the subject."""
        return self.leaf[:TAG_LENGTH]


@dataclass(frozen=True, slots=True)
class Membership:
    """That a subject is in a dataset of so many subjects."""

    TAG: ClassVar[int] = 131

    size: U64
    placed: Placed


@dataclass(frozen=True, slots=True)
class NonMembership:
    """That a subject is not: its neighbours, of which one is missing at an edge and both in an empty dataset."""

    TAG: ClassVar[int] = 132

    size: U64
    left: Placed | None
    right: Placed | None


class Content:
    """The leaves of a dataset, sorted, one after the other."""

    def __init__(self, leaves: bytes) -> None:
        """Take sorted leaves.

        Raises:
            LocalError: they are no sorted leaves of different subjects.
        """
        if len(leaves) % LEAF_LENGTH:
            raise LocalError("leaves of another length than 64 bytes")
        self.leaves = leaves
        if any(a >= b for a, b in pairwise(self._tags)):
            raise LocalError("leaves that are not sorted, or two of one subject")

    @classmethod
    def of(cls, leaves: Iterable[bytes]) -> "Content":
        """The content of these leaves, in any order.

        Raises:
            DataError: two of them are of one subject.
        """
        ordered = sorted(leaves)
        if any(a[:TAG_LENGTH] == b[:TAG_LENGTH] for a, b in pairwise(ordered)):
            raise DataError(
                "two ids of subjects are one id once written in Unicode's normal form",
                next_step="Write each subject's id in one way throughout the table.",
            )
        return cls(b"".join(ordered))

    def __len__(self) -> int:
        return len(self.leaves) // LEAF_LENGTH

    @cached_property
    def _tags(self) -> list[bytes]:
        return [self.leaves[i : i + TAG_LENGTH] for i in range(0, len(self.leaves), LEAF_LENGTH)]

    @cached_property
    def _hashes(self) -> list[bytes]:
        return [merkle.leaf_hash(self._leaf(i)) for i in range(len(self))]

    def _leaf(self, index: int) -> bytes:
        return self.leaves[index * LEAF_LENGTH : (index + 1) * LEAF_LENGTH]

    @cached_property
    def root(self) -> bytes:
        """The content root, 32 bytes."""
        return merkle.root(self._hashes)

    @property
    def tags(self) -> Sequence[bytes]:
        """The subjects' tags, sorted."""
        return self._tags

    @property
    def whole(self) -> Sequence[bytes]:
        """The leaves, sorted."""
        return [self._leaf(i) for i in range(len(self))]

    def __contains__(self, tag: object) -> bool:
        return isinstance(tag, bytes) and self._find(tag)[1]

    def prove(self, tag: bytes) -> Membership | NonMembership:
        """Whichever is true of the subject with this tag, with its proof."""
        index, found = self._find(tag)
        if found:
            return Membership(len(self), self._place(index))
        left = self._place(index - 1) if index > 0 else None
        right = self._place(index) if index < len(self) else None
        return NonMembership(len(self), left, right)

    def _find(self, tag: bytes) -> tuple[int, bool]:
        index = bisect_left(self._tags, tag)
        return index, index < len(self) and self._tags[index] == tag

    def _place(self, index: int) -> Placed:
        return Placed(self._leaf(index), index, merkle.inclusion_path(self._hashes, index))


def subject_tag(key: Secret, subject: str) -> bytes:
    """What stands for a subject's id: HMAC-SHA256(K_subject, id in normal form C)."""
    return hmac.digest(key.reveal(), normal(subject).encode("utf-8"), "sha256")


def leaf(tag: bytes, rows: Secret, columns: Schema, canonical: Sequence[bytes]) -> bytes:
    """The leaf of one subject with these canonical rows; the slow twin of `client/datasets/encoding.py`."""
    header = subject_header(columns.digest(), len(canonical))
    return tag + KeyedHash(rows).digest(tag, header, *canonical)


def verify_membership(proof: Membership, root: bytes, tag: bytes) -> bool:
    """Whether the subject with this tag is in the dataset with this root."""
    return hmac.compare_digest(proof.placed.tag, tag) and _stands(proof.placed, proof.size, root)


def verify_non_membership(proof: NonMembership, root: bytes, tag: bytes) -> bool:
    """Whether the subject with this tag is not in the dataset with this root, whose leaves are sorted.

    A wrong size cannot pretend that two leaves are neighbours, or that one is at an edge: which way each hash of a path
    joins says so by itself, and the root fixes the hashes.
    """
    left, right, size = proof.left, proof.right, proof.size
    if left is None and right is None:
        return size == 0 and hmac.compare_digest(root, merkle.root(()))
    if (left is not None and not (left.tag < tag and _stands(left, size, root))) or (
        right is not None and not (tag < right.tag and _stands(right, size, root))
    ):
        return False
    if left is None or right is None:
        return left.index == size - 1 if left is not None else right is not None and right.index == 0
    return left.index + 1 == right.index


def _stands(placed: Placed, size: int, root: bytes) -> bool:
    return merkle.verify_inclusion(merkle.leaf_hash(placed.leaf), placed.index, size, placed.path, root)
