"""A run that was killed leaves a folder with copies of data: the next run removes it, and never one that lives."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedseal.simulation.folders import remove_leftovers, run_folder

RUN = """
import sys, time
from pathlib import Path
from fedseal.simulation.folders import run_folder

with run_folder(Path(sys.argv[1]), "study") as (folder, _):
    (folder / "data").mkdir()
    (folder / "data" / "persons.csv").write_text("who")
    print("in", flush=True)
    time.sleep(600)
"""
Process = subprocess.Popen[str]


def begun(out: Path) -> Process:
    """A process in the middle of a run."""
    process = subprocess.Popen([sys.executable, "-c", RUN, str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Processes that end with the test."""
    found: list[Process] = []
    yield found
    for process in found:
        process.kill()
        process.wait(timeout=30)


def killed(process: Process) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()}


def test_what_a_killed_run_left_is_removed_and_what_lives_stays(tmp_path: Path, processes: list[Process]) -> None:
    finished = tmp_path / "study-20260101-000000-abcdef"
    finished.mkdir()
    (finished / "result.json").write_text("{}")
    processes += [begun(tmp_path), begun(tmp_path)]
    both = names(tmp_path)
    assert len([name for name in both if name.endswith(".partial")]) == 2
    assert remove_leftovers(tmp_path) == 0
    assert names(tmp_path) == both
    killed(processes[0])
    assert names(tmp_path) == both
    assert remove_leftovers(tmp_path) == 1
    left = names(tmp_path)
    assert len(left) == 3 and finished.name in left
    (living,) = tmp_path.glob("*.partial")
    assert (living / "data" / "persons.csv").read_text() == "who"
    killed(processes[1])
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == {finished.name}
    assert remove_leftovers(tmp_path) == 0


def test_a_run_of_this_very_process_is_left_alone(tmp_path: Path) -> None:
    with run_folder(tmp_path, "study") as (folder, run):
        assert remove_leftovers(tmp_path) == 0
        assert folder.is_dir()
    assert names(tmp_path) == {run}


def test_what_is_not_known_to_be_ours_is_left_alone(tmp_path: Path) -> None:
    for name in (".study-20260101-000000-abcdef.partial", ".other.partial"):
        (tmp_path / name).mkdir()
    (tmp_path / ".other.lock").touch()
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "kept").touch()
    (tmp_path / ".study-20260101-000000-000000.lock").symlink_to(target / "kept")
    before = names(tmp_path)
    assert remove_leftovers(tmp_path) == 0
    assert names(tmp_path) == before
    assert remove_leftovers(tmp_path / "nowhere") == 0


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    out = tmp_path / "out"
    out.mkdir()
    (out / ".study-20260101-000000-abcdef.lock").touch()
    (out / ".study-20260101-000000-abcdef.partial").symlink_to(tmp_path / "kept")
    assert remove_leftovers(out) == 0
    assert (tmp_path / "kept" / "file").exists()


def test_a_lock_without_a_folder_is_removed_without_a_word(tmp_path: Path) -> None:
    (tmp_path / ".study-20260101-000000-abcdef.lock").touch()
    assert remove_leftovers(tmp_path) == 0
    assert names(tmp_path) == set()


def test_a_folder_that_cannot_be_removed_is_not_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".study-20260101-000000-abcdef.lock").touch()
    (tmp_path / ".study-20260101-000000-abcdef.partial").mkdir()
    before = names(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert remove_leftovers(tmp_path) == 0
    assert names(tmp_path) == before
    assert remove_leftovers(tmp_path) == 1


def test_a_lock_is_for_its_owner_alone(tmp_path: Path) -> None:
    with run_folder(tmp_path, "study"):
        (lock,) = tmp_path.glob("*.lock")
        assert lock.stat().st_mode & 0o777 == 0o600
