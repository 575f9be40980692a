"""What a site writes down about errors: nothing of it travels, whatever goes wrong while it is written, and it stays
small.
"""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from sqlalchemy import event
from support.flower import (
    PRIVATE,
    Federation,
    Nodes,
    Script,
    code_of,
    flower_task,
    header_for,
    make_federation,
    ordinary_app,
    refused_with,
)

from fedseal import database
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Stage
from fedseal.privacy.transaction import LONGEST_INCIDENT, MOST_INCIDENTS
from fedseal.server.exchange import control_of
from fedseal.wire import encode

CANARY = "Jane Roe, born 1961"
ERRORS: dict[str, BaseException] = {
    "KeyError": KeyError(CANARY),
    "SystemExit": SystemExit(CANARY),
    "a file name that is no text": OSError(f"no such file: caf\udce9/{CANARY}.dcm"),
    "a null byte": ValueError(f"\x00{CANARY}"),
    "a very long text": ValueError(50 * LONGEST_INCIDENT * "x" + CANARY),
    "a very long text that is none": ValueError(3 * LONGEST_INCIDENT * "\udce9" + CANARY),
}


class Unprintable(Exception):  # noqa: N818
    """Cannot be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError(CANARY)


@pytest.fixture(autouse=True)
def task() -> Iterator[None]:
    with flower_task():
        yield


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return make_federation(tmp_path, 3)


def only_a_code(reply: Message) -> bool:
    """Whether a reply is nothing but the code TASK."""
    return list(reply.content) == ["fedseal"] and control_of(reply) == encode(Refusal(int(RefusalCode.TASK), None))


def mask_replies(federation: Federation, script: Script, plan: Any = None) -> list[Message]:
    """What the sites answer at MASK."""
    running = Nodes(federation, ordinary_app(script))
    state, seen = running.run(header_for(federation, plan), until=Stage.MASK)
    assert set(refused_with(state)) <= {1, 2, 3}
    return [seen[Stage.MASK, site][1] for site in (1, 2, 3)]


@pytest.mark.quick(
    "KeyError-none",
    "SystemExit-local",
    "a file name that is no text-none",
    "a null byte-local",
    "a very long text-none",
    "a very long text that is none-local",
)
@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
@pytest.mark.parametrize("name", ERRORS)
def test_a_text_stays_and_a_code_leaves(federation: Federation, name: str, plan: Any) -> None:
    replies = mask_replies(federation, Script(error=ERRORS[name]), plan)
    assert all(only_a_code(reply) for reply in replies)
    ((code, text),) = federation.incidents(1)
    assert code == "TASK"
    assert CANARY in text
    assert len(text) <= LONGEST_INCIDENT


def test_an_error_that_cannot_be_printed_is_a_code_too(federation: Federation) -> None:
    assert all(only_a_code(reply) for reply in mask_replies(federation, Script(error=Unprintable())))
    assert "Unprintable" in federation.incidents(1)[-1][1]


def full_disk(path: Path) -> Callable[[], None]:
    """From now on the store cannot grow: what SQLite says when a disk is full."""
    connection = sqlite3.connect(path)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.close()
    engine = database.engine_for(path)

    def limit(opened: sqlite3.Connection, _: object) -> None:
        opened.execute(f"PRAGMA max_page_count={pages}")

    event.listen(engine, "connect", limit)
    return lambda: event.remove(engine, "connect", limit)


def locked(path: Path) -> Callable[[], None]:
    """Another process holds the store and does not let go."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    engine = database.engine_for(path)

    def impatient(opened: sqlite3.Connection, _: object) -> None:
        opened.execute("PRAGMA busy_timeout=10")

    event.listen(engine, "connect", impatient)

    def release() -> None:
        event.remove(engine, "connect", impatient)
        holder.close()

    return release


@pytest.mark.parametrize("plan", [None, PRIVATE], ids=["none", "local"])
@pytest.mark.parametrize("trouble", [full_disk, locked])
def test_if_it_cannot_be_written_down_the_code_leaves_all_the_same(
    federation: Federation, trouble: Callable[[Path], Callable[[], None]], plan: Any
) -> None:
    """The trouble begins while the app computes; its text is longer than any page that is still free."""
    undo: list[Callable[[], None]] = []

    class Troubled(Script):
        def called(self, message: Message, context: Any) -> int:
            if int(context.node_config["number"]) == 2:
                undo.append(trouble(federation.sites[2]))
            return super().called(message, context)

    text = CANARY + LONGEST_INCIDENT * 8 * "x"
    try:
        replies = mask_replies(federation, Troubled(error=ValueError(text)), plan)
        assert all(only_a_code(reply) for reply in replies)
    finally:
        for function in undo:
            function()
    assert len(federation.incidents(2)) <= 1
    federation.site(2).verify_ledgers()


def test_a_store_that_is_gone_is_a_code_too(federation: Federation) -> None:
    running = Nodes(federation, ordinary_app(Script()))
    federation.sites[1].write_bytes(b"not a database, and no data of Jane Roe either")
    reply = running.send(1, running.opening(header_for(federation)))
    assert code_of(reply) is RefusalCode.NOT_ENROLLED


def test_only_the_newest_incidents_are_kept(federation: Federation) -> None:
    """Whoever can send a message must not fill the disk."""
    running = Nodes(federation, ordinary_app(Script()))
    for _ in range(3):
        running.send(1, b"x")
    with federation.site(1).transaction() as transaction:
        for number in range(2 * MOST_INCIDENTS):
            transaction.record_incident("TASK", f"incident {number}")
    kept = federation.incidents(1)
    assert [text for _, text in kept] == [f"incident {n}" for n in range(MOST_INCIDENTS, 2 * MOST_INCIDENTS)]
    running.send(1, b"x")
    assert len(federation.incidents(1)) == MOST_INCIDENTS
