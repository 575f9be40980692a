"""What a command has put on record at a site becomes events in the same transaction: in the site's own log now, in the
federation's with the site's next answer.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedseal.compliance.journal.site import SiteJournal
    from fedseal.privacy.store import SiteStore
    from fedseal.privacy.transaction import Transaction


def journal_of(store: "SiteStore", transaction: "Transaction") -> "SiteJournal":
    """The site's journal in an open transaction."""
    from fedseal.compliance.journal.site import SiteJournal

    return SiteJournal(transaction.connection, store.identity, datetime.now(UTC))


def put_on_record(store: "SiteStore", transaction: "Transaction") -> "SiteJournal":
    """Sign what has happened to data and labels since the last time."""
    from fedseal.compliance.journal.announcements import publish

    journal = journal_of(store, transaction)
    publish(transaction.connection, journal)
    return journal
