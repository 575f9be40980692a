"""A file that looks untouched is not read; one that was touched is, whatever its times and size say."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedseal.client.datasets import files
from fedseal.client.datasets.files import RACY_NS, FileState, differences, file_states
from fedseal.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "data"
    (where / "images").mkdir(parents=True)
    (where / "persons.csv").write_bytes(b"person\n1\n")
    (where / "images" / "1.bin").write_bytes(b"pixels")
    return where


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which files were read."""
    names: list[str] = []
    hashed = files._hashed

    def noted(path: Path, name: str) -> FileState:
        names.append(name)
        return hashed(path, name)

    monkeypatch.setattr(files, "_hashed", noted)
    return names


def settled(states: dict[str, FileState]) -> dict[str, FileState]:
    """As they would be had they been hashed long after they were written."""
    return {n: replace(s, hashed_ns=s.hashed_ns + 2 * RACY_NS) for n, s in states.items()}


def test_untouched_files_are_not_read(folder: Path, reads: list[str]) -> None:
    before = settled(file_states(folder))
    reads.clear()
    assert file_states(folder, before) == before
    assert reads == []
    assert sorted(before) == ["images/1.bin", "persons.csv"]


def test_a_file_hashed_right_after_it_was_written_is_read_again(folder: Path, reads: list[str]) -> None:
    before = file_states(folder)
    reads.clear()
    assert differences(before, file_states(folder, before)) == []
    assert reads == ["persons.csv", "images/1.bin"]


def disguise(folder: Path) -> None:
    """One byte changed in place; size, inode and mtime as they were."""
    path = folder / "persons.csv"
    was = path.stat()
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"2")
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))
    now = path.stat()
    assert (now.st_size, now.st_ino, now.st_mtime_ns) == (was.st_size, was.st_ino, was.st_mtime_ns)


CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "one byte": (lambda f: (f / "persons.csv").write_bytes(b"person\n2\n"), ["persons.csv has changed"]),
    "one byte in disguise": (disguise, ["persons.csv has changed"]),
    "a file less": (lambda f: (f / "images" / "1.bin").unlink(), ["images/1.bin is missing"]),
    "a file more": (lambda f: (f / ".hidden").write_bytes(b""), [".hidden is new"]),
    "another name": (
        lambda f: (f / "persons.csv").rename(f / "people.csv"),
        ["persons.csv is missing", "people.csv is new"],
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_seen(folder: Path, what: str) -> None:
    before = settled(file_states(folder))
    change, expected = CHANGES[what]
    change(folder)
    assert differences(before, file_states(folder, before)) == expected


def test_a_touched_file_is_read_and_found_the_same(folder: Path, reads: list[str]) -> None:
    before = settled(file_states(folder))
    os.utime(folder / "persons.csv", (1, 1))
    (folder / "images" / "1.bin").write_bytes(b"pixels")
    reads.clear()
    assert differences(before, file_states(folder, before)) == []
    assert reads == ["persons.csv", "images/1.bin"]


def test_what_could_change_unseen_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="more is no file"):
        file_states(folder)
    (folder / "more").unlink()
    (folder / "gone.csv").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.csv is no file"):
        file_states(folder)
    (folder / "gone.csv").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(DataError, match="pipe is no file"):
        file_states(folder)
    with pytest.raises(DataError, match="no folder"):
        file_states(folder / "none")


def test_a_link_to_a_file_counts_as_the_file(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "big.bin"
    target.write_bytes(b"1")
    (folder / "big.bin").symlink_to(target)
    before = settled(file_states(folder))
    target.write_bytes(b"2")
    assert differences(before, file_states(folder, before)) == ["big.bin has changed"]
