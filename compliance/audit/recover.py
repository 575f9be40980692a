"""A server's log that lost entries, made whole again from a site's mirror.

Nothing is taken on the site's word. Every checkpoint above what is left carries the server's own signature, every entry
its author's, each author's entries are complete, and what is left has to be the beginning of what the site holds: two
histories are not mended, they are evidence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert

from fedseal.compliance.audit.verify import verify
from fedseal.compliance.events.leaf import Place, read_event
from fedseal.compliance.journal.tables import AUTHORS, TYPES, WITNESSES, create_tables
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.checkpoint import server_origin
from fedseal.compliance.log.exported import ExportedLog
from fedseal.compliance.log.quorum import Policy
from fedseal.compliance.log.store import Log
from fedseal.errors import PeerError
from fedseal.privacy.membership.documents import FormerKey
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg.keys import SigningKey

CHUNK = 1024
_FORK = (
    "Keep both. Export the server's log and the site's, and let the federation compare them: `fedseal audit export`."
)


@dataclass(frozen=True, slots=True)
class Recovered:
    """How long the log was, and how long it is."""

    before: int
    after: int


def recover(
    connection: Connection,
    key: SigningKey,
    roster: Roster,
    mirror: Log | ExportedLog,
    site: int | None,
    former: Sequence[FormerKey] = (),
) -> Recovered:
    """Append to the server's log what a site's mirror has beyond it, and put its places and index right.

    Args:
        connection: a transaction in the database of the server's log. Whatever is raised, end it without a commit.
        key: the server's.
        roster: the federation's.
        mirror: a site's copy of the log, or one that somebody exported.
        site: that site's number; None for an exported one.
        former: the keys that counted in the federation once.

    Raises:
        PeerError: the mirror does not hold, or is of another history than what is left. Nothing has changed.
    """
    Log.create_tables(connection)
    create_tables(connection)
    log = Log(connection, server_origin(roster.federation))
    log.lock()
    before = log.size
    size = _promised(mirror, log, site)
    if size > before:
        leaves = [leaf for start in range(0, size, CHUNK) for leaf in mirror.leaves(start, min(start + CHUNK, size))]
        _check(leaves, mirror, policy_of(roster, 0, former), size, site)
        log.append(leaves[before:])
        for kept, _ in mirror.checkpoints():
            note = mirror.checkpoint(kept)
            if before < kept <= size and note is not None:
                log.put_checkpoint(note)
        log.sign_checkpoint(key)
    _index(connection, log)
    if isinstance(mirror, Log) and site is not None:
        _witnessed(connection, mirror, site)
    return Recovered(before, log.size)


def _promised(mirror: Log | ExportedLog, log: Log, site: int | None) -> int:
    """How much of a mirror has a checkpoint; PeerError if what is left of the log is not its beginning."""
    size = max((kept for kept, _ in mirror.checkpoints()), default=0)
    common = min(size, log.size)
    if common and mirror.root(common) != log.root(common):
        raise PeerError(
            f"the first {common} entries of this copy are others than the server's: two histories",
            peer=_whose(site),
            next_step=_FORK,
        )
    return size


def _check(leaves: list[bytes], mirror: Log | ExportedLog, policy: Policy, size: int, site: int | None) -> None:
    """PeerError unless all that a mirror says is signed by whom it has to be."""
    notes = [(kept, mirror.checkpoint(kept) or "") for kept, _ in mirror.checkpoints()]
    verdict = verify(leaves, mirror.checkpoint(size), policy, earlier=[note for kept, note in notes if kept < size])
    if verdict.findings:
        first = verdict.findings[0]
        place = "" if first.index is None else f" (entry {first.index})"
        raise PeerError(
            f"this copy does not hold: {first.what}{place}",
            peer=_whose(site),
            next_step="Take the entries from another site.",
        )


def _whose(site: int | None) -> str:
    return "an exported log" if site is None else f"site {site}"


def _index(connection: Connection, log: Log) -> None:
    """Where every author stands, and which entry is of which type and run, from the entries themselves."""
    for table in (AUTHORS, TYPES):
        connection.execute(delete(table).where(table.c.origin == log.origin))
    places: dict[str, Place] = {}
    for start in range(0, log.size, CHUNK):
        rows = []
        for index, leaf in enumerate(log.leaves(start, start + CHUNK), start=start):
            event = read_event(leaf)
            places[event.keyid] = event.place_after
            rows.append({"origin": log.origin, "idx": index, "type": event.kind.name, "run": event.run})
        connection.execute(insert(TYPES), rows)
    if places:
        rows = [{"origin": log.origin, "keyid": k, "seq": p.seq, "prev": p.prev} for k, p in places.items()]
        connection.execute(insert(AUTHORS), rows)


def _witnessed(connection: Connection, mirror: Log, site: int) -> None:
    """How much this site has cosigned. The others say so with their next answers."""
    connection.execute(delete(WITNESSES).where(WITNESSES.c.site == site))
    connection.execute(insert(WITNESSES).values(site=site, size=mirror.witness_state().size))
