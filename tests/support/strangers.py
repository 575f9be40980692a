"""Starts the study's process with a study that means no good, and asks it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedseal.client.isolation import linux, process
from fedseal.client.isolation.messages import Answered, ArrayPart, Asked, Failed, Load, Loaded
from fedseal.client.isolation.output import StudyLog
from fedseal.client.isolation.pieces import Call
from fedseal.client.isolation.places import readable
from fedseal.client.isolation.process import StudyProcess
from fedseal.client.isolation.records import values_of
from fedseal.client.isolation.settings import IsolationPart
from fedseal.wire import decode, encode

TESTS = Path(__file__).resolve().parents[1]
LIMIT = 1 << 16


def landlocked() -> bool:
    """Whether this machine can keep a process apart as the tests expect."""
    return sys.platform == "linux" and linux.landlock_version() > 0


@contextmanager
def with_strangers(program: str = "support.stranger") -> Iterator[None]:
    """In this block every process of a study is a stranger's, which may read the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "PROGRAM", program)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
        yield


@contextmanager
def stranger(
    study: Path, data: Path, printed: StudyLog | None = None, program: str = "support.stranger", **limits: Any
) -> Iterator[StudyProcess]:
    """A running process that has loaded."""
    with with_strangers(program):
        made = StudyProcess(IsolationPart(**limits), (*readable(study, data), TESTS), 1, printed)
    try:
        decode(made.ask(Call.LOAD, encode(load(study, data)), LIMIT), Loaded)
        yield made
    finally:
        made.end()


def load(study: Path, data: Path, task: str = "task:Task") -> Load:
    return Load(task, str(study), str(data), "a", 1, 10)


def asked(do: str, **settings: object) -> Asked:
    return Asked("1", (), None, (), "config", values_of({"do": do, **settings}), None)


def asking(made: StudyProcess, do: str, **settings: object) -> Any:
    """What came of it: an answer or a failure."""
    return decode(made.ask(Call.TRAIN, encode(asked(do, **settings)), LIMIT), Answered, Failed)


def asking_bytes(made: StudyProcess, do: str, arrays: tuple[ArrayPart, ...], limit: int) -> bytes:
    """The bytes of an answer to a request with arrays."""
    asked_of_it = Asked("1", (), "arrays", arrays, "config", values_of({"do": do}), None)
    return made.ask(Call.TRAIN, encode(asked_of_it), limit)
