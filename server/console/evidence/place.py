"""Where the federation's log and models are, and opening them for a page: to read, and in nobody's way.

The server's private key is not looked at here: `approving` opens the store for that, when a signature is appended.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect

from fedseal.compliance.audit.source import LogCopy
from fedseal.compliance.events.bodies import Genesis, PolicyChanged
from fedseal.compliance.events.registry import Book
from fedseal.compliance.journal.tables import TYPES as LOG_TYPES
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.lineage.opening import opened as lineage_at
from fedseal.compliance.lineage.questions import Questions
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.database import open_database
from fedseal.compliance.log.quorum import Policy
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.log.store import Log
from fedseal.compliance.registry.aliases import TYPES, State, replay
from fedseal.compliance.registry.directory import names_in
from fedseal.compliance.registry.entries import Entries, names_of
from fedseal.compliance.registry.people import Parties
from fedseal.compliance.registry.rules import RegistryRules, read_rules
from fedseal.database import connect
from fedseal.errors import ConfigError
from fedseal.privacy.roster import Roster
from fedseal.server.store import known_at


class NotBegun(ConfigError):  # noqa: N818 - nothing is wrong
    """The federation's log has no entry yet."""

    def __init__(self) -> None:
        super().__init__(
            "This federation's log has not begun.", next_step="The server writes its first entry with its first run."
        )


@dataclass(frozen=True, slots=True)
class View:
    """The federation's log, open in one transaction: a page is of one moment.

    ``copy`` is the log with the policy that follows from the roster; ``entries`` reads it by types, ``connection``
    is the transaction.
    """

    copy: LogCopy
    connection: Connection
    entries: Entries
    roster: Roster
    parties: Parties

    @property
    def log(self) -> ReadableLog:
        """The log itself."""
        return self.copy.log

    @property
    def policy(self) -> Policy:
        """Whose signatures count, and how many make a quorum."""
        return self.copy.policy

    def state(self) -> State:
        """What the registry holds, by the log alone."""
        return replay(self.entries.of(TYPES), self.parties)

    def final_size(self) -> int:
        """The largest size that a quorum has cosigned; 0 if there is none."""
        return self.log.latest_final(self.policy) or 0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where everything is.

    Args:
        store: the server's store.
        bundles: the folder of models' bundles.
        rules: what aliases ask for (``registry.toml``), which need not be there.
        database: the log's URL where the log is in PostgreSQL.
    """

    store: Path
    bundles: Path
    rules: Path
    database: str | None = None

    @contextmanager
    def opened(self) -> Iterator[View]:
        """The log, to read.

        Raises:
            NotBegun: the log has no entry yet.
            ConfigError: there is no store.
        """
        roster, epoch = known_at(self.store)
        former = () if epoch is None else epoch.membership.former
        if self.database is None and not _has_log(self.store):
            raise NotBegun
        origin = server_origin(roster.federation)
        engine = open_database(self.database or self.store, reading=True)
        try:
            with engine.connect() as connection, connection.begin():
                log = Log(connection, origin)
                if not log.size:
                    raise NotBegun
                entries = Entries(engine, origin)
                said = [entry.event.body for entry in entries.of(names_of(Genesis, PolicyChanged))]
                faulty = max((body.faulty for body in said if isinstance(body, Genesis | PolicyChanged)), default=0)
                policy = policy_of(roster, min(faulty, len(roster.sites) - 1), former)
                copy = LogCopy(log, Book.FEDERATION, policy, own_word=True)
                yield View(copy, connection, entries, roster, Parties.of(roster, former))
        finally:
            engine.dispose()

    @contextmanager
    def questions(self) -> Iterator[Questions]:
        """The lineage, brought up to the log first."""
        with lineage_at(self.database or str(self.store)) as (_, questions, _):
            yield questions

    def asked(self) -> RegistryRules | None:
        """What aliases ask for; None if there is no such file. ConfigError if it cannot be read."""
        return read_rules(self.rules) if self.rules.is_file() else None

    def names(self) -> dict[str, str]:
        """Who the server's own persons are, by pseudonym: from the store's directory, which is no part of the log."""
        with connect(self.store, reading=True).connect() as connection:
            return names_in(connection)


def _has_log(store: Path) -> bool:
    with connect(store, reading=True).connect() as connection:
        return inspect(connection).has_table(LOG_TYPES.name)
