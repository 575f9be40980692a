"""What programs that stay have in common: the form of their log, and the listener for those who look after them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from fedseal.operation.config import LogFormat, OperationPart
from fedseal.operation.counting import EventCounter
from fedseal.operation.events import EpochEnds
from fedseal.operation.listener import Operation, Readiness
from fedseal.operation.logs import ROOT, say

LogOption = Annotated[
    LogFormat | None, typer.Option("--log-format", help="In place of what the file says under [operation].")
]


@contextmanager
def operated(part: OperationPart, registry: CollectorRegistry, ready: Readiness) -> Iterator[None]:
    """Answer for metrics and health while the block runs, if the file says where."""
    if part.endpoint is None:
        yield
        return
    counter, log = EventCounter(registry), logging.getLogger(ROOT)
    log.addHandler(counter)
    try:
        with Operation(part.endpoint, registry, ready):
            yield
    finally:
        log.removeHandler(counter)


def warn(log: logging.Logger, what: str | None) -> None:
    """Say that something has to be done before the federation's epoch ends, if anything has."""
    if what is not None:
        say(log, EpochEnds(what))
