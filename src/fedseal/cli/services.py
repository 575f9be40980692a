"""What programs that stay have in common: the form of their log, and the listener for those who look after them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from prometheus_client import CollectorRegistry

from fedseal.operation.config import LogFormat, OperationPart
from fedseal.operation.listener import Operation, Readiness

LogOption = Annotated[
    LogFormat | None, typer.Option("--log-format", help="In place of what the file says under [operation].")
]


@contextmanager
def operated(part: OperationPart, registry: CollectorRegistry, ready: Readiness) -> Iterator[None]:
    """Answer for metrics and health while the block runs, if the file says where."""
    if part.endpoint is None:
        yield
        return
    with Operation(part.endpoint, registry, ready):
        yield
