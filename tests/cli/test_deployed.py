"""What `fedseal run` and `fedseal demo --deployed` refuse before they start anything."""

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.commands import left_behind, told
from support.studies import TINY, tiny

from fedseal.errors import ExitCode
from fedseal.privacy.planning import plan_run
from fedseal.simulation.deployed import flower
from fedseal.simulation.deployed.certificates import make_server_certificate
from fedseal.simulation.deployed.enrolment import enrol_for_real
from fedseal.simulation.federation import enrol

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(fedseal: Run, tmp_path: Path) -> Run:
    """`fedseal run` with an authority's file that is one, and options of the test's own."""
    made = make_server_certificate(tmp_path)
    options = {"--superlink": "127.0.0.1:1", "--root-certificates": str(made.authority), "--server-store": "missing"}

    def start(**changes: str | Path) -> "subprocess.CompletedProcess[str]":
        given = options | {f"--{key.replace('_', '-')}": str(value) for key, value in changes.items()}
        done = fedseal("run", TINY, "--out", tmp_path / "out", *(part for pair in given.items() for part in pair))
        assert left_behind(tmp_path / "out") == []
        return done

    return start


def test_a_plan_without_deployment_is_refused(fedseal: Run, tmp_path: Path) -> None:
    done = fedseal("demo", "--plan", "local", "--out", tmp_path / "out")
    told(done, ExitCode.CONFIG, "--plan goes with --deployed")


@pytest.mark.parametrize("address", ["localhost", "localhost:", ":80", "localhost:http", "localhost:70000"])
def test_what_is_no_address_is_refused(run: Run, address: str) -> None:
    told(run(superlink=address), ExitCode.CONFIG, "is no address", "host:port")


def test_a_superlink_that_does_not_answer_is_named(run: Run) -> None:
    told(run(), ExitCode.CONFIG, "no SuperLink answers over TLS at 127.0.0.1:1")


class Healthy(BaseHTTPRequestHandler):
    """Answers as a SuperLink's /health does."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def superlink(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of a server with a certificate, and its authority."""
    (tmp_path / "served").mkdir()
    made = make_server_certificate(tmp_path / "served")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", made.authority
        server.shutdown()
        thread.join()


def test_a_superlink_of_another_authority_is_not_trusted(
    run: Run, superlink: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, authority = superlink
    told(run(superlink=address), ExitCode.CONFIG, f"the server at {address} is not trusted", "has to be the authority")
    # The twins: its own authority is trusted, and then the next fault is named; under another name it is not.
    told(run(superlink=address, root_certificates=authority), ExitCode.CONFIG, "no server store at missing")
    elsewhere = address.replace("127.0.0.1", "127.0.0.2")
    monkeypatch.setattr("socket.create_connection", redirected(socket.create_connection))
    told(
        run(superlink=elsewhere, root_certificates=authority),
        ExitCode.CONFIG,
        f"{elsewhere} is not trusted",
        "mismatch",
    )


def redirected(connect: Callable[..., socket.socket]) -> Callable[..., socket.socket]:
    """Connects to 127.0.0.1 whatever the host is, as a name server might."""
    return lambda address, *rest, **more: connect(("127.0.0.1", address[1]), *rest, **more)


def test_an_authority_that_is_not_there_is_named(run: Run) -> None:
    told(run(root_certificates="missing.pem"), ExitCode.CONFIG, "missing.pem does not exist")


def test_a_file_that_is_no_authority_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "other.pem").write_text("nothing of the kind", encoding="utf-8")
    told(run(root_certificates=tmp_path / "other.pem"), ExitCode.CONFIG, "other.pem")


def test_the_servers_store_has_to_be_there_and_real(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flower, "answers", lambda link: True)
    told(run(), ExitCode.CONFIG, "no server store at missing")
    contract = tiny().contract
    made = enrol(tmp_path / "simulated", contract, plan_run(contract), {"a": 20, "b": 20, "c": 20}, seed=1)
    told(run(server_store=made.server_store), ExitCode.CONFIG, "store of a simulated federation", "docs/deploy.md")


def test_a_federation_that_is_too_small_for_the_study_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "answers", lambda link: True)
    contract = tiny().contract
    made = enrol_for_real(tmp_path / "federation", contract, plan_run(contract), {"a": 20, "b": 20})
    told(run(server_store=made.server_store), ExitCode.CONFIG, "2 sites, but the study's cohorts need at least 3")
