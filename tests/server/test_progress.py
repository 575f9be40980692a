"""What a server says of this moment: who is connected, and where a run stands."""

import json
import stat
import time
from pathlib import Path

import pytest

from fedseal.server.progress import (
    BEAT,
    PRESENCE,
    PROGRESS,
    STALE,
    Progress,
    read_presence,
    read_progress,
    told_who_is_there,
    write_progress,
)

STANDING = Progress(12.5, "update", 3, 0, "mask", 4)


def test_a_standing_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_progress(tmp_path, STANDING)
    assert read_progress(tmp_path) == STANDING
    assert stat.S_IMODE((tmp_path / PROGRESS).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [PROGRESS]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"schema_version": 2}', '{"schema_version": 1, "time": []}'])
def test_what_cannot_be_read_says_nothing(tmp_path: Path, content: str) -> None:
    for name in (PROGRESS, PRESENCE):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_progress(tmp_path) is None
    assert read_presence(tmp_path) is None


def test_a_folder_that_is_gone_is_no_reason_to_stop(tmp_path: Path) -> None:
    write_progress(tmp_path / "gone", STANDING)
    assert read_progress(tmp_path / "gone") is None


def test_who_is_connected_is_written_as_it_changes_and_gone_at_the_end(tmp_path: Path) -> None:
    there = ["south"]
    with told_who_is_there(tmp_path, lambda: list(there), look=0.01):
        end = time.monotonic() + 20
        for expected in (("south",), ("north", "south"), ("north",)):
            there[:] = expected
            while (found := read_presence(tmp_path)) is None or found.online != expected:
                assert time.monotonic() < end
                time.sleep(0.01)
        assert found is not None
        assert set(found.seen) == {"north", "south"}
        assert found.runs(found.time + BEAT)
        assert not found.runs(found.time + STALE)
        assert json.loads((tmp_path / PRESENCE).read_text())["schema_version"] == 1
    assert not (tmp_path / PRESENCE).exists()
