"""The digest of a folder of code: known bytes, what counts and what does not."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fedseal.compliance.data.code import code_digest
from fedseal.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    where = tmp_path / "study"
    (where / "parts").mkdir(parents=True)
    (where / "task.py").write_bytes(b"x = 1\n")
    (where / "parts" / "a.py").write_bytes(b"y = 2\n")
    return where


def test_the_digest_is_what_the_page_says(folder: Path) -> None:
    expected = hashlib.sha256(b"fedseal/code/1\0")
    for name, text in ((b"parts/a.py", b"y = 2\n"), (b"task.py", b"x = 1\n")):
        expected.update(len(name).to_bytes(4, "big") + name + hashlib.sha256(text).digest())
    assert code_digest(folder) == expected.digest()


NOTHING: dict[str, Callable[[Path], object]] = {
    "times": lambda f: os.utime(f / "task.py", (1, 1)),
    "permissions": lambda f: (f / "task.py").chmod(0o600),
    "an empty folder": lambda f: (f / "empty").mkdir(),
    "a cache": lambda f: _put(f / "parts" / "__pycache__" / "a.cpython-311.pyc"),
    "a compiled file": lambda f: _put(f / "task.pyc"),
    "the history": lambda f: _put(f / ".git" / "HEAD"),
    "results": lambda f: _put(f / "runs" / "1" / "result.json"),
}
SOMETHING: dict[str, Callable[[Path], object]] = {
    "a byte": lambda f: (f / "task.py").write_bytes(b"x = 2\n"),
    "a new file": lambda f: _put(f / "b.txt"),
    "a hidden file": lambda f: _put(f / ".hidden"),
    "another name": lambda f: (f / "task.py").rename(f / "tusk.py"),
    "a folder called runs further down": lambda f: _put(f / "parts" / "runs" / "a.py"),
    "a file less": lambda f: (f / "parts" / "a.py").unlink(),
}


def _put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"something")


@pytest.mark.parametrize("what", NOTHING)
def test_what_does_not_count(folder: Path, what: str) -> None:
    before = code_digest(folder)
    NOTHING[what](folder)
    assert code_digest(folder) == before


@pytest.mark.parametrize("what", SOMETHING)
def test_what_counts(folder: Path, what: str) -> None:
    before = code_digest(folder)
    SOMETHING[what](folder)
    assert code_digest(folder) != before


def test_the_same_folder_elsewhere_has_the_same_digest(folder: Path) -> None:
    assert code_digest(folder) == code_digest(folder.rename(folder.with_name("elsewhere")))


def test_links_and_missing_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "link.py").symlink_to(folder / "task.py")
    with pytest.raises(ConfigError, match="is a link"):
        code_digest(folder)
    with pytest.raises(ConfigError, match="no folder"):
        code_digest(tmp_path / "none")
