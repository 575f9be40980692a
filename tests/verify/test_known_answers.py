"""Known answers: formats and trees that others made, and slow twins from the definitions."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from support import exported

from fedseal_verify import canonical, events, merkle, note, tiles
from fedseal_verify.errors import MalformedError
from fedseal_verify.evidence import parse_proof
from fedseal_verify.merkle import TileTree

SHARED = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "merkle"

# transparency-dev/merkle, testonly/constants.go: the leaves of the reference log and its roots at sizes 0 to 8.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# A checkpoint that Go's x/mod note accepts, and its log's key (seed 32 times 0x01).
CHECKPOINT = """fedseal.example/coord
70000
0Qy0kr/V5FAUnH4J9rZxjal3HootrxUxypU2ANRx3f0=

— fedseal.example/coord 8dlpo7jW/eMme9hbBA7idIQKfp2PwhRm27ls+Hjuw/j5017vN4gr8Urm4gDIzjkYG5nyUA7pQfYScSeO8SKcIhVQmQI=
"""
VKEY = "fedseal.example/coord+f1d969a3+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
# golang.org/x/mod sumdb/note: the note of its documentation.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
# transparency-dev/formats, note/note_cosigv1_test.go: a witness's key, algorithm 0x04.
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"


def test_roots_of_the_reference_log() -> None:
    hashes = merkle.leaf_hashes([bytes.fromhex(leaf) for leaf in LEAVES])
    for size, expected in enumerate(ROOTS):
        assert merkle.root(hashes[:size]).hex() == expected
        assert TileTree().root(hashes[:size]).hex() == expected


def vectors(kind: str) -> list[Any]:
    if not SHARED.is_dir():
        return [pytest.param(None, marks=pytest.mark.skip(reason="no shared vectors"))]
    return [pytest.param(path, id=str(path.relative_to(SHARED))) for path in sorted((SHARED / kind).rglob("*.json"))]


def hashes_of(values: list[str] | None) -> list[bytes]:
    return [base64.b64decode(each) for each in values or []]


# The one where fedseal is stricter than its source: its roots are not 32 bytes long.
STRICTER = "sizes are equal (one) and proof is empty"


@pytest.mark.parametrize("path", vectors("inclusion"))
def test_inclusion_vectors(path: Path) -> None:
    case = json.loads(path.read_text())
    leaf, root = base64.b64decode(case["leafHash"] or ""), base64.b64decode(case["root"] or "")
    held = merkle.verify_inclusion(leaf, case["leafIdx"], case["treeSize"], hashes_of(case["proof"]), root)
    assert held is not case["wantErr"]


@pytest.mark.parametrize("path", vectors("consistency"))
def test_consistency_vectors(path: Path) -> None:
    case = json.loads(path.read_text())
    roots = hashes_of([case["root1"], case["root2"]])
    held = merkle.verify_consistency(case["size1"], case["size2"], hashes_of(case["proof"]), *roots)
    assert held is not (case["wantErr"] or case["desc"] == STRICTER)


def test_the_edge_rules_for_consistency() -> None:
    empty, one = bytes.fromhex(ROOTS[0]), bytes.fromhex(ROOTS[1])
    assert not merkle.verify_consistency(0, 0, [], empty, empty)
    assert not merkle.verify_consistency(0, 1, [], empty, one)
    assert not merkle.verify_consistency(1, 1, [], b"short", b"short")
    assert merkle.verify_consistency(1, 1, [], one, one)


def test_the_study_s_checkpoint() -> None:
    key = note.parse_vkey(VKEY)
    checkpoint = note.parse_checkpoint(CHECKPOINT.encode())
    assert (checkpoint.origin, checkpoint.size) == ("fedseal.example/coord", 70000)
    assert note.log_signature_holds(checkpoint, [key])
    assert checkpoint.note == CHECKPOINT
    moved = note.parse_checkpoint(CHECKPOINT.replace("70000", "70001").encode())
    assert not note.log_signature_holds(moved, [key])


def test_the_note_of_x_mod() -> None:
    key = note.parse_vkey(PETER)
    data = base64.b64decode(PETER_SIGNATURE)
    assert data[:4] == key.key_id
    assert key.verifies(data[4:], PETER_TEXT.encode())
    assert not key.verifies(data[4:], PETER_TEXT.encode() + b"\n")


def test_a_witness_key_id() -> None:
    assert note.parse_vkey(REMORA).algorithm == note.WITNESS
    with pytest.raises(MalformedError, match="key id"):
        note.parse_vkey(REMORA.replace("da77ade7", "da77ade8"))


def test_tiles_of_70000_entries() -> None:
    """The example of tlog-tiles, "Partial Tiles"."""
    tree = TileTree()
    hashes = [index.to_bytes(32, "big") for index in range(70000)]
    made = [tile for start in range(0, 69888, 256) for tile in tree.append(hashes[start : start + 256])]
    assert [sum(tile.level == level for tile in made) for level in range(3)] == [273, 1, 0]
    partial = [(tile.level, len(tile.hashes)) for tile in tree.partial(hashes[69888:])]
    assert partial == [(0, 112), (1, 17), (2, 1)]
    assert tree.root(hashes[69888:]) == exported.root(hashes) == merkle.root(hashes)


def test_tile_paths() -> None:
    """The example of tlog-tiles, "Merkle Tree"."""
    assert tiles.tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tiles.tile_path("entries", 273, 112) == "tile/entries/273.p/112"


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_inclusion_equals_its_slow_twin(size: int) -> None:
    hashes = exported.leaf_hashes([bytes([index]) for index in range(size)])
    for index in range(size):
        path = exported.inclusion(hashes, index)
        assert merkle.verify_inclusion(hashes[index], index, size, path, exported.root(hashes))
        assert not merkle.verify_inclusion(hashes[index], index, size, [*path, hashes[0]], exported.root(hashes))


def test_consistency_nodes_lead_to_both_roots(tmp_path: Path) -> None:
    """For every pair of sizes around the borders of tiles, from the tiles of an export."""
    leaves = [index.to_bytes(3, "big") for index in range(514)]
    sizes = [1, 2, 3, 5, 8, 127, 128, 255, 256, 257, 300, 511, 512, 513, 514]
    roots = {size: exported.root(exported.leaf_hashes(leaves[:size])) for size in sizes}
    for size2 in sizes[1:]:
        directory = exported.write_export(tmp_path / str(size2), leaves[:size2])
        reader = tiles.TileReader(directory, size2)
        for size1 in (each for each in sizes if each < size2):
            nodes = reader.consistency_nodes(size1)
            assert merkle.consistency_roots(size1, size2, nodes) == (roots[size1], roots[size2])
            path = nodes[1:] if size1 & (size1 - 1) == 0 else nodes
            assert merkle.verify_consistency(size1, size2, path, roots[size1], roots[size2])
            assert not merkle.verify_consistency(size1, size2, path, roots[size2], roots[size2])


def test_a_smaller_tree_is_read_from_larger_tiles(tmp_path: Path) -> None:
    leaves = [index.to_bytes(3, "big") for index in range(514)]
    directory = exported.write_export(tmp_path, leaves)
    for size in (100, 300, 513):
        expected = exported.root(exported.leaf_hashes(leaves[:size]))
        assert tiles.TileReader(directory, size).subtree(0, size) == expected


def test_pae() -> None:
    """DSSE protocol.md: `PAE("http://example.com/HelloWorld", "hello world")` has this form."""
    assert events.pae(b"hello world") == b"DSSEv1 34 application/vnd.fedseal.event+json 11 hello world"


def test_jcs_escapes() -> None:
    """RFC 8785, 3.2.2.2, and its sample of 3.2.3 as far as leaves may hold it."""
    value = {"a": '€$\u000f\nA\'B"\\\\"/', "b": [None, True, False, -1]}
    written = '{"a":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/","b":[null,true,false,-1]}'.encode()
    assert canonical.encode(value) == written
    assert canonical.decode(written) == value


def test_a_proof_file_with_extra() -> None:
    text = exported.proof(exported.book(5).leaves, 3)
    with_extra = text.replace("index 3", "extra aGVsbG8=\nindex 3")
    assert parse_proof(with_extra.encode()) == parse_proof(text.encode())
