"""Tests set the process's loggers up, and leave them as they were."""

import logging
import threading
from collections.abc import Iterator

import pytest

NAMES = ("fedseal", "flwr", "uvicorn", "")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    kept = {name: (log.handlers, log.level, log.propagate) for name in NAMES for log in [logging.getLogger(name)]}
    hook = threading.excepthook
    yield
    for name, (handlers, level, propagate) in kept.items():
        log = logging.getLogger(name)
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
    threading.excepthook = hook
    logging.captureWarnings(False)
