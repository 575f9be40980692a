"""Opening a federation's registry for a command: its log, its bundles, and who its persons are."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from sqlalchemy import Engine

from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log.database import store_at
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.compliance.registry.directory import Directory
from fedseal.compliance.registry.promotion import Registry
from fedseal.database import free_to_use
from fedseal.errors import ConfigError
from fedseal.server.store import ServerStore


@dataclass(frozen=True, slots=True)
class Opened:
    """A registry, and what it is made of. ``store`` is the server's."""

    registry: Registry
    journal: FederationJournal
    store: ServerStore
    path: Path

    def names(self) -> dict[str, str]:
        """The names of the server's own persons."""
        with self.store.engine.begin() as connection:
            return Directory(connection).names()


@contextmanager
def opened(log: Path, bundles: Path | None = None, database: str | None = None) -> Iterator[Opened]:
    """The registry of a server's store.

    Args:
        log: the store, or a run's folder.
        bundles: where bundles are kept; beside the store if None.
        database: the URL of the log's database, where that is not the store.

    Raises:
        ConfigError: there is no store, or it cannot be used.
    """
    path = store_of(log)
    store = ServerStore.open(path)
    with free_to_use(path), _engine(store, database) as engine:
        identity = store.identity
        journal = FederationJournal(
            engine,
            identity.key,
            identity.roster,
            faulty=0,
            now=lambda: datetime.now(UTC),
            former=identity.former,
        )
        kept = BundleStore(bundles or path.parent / "bundles")
        yield Opened(Registry(journal, engine, kept), journal, store, path)


@contextmanager
def _engine(store: ServerStore, database: str | None) -> Iterator[Engine]:
    """The log's database: the store's own, or one by URL."""
    if database is None:
        yield store.engine
        return
    from fedseal.compliance.log.database import open_database

    engine = open_database(database)
    try:
        yield engine
    finally:
        engine.dispose()


def store_of(log: Path) -> Path:
    """The server's store that is meant; ConfigError if there is none."""
    found = store_at(log)
    if found is None:
        raise ConfigError(
            f"no server's store at {log}", next_step="Give the server's store, or the folder of a simulated run."
        )
    return found


def say(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print an outcome: as JSON and nothing else, or in words."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
    else:
        Console(highlight=False, soft_wrap=True).print(text, markup=False)
