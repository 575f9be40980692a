"""The log of a watched scenario, as a federation's server writes it: models registered and put to use, what every
window showed, what was decided, and what came of it. From it alone all decisions can be made again.

The production code writes it: the monitor's recording, the registry under its own rules, the sites as witnesses. It is
a simulated federation's own, and its first entry says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import safetensors.numpy
from sqlalchemy import Engine, create_engine
from sqlalchemy.pool import StaticPool

from fedseal.client.trainer import Arrays
from fedseal.compliance.audit.verify import Verdict, verify
from fedseal.compliance.events.fields import Alias, GateKind, decimal
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.subjects import GateChecked
from fedseal.compliance.journal.federation import Fact, FederationJournal
from fedseal.compliance.log.export import export
from fedseal.compliance.log.store import Log
from fedseal.compliance.registry.aliases import Registration
from fedseal.compliance.registry.bundle import BundleStore
from fedseal.compliance.registry.description import bundle_of
from fedseal.compliance.registry.promotion import Origin, Registry
from fedseal.compliance.registry.rules import AliasRules, RegistryRules
from fedseal.errors import LocalError
from fedseal.privacy.roster import Roster
from fedseal.server.monitoring.outcome import Measured
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.server.monitoring.recording import begin, carry_out, models_in, record_shadow, record_window
from fedseal.server.monitoring.replay import replay
from fedseal.server.monitoring.trigger import Compared, Decision, Models, ShadowResult, TriggerState
from fedseal.simulation.federation import new_key, roster_entries
from fedseal.simulation.scenario.witnesses import Witnesses
from fedseal.study import Contract

RUN = b"fedseal/scenario"
LOG, BUNDLES = "log", "bundles"
CHUNK = 4096
# A scenario has no people who sign. What no rule can turn off stays: the sites have cosigned what a promotion rests on.
RULES = RegistryRules(version=1, production=AliasRules())


@dataclass(frozen=True, slots=True)
class Logbook:
    """The server's log of one run, and the registry in it.

    Args:
        engine: the log's database, in memory: what is kept of it is what is exported.
        journal: the log.
        registry: the models in the log.
        witnesses: the sites.
        table: the monitor's policy.
    """

    engine: Engine
    journal: FederationJournal
    registry: Registry
    witnesses: Witnesses
    table: MonitorTable

    @classmethod
    def begin(cls, folder: Path, name: str, persons: Mapping[str, int], table: MonitorTable) -> "Logbook":
        """Begin a log with the monitor's policy.

        Args:
            folder: for the models' bundles.
            name: the scenario's.
            persons: by site, for the roster.
            table: the policy.
        """
        root, server, keys = new_key(), new_key(), {site: new_key() for site in persons}
        roster = Roster(f"simulated-{name}", 1, True, root.public, server.public, roster_entries(persons, keys))
        engine = create_engine("sqlite://", poolclass=StaticPool)
        with engine.begin() as connection:
            Log.create_tables(connection)
        journal = FederationJournal(engine, server, roster, faulty=0, now=lambda: datetime.now(UTC))
        registry = Registry(journal, engine, BundleStore(folder / BUNDLES))
        begin(journal, table)
        return cls(engine, journal, registry, Witnesses(roster, keys), table)

    # Models

    def trained(self, model: Arrays, contract: Contract, *, rounds: int, parent: str | None) -> None:
        """Register a training's model; the sites see it with the training's messages. Nothing if it is there already.

        Args:
            model: what was trained.
            contract: the training's.
            rounds: how many it took.
            parent: digest of the model that it began with.
        """
        bundle = bundle_of(safetensors.numpy.save(model), contract)
        if bundle.digest not in self.registry.state().registered:
            self.registry.register(bundle, Origin(RUN, rounds, parent))
        self.witnesses.cosign(self.journal)

    def put_to_use(self, model: str) -> None:
        """Point the alias production to a registered model, by the registry's rules; nothing if it points there.

        Raises:
            PolicyRefused: the log does not let it.
        """
        binding = self.registry.state().aliases.get(Alias.PRODUCTION)
        if binding is None or binding.model != model:
            self.registry.promote(self._registered(model), Alias.PRODUCTION, RULES)

    def golden(self, model: str, *, found: float | None, current: float | None) -> bool:
        """Write down whether an earlier model answers the window's labelled persons better than the one in use: the
        gold set that says which model may be gone back to.

        Args:
            model: the earlier one's digest.
            found: its accuracy, 0 to 1; None if there was nobody.
            current: that of the model in use.
        """
        passed = found is not None and current is not None and found > current
        fact = GateChecked(
            model=model,
            alias=Alias.PRODUCTION,
            gate=GateKind.GOLD_SET,
            name="accuracy",
            limit=None if current is None else decimal(current),
            found=None if found is None else decimal(found),
            passed=passed,
            bundle=self._registered(model).bundle,
        )
        self.journal.commit([Fact(fact, RUN)])
        return passed

    def _registered(self, model: str) -> Registration:
        return self.registry.find(model, self.registry.state())

    # Windows

    def window(self, state: TriggerState, measured: Measured, models: Models) -> tuple[TriggerState, Decision]:
        """Decide about a window, write both, and go back to an earlier model if that is what was decided.

        Raises:
            LocalError: the log knows of other models. This is a bug.
        """
        if models_in(self.registry.state()) != models:
            raise LocalError("the run's log knows of other models than the run")
        state, decision = record_window(self.journal, RUN, self.table, state, measured, models)
        carry_out(self.registry, decision)
        return state, decision

    def shadow(self, window: int, compared: Compared, models: Models, candidate: str) -> tuple[ShadowResult, Decision]:
        """Ask the registry's gates about a candidate, decide, and write it all. The alias is moved by `put_to_use`."""
        checked = self.registry.check(self._registered(candidate), Alias.PRODUCTION, RULES)
        return record_shadow(
            self.journal,
            RUN,
            self.table,
            window,
            compared,
            models,
            candidate=candidate,
            epsilon=self.table.epsilon,
            gates_pass=not checked.reasons,
        )

    # The end

    def close(self, folder: Path) -> Verdict:
        """Let every site cosign the whole, check it, make all decisions again, and export it for anyone who wants to.

        Raises:
            LocalError: the log does not hold, or a decision does not follow from it. This is a bug.
        """
        self.witnesses.cosign(self.journal)
        with self.engine.begin() as connection:
            log = Log(connection, self.journal.origin)
            leaves = [leaf for start in range(0, log.size, CHUNK) for leaf in log.leaves(start, start + CHUNK)]
            verdict = verify(leaves, log.checkpoint(), self.journal.policy)
            export(log, folder, self.journal.policy)
        self.engine.dispose()
        if verdict.code or verdict.beyond or len(verdict.cosigned) < verdict.witnesses:
            reasons = "; ".join(finding.what for finding in verdict.findings) or "a site has not cosigned the whole"
            raise LocalError(f"the run's log does not hold: {reasons}")
        found = replay((index, read_event(leaf)) for index, leaf in enumerate(leaves))
        if not found.holds:
            raise LocalError(f"a decision does not follow from the run's log: {found.findings[0].fault}")
        return verdict
