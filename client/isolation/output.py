"""What the study's code prints: lines of the node's log, marked as the study's, bounded.

It may say anything, also something of the data: it stays in the log of its site.
"""

import logging
import os
import subprocess
import threading

log = logging.getLogger("fedseal.study")

# Bytes: what of one call's output is kept, in lines of at most so much; and with how much a process is ended.
KEPT, LINE, MOST = 1 << 16, 1000, 1 << 24
READ = 1 << 16


class Output:
    """Reads what a process prints, in a thread of its own, so that it never waits for a reader.

    Args:
        process: with its standard output in a pipe.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
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
        if left_out:
            log.info("(%d more bytes of output are left out)", left_out)

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
            if line:
                log.info("%s", printable(line[:LINE]))


def printable(raw: bytes) -> str:
    """Bytes as text of one line: what could pass for something else in a terminal or a log is written out."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in text)
