"""Files of earlier formats: step by step or not at all, with a copy of what they were."""

import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from fedseal.database import connect
from fedseal.errors import ConfigError
from fedseal.migration import Format, Step, upgrade


def adds(name: str) -> Step:
    """A step that makes a table."""

    def step(connection: Connection) -> None:
        connection.exec_driver_sql(f"CREATE TABLE {name} (x)")
        connection.exec_driver_sql(f"INSERT INTO {name} VALUES (1)")  # noqa: S608

    return step


def breaks(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE half (x)")
    connection.exec_driver_sql("SELECT * FROM absent")


THREE = Format("test file", (adds("second"), adds("third")))


@pytest.fixture
def make(tmp_path: Path) -> Callable[[bytes | None], Path]:
    def made(number: bytes | None) -> Path:
        path = tmp_path / "file.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB)")
            if number is not None:
                connection.execute("INSERT INTO meta VALUES ('format', ?)", (number,))
        connection.close()
        path.chmod(0o600)
        return path

    return made


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    connection.close()
    return found


def number(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    (value,) = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    connection.close()
    return bytes(value)


@pytest.mark.parametrize(("before", "added"), [(b"1", {"second", "third"}), (b"2", {"third"})])
def test_a_file_goes_through_the_steps_that_it_lacks(
    make: Callable[[bytes | None], Path], before: bytes, added: set[str]
) -> None:
    path = make(before)
    kept = upgrade(path, connect(path), THREE)
    assert (tables(path), number(path)) == ({"meta"} | added, b"3")
    assert kept == path.with_name(f"file.sqlite.format-{before.decode()}")
    assert (tables(kept), number(kept)) == ({"meta"}, before)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert upgrade(path, connect(path), THREE) is None
    assert sorted(p.name for p in path.parent.iterdir() if "-" not in p.suffix) == ["file.sqlite"]


@pytest.mark.parametrize("found", [b"4", b"99", b"0", b"", b"-1", b"1.0", b"one", b"1" * 5000, None])
def test_a_later_format_or_none_is_refused_and_nothing_changes(
    make: Callable[[bytes | None], Path], found: bytes | None
) -> None:
    path = make(found)
    with pytest.raises(ConfigError, match="another format than 3") as caught:
        upgrade(path, connect(path), THREE)
    assert caught.value.next_step == "Use the fedseal that made it."
    assert tables(path) == {"meta"}
    assert not list(path.parent.glob("*.format-*"))


def test_a_step_that_fails_leaves_the_file_as_it_was(make: Callable[[bytes | None], Path]) -> None:
    path = make(b"1")
    with pytest.raises(ConfigError, match="no such table: absent") as caught:
        upgrade(path, connect(path), Format("test file", (adds("second"), breaks)))
    assert "Nothing has changed" in caught.value.next_step
    assert (tables(path), number(path)) == ({"meta"}, b"1")
    # The copy of the attempt is no obstacle to the next one.
    assert upgrade(path, connect(path), THREE) is not None
    assert tables(path) == {"meta", "second", "third"}


def test_a_file_is_not_changed_where_no_copy_can_be_kept(make: Callable[[bytes | None], Path]) -> None:
    path = make(b"1")
    path.with_name("file.sqlite.format-1").mkdir()
    with pytest.raises(ConfigError, match="no copy of it could be kept"):
        upgrade(path, connect(path), THREE)
    assert (tables(path), number(path)) == ({"meta"}, b"1")
    assert not list(path.parent.glob(".*"))


def test_the_copy_has_what_was_written_last(make: Callable[[bytes | None], Path]) -> None:
    """Also what is in the write-ahead log only, since another program has the file open."""
    path = make(b"1")
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode=WAL")
    with other:
        other.execute("CREATE TABLE last (x)")
    assert path.with_name("file.sqlite-wal").stat().st_size > 0
    kept = upgrade(path, connect(path), THREE)
    other.close()
    assert kept is not None
    assert tables(kept) == {"meta", "last"}


KILLED = """
import os, sys
from pathlib import Path
from fedseal.database import connect
from fedseal.migration import Format, upgrade
def half(connection):
    connection.exec_driver_sql("CREATE TABLE half (x)")
    os.kill(os.getpid(), 9)
path = Path(sys.argv[1])
upgrade(path, connect(path), Format("test file", (half,)))
"""


def test_a_process_that_dies_in_a_step_leaves_the_file_as_it_was(make: Callable[[bytes | None], Path]) -> None:
    path = make(b"1")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert (tables(path), number(path)) == ({"meta"}, b"1")
    assert upgrade(path, connect(path), THREE) is not None
