"""What a site writes down: its own log, its events for the federation's log, and its mirror of that log.

All of it in the site's store, in the transaction of whatever it is about: the charge and the event that says so are on
disk together. An event for the federation waits in the outbox, rides on every answer, and leaves the outbox when the
site has seen it in a checkpoint that it cosigned.
"""

import hmac
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TypeVar

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from fedseal.compliance.events.bodies import ForeignAnchor
from fedseal.compliance.events.fields import public_name, sha256
from fedseal.compliance.events.leaf import TIME_FORMAT, Event, Place, keyid_of, read_event, sign_event
from fedseal.compliance.events.registry import EventType, type_of_form
from fedseal.compliance.events.subjects import RequestClosed, RequestReceived, Shared
from fedseal.compliance.journal.attachment import MOST_EVENTS, OK, UNPROCESSABLE, LogReply, LogRequest
from fedseal.compliance.journal.tables import EVIDENCE, OUTBOX, PUBLISHED, create_tables
from fedseal.compliance.journal.witnesses import site_genesis
from fedseal.compliance.log import checkpoint, witness
from fedseal.compliance.log.store import Log
from fedseal.config import Frozen
from fedseal.errors import LogContradicted
from fedseal.merkle import leaf_hash
from fedseal.privacy.secagg.keys import derive
from fedseal.privacy.store import Identity

INCONSISTENT = "inconsistent"
F = TypeVar("F", bound=Frozen)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a site keeps when a server's log contradicts itself: the note it cosigned, and the request it refused."""

    kind: str
    known: str
    offered: bytes
    time: str


