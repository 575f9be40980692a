"""Opening a federation's registry to change it: its log, its bundles, and the server's key that signs for both."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log.database import open_database
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.compliance.registry.directory import Directory
from fedseal.compliance.registry.promotion import Registry
from fedseal.database import free_to_use
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
def registry_at(path: Path, bundles: Path | None = None, database: str | None = None) -> Iterator[Opened]:
    """The registry of a server's store. Other programs may use the store meanwhile: each change is a transaction.

    Args:
        path: the store.
        bundles: where bundles are kept; beside the store if None.
        database: the URL of the log's database, where that is not the store.

    Raises:
        ConfigError: there is no store, or it cannot be used.
    """
    store = ServerStore.open(path)
    with free_to_use(path), _engine(store, database) as engine:
        identity = store.identity
        journal = FederationJournal(
            engine, identity.key, identity.roster, faulty=0, now=lambda: datetime.now(UTC), former=identity.former
        )
        kept = BundleStore(bundles or path.parent / "bundles")
        yield Opened(Registry(journal, engine, kept), journal, store, path)


@contextmanager
def _engine(store: ServerStore, database: str | None) -> Iterator[Engine]:
    """The log's database: the store's own, or one by URL."""
    if database is None:
        yield store.engine
        return
    engine = open_database(database)
    try:
        yield engine
    finally:
        engine.dispose()
