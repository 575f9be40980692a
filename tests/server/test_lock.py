"""Who works in a folder of runs is known, and is asked to end by number, and nobody else is."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedseal.errors import ConfigError
from fedseal.server.lock import NAME, alone, holder, stop_holder


@contextmanager
def worker(runs: Path, *, deaf: bool = False) -> Iterator[int]:
    """A process that holds a folder until it is asked to end; a deaf one is not."""
    ready, begun = os.pipe()
    number = os.fork()
    if number == 0:
        try:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else signal.SIG_DFL)
            with alone(runs):
                os.write(begun, b".")
                time.sleep(60)
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        yield number
    finally:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        os.close(ready)
        os.close(begun)


def test_nobody_holds_a_folder_that_is_free_or_not_there(tmp_path: Path) -> None:
    assert holder(tmp_path / "none") is None
    with alone(tmp_path):
        assert holder(tmp_path) == os.getpid()
    assert holder(tmp_path) is None
    # One that was killed leaves its number, and holds nothing.
    (tmp_path / NAME).write_text("4711\n")
    assert holder(tmp_path) is None


def test_who_cannot_have_it_does_not_take_the_holders_number_away(tmp_path: Path) -> None:
    with alone(tmp_path):
        with pytest.raises(ConfigError, match="another server"), alone(tmp_path):
            pass
        assert holder(tmp_path) == os.getpid()


def test_the_holder_is_asked_and_waited_for(tmp_path: Path) -> None:
    with worker(tmp_path) as number:
        assert holder(tmp_path) == number
        stop_holder(tmp_path, number, 10)
        assert holder(tmp_path) is None


def test_a_holder_that_is_ending_may_say_nothing_any_more(tmp_path: Path) -> None:
    """It takes its number out of the file before it gives it back."""
    with worker(tmp_path) as number:

        def ending(_: float) -> None:
            if (tmp_path / NAME).read_text():
                (tmp_path / NAME).write_text("")
            else:
                os.kill(number, signal.SIGCONT)

        os.kill(number, signal.SIGSTOP)
        stop_holder(tmp_path, number, 10, sleep=ending)
        assert holder(tmp_path) is None


def test_one_that_does_not_end_is_said(tmp_path: Path) -> None:
    with worker(tmp_path, deaf=True) as number:
        with pytest.raises(ConfigError, match=f"process {number}. was asked to end and has not"):
            stop_holder(tmp_path, number, 0.3)
        assert holder(tmp_path) == number


def test_a_process_that_does_not_hold_the_folder_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *what: asked.append(what))
    # The number was another server's a moment ago.
    stop_holder(tmp_path, os.getpid(), 0.1)
    assert asked == []


def test_a_holder_that_cannot_be_seen_or_says_nothing_is_said(tmp_path: Path) -> None:
    with alone(tmp_path):
        (tmp_path / NAME).write_text("999999999\n")
        with pytest.raises(ConfigError, match="is not one that is seen from here"):
            stop_holder(tmp_path, 999999999, 0.1)
        (tmp_path / NAME).write_text("")
        with pytest.raises(ConfigError, match="does not say its process number"):
            holder(tmp_path)
