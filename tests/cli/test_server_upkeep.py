"""`fedseal server stop|backup|restore` and `fedseal health`, as an operator types them."""

import http.server
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from support.commands import told
from support.flower import make_federation

from fedseal.errors import ExitCode
from fedseal.operation.listener import Check, Operation
from fedseal.server.coordination import ordered
from fedseal.server.lock import alone
from fedseal.server.recording import Events

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "server"
    folder.mkdir()
    make_federation(folder, 3)
    for name in ("tls.pem", "tls.key", "a.pub"):
        (folder / name).write_text(name)
    file = folder / "server.toml"
    file.write_text(
        '[listen]\nhost = "127.0.0.1"\nport = 0\ncertificate = "tls.pem"\nkey = "tls.key"\n'
        '[server]\nstore = "server.sqlite"\nruns = "runs"\n[nodes]\na = "a.pub"\n'
    )
    return file


def test_stopping_what_does_not_run_says_so_and_what_is_under_way(fedseal: Run, config: Path) -> None:
    with ordered(config.parent / "runs", "study") as (_, order):
        made = order({"fedseal-sites": 3})
    Events(made.folder).write("started")
    Events(made.folder).write("round", number=1, seconds=1.0, sites=3, attempts=1, stages={})
    done = fedseal("server", "stop", "--config", config)
    assert done.returncode == 0
    assert "No server works with this file." in done.stdout
    assert f"Under way: {made.folder.name}, 1 round finished" in done.stdout


def test_a_backup_by_a_timer_keeps_the_newest(fedseal: Run, config: Path, tmp_path: Path) -> None:
    into = tmp_path / "kept"
    (into / "20200101T000000Z").mkdir(parents=True)
    # Not a backup: it stays.
    (into / "20200101T000000Z" / "notes").write_text("mine")
    for name in ("20200102T000000Z", "20200103T000000Z"):
        assert fedseal("server", "backup", "--config", config, into / name).returncode == 0
    done = fedseal("server", "backup", "--config", config, into, "--into", "--keep", "2")
    assert done.returncode == 0, done.stderr
    assert "It holds the server's keys" in done.stdout
    assert "Removed an older one" in done.stdout
    names = sorted(path.name for path in into.iterdir())
    assert names[:2] == ["20200101T000000Z", "20200103T000000Z"]
    assert len(names) == 3


def test_what_cannot_be_kept_or_put_back_is_said(fedseal: Run, config: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    assert fedseal("server", "backup", "--config", config, kept).returncode == 0
    told(fedseal("server", "backup", "--config", config, kept), ExitCode.CONFIG, "exists", "Name a new folder")
    told(fedseal("server", "restore", tmp_path, "--config", config), ExitCode.CONFIG, "is no backup")
    with alone(config.parent / "runs"):
        done = fedseal("server", "restore", kept, "--config", config)
        told(done, ExitCode.CONFIG, f"process {os.getpid()}", "fedseal server stop")
    done = fedseal("server", "restore", kept, "--config", tmp_path / "elsewhere" / "server.toml")
    assert done.returncode == 0, done.stderr
    assert "fedseal audit recover --log STORE --from EXPORT" in done.stdout


class Program:
    def __init__(self) -> None:
        self.wrong = ""


@pytest.fixture
def program() -> Iterator[tuple[Program, str]]:
    made = Program()
    with Operation(("127.0.0.1", 0), CollectorRegistry(), lambda: [Check("store", made.wrong)]) as running:
        yield made, f"127.0.0.1:{running.port}"


def test_health_is_an_exit_code_and_a_line_a_check(fedseal: Run, program: tuple[Program, str]) -> None:
    made, address = program
    done = fedseal("health", address)
    assert (done.returncode, done.stdout.split()) == (0, ["ready", "store:", "ok"])
    made.wrong = "cannot be written: SQLITE_FULL"
    done = fedseal("health", address)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "not ready")
    assert "store: cannot be written: SQLITE_FULL" in done.stdout
    assert fedseal("health", "--alive", f"http://{address}/").returncode == 0


def test_no_answer_is_not_ready(fedseal: Run) -> None:
    done = fedseal("health", "127.0.0.1:1", "--timeout", "0.5")
    assert done.returncode == 1
    assert "no answer at 127.0.0.1:1" in done.stdout


@pytest.mark.parametrize("address", ["nowhere", "host:port", "http://", ""])
def test_what_is_no_address_is_said(fedseal: Run, address: str) -> None:
    told(fedseal("health", address), ExitCode.CONFIG, "is no address")


def test_another_program_is_not_taken_for_ours(fedseal: Run) -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503, "busy")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = fedseal("health", f"127.0.0.1:{server.server_address[1]}")
        server.shutdown()
    assert done.returncode == 1
    assert "is not that of a program of fedseal" in done.stdout
