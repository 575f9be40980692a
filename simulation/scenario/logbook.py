"""The log of a watched scenario: every window, decision and comparison as a signed entry, as a federation's server
writes it, so that all decisions can be made again from it alone (`fedseal monitor replay`).

It is a simulated federation's own: its first entry says so. No site has cosigned it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log.export import export
from fedseal.compliance.log.store import Log
from fedseal.errors import LocalError
from fedseal.privacy.roster import Roster, sign_roster
from fedseal.server.monitoring.outcome import Measured
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.recording import begin, record_shadow, record_window
from fedseal.server.monitoring.replay import Replayed, replay
from fedseal.server.monitoring.trigger import Compared, Decision, Models, ShadowResult, TriggerState
from fedseal.server.store import ServerStore
from fedseal.simulation.federation import new_key, roster_entries

RUN = b"fedseal/scenario"
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Logbook:
    """The server's log of one run."""

    store: ServerStore
    journal: FederationJournal
    table: MonitorTable

    @classmethod
    def begin(cls, folder: Path, name: str, persons: dict[str, int], table: MonitorTable) -> "Logbook":
        """Begin a log with the monitor's policy.

        Args:
            folder: for the server's store.
            name: the scenario's.
            persons: by site, for the roster.
            table: the policy.
        """
        root, server = new_key(), new_key()
        entries = roster_entries(persons, {site: new_key() for site in persons})
        roster = Roster(f"simulated-{name}", 1, True, root.public, server.public, entries)
        store = ServerStore.create(
            folder / "server.sqlite", key=server, roster=sign_roster(roster, root), pinned=roster.digest()
        )
        journal = FederationJournal(store.engine, server, roster, faulty=0, now=lambda: datetime.now(UTC))
        begin(journal, table)
        return cls(store, journal, table)

    def window(self, state: TriggerState, measured: Measured, models: Models) -> tuple[TriggerState, Decision]:
        """Decide about a window, and write both."""
        return record_window(self.journal, RUN, self.table, state, measured, models)

    def shadow(self, window: int, compared: Compared, models: Models, candidate: str) -> tuple[ShadowResult, Decision]:
        """Decide about a candidate, and write both."""
        return record_shadow(
            self.journal,
            RUN,
            self.table,
            window,
            compared,
            models,
            candidate=candidate,
            epsilon=self.table.epsilon,
            gates_pass=True,
        )

    def close(self, folder: Path) -> Replayed:
        """Export the log as anyone may check it, and make all its decisions again.

        Raises:
            LocalError: a decision does not follow from the log. A simulation has no liars: this is a bug.
        """
        with self.store.engine.begin() as connection:
            log = Log(connection, self.journal.origin)
            found = replay(enumerate(_events(log)))
            export(log, folder, self.journal.policy)
        if not found.holds:
            raise LocalError(f"a decision does not follow from the run's log: {found.findings[0].fault}")
        return found


def _events(log: Log) -> list[Event]:
    return [read_event(leaf) for start in range(0, log.size, CHUNK) for leaf in log.leaves(start, start + CHUNK)]
