"""What the study's code prints: into a file of the site's own, bounded.

It may say anything, also something of the data. So it is not in the node's log, which has nobody's data in it and is
collected by others.
"""

import os
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

# Bytes: what of one call's output is kept, in lines of at most so much; and with how much a process is ended.
KEPT, LINE, MOST = 1 << 16, 1000, 1 << 24
READ = 1 << 16
# Of the file; an older one of the same size is kept beside it.
LARGEST_FILE = 1 << 20


class StudyLog:
    """A file that only its owner reads, with one older beside it.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, text: str) -> None:
        """Add a line, with the time."""
        line = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n".encode()
        try:
            if self._path.exists() and self._path.stat().st_size + len(line) > LARGEST_FILE:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            # A full disk is no reason to stop reading: the process would wait for it.
            return
        try:
            os.write(file, line)
        except OSError:
            return
        finally:
            os.close(file)


class Output:
    """Reads what a process prints, in a thread of its own, so that it never waits for a reader.

    Args:
        process: with its standard output in a pipe.
        log: where it goes; None drops it.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", log: StudyLog | None) -> None:
        self._process = process
        self._log = log
        self._lock = threading.Lock()
        self._seen = 0
        self._rest = b""
        self.overrun = False
        self._thread = threading.Thread(target=self._read, name="study-output", daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """A call begins: what it prints is counted from here."""
        with self._lock:
            self._seen = 0

    def finish(self) -> None:
        """A call is over: say how much was left out."""
        with self._lock:
            left_out, self._seen = max(self._seen - KEPT, 0), 0
        if left_out and self._log is not None:
            self._log.write(f"({left_out} more bytes are left out)")

    def close(self) -> None:
        """The process has ended."""
        self._thread.join(1)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        out = self._process.stdout
        if out is None:
            return
        while True:
            try:
                part = os.read(out.fileno(), READ)
            except (OSError, ValueError):
                return
            if not part:
                self._lines(b"\n" if self._rest else b"")
                return
            with self._lock:
                before, self._seen = self._seen, self._seen + len(part)
            if before < KEPT:
                self._lines(part[: KEPT - before])
            if before + len(part) > MOST and not self.overrun:
                self.overrun = True
                self._process.kill()

    def _lines(self, part: bytes) -> None:
        *lines, self._rest = (self._rest + part).split(b"\n")
        if len(self._rest) > LINE:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            if line and self._log is not None:
                self._log.write(printable(line[:LINE]))


def printable(raw: bytes) -> str:
    """Bytes as text of one line: what could pass for something else in a terminal or a log is written out."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in text)
