"""The end of a simulated run: its log written out for anyone to check, and checked once here.

The sites' mirrors are compared too: what every site has seen has to be what the server shows.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedseal.compliance.audit.verify import Verdict, verify
from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.log.export import export
from fedseal.compliance.log.store import Log
from fedseal.errors import LocalError
from fedseal.privacy.store import SiteStore
from fedseal.server.store import ServerStore
from fedseal.simulation import result as schema
from fedseal.simulation.federation import Federation

FOLDER = "log"
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found: the log's state, and how many sites' mirrors end in the same root."""

    verdict: Verdict
    mirrors: int


def prove(federation: Federation, folder: Path) -> Proof:
    """Write a federation's log into ``folder`` as C2SP tiles with its policy, and check it.

    Raises:
        LocalError: it does not hold. A simulation has no liars: this is a bug.
    """
    store = ServerStore.open(federation.server_store)
    roster = store.identity.roster
    journal = FederationJournal(store.engine, store.identity.key, roster, faulty=0, now=lambda: datetime.now(UTC))
    with store.engine.begin() as connection:
        log = Log(connection, journal.origin)
        leaves = [leaf for start in range(0, log.size, CHUNK) for leaf in log.leaves(start, start + CHUNK)]
        verdict = verify(leaves, log.checkpoint(), journal.policy)
        export(log, folder, journal.policy)
    mirrors = sum(_mirrors(path, verdict) for path in federation.site_stores.values())
    if verdict.code or verdict.beyond or mirrors < len(federation.site_stores):
        reasons = "; ".join(finding.what for finding in verdict.findings) or "a mirror is not what the server shows"
        raise LocalError(f"the run's log does not hold: {reasons}")
    return Proof(verdict, mirrors)


def _mirrors(path: Path, verdict: Verdict) -> bool:
    """Whether a site has seen exactly the log that was checked."""
    store = SiteStore.open(path)
    with store.transaction() as transaction:
        mirror = SiteJournal(transaction.connection, store.identity, datetime.now(UTC)).mirror
        return (mirror.size, mirror.root()) == (verdict.size, verdict.root)


def log_facts(proof: Proof) -> schema.LogFacts:
    """The log in the schema of results."""
    verdict = proof.verdict
    return schema.LogFacts(
        origin=verdict.origin,
        entries=verdict.size,
        root=verdict.root.hex(),
        cosigned=len(verdict.cosigned),
        witnesses=verdict.witnesses,
        final=verdict.final,
        types=dict(sorted(verdict.types.items())),
    )
