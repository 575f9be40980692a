"""Logs of programs that stay: one line an event on standard error, as text or as JSON.

What goes through is what `events` lists. Of anything else, a library's warning or an exception, the line says where it
came from and nothing of what it says: there might be anybody's data in it.
"""

import json
import logging
import sys
import threading
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from fedseal.operation.config import LogFormat
from fedseal.operation.events import LogEvent, one_line

ROOT = "fedseal"
UNLISTED = "unlisted"


def say(log: logging.Logger, event: LogEvent) -> None:
    """Log an event at its own level."""
    log.log(event.level, event)


class TextLines(logging.Formatter):
    """Time, level, logger and the event's words."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        time = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
        return f"{time} {record.levelname} {record.name} {words_of(record)}"


class JsonLines(logging.Formatter):
    """An object a line: ``time``, ``level``, ``logger``, ``event``, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, str | int | float] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        if isinstance(record.msg, LogEvent):
            return json.dumps({**line, "event": record.msg.name, **record.msg.values()})
        return json.dumps({**line, "event": UNLISTED, "words": words_of(record)})


def words_of(record: logging.LogRecord) -> str:
    """What may be said of a record: an event's words; of another one of ours its constant text, numbers filled in; of
    a library's only where it was written.
    """
    if isinstance(record.msg, LogEvent):
        return str(record.msg)
    place = f"{Path(record.pathname).name}:{record.lineno}"
    ours = record.name == ROOT or record.name.startswith(f"{ROOT}.")
    said = _constant(record) if ours else ""
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return one_line(" ".join(part for part in (said, f"({place})", where(error)) if part))


def where(error: BaseException | None) -> str:
    """An exception's class and the line that raised it, and no word of its text; empty for None."""
    if error is None:
        return ""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def _constant(record: logging.LogRecord) -> str:
    """The text as it stands in the code (ruff's G keeps it a constant); what is filled in only where it is a number."""
    if not isinstance(record.msg, str):
        return type(record.msg).__name__
    arguments = record.args if isinstance(record.args, tuple) else ()
    if not arguments:
        return record.msg
    shown = tuple(a if isinstance(a, int | float) else "..." for a in arguments)
    try:
        return record.msg % shown
    except (TypeError, ValueError):
        return record.msg


def log_to(stream: TextIO, form: LogFormat) -> None:
    """Log to a stream what fedseal has to say from INFO, and of others what is at least a warning. To be called once
    Flower is imported, which sets up a log of its own.
    """
    lines = logging.StreamHandler(stream)
    lines.setFormatter(JsonLines() if form == "json" else TextLines())
    ours, root = logging.getLogger(ROOT), logging.getLogger()
    ours.handlers, ours.propagate = [lines], False
    ours.setLevel(logging.INFO)
    root.handlers = [lines]
    root.setLevel(logging.WARNING)
    for name in ("flwr", "uvicorn"):
        theirs = logging.getLogger(name)
        theirs.handlers, theirs.propagate = [], True
    # Flower logs each call as INFO, and one that comes too late for its run as an error.
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    """In place of Python's own, which prints the exception's text."""
    kind = ended.exc_type
    error = ended.exc_value
    info = None if error is None else (kind, error, ended.exc_traceback)
    logging.getLogger(ROOT).error("a thread ended with an exception", exc_info=info)


def log_to_stderr(form: LogFormat) -> None:
    """Log to standard error: what systemd and containers collect."""
    log_to(sys.stderr, form)
