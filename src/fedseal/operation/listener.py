"""Metrics and health over HTTP, for this machine: `/metrics`, `/healthz`, `/readyz`, and nothing else.

No sign-in, no encryption, no way to change anything. What is shown stays with whoever runs the program: nothing is sent
anywhere, somebody has to ask.
"""

import json
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from fedseal.errors import ConfigError
from fedseal.operation.events import Watched
from fedseal.operation.logs import say, where

log = logging.getLogger("fedseal.operation")
# Seconds for a whole request; whoever is slower is cut off.
PATIENCE = 5.0
TEXT, JSON = "text/plain; charset=utf-8", "application/json"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that has to hold for a program to be ready: its name, and what is wrong, empty where nothing is."""

    name: str
    wrong: str = ""


Readiness = Callable[[], Sequence[Check]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered."""

    status: HTTPStatus
    kind: str
    body: bytes


class Operation:
    """A running listener; a context manager.

    Args:
        endpoint: host and port; port 0 is any that is free.
        registry: the program's own metrics.
        ready: looks whether it is ready. Called at every question.
    """

    def __init__(self, endpoint: tuple[str, int], registry: CollectorRegistry, ready: Readiness) -> None:
        self._endpoint = endpoint
        self._registry = registry
        self._ready = ready
        self._server: _Server | None = None
        self.port = endpoint[1]

    def __enter__(self) -> Self:
        try:
            self._server = _Server(self._endpoint, self)
        except OSError as error:
            raise ConfigError(
                f"operation.metrics: cannot listen at {self._endpoint[0]}:{self._endpoint[1]}: "
                f"{error.strerror or error}",
                next_step="Another program may be listening there, or this machine has no such address.",
            ) from None
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="operation", daemon=True).start()
        say(log, Watched(self._endpoint[0], self.port))
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def answer(self, path: str) -> Answer:
        """What a path answers."""
        match path:
            case "/metrics":
                return Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self._registry))
            case "/healthz":
                return Answer(HTTPStatus.OK, TEXT, b"alive\n")
            case "/readyz":
                checks = self._ready()
                found = {check.name: check.wrong or "ok" for check in checks}
                good = all(not check.wrong for check in checks)
                status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
                return Answer(status, JSON, json.dumps({"ready": good, "checks": found}, indent=2).encode() + b"\n")
            case _:
                return Answer(HTTPStatus.NOT_FOUND, TEXT, b"")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, endpoint: tuple[str, int], operation: Operation) -> None:
        self.operation = operation
        self.address_family = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM)[0][0]
        super().__init__(endpoint, _Request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken connection is no news; anything else is logged without its text."""
        log.warning("a question about metrics or health could not be answered (%s)", where(sys.exc_info()[1]))


class _Request(BaseHTTPRequestHandler):
    timeout = PATIENCE
    server: _Server
    server_version, sys_version = "fedseal", ""

    def do_GET(self) -> None:
        """Answer."""
        answer = self.server.operation.answer(self.path)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: what whoever asks has sent does not belong into the log."""
