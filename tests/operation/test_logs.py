"""What programs that stay write into their logs: a closed list of events, and of anything else not a word."""

import io
import json
import logging
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from fedseal.operation import events
from fedseal.operation.counting import EventCounter
from fedseal.operation.events import LONGEST, LogEvent, MessageAnswered, RunFailed, one_line
from fedseal.operation.logs import JsonLines, TextLines, log_to, say

CANARY = "patient-4711-has-HIV"


def all_events() -> list[type[LogEvent]]:
    return [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, LogEvent)][1:]


def example(kind: type[LogEvent]) -> LogEvent:
    # By type: every field is a number or a text.
    return kind(
        *[{"int": 3, "float": 0.5, "str": "text"}[str(getattr(f.type, "__name__", f.type))] for f in fields(kind)]
    )


def logged(form: str, event: LogEvent) -> str:
    stream = io.StringIO()
    log_to(stream, form)  # type: ignore[arg-type]
    say(logging.getLogger("fedseal.test"), event)
    return stream.getvalue()


def test_every_event_has_a_name_of_its_own_words_and_fields_of_known_types() -> None:
    kinds = all_events()
    assert len(kinds) > 20
    assert len({kind.name for kind in kinds}) == len(kinds)
    for kind in kinds:
        (line,) = logged("json", example(kind)).splitlines()
        found = json.loads(line)
        assert found["event"] == kind.name
        assert set(found) == {"time", "level", "logger", "event", *(f.name for f in fields(kind))}
        assert not {"time", "level", "logger", "event"} & {f.name for f in fields(kind)}
        assert example(kind).words in logged("text", example(kind))


def test_an_events_level_is_the_records() -> None:
    assert json.loads(logged("json", RunFailed("r", "RoundAborted", "too few")))["level"] == "ERROR"
    assert json.loads(logged("json", MessageAnswered("1", "mask", "answered", 0.1)))["level"] == "INFO"


@given(st.text())
def test_a_field_never_makes_a_second_line_and_is_never_long(text: str) -> None:
    said = one_line(text)
    assert len(said) <= LONGEST
    assert len(said.splitlines()) <= 1
    record = logging.LogRecord("fedseal", logging.INFO, __file__, 1, RunFailed("run", "E", text), (), None)
    assert "\n" not in TextLines().format(record)
    assert json.loads(JsonLines().format(record))["reason"] == said


def test_events_are_counted_by_name_and_all_else_together() -> None:
    registry = CollectorRegistry()
    counter = EventCounter(registry)
    log = logging.getLogger("fedseal.test")
    log.addHandler(counter)
    say(log, RunFailed("a", "RoundAborted", "too few"))
    say(log, RunFailed("b", "RoundAborted", "too few"))
    log.warning("something else: %s", CANARY)
    log.removeHandler(counter)
    say(log, RunFailed("c", "RoundAborted", "too few"))
    assert registry.get_sample_value("fedseal_events_total", {"event": "run.failed"}) == 2
    assert registry.get_sample_value("fedseal_events_total", {"event": "unlisted"}) == 1


def test_every_event_is_in_the_table_of_the_runbook() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "operate" / "daily.md").read_text(encoding="utf-8")
    assert [kind.name for kind in all_events() if f"`{kind.name}`" not in page] == []


@dataclass(frozen=True, slots=True)
class Loose(LogEvent):
    """What the twin logs: an exception's text as a field."""

    name: ClassVar[str] = "loose"
    reason: str

    @property
    def words(self) -> str:
        return self.reason


def raise_and_log(name: str) -> None:
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        told = str(error)
        logging.getLogger(name).exception("it failed: %s after %d tries", told, 3)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", ["fedseal.node", "sqlalchemy.pool", "uvicorn.error"])
def test_an_exceptions_text_is_not_logged_whoever_logs_it(form: str, name: str) -> None:
    stream = io.StringIO()
    log_to(stream, form)  # type: ignore[arg-type]
    raise_and_log(name)
    said = stream.getvalue()
    assert CANARY not in said
    assert "ValueError at test_logs.py" in said
    # A constant of ours is said, with numbers filled in; of a library not even that.
    assert ("it failed: ... after 3 tries" in said) == (name == "fedseal.node")
    # The twins: Python's own formatter says it, and so does an event that is given it.
    plain = io.StringIO()
    logging.getLogger("fedseal").handlers = [logging.StreamHandler(plain)]
    raise_and_log("fedseal.node")
    assert CANARY in plain.getvalue()
    assert CANARY in logged(form, Loose(CANARY))


def test_a_thread_that_ends_with_an_exception_says_only_its_kind() -> None:
    stream = io.StringIO()
    log_to(stream, "text")

    def fail() -> None:
        raise KeyError(CANARY)

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert "a thread ended with an exception" in stream.getvalue()
    assert "KeyError at test_logs.py" in stream.getvalue()
    assert CANARY not in stream.getvalue()
