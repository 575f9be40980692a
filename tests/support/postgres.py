"""A PostgreSQL server of the tests' own, on a Unix socket, for as long as they run."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

INSTALLED = Path("/usr/lib/postgresql")
PATIENCE = 60.0


def binaries() -> Path | None:
    """Where Debian's newest PostgreSQL keeps its programs, or where the path has them."""
    found = sorted(INSTALLED.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


@contextmanager
def server() -> Iterator[str]:
    """A running server's URL, without the database's name. Skips where PostgreSQL is not installed; not in CI."""
    programs = binaries()
    if programs is None:
        message = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    # Its server refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    # A socket's path is at most 107 bytes long, and pytest's own folders are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="fedseal-pg-", dir="/tmp"))
    as_user = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        shutil.chown(folder, user)
        data, log = folder / "data", folder / "log"
        setup = [programs / "initdb", "-D", data, "-A", "trust", "-U", "fedseal", "-E", "UTF8", "--no-sync"]
        subprocess.run(setup, cwd=folder, check=True, capture_output=True, **as_user)  # type: ignore[call-overload]
        command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses="]
        with log.open("wb") as output:
            process = subprocess.Popen(  # type: ignore[call-overload]
                command, cwd=folder, stdout=output, stderr=output, **as_user
            )
        try:
            _wait(folder / ".s.PGSQL.5432", process, log)
            yield f"postgresql+psycopg://fedseal@/{{database}}?host={folder}"
        finally:
            # PostgreSQL's immediate shutdown: nothing that is thrown away has to be on disk.
            process.send_signal(signal.SIGQUIT)
            process.wait(PATIENCE)
    finally:
        shutil.rmtree(folder)


def _wait(socket: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not (socket.exists() and b"ready to accept connections" in log.read_bytes()):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(log.read_text(errors="replace"))
        time.sleep(0.05)
