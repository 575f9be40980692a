"""The study's process hangs, grows, crashes, prints without end, answers too much or in another form: it is stopped,
the node says why, and is not held up.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.strangers import LIMIT, asked, asking, landlocked, load, stranger

from fedseal.client.isolation import output, process
from fedseal.client.isolation.messages import Answered, Failed
from fedseal.client.isolation.output import StudyLog
from fedseal.client.isolation.pieces import Call
from fedseal.client.isolation.process import StoppedError, StudyProcess
from fedseal.client.isolation.records import arrays_in
from fedseal.client.isolation.work import reply_to
from fedseal.client.release import TaskError
from fedseal.wire import DecodeError, decode, encode

pytestmark = pytest.mark.skipif(not landlocked(), reason="needs a Linux with namespaces, Landlock and seccomp")


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("study", "data"):
        (tmp_path / name).mkdir()
    return tmp_path / "study", tmp_path / "data"


def gone(number: int) -> bool:
    """Whether a process of this number has ended and been waited for."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("deed", "why"),
    [
        ("hang", "longer than 1 s"),
        ("exit", r"ended \(3\)"),
        ("crash", "ended with signal 11"),
        ("grow", "more memory"),
        ("print for ever", "printed without end"),
        ("huge", "than the 65536 bytes"),
    ],
)
def test_what_does_not_behave_is_stopped_and_the_reason_is_said(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, deed: str, why: str
) -> None:
    monkeypatch.setattr(output, "MOST", 1 << 20)
    with stranger(*folders, seconds=1 if deed == "hang" else 60, memory_mb=512) as made:
        with pytest.raises(StoppedError, match=why) as caught:
            asking(made, deed)
        assert not caught.value.killed
        assert gone(made.number)
        with pytest.raises(StoppedError, match="has ended"):
            asking(made, "answer")


def test_one_that_behaves_stays(folders: tuple[Path, Path]) -> None:
    with stranger(*folders) as made:
        first, second = asking(made, "number"), asking(made, "number")
        # In a namespace of its own it is the first process.
        assert [int(arrays_in(a.arrays)["v"][0]) for a in (first, second)] == [1, 1]
        assert asking(made, "answer").arrays[0].form == "<f4"
    assert gone(made.number)
    assert not Path(made._folder).exists()


def test_a_kill_from_outside_is_told_from_an_end_of_its_own(folders: tuple[Path, Path]) -> None:
    with stranger(*folders) as made:
        (study,) = Path(f"/proc/{made.number}/task/{made.number}/children").read_text().split()
        os.kill(int(study), signal.SIGKILL)
        with pytest.raises(StoppedError) as caught:
            asking(made, "answer")
        assert caught.value.killed


def test_it_ends_with_its_node(folders: tuple[Path, Path]) -> None:
    """Whatever ends the node closes its end of the pipe; the twin: while that is open the process stays."""
    with stranger(*folders) as made:
        time.sleep(2 * 0.5)
        assert made._process.poll() is None
        assert made._process.stdin is not None
        made._process.stdin.close()
        assert made._process.wait(10) == 0
        # And leaves nothing behind, for a node that is gone cannot clear up.
        assert not made._folder.exists()


def test_answers_of_another_form_are_refused_by_the_node(folders: tuple[Path, Path]) -> None:
    with stranger(*folders) as made:
        for deed in ("object", "shape"):
            with pytest.raises(DecodeError):
                arrays_in(asking(made, deed).arrays)
        for deed, why in (("object", "closed list"), ("metric", "no number"), ("memory", "where nothing is")):
            with pytest.raises(TaskError, match=why):
                reply_to(Any, asking(made, deed), None)  # type: ignore[arg-type]


def test_what_it_prints_is_kept_for_the_site_alone_and_cut(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "LARGEST_FILE", 3000)
    path = tmp_path / "a-study.log"
    with stranger(*folders, printed=StudyLog(path)) as made:
        for _ in range(4):
            asking(made, "print")
    lines = path.read_text(encoding="utf-8").splitlines()
    assert any(line[20:].startswith("a person's name\\x1b[2J x") for line in lines)
    assert max(map(len, lines)) <= output.LINE + 30
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.glob("*.log*")} == {path.name, f"{path.name}.1"}
    assert all(p.stat().st_size <= 3000 for p in tmp_path.glob("*.log*"))


def test_a_failure_while_loading_is_an_answer(folders: tuple[Path, Path]) -> None:
    with stranger(*folders) as made:
        failed = decode(made.ask(Call.LOAD, encode(load(*folders, task="bad:Data")), LIMIT), Failed)
        assert "ValueError" in failed.message
        # And the study that was loaded before is not there any more.
        assert isinstance(decode(made.ask(Call.TRAIN, encode(asked("answer")), LIMIT), Answered, Failed), Failed)


def test_what_does_not_start_is_said(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from fedseal.client.isolation.settings import IsolationPart

    monkeypatch.setattr(process, "PROGRAM", "fedseal.no_such_module")
    with pytest.raises(StoppedError, match=r"ended \(1\)"):
        StudyProcess(IsolationPart(), (), 1)
