"""The whole deployed demo, with Flower's own programs. Minutes, for those start a process for every message."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find every process"),
]

COMMAND = [sys.executable, "-c", "from fedseal.cli.main import main; main()"]
Process = subprocess.Popen[str]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `fedseal` with its runs in the test's folder, in a session of its own."""
    begun: list[Process] = []

    def run(*arguments: str) -> Process:
        process = subprocess.Popen(
            [*COMMAND, *arguments, "--out", str(tmp_path / "out")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            start_new_session=True,
        )
        begun.append(process)
        return process

    yield run
    for process in begun:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=60)


def until(process: Process, text: str) -> None:
    """Wait for a line of the output that begins with a text."""
    assert process.stdout is not None
    assert any(line.lstrip().startswith(text) for line in process.stdout), "ended before the line came"


def processes(folder: Path) -> dict[int, str]:
    """Every running process that was started with a Flower home in this folder, with its command line."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def ports(commands: dict[int, str]) -> set[int]:
    """The ports that these programs were told to listen on."""
    return {int(port) for command in commands.values() for port in re.findall(r"--port (\d+)", command)}


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_without_a_privacy_plan_the_model_is_the_simulations_byte_for_byte(start: Start, tmp_path: Path) -> None:
    process = start("demo", "--deployed", "--json")
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["byte_identical"] is True
    assert [s["name"] for s in result["steps"] if s["name"].startswith("round")] == ["round 1", "round 2"]
    assert "byte-identical to the simulation: yes" in err
    assert "Stock SuperNodes run the code that the server ships" in err
    (run,) = (tmp_path / "out").iterdir()
    assert (run / "model.safetensors").is_file()
    assert not list(run.rglob("*.csv"))
    assert processes(tmp_path) == {}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_no_process_and_no_port_outlives_the_launcher(number: signal.Signals, start: Start, tmp_path: Path) -> None:
    process = start("demo", "--deployed")
    until(process, "... round 1")
    running = processes(tmp_path / "out")
    open_ports = ports(running)
    assert len(open_ports) == 4
    assert all(map(listens, open_ports))
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), err
    end = time.monotonic() + 10
    while (processes(tmp_path / "out") or any(map(listens, open_ports))) and time.monotonic() < end:
        time.sleep(0.1)
    assert processes(tmp_path / "out") == {}
    assert not any(map(listens, open_ports))
    if number != signal.SIGKILL:
        assert "Traceback" not in err
        assert list((tmp_path / "out").iterdir()) == []
