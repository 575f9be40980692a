"""What a site's store has become since its first format, step by step."""

import time

from sqlalchemy import Connection, insert, select

from fedseal.migration import Format
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.tables import DATES, ENTRIES, HELD, STANDING


def periods_and_outbox(connection: Connection) -> None:
    """Format 2: charges and incidents have dates, and releases can wait for a person.

    Of the charges before, nobody knows the day. They count as made now: a budget for a period is then kept, if later
    than it might be.
    """
    for table in (DATES, HELD, STANDING):
        table.create(connection)
    connection.exec_driver_sql('ALTER TABLE incidents ADD COLUMN "at" INTEGER')
    now = int(time.time())
    charges = select(ENTRIES.c.population, ENTRIES.c.counter).where(ENTRIES.c.kind == int(EntryKind.CHARGE))
    rows = [{"population": p, "counter": c, "at": now} for p, c in connection.execute(charges)]
    if rows:
        connection.execute(insert(DATES), rows)


SITE_STORE = Format("site store", (periods_and_outbox,))
