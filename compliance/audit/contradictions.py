"""What a site keeps when the federation's log contradicts itself: written out for others, and settled."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, select

from fedseal.compliance.events.fields import IncidentKind, Severity, sha256
from fedseal.compliance.events.subjects import Incident
from fedseal.compliance.journal.site import SiteJournal
from fedseal.compliance.journal.tables import EVIDENCE
from fedseal.compliance.journal.witnesses import policy_of
from fedseal.compliance.log.checkpoint import read_checkpoint, server_origin
from fedseal.compliance.log.export import export
from fedseal.compliance.log.quorum import format_policy
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.witness import decode_request
from fedseal.privacy.store import Identity

MIRROR = "mirror"


@dataclass(frozen=True, slots=True)
class Written:
    """One contradiction and its two notes: the file of what this site knew, and of what it was offered.

    ``tree``: the folder, below, of a log that reaches as far as the larger note; None where both are of one size and
    need none, empty where only the server has such a log.
    """

    number: int
    kind: str
    time: str
    settled: str | None
    known: str
    offered: str
    tree: str | None


def write_evidence(connection: Connection, identity: Identity, folder: Path) -> list[Written]:
    """Write every contradiction's notes, the mirror as files, and the policy; nothing if there is none.

    Where the mirror has a checkpoint of the very size that was offered, it is that one which stands against it: two
    roots of one size need no further proof.
    """
    if not inspect(connection).has_table(EVIDENCE.name):
        return []
    rows = connection.execute(select(EVIDENCE).order_by(EVIDENCE.c.number)).all()
    if not rows:
        return []
    mirror = Log(connection, server_origin(identity.roster.federation))
    policy = policy_of(identity.roster, 0, () if identity.epoch is None else identity.epoch.membership.former)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "policy.txt").write_text(format_policy(policy), encoding="utf-8")
    if mirror.checkpoint() is not None:
        export(mirror, folder / MIRROR, policy)
    written = []
    for row in rows:
        request = decode_request(row.offered)
        size = request.checkpoint.size
        known = mirror.checkpoint(size) or row.known
        tree = None if read_checkpoint(known)[0].size == size else MIRROR if size <= mirror.size else ""
        names = (f"{row.number}-known.note", f"{row.number}-offered.note")
        one = Written(row.number, row.kind, row.time, row.settled, *names, tree)
        (folder / one.known).write_text(known, encoding="utf-8")
        (folder / one.offered).write_text(str(request.note), encoding="utf-8")
        (folder / f"{row.number}-request.txt").write_bytes(row.offered)
        written.append(one)
    return written


def settle_all(journal: SiteJournal) -> int:
    """Let a site go on: every contradiction becomes an incident in both logs, and is marked as settled. How many."""
    rows = journal.unsettled()
    for number, offered in rows:
        incident = Incident(kind=IncidentKind.LOG_INCONSISTENT, severity=Severity.SERIOUS, evidence=sha256(offered))
        journal.record(incident)
        journal.share(incident)
        journal.settle(number)
    return len(rows)
