"""`fedseal` as a process of its own, and every process that was started for it, found by number."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

COMMAND = [sys.executable, "-c", "from fedseal.cli.main import main; main()"]
Process = subprocess.Popen[str]


def launch(*arguments: str | Path) -> Process:
    """`fedseal` with these arguments, in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
        start_new_session=True,
    )


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


def gone(folder: Path, *, within: float = 10.0) -> bool:
    """Whether all processes of a folder end soon."""
    end = time.monotonic() + within
    while processes(folder) and time.monotonic() < end:
        time.sleep(0.1)
    return not processes(folder)


def ports(commands: dict[int, str]) -> set[int]:
    """The ports that these programs were told to listen on."""
    return {int(port) for command in commands.values() for port in re.findall(r"--port (\d+)", command)}


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
