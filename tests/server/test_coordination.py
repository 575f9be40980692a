"""Orders of runs: what an order is, which are open, and what becomes of one that fails or was finished before."""

import errno
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from flwr.app import Context
from flwr.serverapp import Grid
from sqlalchemy.exc import OperationalError
from support.flower import make_federation

from fedseal.errors import ConfigError, RoundAborted
from fedseal.server import coordination
from fedseal.server.app import RESUME_KEY, SITES_KEY
from fedseal.server.coordination import ORDER, Coordinator, Order, ordered, read_order
from fedseal.server.link import Link
from fedseal.server.lock import alone
from fedseal.server.recording import EVENTS, OUTPUT_KEY, Events
from fedseal.server.store import Checkpoint, ServerStore
from fedseal.storage import StorageError


def ordered_run(runs: Path, name: str = "study") -> Order:
    with ordered(runs, name) as (folder, order):
        (folder / "initial.safetensors").write_bytes(b"model")
        return order({SITES_KEY: 2, "fedseal-initial-model": str(folder / "initial.safetensors")})


def sqlite_error(name: str) -> OperationalError:
    """What SQLAlchemy raises for one of SQLite's errors."""
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = getattr(sqlite3, name)
    return OperationalError("INSERT", {}, error)


class QuietLink:
    """Sites that are there from the third question on."""

    def __init__(self) -> None:
        self.asked = 0
        self.began: list[dict[str, object]] = []

    def online(self) -> list[str]:
        self.asked += 1
        return ["a", "b"] if self.asked > 2 else ["a"]

    @contextmanager
    def run(self, config: dict[str, object]) -> Iterator[object]:
        self.began.append(config)
        yield SimpleNamespace(run=SimpleNamespace(run_id=1))


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_federation(tmp_path_factory.mktemp("federation"), 3).server


def coordinator(runs: Path, store: Path) -> tuple[Coordinator, QuietLink]:
    link = QuietLink()
    return Coordinator(cast(Link, link), store, runs, sleep=lambda _: None), link


def test_an_order_appears_whole_and_names_its_own_folder(tmp_path: Path) -> None:
    with ordered(tmp_path, "study") as (folder, order):
        assert folder.name.startswith(".")
        assert not list(tmp_path.glob(f"[!.]*/{ORDER}"))
        (folder / "model").write_bytes(b"")
        made = order({"model": str(folder / "model"), "rounds": 2})
    assert Path(str(made.config["model"])) == made.folder / "model"
    assert (made.folder / "model").is_file()
    assert made.config[OUTPUT_KEY] == str(made.folder)
    assert read_order(made.folder) == made
    assert len(made.run) == 16


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 2, "run_config": {"fedseal-resume": "00"}}', '{"schema_version": 1}']
)
def test_what_is_no_order_is_left_alone(tmp_path: Path, store: Path, text: str) -> None:
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / ORDER).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        read_order(tmp_path / "strange")
    good = ordered_run(tmp_path)
    assert coordinator(tmp_path, store)[0].open_orders() == [good]


def test_orders_are_open_until_their_events_say_how_they_went(tmp_path: Path, store: Path) -> None:
    orders = [ordered_run(tmp_path, name) for name in ("a", "b", "c")]
    made, _ = coordinator(tmp_path, store)
    Events(orders[0].folder).write("finished")
    Events(orders[1].folder).write("started")
    assert {order.folder for order in made.open_orders()} == {orders[1].folder, orders[2].folder}
    # A line that was being written when the process ended says nothing.
    with (orders[1].folder / EVENTS).open("a", encoding="utf-8") as file:
        file.write('{"event": "fin')
    assert not orders[1].over


def test_a_run_waits_for_its_sites_and_is_told_its_own_number(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ordered_run(tmp_path)
    made, link = coordinator(tmp_path, store)
    seen: list[dict[str, object]] = []
    monkeypatch.setattr(coordination, "app", lambda grid, context: seen.append(dict(context.run_config)))
    made.make(order)
    assert link.asked == 3
    assert link.began == seen == [dict(order.config)]
    assert seen[0][RESUME_KEY] == order.run.hex()


@pytest.mark.parametrize("error", [RoundAborted("too few", next_step="Ask them."), KeyError("odd")])
def test_a_run_that_fails_says_so_and_the_next_one_is_made(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    orders = [ordered_run(tmp_path, name) for name in ("a", "b")]
    made, _ = coordinator(tmp_path, store)

    def app(grid: Grid, context: Context) -> None:
        if context.run_config[RESUME_KEY] == orders[0].run.hex():
            raise error
        Events(orders[1].folder).write("finished")

    monkeypatch.setattr(coordination, "app", app)
    rounds = iter(range(100))
    made.serve(until=lambda: next(rounds) > 0)
    event = json.loads((orders[0].folder / EVENTS).read_text(encoding="utf-8"))
    assert event["event"] == "failed"
    assert "odd" not in event["message"]
    assert all(order.over for order in orders)


def test_a_run_that_is_interrupted_stays_open(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = ordered_run(tmp_path)
    made, _ = coordinator(tmp_path, store)

    def app(grid: Grid, context: Context) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(coordination, "app", app)
    with pytest.raises(KeyboardInterrupt):
        made.make(order)
    assert made.open_orders() == [order]


FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error", [FULL, sqlite_error("SQLITE_FULL"), sqlite_error("SQLITE_IOERR"), StorageError("no room")]
)
def test_a_run_that_meets_a_full_disk_is_gone_on_with(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    order, tries = ordered_run(tmp_path), list[bytes]()
    made, _ = coordinator(tmp_path, store)

    def app(grid: Grid, context: Context) -> None:
        tries.append(order.run)
        if len(tries) < 3:
            raise error
        Events(order.folder).write("finished")

    monkeypatch.setattr(coordination, "app", app)
    made.serve(until=lambda: order.over)
    assert tries == 3 * [order.run]
    events = [json.loads(line)["event"] for line in (order.folder / EVENTS).read_text(encoding="utf-8").splitlines()]
    assert events == ["finished"]


def test_a_failure_that_cannot_be_written_down_is_none(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ordered_run(tmp_path)
    made, _ = coordinator(tmp_path, store)

    def app(grid: Grid, context: Context) -> None:
        (order.folder / EVENTS).symlink_to("/dev/full")
        raise RoundAborted("too few")

    monkeypatch.setattr(coordination, "app", app)
    made.make(order)
    (order.folder / EVENTS).unlink()
    assert made.open_orders() == [order]


def test_of_a_run_that_was_closed_before_its_result_was_written_the_result_is_written(
    tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = ordered_run(tmp_path)
    opened = ServerStore.open(store)
    opened.open_run(order.run)
    opened.save(order.run, Checkpoint(3, {"w": np.ones(2)}, "FedAvg", {}, {}))
    opened.close_run(order.run)
    made, _ = coordinator(tmp_path, store)
    monkeypatch.setattr(coordination, "app", lambda *_: pytest.fail("it ran again"))
    made.make(order)
    assert order.over
    assert (order.folder / "model.safetensors").is_file()


def test_two_servers_do_not_share_a_folder_of_runs(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ConfigError, match="another server"), alone(tmp_path):
        pass
    # And is free again.
    with alone(tmp_path):
        pass
