"""What an operator watches of the federation's log: how long it is, who has cosigned how much, who dropped out."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, inspect, select

from fedseal.compliance.events.bodies import Dropped
from fedseal.compliance.events.leaf import TIME_FORMAT, read_event
from fedseal.compliance.events.registry import type_of_form
from fedseal.compliance.journal.tables import TYPES, WITNESSES
from fedseal.compliance.log.checkpoint import read_checkpoint, server_origin
from fedseal.compliance.log.store import Log
from fedseal.privacy.roster import Roster


@dataclass(frozen=True, slots=True)
class LogFacts:
    """How many entries there are, when the newest was written (seconds since 1970), how many each site has cosigned at
    most, and the stage and reason of every dropout that was asked for.
    """

    entries: int
    newest: float
    cosigned: tuple[tuple[str, int], ...]
    dropped: tuple[tuple[str, str], ...]


NO_LOG = LogFacts(0, 0.0, (), ())


def look_at_log(engine: Engine, roster: Roster, since: int | None) -> LogFacts:
    """What stands in a server's log.

    Args:
        engine: the server's database, for reading.
        roster: the federation's.
        since: from which entry on dropouts are listed; None for none of them.
    """
    with engine.begin() as connection:
        log = _log(connection, roster)
        if log is None or not log.size:
            return NO_LOG
        size = log.size
        last = datetime.strptime(read_event(log.leaf(size - 1)).time, TIME_FORMAT).replace(tzinfo=UTC)
        dropped = () if since is None else _dropped(connection, log, since)
        return LogFacts(size, last.timestamp(), _cosigned(connection, roster), dropped)


def wrong_with_log(engine: Engine, roster: Roster) -> str:
    """What is wrong with a server's log, as far as a look at its end shows; empty where nothing is. It does not
    replace `fedseal audit verify`, which reads every entry.
    """
    with engine.begin() as connection:
        log = _log(connection, roster)
        if log is None or not log.size:
            return ""
        note = log.checkpoint(log.size)
        if note is None:
            return "its newest entries have no checkpoint"
        if read_checkpoint(note)[0].root != log.root():
            return "its newest checkpoint is not that of its entries"
        log.leaf(log.size - 1)
        return ""


def has_log(connection: Connection) -> bool:
    """Whether a server's database has the tables of its log."""
    return inspect(connection).has_table(TYPES.name)


def _log(connection: Connection, roster: Roster) -> Log | None:
    """The log; None where none was begun."""
    if not has_log(connection):
        return None
    return Log(connection, server_origin(roster.federation))


def _cosigned(connection: Connection, roster: Roster) -> tuple[tuple[str, int], ...]:
    sizes = {row.site: row.size for row in connection.execute(select(WITNESSES))}
    return tuple((entry.name, sizes.get(entry.site, 0)) for entry in roster.sites)


def _dropped(connection: Connection, log: Log, since: int) -> tuple[tuple[str, str], ...]:
    kind = type_of_form(Dropped).name
    query = select(TYPES.c.idx).where(TYPES.c.origin == log.origin, TYPES.c.type == kind, TYPES.c.idx >= since)
    found = []
    for index in connection.execute(query.order_by(TYPES.c.idx)).scalars().all():
        body = read_event(log.leaf(index)).body
        if isinstance(body, Dropped):
            found.append((body.stage.value, body.reason.value))
    return tuple(found)