class SiteJournal:
    """A site's journal, inside one transaction of its store.

    Args:
        connection: the transaction's.
        identity: the site's.
        now: in UTC.
    """

    def __init__(self, connection: Connection, identity: Identity, now: datetime) -> None:
        self._connection = connection
        self._identity = identity
        self._now = now
        self._org = public_name(identity.name)
        self.origin = checkpoint.site_origin(identity.roster.federation, identity.name)
        self.server_origin = checkpoint.server_origin(identity.roster.federation)
        create_tables(connection)

    @cached_property
    def own(self) -> Log:
        """The site's own log; its first entry says whose it is."""
        log = Log(self._connection, self.origin)
        if not log.size:
            log.append([self._leaf(site_genesis(self._identity.roster), Place())])
        return log

    @cached_property
    def mirror(self) -> Log:
        """What the site has seen of the federation's log."""
        return Log(self._connection, self.server_origin)

    # What the site writes

    def record(self, body: Frozen, *, run: bytes | None = None, kind: EventType | None = None) -> int:
        """Append an event to the site's own log; its index."""
        leaf = self._leaf(body, self._own_place(), run=run, kind=kind)
        return self.own.append([leaf])[0]

    def share(self, body: Frozen, *, run: bytes | None = None, kind: EventType | None = None) -> bytes:
        """Sign an event for the federation's log, and note in the site's own that it did. The leaf."""
        leaf = self._leaf(body, self._shared_place(), run=run, kind=kind)
        event = read_event(leaf, "this site")
        self._connection.execute(
            insert(OUTBOX).values(
                seq=self._signed_so_far(),
                leaf=leaf,
                leaf_hash=leaf_hash(leaf),
                type=event.kind.name,
                run=event.run,
                logged=None,
            )
        )
        self.record(Shared(leaf=sha256(leaf), event_type=event.kind.name), run=run)
        return leaf

    def last_said(self, form: type[F]) -> F | None:
        """The newest event of a form, outside any run, that this site has signed."""
        query = select(OUTBOX.c.leaf).where(OUTBOX.c.run.is_(None), OUTBOX.c.type == type_of_form(form).name)
        leaf = self._connection.execute(query.order_by(OUTBOX.c.seq.desc()).limit(1)).scalar()
        body = None if leaf is None else read_event(leaf, "this site").body
        return body if isinstance(body, form) else None

    def last_shared(self, kind: str) -> Event | None:
        """The newest event of a type that this site has signed for the federation's log, whatever run it is about."""
        query = select(OUTBOX.c.leaf).where(OUTBOX.c.type == kind).order_by(OUTBOX.c.seq.desc()).limit(1)
        leaf = self._connection.execute(query).scalar()
        return None if leaf is None else read_event(leaf, "this site")

    def has_received(self, request: str) -> bool:
        """Whether this site has said that it got a request, and not yet how it was answered."""
        forms = [type_of_form(form).name for form in (RequestReceived, RequestClosed)]
        query = select(OUTBOX.c.leaf).where(OUTBOX.c.run.is_(None), OUTBOX.c.type.in_(forms)).order_by(OUTBOX.c.seq)
        bodies = [read_event(leaf, "this site").body for leaf in self._connection.execute(query).scalars()]
        about = [b for b in bodies if isinstance(b, RequestReceived | RequestClosed) and b.request == request]
        return bool(about) and isinstance(about[-1], RequestReceived)

    def has_shared(self, body: type[Frozen], run: bytes) -> bool:
        """Whether the site has signed an event of this form about a run."""
        query = select(OUTBOX.c.seq).where(OUTBOX.c.run == run.hex(), OUTBOX.c.type == type_of_form(body).name).limit(1)
        return self._connection.execute(query).first() is not None

    def said_of_run(self, form: type[F], run: bytes) -> list[F]:
        """The events of a form about a run that this site has signed for the federation's log, oldest first."""
        own = (OUTBOX.c.run == run.hex(), OUTBOX.c.type == type_of_form(form).name)
        leaves = self._connection.execute(select(OUTBOX.c.leaf).where(*own).order_by(OUTBOX.c.seq)).scalars()
        bodies = [read_event(leaf, "this site").body for leaf in leaves]
        return [body for body in bodies if isinstance(body, form)]

    def published(self, what: str) -> int:
        """Up to which number something on record has become events; 0 if nothing has."""
        return self._connection.execute(select(PUBLISHED.c.number).where(PUBLISHED.c.what == what)).scalar() or 0

    def put_published(self, what: str, number: int) -> None:
        """That everything up to this number has."""
        statement = upsert(PUBLISHED).values(what=what, number=number)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["what"], set_={"number": number}))

    def commitment(self, label: str, value: bytes) -> str:
        """What stands in a log for something guessable: HMAC-SHA-256 under a key that only this site has."""
        first = self._identity.first or self._identity.key
        key = derive(first.seed.reveal(), b"", f"log/{label}")
        return "hmac:" + hmac.digest(key, value, "sha256").hex()

    def _leaf(self, body: Frozen, place: Place, *, run: bytes | None = None, kind: EventType | None = None) -> bytes:
        return sign_event(
            body,
            self._identity.key,
            place,
            org=self._org,
            time=self._now.strftime(TIME_FORMAT),
            run=None if run is None else run.hex(),
            kind=kind,
        )

    def _own_place(self) -> Place:
        return self._place_after(self.own.leaf(self.own.size - 1))

    def _shared_place(self) -> Place:
        leaf = self._connection.execute(select(OUTBOX.c.leaf).order_by(OUTBOX.c.seq.desc()).limit(1)).scalar()
        return Place() if leaf is None else self._place_after(leaf)

    def _place_after(self, leaf: bytes) -> Place:
        """What follows the last that this site has signed: a new key begins a chain of its own."""
        event = read_event(leaf, "this site")
        return event.place_after if event.keyid == keyid_of(self._identity.key.public) else Place()

    def _signed_so_far(self) -> int:
        """How many events for the federation's log there have been, under all keys."""
        newest = self._connection.execute(select(func.max(OUTBOX.c.seq))).scalar()
        return 0 if newest is None else newest + 1

    # What the server shows, and what the site answers

    @property
    def halted(self) -> Evidence | None:
        """What made this site stop, if anything has and nobody has settled it."""
        query = select(EVIDENCE).where(EVIDENCE.c.settled.is_(None)).order_by(EVIDENCE.c.number).limit(1)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else Evidence(row.kind, row.known, row.offered, row.time)

    def unsettled(self) -> list[tuple[int, bytes]]:
        """What nobody has settled yet: its number, and the request that was refused."""
        query = select(EVIDENCE).where(EVIDENCE.c.settled.is_(None)).order_by(EVIDENCE.c.number)
        return [(row.number, row.offered) for row in self._connection.execute(query)]

    def settle(self, number: int) -> None:
        """Note that somebody has decided that this site goes on in spite of a contradiction. The evidence stays."""
        query = update(EVIDENCE).where(EVIDENCE.c.number == number)
        self._connection.execute(query.values(settled=self._now.strftime(TIME_FORMAT)))

    def hear(self, request: LogRequest) -> LogReply:
        """Check a checkpoint against all that was seen before, cosign it, and take its entries into the mirror.

        A server that shows another history than before makes this site stop: it keeps both notes. One that shows less
        than it has shown is told so, and changes nothing.
        """
        state = self.mirror.witness_state()
        following, response = self._witnessed(state, request.body)
        if response.outcome is witness.Outcome.STALE and self._is_known(request, state):
            # The same request again, whose answer was lost with the process that gave it: cosigned as it stands.
            note = str(witness.decode_request(request.body).note)
            _, response = self._witnessed(state, witness.encode_request(state.size, (), note))
            return self._reply(OK, state.size, response.body)
        match response.outcome:
            case witness.Outcome.COSIGNED if self._takes(request, following):
                self.mirror.put_witness_state(state, following)
                return self._reply(OK, following.size, response.body)
            case witness.Outcome.COSIGNED | witness.Outcome.FORKED | witness.Outcome.INCONSISTENT:
                self._keep(INCONSISTENT, request)
                return self._reply(UNPROCESSABLE, state.size)
            case witness.Outcome.STALE if self._contradicts(request):
                self._keep(INCONSISTENT, request)
                return self._reply(UNPROCESSABLE, state.size)
        return self._reply(response.status, state.size)

    def _witnessed(self, state: witness.WitnessState, body: bytes) -> tuple[witness.WitnessState, witness.Response]:
        return witness.answer(
            state,
            body,
            checkpoint.log_key(self.server_origin, self._identity.roster.server_key),
            checkpoint.Cosigner(self.origin, self._identity.key),
            int(self._now.timestamp()),
        )

    def _is_known(self, request: LogRequest, state: witness.WitnessState) -> bool:
        """Whether a checkpoint is the one that this site has cosigned last."""
        shown = witness.decode_request(request.body).checkpoint
        return (shown.size, shown.root) == (state.size, state.root)

    def _contradicts(self, request: LogRequest) -> bool:
        """Whether a checkpoint of a size that this site has seen has another root than it had then."""
        shown = witness.decode_request(request.body).checkpoint
        return shown.size <= self.mirror.size and self.mirror.root(shown.size) != shown.root

    def pending(self) -> tuple[bytes, ...]:
        """The site's events that it has not seen in the federation's log, first to last."""
        query = select(OUTBOX.c.leaf).where(OUTBOX.c.logged.is_(None)).order_by(OUTBOX.c.seq).limit(MOST_EVENTS)
        return tuple(self._connection.execute(query).scalars())

    def reply(self, heard: LogReply | None) -> LogReply:
        """What the site says: its answer to a request if there was one, and its pending events."""
        if heard is None:
            return self._reply(0, self.mirror.witness_state().size)
        return LogReply(heard.status, heard.size, heard.cosignature, self.pending())

    def _reply(self, status: int, size: int, cosignature: bytes = b"") -> LogReply:
        return LogReply(status, size, cosignature, self.pending())

    def _takes(self, request: LogRequest, following: witness.WitnessState) -> bool:
        """Mirror the entries of a checkpoint; False, and nothing mirrored, if they are not those of its root."""
        if following.size == self.mirror.size:
            return not request.entries
        with self._connection.begin_nested() as attempt:
            mirror = Log(self._connection, self.server_origin)
            indices = mirror.append(request.entries)
            if mirror.size != following.size or mirror.root() != following.root:
                attempt.rollback()
                return False
        self.__dict__.pop("mirror", None)
        self.mirror.put_checkpoint(str(witness.decode_request(request.body).note))
        waiting = set(self._connection.execute(select(OUTBOX.c.leaf).where(OUTBOX.c.logged.is_(None))).scalars())
        for index, leaf in zip(indices, request.entries, strict=True):
            if leaf in waiting:
                query = update(OUTBOX).where(OUTBOX.c.leaf_hash == leaf_hash(leaf), OUTBOX.c.logged.is_(None))
                self._connection.execute(query.values(logged=index))
        root = "sha256:" + following.root.hex()
        self.record(ForeignAnchor(origin=self.server_origin, size=following.size, root=root))
        return True

    def _keep(self, kind: str, request: LogRequest) -> None:
        known = self.mirror.checkpoint()
        time = self._now.strftime(TIME_FORMAT)
        self._connection.execute(
            insert(EVIDENCE).values(kind=kind, known=known or "", offered=request.body, time=time, settled=None)
        )

    def unlogged(self) -> int:
        """How many of the site's events it has not seen in the federation's log."""
        query = select(func.count()).select_from(OUTBOX).where(OUTBOX.c.logged.is_(None))
        return int(self._connection.execute(query).scalar_one())


def stopped(evidence: Evidence) -> LogContradicted:
    """What a site that has stopped says."""
    return LogContradicted(
        f"the server showed a log that contradicts what this site had cosigned ({evidence.kind})",
        peer="server",
        next_step="Both checkpoints are kept: `fedseal audit evidence` writes them out. Training goes on only after "
        "`fedseal audit settle`, when the federation knows what happened.",
    )
