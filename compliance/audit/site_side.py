"""A site's side of an audit, read from its store: what it signed, did and charged."""

from sqlalchemy import inspect, select

from fedseal.compliance.audit.reconcile import SiteSide
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.journal.tables import OUTBOX
from fedseal.compliance.log import checkpoint
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tables import HEADS
from fedseal.errors import ConfigError
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.store import Identity
from fedseal.privacy.transaction import Transaction


def site_side(transaction: Transaction, identity: Identity) -> SiteSide:
    """What a site holds. Writes nothing, so a transaction that can only read will do.

    Raises:
        ConfigError: the store is of a time before there were logs, or has taken part in nothing yet.
        LocalError: the ledger or the log was changed from outside.
    """
    connection = transaction.connection
    known = inspect(connection)
    if not (known.has_table(OUTBOX.name) and known.has_table(HEADS.name)):
        raise ConfigError(
            "this site has no log yet", next_step="It begins one with the first message that shows it one."
        )
    own = Log(connection, checkpoint.site_origin(identity.roster.federation, identity.name))
    rows = connection.execute(select(OUTBOX).order_by(OUTBOX.c.seq)).all()
    return SiteSide(
        number=identity.number,
        org=public_name(identity.name),
        own=own.leaves(0, own.size),
        signed=[row.leaf for row in rows],
        seen=frozenset(row.leaf for row in rows if row.logged is not None),
        charges=[
            (entry.run.hex(), entry.plan.hex())
            for population in transaction.populations()
            for entry in transaction.entries(population)
            if entry.kind == EntryKind.CHARGE
        ],
    )
