"""Tiles stand where C2SP says, and hold what their path says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.logs import hashes, leaves

from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.tiles import (
    MAX_ENTRY,
    WIDTH,
    Tile,
    bundles_of,
    decode_entries,
    decode_hashes,
    encode_entries,
    encode_hashes,
    parse_path,
    tiles_of,
)
from fedseal.errors import LocalError


# The numbers and sizes are those of c2sp.org/tlog-tiles.
@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(0, 0), "tile/0/000"),
        (Tile(63, 999, 1), "tile/63/999.p/1"),
        (Tile(1, 1000), "tile/1/x001/000"),
        (Tile(None, 273, 112), "tile/entries/273.p/112"),
        (Tile(None, 12_345_678_901), "tile/entries/x012/x345/x678/901"),
    ],
)
def test_known_paths(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_path(path) == tile


def test_the_tiles_of_seventy_thousand_leaves() -> None:
    tiles = list(tiles_of(70_000))
    assert [t for t in tiles if t.width < WIDTH] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert [sum(t.level == level and t.width == WIDTH for t in tiles) for level in range(3)] == [273, 1, 0]
    assert list(tiles_of(256)) == [Tile(0, 0), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == list(bundles_of(0)) == []
    assert list(bundles_of(257)) == [Tile(None, 0), Tile(None, 1, 1)]


@given(st.none() | st.integers(0, 63), st.integers(0, 10**12), st.integers(1, WIDTH))
def test_one_tile_has_one_path(level: int | None, index: int, width: int) -> None:
    tile = Tile(level, index, width)
    assert parse_path(tile.path) == tile


STRANGE = [
    "tile/0/0",
    "tile/00/000",
    "tile/64/000",
    "tile/0/1234",
    "tile/0/001/002",
    "tile/0/x000/000",
    "tile/0/000.p/0",
]
STRANGE += [
    "tile/0/000.p/256",
    "tile/0/000.p/01",
    "tile/0/000/",
    "/tile/0/000",
    "tile/-1/000",
    "tile/x/000",
    "tile/0/x01/000",
]
STRANGE += ["tile/0/../000", "tile/0/\u0661\u0661\u0661", "tile/entries/x000/001", "checkpoint", "", "tile/0/000\n"]


@pytest.mark.parametrize("path", STRANGE)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(MalformedError):
        parse_path(path)


@pytest.mark.parametrize(("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_there_are_no_other_tiles(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile(level, index, width)


def test_hashes_go_there_and_back() -> None:
    assert list(decode_hashes(encode_hashes(hashes(17)), 17)) == hashes(17)
    for width in (16, 18):
        with pytest.raises(MalformedError):
            decode_hashes(encode_hashes(hashes(17)), width)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_entries_go_there_and_back(entries: list[bytes]) -> None:
    raw = encode_entries(entries)
    assert list(decode_entries(raw, len(entries))) == entries
    for other in (raw + b"\0", raw[:-1], raw + b"\0\0"):
        if other != raw:
            with pytest.raises(MalformedError):
                decode_entries(other, len(entries))


def test_known_bundle() -> None:
    assert encode_entries([b"", b"ab"]) == b"\x00\x00\x00\x02ab"
    assert decode_entries(encode_entries([bytes(MAX_ENTRY)]), 1) == (bytes(MAX_ENTRY),)
    with pytest.raises(LocalError):
        encode_entries([bytes(MAX_ENTRY + 1)])
    assert len(leaves(0, 3)) == 3
