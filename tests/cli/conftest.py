"""The command line in this process: quick, and with everything that it changes for the whole process put back."""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.studies import TINY

from fedseal.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]
LOGGERS = ("flwr", "fedseal", "sqlalchemy")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture
def fedseal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs `fedseal` with some arguments. An exception that would be a traceback fails the test."""
    handlers, environment = {number: signal.getsignal(number) for number in SIGNALS}, dict(os.environ)
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    # A test's own files have to be read anew, and messages must not be cut to a narrow terminal.
    monkeypatch.setenv("COLUMNS", "200")
    modules = set(sys.modules)

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = ["fedseal", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        out, err = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return subprocess.CompletedProcess(command, caught.value.code, out, err)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for key in set(os.environ) - set(environment):
        del os.environ[key]
    os.environ.update(environment)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    for name in set(sys.modules) - modules:
        if name.startswith("fedseal_study_"):
            del sys.modules[name]


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the tiny study with a part of a file replaced."""

    def make(file: str, before: str, after: str) -> Path:
        folder = tmp_path / "study"
        folder.mkdir(exist_ok=True)
        for name in ("pyproject.toml", "task.py"):
            text = (TINY / name).read_text(encoding="utf-8")
            if name == file:
                assert before in text
                text = text.replace(before, after, 1)
            (folder / name).write_text(text, encoding="utf-8")
        return folder

    return make
