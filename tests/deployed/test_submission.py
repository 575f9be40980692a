"""Following a run by the events that its ServerApp writes, with a fake `flwr` that writes some."""

import json
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from support.studies import tiny

from fedseal.client.task import Task
from fedseal.errors import BudgetExceeded, ConfigError, FedsealError, LocalError, PeerError, RoundAborted
from fedseal.server.recording import EVENTS
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.processes import Programs
from fedseal.simulation.deployed.submission import Event, Events, Submission, error_of, run_number, submit
from fedseal.study_code import load_task

STARTED, FINISHED = {"event": "started"}, {"event": "finished"}


def failed(error: str) -> dict[str, str]:
    return {"event": "failed", "error": error, "message": "a message", "next_step": "a step"}


def followed(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    events: list[dict[str, Any]],
    *,
    code: int = 0,
    sleep: float = 0,
    silence: float = 20,
) -> list[str]:
    """What a run is seen to do whose `flwr run` writes these events, and ends."""
    text = "".join(json.dumps(event) + "\n" for event in events)
    writer = f"open({str(folder / EVENTS)!r}, 'a').write({text!r}); import time; time.sleep({sleep}); exit({code})"
    monkeypatch.setattr(flower, "run_command", lambda app: [sys.executable, "-c", writer])
    study = tiny()
    task = cast(Task, load_task(study.contract.task, study.folder))
    seen: list[Event] = []
    with Programs(folder / "logs", grace=0.5) as programs:
        made = Submission(study, task, folder / "server.sqlite", 3, folder)
        submit(made, programs, dict(os.environ), seen.append, silence=silence)
    return [event["event"] for event in seen]


def test_a_run_is_followed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = [{"event": "round", "number": n} for n in (1, 2)]
    assert followed(tmp_path, monkeypatch, [STARTED, *rounds, FINISHED]) == ["started", "round", "round", "finished"]


def test_what_the_serverapp_wrote_down_is_what_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BudgetExceeded) as caught:
        followed(tmp_path, monkeypatch, [STARTED, failed("BudgetExceeded")])
    assert caught.value.explain() == "a message\na step"


def test_a_run_that_ends_without_a_result_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="ended, and the run has no result"):
        followed(tmp_path, monkeypatch, [STARTED], code=1)


def test_a_silent_run_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="nothing to say about the run"):
        followed(tmp_path, monkeypatch, [STARTED], sleep=600, silence=0.5)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("RoundAborted", RoundAborted), ("ConfigError", ConfigError), ("PeerError", PeerError), ("Unheard", LocalError)],
)
def test_an_error_keeps_its_class(name: str, kind: type[FedsealError]) -> None:
    error = error_of(failed(name))
    assert type(error) is kind
    assert error.message == "a message"


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / EVENTS
    events = Events(path)
    assert events.new() == []
    path.write_text('{"event": "started"}\n{"event": "pla', encoding="utf-8")
    assert events.new() == [STARTED]
    assert events.new() == []
    with path.open("a", encoding="utf-8") as file:
        file.write('nned"}\n')
    assert events.new() == [{"event": "planned"}]


def test_flowers_number_of_a_run_is_read_from_what_it_said(tmp_path: Path) -> None:
    log = tmp_path / "flwr-run.log"
    assert run_number(log) is None
    log.write_text("Using SuperLink: fedseal\nSuccessfully started run 13550682635950619906\nINFO", encoding="utf-8")
    assert run_number(log) == 13550682635950619906
