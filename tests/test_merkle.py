"""The Merkle tree is that of RFC 9162: it equals a slow twin written from the definitions; nothing else verifies."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fedseal import merkle

HERE = Path(__file__).resolve().parent
KNOWN: dict[str, Any] = json.loads((HERE / "vectors" / "merkle.json").read_text())
SHARED = HERE.parents[1] / "shared" / "vectors" / "merkle" / "inclusion"
SIZES = range(1, 71)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def split(n: int) -> int:
    """Largest power of two smaller than n, by trying."""
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def slow_root(entries: list[bytes]) -> bytes:
    """MTH(D_n) of RFC 9162, 2.1.1."""
    if not entries:
        return sha256(b"")
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0])
    k = split(len(entries))
    return sha256(b"\x01" + slow_root(entries[:k]) + slow_root(entries[k:]))


def slow_path(m: int, entries: list[bytes]) -> list[bytes]:
    """PATH(m, D_n) of RFC 9162, 2.1.3.1."""
    if len(entries) == 1:
        return []
    k = split(len(entries))
    if m < k:
        return [*slow_path(m, entries[:k]), slow_root(entries[k:])]
    return [*slow_path(m - k, entries[k:]), slow_root(entries[:k])]


def turns(m: int, n: int) -> str:
    """On which side the sibling stands at each step up from leaf m of n."""
    if n == 1:
        return ""
    k = split(n)
    return turns(m, k) + "R" if m < k else turns(m - k, n - k) + "L"


def entries(n: int) -> list[bytes]:
    return [f"entry {i}".encode() for i in range(n)]


def hashes(n: int) -> list[bytes]:
    return [merkle.leaf_hash(e) for e in entries(n)]


def flipped(value: bytes, bit: int = 0) -> bytes:
    return bytes([value[0] ^ (1 << bit), *value[1:]])


@pytest.mark.parametrize("size", range(9))
def test_the_published_roots_come_out(size: int) -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in KNOWN["leaves"][:size]]
    assert merkle.root(leaves).hex() == KNOWN["roots"][size]


@pytest.mark.parametrize("known", KNOWN["inclusion"])
def test_the_published_paths_come_out(known: dict[str, Any]) -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in KNOWN["leaves"][: known["size"]]]
    path = merkle.inclusion_path(leaves, known["index"])
    assert [h.hex() for h in path] == known["path"]
    assert merkle.verify_inclusion(leaves[known["index"]], known["index"], known["size"], path, merkle.root(leaves))


def test_roots_and_paths_equal_those_of_the_slow_twin() -> None:
    for n in [0, *SIZES]:
        assert merkle.root(hashes(n)) == slow_root(entries(n))
        paths = merkle.inclusion_paths(hashes(n))
        assert [list(p) for p in paths] == [slow_path(m, entries(n)) for m in range(n)]


def test_one_path_equals_the_same_path_among_all() -> None:
    for n in SIZES:
        assert [merkle.inclusion_path(hashes(n), m) for m in range(n)] == merkle.inclusion_paths(hashes(n))


@pytest.mark.parametrize(("size", "index"), [(0, 0), (1, 1), (5, 5), (5, -1)])
def test_a_leaf_that_is_not_there_has_no_path(size: int, index: int) -> None:
    with pytest.raises(IndexError):
        merkle.inclusion_path(hashes(size), index)


def test_every_path_verifies_and_no_altered_one_does() -> None:
    for n in SIZES:
        leaves, root = hashes(n), slow_root(entries(n))
        for m, path in enumerate(merkle.inclusion_paths(leaves)):
            assert merkle.verify_inclusion(leaves[m], m, n, path, root)
            assert not merkle.verify_inclusion(flipped(leaves[m]), m, n, path, root)
            assert not merkle.verify_inclusion(leaves[m], m, n, path, flipped(root))
            assert not merkle.verify_inclusion(leaves[m], m, n, (*path, root), root)
            assert not merkle.verify_inclusion(leaves[m], m, n, (leaves[m], *path), root)
            for step in range(len(path)):
                altered = (*path[:step], flipped(path[step], step), *path[step + 1 :])
                assert not merkle.verify_inclusion(leaves[m], m, n, altered, root)
                assert not merkle.verify_inclusion(leaves[m], m, n, (*path[:step], *path[step + 1 :]), root)


def test_no_path_verifies_at_another_index() -> None:
    for n in SIZES:
        leaves, root = hashes(n), slow_root(entries(n))
        for m, path in enumerate(merkle.inclusion_paths(leaves)):
            places = [i for i in range(-2, n + 3) if merkle.verify_inclusion(leaves[m], i, n, path, root)]
            assert places == [m]


def test_another_size_verifies_only_where_it_means_the_same_turns() -> None:
    """A root does not say how large its tree is; whoever signs a root signs the size beside it."""
    for n in range(1, 20):
        leaves, root = hashes(n), slow_root(entries(n))
        for m, path in enumerate(merkle.inclusion_paths(leaves)):
            for other in range(40):
                same = m < other and turns(m, other) == turns(m, n)
                assert merkle.verify_inclusion(leaves[m], m, other, path, root) == same, (m, n, other)


def test_a_node_does_not_pose_as_a_leaf() -> None:
    leaves = hashes(2)
    inner = leaves[0] + leaves[1]
    assert merkle.leaf_hash(inner) != merkle.root(leaves)
    assert merkle.node_hash(*leaves) == merkle.root(leaves)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_of_another_length_is_refused(length: int) -> None:
    leaves = hashes(2)
    root = merkle.root(leaves)
    wrong = bytes(length)
    assert not merkle.verify_inclusion(wrong, 0, 1, (), wrong)
    assert not merkle.verify_inclusion(leaves[0], 0, 2, (wrong,), root)
    # Two hashes glued together hash like two hashes, but are not one.
    assert not merkle.verify_inclusion(leaves[0] + leaves[1], 0, 1, (), leaves[0] + leaves[1])


def published() -> list[Any]:
    """The inclusion proofs of transparency-dev/merkle, where the checkout has them."""
    return [pytest.param(path, id=str(path.relative_to(SHARED))) for path in sorted(SHARED.rglob("*.json"))]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared vectors are not beside this checkout")
@pytest.mark.parametrize("path", published())
def test_the_published_proofs_hold_or_fail_as_they_should(path: Path) -> None:
    case = json.loads(path.read_text())
    proof = [base64.b64decode(h) for h in case["proof"] or []]
    leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
    assert merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root) is not case["wantErr"]
