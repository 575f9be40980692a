"""The sites of a simulated federation look at its log: outside of a run, as with the messages of the next one."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.journal.site import SiteJournal
from fedseal.errors import ConfigError
from fedseal.privacy.store import SiteStore

# What sites say meanwhile is written behind what they were shown, and shown to them the next time.
PASSES = 2


def witness_all(journal: FederationJournal, stores: Iterable[Path]) -> int:
    """Show the log to every site's store, and write down their cosignatures; the size that is final then.

    Raises:
        ConfigError: the federation is a real one, whose sites are asked in messages.
        PeerError: a site says that the log contradicts what it was shown before.
    """
    if not journal.roster.simulated:
        raise ConfigError(
            "this federation is not simulated: its sites look at the log when they answer the next run's messages",
            next_step="Start a run, or wait for one.",
        )
    sites = [SiteStore.open(path) for path in stores]
    for _ in range(PASSES):
        for site in sites:
            _show(journal, site)
        journal.commit()
    return journal.final_size()


def _show(journal: FederationJournal, site: SiteStore) -> None:
    """Show a site all there is, in as many steps as it takes."""
    while True:
        request = journal.request_for(site.identity.number)
        with site.transaction() as transaction:
            reply = SiteJournal(transaction.connection, site.identity, datetime.now(UTC)).hear(request)
        journal.take(site.identity.number, reply)
        if not request.entries:
            return
