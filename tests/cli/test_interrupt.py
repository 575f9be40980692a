"""Ctrl-C and SIGTERM in the middle of a run: exit code 130, no process left, and nothing in the folder for runs."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.studies import TINY

COMMAND = [sys.executable, "-c", "from fedseal.cli.main import main; main()"]
Process = subprocess.Popen[str]
Start = Callable[..., Process]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedseal simulate` in a session of its own and waits until a line of its output begins with a text."""
    begun: list[Process] = []

    def run(*options: str, until: str) -> Process:
        process = subprocess.Popen(
            [*COMMAND, "simulate", str(TINY), "--out", str(tmp_path / "out"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": str(tmp_path / "tmp")},
            start_new_session=True,
        )
        begun.append(process)
        assert process.stdout is not None
        assert any(line.lstrip().startswith(until) for line in process.stdout), "ended before the line came"
        return process

    (tmp_path / "tmp").mkdir()
    yield run
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=30)


def has_ended(process: Process) -> bool:
    """No process of its session is left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.slow
def test_a_run_that_is_interrupted_leaves_nothing_but_the_runs_before(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    former = tmp_path / "out" / "tiny-20260101-000000-abcdef"
    former.mkdir(parents=True)
    process = start("--rounds", "2000", until="1 ")
    assert sum(p.name.startswith(".tiny-") and p.is_dir() for p in (tmp_path / "out").iterdir()) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert has_ended(process)
    assert list((tmp_path / "out").rglob("*")) == [former]
    assert not [p for p in (tmp_path / "tmp").rglob("*") if p.suffix in {".csv", ".parquet", ".sqlite"}]


@pytest.mark.slow
def test_what_a_killed_run_leaves_is_removed_by_the_next_and_said(start: Start, tmp_path: Path) -> None:
    """Nobody can clean up after SIGKILL but the next run; copies of the persons' data would lie there for good."""
    process, living = (start("--rounds", "2000", until="1 ") for _ in range(2))
    process.kill()
    process.communicate(timeout=30)
    left = list((tmp_path / "out").rglob("persons.csv"))
    assert len(left) == 8
    command = [*COMMAND, "simulate", str(TINY), "--out", str(tmp_path / "out"), "--rounds", "1", "--no-baselines"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert f"Removed what 1 killed run had left in {tmp_path / 'out'}." in done.stdout.replace("\n", "")
    # Those of the run that lives.
    assert len([p for p in left if p.exists()]) == 4
    living.send_signal(signal.SIGINT)
    living.communicate(timeout=30)
    assert all(not p.name.startswith(".") for p in (tmp_path / "out").iterdir())
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "Removed" not in again.stdout


@pytest.mark.slow
def test_an_interrupt_among_the_baselines_leaves_nothing_either(start: Start, tmp_path: Path) -> None:
    """The run's own training is over, and none of its files is there yet."""
    process = start("--rounds", "5", until="... majority class")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 130
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow
def test_a_hail_of_interrupts_leaves_nothing_either(start: Start, tmp_path: Path) -> None:
    process = start("--rounds", "2000", until="2 ")
    with contextlib.suppress(subprocess.TimeoutExpired):
        for i in range(1000):
            process.send_signal((signal.SIGINT, signal.SIGTERM)[i % 2])
            process.wait(timeout=0.003)
    _, err = process.communicate(timeout=30)
    assert list((tmp_path / "out").iterdir()) == []
    assert process.returncode == 130, err
    assert "Traceback" not in err


def test_an_interrupted_run_says_so(fedseal: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulate(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fedseal.simulation.simulate.simulate", simulate)
    done = fedseal("simulate", TINY, "--out", tmp_path / "out")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert "Interrupted. Nothing was left behind." in done.stderr


def test_sigterm_is_taken_for_an_interrupt_by_every_command(fedseal: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no run is under way."""
    # Were it not taken, the signal would end the tests themselves.
    signal.signal(signal.SIGTERM, lambda number, frame: None)

    def echo(_: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("typer.echo", echo)
    assert fedseal("version").returncode == 130


INTERRUPTED_AT = """
import os
import signal
import sys
from sqlalchemy.engine.default import DefaultDialect
from fedseal.cli.main import main

close, unlink, calls = DefaultDialect.do_close, os.unlink, {"close": 0, "unlink": 0}

def signalled(name, at, number):
    calls[name] += 1
    if calls[name] == at:
        signal.raise_signal(number)

def do_close(self, connection):
    signalled("close", 60, signal.SIGTERM)
    close(self, connection)

def do_unlink(*arguments, **options):
    if calls["close"] >= 60:
        signalled("unlink", 2, signal.SIGINT)
    unlink(*arguments, **options)

DefaultDialect.do_close = do_close
if sys.argv.pop(1) == "twice":
    os.unlink = do_unlink
main()
"""


def interrupted_at(times: str, out: Path) -> subprocess.CompletedProcess[str]:
    """A run to which a signal comes while a store is closed, and perhaps another during the clean-up."""
    command = [sys.executable, "-c", INTERRUPTED_AT, times, "simulate", str(TINY), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.slow
def test_an_interrupt_in_the_middle_of_a_store_is_quiet_too(tmp_path: Path) -> None:
    """A signal may land anywhere; a quarter of them lands here."""
    done = interrupted_at("once", tmp_path / "out")
    assert done.returncode == 130
    assert list((tmp_path / "out").iterdir()) == []
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_impatient_second_interrupt_does_not_stop_the_clean_up(tmp_path: Path) -> None:
    """What is cleaned up holds copies of the persons' tables."""
    done = interrupted_at("twice", tmp_path / "out")
    assert list((tmp_path / "out").rglob("*")) == []
    assert done.returncode == 130
