"""The listener for operators: three paths, nothing else, and a port that is taken is said."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest
from prometheus_client import CollectorRegistry, Counter

from fedseal.errors import ConfigError
from fedseal.operation.config import OperationPart
from fedseal.operation.listener import Check, Operation

LOOPBACK = "127.0.0.1"


class Program:
    """A program that is as ready as a test says."""

    def __init__(self) -> None:
        self.checks = [Check("store"), Check("server")]
        self.registry = CollectorRegistry()
        self.count = Counter("fedseal_test", "Counted.", registry=self.registry)


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def running(program: Program) -> Iterator[Operation]:
    with Operation((LOOPBACK, 0), program.registry, lambda: program.checks) as operation:
        yield operation


def ask(operation: Operation, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection(LOOPBACK, operation.port, timeout=10)
    with closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def test_metrics_health_and_readiness_are_answered(program: Program, running: Operation) -> None:
    program.count.inc()
    assert ask(running, "/healthz") == (200, "alive\n")
    status, text = ask(running, "/metrics")
    assert status == 200
    assert "fedseal_test_total 1.0" in text
    # Its own registry: nothing of this process that nobody chose to show.
    assert "python_info" not in text
    status, text = ask(running, "/readyz")
    assert (status, json.loads(text)) == (200, {"ready": True, "checks": {"store": "ok", "server": "ok"}})


def test_what_is_not_ready_says_what_is_wrong(program: Program, running: Operation) -> None:
    program.checks = [Check("store", "cannot be written: SQLITE_FULL"), Check("server")]
    status, text = ask(running, "/readyz")
    assert status == 503
    assert json.loads(text)["checks"] == {"store": "cannot be written: SQLITE_FULL", "server": "ok"}
    assert ask(running, "/healthz")[0] == 200


@pytest.mark.parametrize(("path", "method"), [("/", "GET"), ("/metrics/../etc", "GET"), ("/metrics?a", "GET")])
def test_there_is_nothing_else(running: Operation, path: str, method: str) -> None:
    assert ask(running, path, method)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(running: Operation, method: str) -> None:
    assert ask(running, "/metrics", method)[0] == 501


def test_whoever_sends_nonsense_does_not_stop_it(running: Operation, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_connection((LOOPBACK, running.port)) as client:
        client.sendall(b"\x00\xff patient-4711\r\n\r\n")
        client.recv(100)
    assert ask(running, "/healthz")[0] == 200
    assert "4711" not in caplog.text


def test_a_port_that_is_taken_is_said(running: Operation, program: Program) -> None:
    with (
        pytest.raises(ConfigError, match=f"cannot listen at {LOOPBACK}:{running.port}"),
        Operation((LOOPBACK, running.port), program.registry, list),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [("127.0.0.1:9464", ("127.0.0.1", 9464)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1))],
)
def test_an_endpoint_is_read(text: str, endpoint: tuple[str, int]) -> None:
    assert OperationPart(metrics=text).endpoint == endpoint
    assert OperationPart().endpoint is None


@pytest.mark.parametrize("text", ["9464", "example.org:9464", "127.0.0.1", "127.0.0.1:x", ":9464"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="metrics"):
        OperationPart(metrics=text)
