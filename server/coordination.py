"""Runs of a coordination server: ordered as folders, made one after the other in the process that holds the link.

An order is a folder that appears in the folder of runs with everything a run needs. There is no interface to reach
over a network: whoever may write in that folder may order, and nobody else. What a run has come to stands in its
events, as `server.recording` writes them. A run whose process ended before its events say how it went is gone on
with; the number by which sites and store know it is part of the order, so that it is the same run.
"""

import json
import logging
import os
import secrets
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flwr.app import Context, RecordDict

from fedseal.errors import ConfigError, FedsealError, LocalError
from fedseal.operation.events import OrderUnreadable, RunBegun, RunBroken, RunFailed, RunStandsStill, WaitingForSites
from fedseal.operation.logs import say
from fedseal.privacy.membership.standing import SERVER_MOVES, standing
from fedseal.server.app import RESUME_KEY, SITES_KEY
from fedseal.server.link import Link, Setting
from fedseal.server.lock import alone
from fedseal.server.progress import told_who_is_there
from fedseal.server.recording import EVENTS, OUTPUT_KEY, Events, RecordingGrid, app
from fedseal.server.store import ServerStore
from fedseal.storage import StorageError, storage_fault

log = logging.getLogger("fedseal.server")

ORDER = "order.json"
INCIDENT = "incident.txt"
SCHEMA_VERSION = 1
# Seconds between two looks for orders, and for sites that are missing.
LOOK = 0.5
TELL = 30.0
# Seconds between two tries where the disk does not let a run go on.
RETRY = 5.0


@dataclass(frozen=True, slots=True)
class Order:
    """A run that has been ordered: its folder, and its configuration, which sites get to see."""

    folder: Path
    config: Mapping[str, Setting]

    @property
    def run(self) -> bytes:
        """The number by which sites and the server's store know the run."""
        return bytes.fromhex(str(self.config[RESUME_KEY]))

    @property
    def over(self) -> bool:
        """Whether its events say how it went."""
        path = self.folder / EVENTS
        lines = path.read_bytes().rpartition(b"\n")[0].splitlines() if path.is_file() else []
        return any(json.loads(line)["event"] in {"finished", "failed"} for line in lines)


@contextmanager
def ordered(runs: Path, name: str) -> Iterator[tuple[Path, Callable[[Mapping[str, Setting]], Order]]]:
    """Prepare a run's folder; it is ordered when the function that is handed out is called.

    Args:
        runs: the folder of runs.
        name: begins the name of the run's folder.

    Yields:
        A hidden folder for the files that the configuration names, and what orders: it takes the configuration.
    """
    number = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(3)}"
    hidden, final = runs.resolve() / f".{number}", runs.resolve() / number
    try:
        runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        hidden.mkdir()
    except OSError as error:
        raise ConfigError(f"{runs} cannot hold runs: {error.strerror or error}") from None

    def order(config: Mapping[str, Setting]) -> Order:
        # Sites see where the files lie from then on.
        moved = {k: v.replace(str(hidden), str(final)) if isinstance(v, str) else v for k, v in config.items()}
        whole = {**moved, RESUME_KEY: os.urandom(16).hex(), OUTPUT_KEY: str(final)}
        text = json.dumps({"schema_version": SCHEMA_VERSION, "run_config": whole}, indent=2)
        (hidden / ORDER).write_text(text + "\n", encoding="utf-8")
        hidden.replace(final)
        return Order(final, whole)

    yield hidden, order


def read_order(folder: Path) -> Order:
    """An order; ConfigError if the folder holds none that this fedseal understands."""
    try:
        content = json.loads((folder / ORDER).read_text(encoding="utf-8"))
        config = content["run_config"]
        if content["schema_version"] != SCHEMA_VERSION or len(bytes.fromhex(config[RESUME_KEY])) != 16:
            raise ValueError
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        raise ConfigError(f"{folder / ORDER} is no order that can be read") from None
    return Order(folder, config)


