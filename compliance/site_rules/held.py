"""A site's outbox: which releases wait for a person, and what the person said.

What waits is a question, not an answer: the release has not been computed, and is computed only once it may leave.
"""

import hashlib
import json
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from fedseal.compliance.events.fields import Decision, Digest, ReleaseName, RunId, sha256
from fedseal.config import Frozen
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.tables import HELD, STANDING

# Whoever asks must not fill the disk: of those that wait undecided the oldest give way.
MOST_WAITING = 500


class HeldRelease(Frozen):
    """What is asked of a site, in words and digests. No number that was computed from its data.

    ``plan`` is the kind of the plan and ``plan_digest`` all of it; ``share`` the part of its population's budget that
    one attempt takes, in percent; ``input`` is the digest of the model and settings that it is computed from.
    """

    run: RunId
    release: ReleaseName
    round: int
    population: str
    plan: str
    plan_digest: Digest
    share: float
    largest: float
    input: Digest
    cohort: tuple[int, ...]
    minimum: int
    threshold: int
    colluders: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry of the outbox. Times in seconds since 1970; ``decision`` is None while nobody has decided."""

    number: int
    key: bytes
    asked: HeldRelease
    first_at: int
    last_at: int
    decision: Decision | None
    decided_at: int | None
    actor: str | None


def release_key(header: Header, terms: bytes) -> bytes:
    """What a decision about one release is about, 32 bytes: the same for every attempt at it, also by a server that
    went on after a crash; another one once anything else is asked.

    Args:
        header: what is asked.
        terms: the digest of its plan and ranges, `fedseal.privacy.releases.terms_digest`.
    """
    digest = hashlib.sha256(b"fedseal/held/1\x00")
    least = header.minimum.to_bytes(4, "big")
    for part in (header.run, header.release_name.encode(), terms, header.shapes_hash, header.input_digest, least):
        digest.update(len(part).to_bytes(4, "big") + part)
    digest.update(header.fl_round.to_bytes(4, "big"))
    return digest.digest()


def decision_on(connection: Connection, run: bytes, key: bytes) -> Decision | None:
    """What a person said of a release: of it, or of its whole run. No said of either is no."""
    own = connection.execute(select(HELD.c.decision).where(HELD.c.key == key)).scalar()
    whole = connection.execute(select(STANDING.c.decision).where(STANDING.c.run == run)).scalar()
    said = {Decision(each) for each in (own, whole) if each is not None}
    if Decision.DENIED in said:
        return Decision.DENIED
    return Decision.APPROVED if said else None


def hold(connection: Connection, key: bytes, run: bytes, asked: HeldRelease, at: int) -> None:
    """Let a release wait; asked again, it is the same entry."""
    raw = json.dumps(asked.model_dump(mode="json"), sort_keys=True).encode("utf-8")
    statement = upsert(HELD).values(key=key, run=run, asked=raw, first_at=at, last_at=at)
    connection.execute(statement.on_conflict_do_update(index_elements=["key"], set_={"asked": raw, "last_at": at}))
    undecided = select(func.count()).select_from(HELD).where(HELD.c.decision.is_(None))
    if (surplus := connection.execute(undecided).scalar_one() - MOST_WAITING) > 0:
        oldest = select(HELD.c.number).where(HELD.c.decision.is_(None)).order_by(HELD.c.last_at).limit(surplus)
        connection.execute(delete(HELD).where(HELD.c.number.in_(oldest.scalar_subquery())))


def waiting(connection: Connection, *, all_of_them: bool = False) -> list[Waiting]:
    """What nobody has decided, oldest first; with ``all_of_them`` also what was."""
    query = select(HELD).order_by(HELD.c.number)
    rows = connection.execute(query if all_of_them else query.where(HELD.c.decision.is_(None)))
    return [
        Waiting(
            row.number,
            row.key,
            HeldRelease.model_validate_json(row.asked),
            row.first_at,
            row.last_at,
            None if row.decision is None else Decision(row.decision),
            row.decided_at,
            row.actor,
        )
        for row in rows
    ]


def decide(connection: Connection, number: int, decision: Decision, at: int, actor: str | None) -> Waiting | None:
    """Decide one entry, or decide it otherwise; None if there is none of that number."""
    found = next((each for each in waiting(connection, all_of_them=True) if each.number == number), None)
    if found is not None:
        values = {"decision": decision.value, "decided_at": at, "actor": actor}
        connection.execute(update(HELD).where(HELD.c.number == number).values(values))
    return found


def decide_run(connection: Connection, run: bytes, decision: Decision, at: int, actor: str | None) -> None:
    """Decide everything that a run asks for, now and later, and what waits of it."""
    values = {"decision": decision.value, "decided_at": at, "actor": actor}
    statement = upsert(STANDING).values(run=run, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["run"], set_=values))
    connection.execute(update(HELD).where(HELD.c.run == run, HELD.c.decision.is_(None)).values(values))


def standing(connection: Connection) -> dict[bytes, Decision]:
    """The runs that were decided as a whole."""
    return {row.run: Decision(row.decision) for row in connection.execute(select(STANDING))}


def request_name(key: bytes) -> str:
    """How a log names what was decided: a digest of the key, which is one of what nobody can guess."""
    return sha256(key)
