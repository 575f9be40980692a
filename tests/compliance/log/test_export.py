"""An export holds, in C2SP's own layout, what its checkpoint promises."""

from pathlib import Path

import pytest
from support.keys import SERVER
from support.logs import LOG, ORIGIN, hashes, leaves, witness

from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.database import open_database, transaction
from fedseal.compliance.log.export import export
from fedseal.compliance.log.note import signers
from fedseal.compliance.log.quorum import federation_policy, parse_policy
from fedseal.compliance.log.tiles import decode_entries, decode_hashes, parse_path
from fedseal.errors import LocalError
from fedseal.merkle import leaf_hash, root

POLICY = federation_policy(LOG, [witness(i).vkey for i in range(3)], 0)


def found(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def slow_tile(path: str, size: int) -> bytes:
    """What c2sp.org/tlog-tiles says stands at a path: MTH(D[(n * 256 + i) * 256**l : (n * 256 + i + 1) * 256**l])."""
    tile, entries = parse_path(path), hashes(size)
    if tile.level is None:
        return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves(tile.start, tile.stop))
    span = 256**tile.level
    return b"".join(root(entries[i * span : (i + 1) * span]) for i in range(tile.start, tile.stop))


@pytest.mark.parametrize(
    ("size", "files"),
    [
        (0, set()),
        (3, {"tile/0/000.p/3", "tile/entries/000.p/3"}),
        (256, {"tile/0/000", "tile/1/000.p/1", "tile/entries/000"}),
        (
            600,
            {"tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2"}
            | {"tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"},
        ),
    ],
)
def test_the_files(tmp_path: Path, size: int, files: set[str]) -> None:
    engine = open_database(tmp_path / "log.sqlite")
    with transaction(engine, ORIGIN) as log:
        log.append(leaves(0, size))
        note = log.sign_checkpoint(SERVER)
        # What came after the checkpoint is not promised by it.
        log.append(leaves(size, size + 300))
        assert export(log, tmp_path / "out", POLICY) == size
        export(log, tmp_path / "out", POLICY)
    engine.dispose()
    out = tmp_path / "out"
    assert found(out) == files | {"checkpoint", "policy.txt"}
    assert (out / "checkpoint").read_text(encoding="utf-8") == note
    assert parse_policy((out / "policy.txt").read_bytes()) == POLICY
    for path in files:
        assert (out / path).read_bytes() == slow_tile(path, size)


def test_someone_with_the_folder_alone_finds_it_right(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "log.sqlite")
    with transaction(engine, ORIGIN) as log:
        log.append(leaves(0, 777))
        log.sign_checkpoint(SERVER)
        export(log, tmp_path / "out")
    engine.dispose()
    out = tmp_path / "out"
    checkpoint, note = read_checkpoint((out / "checkpoint").read_bytes())
    assert signers(note, [LOG]) == (LOG,)
    entries: list[bytes] = []
    for path in sorted((out / "tile" / "entries").rglob("*")):
        if path.is_file():
            tile = parse_path(str(path.relative_to(out)))
            entries += decode_entries(path.read_bytes(), tile.width)
            stored = (out / tile.path.replace("entries", "0")).read_bytes()
            assert list(decode_hashes(stored, tile.width)) == [leaf_hash(e) for e in entries[tile.start :]]
    assert root([leaf_hash(e) for e in entries]) == checkpoint.root
    assert not (out / "policy.txt").exists()


def test_without_a_checkpoint_there_is_no_export(tmp_path: Path) -> None:
    engine = open_database(tmp_path / "log.sqlite")
    with transaction(engine, ORIGIN) as log:
        log.append(leaves(0, 3))
        with pytest.raises(LocalError):
            export(log, tmp_path / "out")
    engine.dispose()
    assert not (tmp_path / "out").exists()