class Coordinator:
    """Takes orders and makes their runs.

    Args:
        link: the running SuperLink.
        store: the server's store.
        runs: the folder of runs.
        sleep: replaced in tests.
    """

    def __init__(self, link: Link, store: Path, runs: Path, sleep: Callable[[float], None] = time.sleep) -> None:
        self._link = link
        self._store = store
        self._runs = runs
        self._sleep = sleep

    def open_orders(self) -> list[Order]:
        """What is to be done, the oldest first. An order that cannot be read is told of and left alone."""
        found = []
        for path in sorted(self._runs.glob(f"*/{ORDER}")):
            if path.parent.name.startswith("."):
                continue
            try:
                order = read_order(path.parent)
            except ConfigError as error:
                say(log, OrderUnreadable(error.message))
                continue
            if not order.over:
                found.append(order)
        return found

    def serve(self, until: Callable[[], bool] = lambda: False) -> None:
        """Make runs as they are ordered, until it is interrupted or told to end."""
        with alone(self._runs), told_who_is_there(self._runs, self._link.online):
            while not until():
                for order in self.open_orders():
                    self.make(order)
                self._sleep(LOOK)

    def make(self, order: Order) -> None:
        """Make one run, or go on with it, to its end. That it failed stands in its events; nothing is raised for it.

        Where the disk is full the run does not fail: it stands still, and is gone on with as after a crash.
        """
        events = Events(order.folder)
        say(log, RunBegun(order.folder.name))
        try:
            if self._closed(order):
                self._write_result(order, events)
                return
            self._check_epoch(int(order.config[SITES_KEY]))
            self._wait_for_sites(int(order.config[SITES_KEY]))
            with self._link.run(order.config) as grid:
                app(grid, Context(grid.run.run_id, 1, {}, RecordDict(), dict(order.config)))
        except StorageError as error:
            self._stand_still(order, error)
        except FedsealError as error:
            say(log, RunFailed(order.folder.name, type(error).__name__, error.message))
            self._say_failed(order, events, error)
        # What nobody foresaw fails this run, and not those that come after it.
        except Exception as error:  # noqa: BLE001
            if storage_fault(error) is not None:
                self._stand_still(order, error)
                return
            # Its text may quote what a peer sent: it stays in the run's folder.
            with suppress(OSError), (order.folder / INCIDENT).open("a", encoding="utf-8") as kept:
                kept.write("".join(traceback.format_exception(error)))
            say(log, RunBroken(order.folder.name, type(error).__name__, INCIDENT))
            self._say_failed(order, events, LocalError(f"the run failed unexpectedly; see {INCIDENT} in its folder"))

    def _check_epoch(self, count: int) -> None:
        """ConfigError if the federation's epoch does not hold now, or has another number of sites than was ordered."""
        epoch = ServerStore.open(self._store).identity.epoch
        if epoch is None:
            return
        standing(epoch, datetime.now(UTC), moves=SERVER_MOVES)
        if len(epoch.roster.sites) != count:
            raise ConfigError(
                f"the run was ordered for {count} sites, and the federation has {len(epoch.roster.sites)} in epoch "
                f"{epoch.number}",
                next_step="Order it anew.",
            )

    def _say_failed(self, order: Order, events: Events, error: FedsealError) -> None:
        if order.over:
            return
        try:
            events.write("failed", error=type(error).__name__, message=error.message, next_step=error.next_step)
        except OSError as fault:
            # Not on disk, so it has not failed: it is gone on with.
            self._stand_still(order, fault)

    def _stand_still(self, order: Order, error: BaseException) -> None:
        say(log, RunStandsStill(order.folder.name, storage_fault(error) or "its events cannot be written"))
        self._sleep(RETRY)

    def _closed(self, order: Order) -> bool:
        """Whether the run is closed already: then only its result may be missing."""
        store = ServerStore.open(self._store)
        try:
            store.open_run(order.run)
        except ConfigError:
            return store.load(order.run) is not None
        return False

    def _write_result(self, order: Order, events: Events) -> None:
        checkpoint = ServerStore.open(self._store).load(order.run)
        if checkpoint is not None:
            with self._link.run(order.config) as grid:
                RecordingGrid(grid, events).run_finished(checkpoint.model)

    def _wait_for_sites(self, count: int) -> None:
        told = -TELL
        while len(online := self._link.online()) < count:
            if time.monotonic() - told >= TELL:
                told = time.monotonic()
                say(log, WaitingForSites.of(online, count))
            self._sleep(LOOK)
