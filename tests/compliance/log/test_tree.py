"""The growing tree equals a slow twin written from RFC 9162, and its proofs verify nothing but what they prove."""

import base64
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logs import hashes, leaves, reader

from fedseal import merkle
from fedseal.compliance.log import tree
from fedseal.errors import LocalError

HERE = Path(__file__).resolve()
KNOWN: dict[str, Any] = json.loads((HERE.parents[2] / "vectors" / "merkle.json").read_text())
SHARED = HERE.parents[4] / "shared" / "vectors" / "merkle"
SIZES = range(71)


def slow_proof(m: int, n: int, entries: list[bytes], complete: bool = True) -> list[bytes]:
    """SUBPROOF(m, D_n, b) of RFC 9162, 2.1.4.1, word for word."""
    if m == n:
        return [] if complete else [merkle.root(entries[:n])]
    k = 1
    while 2 * k < n:
        k *= 2
    if m <= k:
        return [*slow_proof(m, k, entries[:k], complete), merkle.root(entries[k:n])]
    return [*slow_proof(m - k, n - k, entries[k:n], False), merkle.root(entries[:k])]


def flipped(value: bytes, bit: int = 0) -> bytes:
    return bytes([*value[: bit // 8], value[bit // 8] ^ (1 << bit % 8), *value[bit // 8 + 1 :]])


@pytest.mark.parametrize("size", range(9))
def test_known_roots(size: int) -> None:
    known = [bytes.fromhex(leaf) for leaf in KNOWN["leaves"][:size]]
    assert tree.root_of(known).hex() == KNOWN["roots"][size]
    assert tree.root(size, reader([merkle.leaf_hash(leaf) for leaf in known])).hex() == KNOWN["roots"][size]


# transparency-dev/merkle, testonly/constants.go: consistency proofs of the tree of eight leaves, by its node hashes.
NODES = {
    "1,0": "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "1,1": "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "2,0": "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "2,1": "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "1,2": "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "1,3": "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
}


@pytest.mark.parametrize(
    ("old", "new", "nodes"),
    [
        (1, 1, []),
        (1, 8, ["0,1", "1,1", "2,1"]),
        (6, 8, ["1,2", "1,3", "2,0"]),
        (2, 8, ["1,1", "2,1"]),
        (4, 8, ["2,1"]),
    ],
)
def test_known_consistency_proofs(old: int, new: int, nodes: list[str]) -> None:
    known = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in KNOWN["leaves"]]
    expected = [known[1] if node == "0,1" else bytes.fromhex(NODES[node]) for node in nodes]
    assert list(tree.consistency_proof(old, new, reader(known))) == expected


def test_proofs_are_those_of_the_definition() -> None:
    entries = hashes(SIZES[-1])
    read = reader(entries)
    for new in SIZES:
        assert tree.root(new, read) == merkle.root(entries[:new])
        for index in range(new):
            assert tree.inclusion_path(index, new, read) == merkle.inclusion_path(entries[:new], index)
        for old in range(1, new + 1):
            assert list(tree.consistency_proof(old, new, read)) == slow_proof(old, new, entries)
        assert tree.consistency_proof(0, new, read) == ()


@given(st.integers(0, 70_000), st.lists(st.integers(0, 600), max_size=4))
def test_a_frontier_goes_on_from_anywhere(start: int, steps: list[int]) -> None:
    """From a tree whose nodes are made up: the frontier only needs the roots of its complete subtrees."""
    frontier = tree.Frontier(start, tuple(merkle.leaf_hash(b"%d" % i) for i in range(start.bit_count())))
    total = [merkle.leaf_hash(b"%d" % i) for i in range(1000, 1000 + sum(steps))]
    whole, whole_levels = frontier.extend(total)
    parts, levels, taken = frontier, [[]], 0  # type: tree.Frontier, list[list[bytes]], int
    for step in steps:
        parts, gained = parts.extend(total[taken : taken + step])
        taken += step
        for level, found in enumerate(gained):
            levels[level : level + 1] = [(levels[level] if level < len(levels) else []) + found]
    assert parts == whole
    assert levels == whole_levels


def test_what_a_level_gains_are_roots_of_complete_subtrees() -> None:
    entries = hashes(66_000)
    frontier, levels = tree.EMPTY.extend(entries)
    assert [len(level) for level in levels] == [66_000, 257, 1]
    assert levels[0] == entries
    assert levels[1] == [merkle.root(entries[i : i + 256]) for i in range(0, 257 * 256, 256)]
    assert levels[2] == [merkle.root(entries[:65536])]
    assert frontier.root == merkle.root(entries) == tree.root_of(leaves(0, 66_000))


def test_a_frontier_that_contradicts_itself_is_refused() -> None:
    for size, count in ((-1, 0), (0, 1), (3, 1), (4, 2)):
        with pytest.raises(ValueError, match="frontier"):
            tree.Frontier(size, (bytes(32),) * count)


def test_only_the_true_pair_of_sizes_and_roots_is_consistent() -> None:
    entries = hashes(20)
    roots = [merkle.root(entries[:n]) for n in range(21)]
    for new in range(1, 21):
        for old in range(1, new + 1):
            proof = tree.consistency_proof(old, new, reader(entries))
            assert tree.verify_consistency(old, new, roots[old], roots[new], proof)
            for other in range(21):
                if other != old:
                    assert not tree.verify_consistency(other, new, roots[other], roots[new], proof) or old == new
                    assert not tree.verify_consistency(old, new, roots[other], roots[new], proof)
                if other != new:
                    assert not tree.verify_consistency(old, new, roots[old], roots[other], proof)
            assert not tree.verify_consistency(old, new, roots[old], roots[new], (*proof, roots[new]))
            for step, node in enumerate(proof):
                altered = [*proof]
                altered[step] = flipped(node, 8 * step)
                assert not tree.verify_consistency(old, new, roots[old], roots[new], altered)
                assert not tree.verify_consistency(old, new, roots[old], roots[new], proof[:step] + proof[step + 1 :])


def test_the_rules_at_the_edges() -> None:
    entries = hashes(4)
    roots = [merkle.root(entries[:n]) for n in range(5)]
    proof = tree.consistency_proof(2, 4, reader(entries))
    assert not tree.verify_consistency(0, 0, roots[0], roots[0], ())
    assert not tree.verify_consistency(0, 4, roots[0], roots[4], ())
    assert tree.verify_consistency(4, 4, roots[4], roots[4], ())
    assert not tree.verify_consistency(4, 4, roots[4], roots[3], ())
    assert not tree.verify_consistency(4, 4, roots[4], roots[4], proof)
    assert not tree.verify_consistency(2, 4, roots[2], roots[4], ())
    assert not tree.verify_consistency(4, 2, roots[4], roots[2], proof)
    for wrong in (b"", bytes(31), bytes(33)):
        assert not tree.verify_consistency(2, 4, roots[2], roots[4], [wrong])
        assert not tree.verify_consistency(4, 4, wrong, wrong, ())


def test_there_are_no_proofs_beyond_the_tree() -> None:
    read = reader(hashes(4))
    for index, size in ((4, 4), (-1, 4), (0, 0)):
        with pytest.raises(IndexError):
            tree.inclusion_path(index, size, read)
    for old, new in ((5, 4), (-1, 4)):
        with pytest.raises(IndexError):
            tree.consistency_proof(old, new, read)


def test_missing_hashes_are_noticed() -> None:
    entries = hashes(300)
    with pytest.raises(LocalError, match="incomplete"):
        tree.inclusion_path(299, 300, lambda level, start, stop: reader(entries)(level, start, stop)[1:])


def test_mutated_histories_are_never_consistent() -> None:
    """Edits, deletions, insertions, swaps and cuts below a size that was seen; and honest growth as their twin."""
    rng = random.Random(5)
    for _ in range(400):
        new = rng.randrange(2, 400)
        old = rng.randrange(1, new)
        entries = hashes(new)
        seen = merkle.root(entries[:old])
        place, forged = rng.randrange(old), list(entries)
        match rng.randrange(4):
            case 0:
                forged[place] = merkle.leaf_hash(b"another")
            case 1:
                del forged[place]
            case 2:
                forged.insert(place, merkle.leaf_hash(b"another"))
            case _:
                other = rng.randrange(new - 1)
                other += other >= place
                forged[place], forged[other] = forged[other], forged[place]
        if len(forged) >= old:
            proof = tree.consistency_proof(old, len(forged), reader(forged))
            assert not tree.verify_consistency(old, len(forged), seen, merkle.root(forged), proof)
        honest = tree.consistency_proof(old, new, reader(entries))
        assert tree.verify_consistency(old, new, seen, merkle.root(entries), honest)


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared vectors are not here")
def test_the_shared_vectors() -> None:
    """transparency-dev/merkle, testdata. One has twelve bytes of text for its two equal roots: not hashes here."""
    count = 0
    for path in sorted(SHARED.rglob("*.json")):
        known = json.loads(path.read_text())
        proof = [raw(step) for step in known["proof"] or []]
        if "leafIdx" in known:
            leaf, root = raw(known["leafHash"]), raw(known["root"])
            holds = merkle.verify_inclusion(leaf, known["leafIdx"], known["treeSize"], proof, root)
        else:
            roots = raw(known["root1"]), raw(known["root2"])
            holds = tree.verify_consistency(known["size1"], known["size2"], *roots, proof)
        assert holds != (known["wantErr"] or path.name == "sizes-are-equal-one-and-proof-is-empty.json"), path
        count += 1
    assert count == 196
