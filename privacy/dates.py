"""When a site was charged, by its own clock: what a budget for a period is counted from.

The ledger's entries carry no time, and the clock is the site's own: whoever can set it, or write in the store, can
move a charge out of a period. The promise to the persons does not rest on it.
"""

from sqlalchemy import Connection, and_, func, insert, or_, select

from fedseal.privacy.ledger import Entry, EntryKind
from fedseal.privacy.plan import PrivacyPlan, decode_plan
from fedseal.privacy.tables import DATES, ENTRIES


def date_charge(connection: Connection, population: str, entry: Entry, at: int) -> None:
    """Write down when an entry was made.

    Args:
        connection: the transaction in which it is appended.
        population: whose ledger.
        entry: a charge.
        at: seconds since 1970.
    """
    connection.execute(insert(DATES).values(population=population, counter=entry.counter, at=at))


def charges_since(connection: Connection, population: str, since: int) -> tuple[tuple[PrivacyPlan, int], ...]:
    """Which plans were charged from a moment on, and how often each.

    A charge without a date, as one of a ledger that was put together again, counts as recent; so does one of the
    future, made before the clock was put back.
    """
    same = and_(DATES.c.population == ENTRIES.c.population, DATES.c.counter == ENTRIES.c.counter)
    query = (
        select(ENTRIES.c.plan, func.count())
        .select_from(ENTRIES.outerjoin(DATES, same))
        .where(ENTRIES.c.population == population, ENTRIES.c.kind == int(EntryKind.CHARGE))
        .where(or_(DATES.c.at.is_(None), DATES.c.at >= since))
        .group_by(ENTRIES.c.plan)
    )
    return tuple((decode_plan(plan), count) for plan, count in connection.execute(query))
