"""One site answering one request: the state machine, the policy, the ledger and the store, in the order that keeps
promises.

Every answer is one transaction: the charge, the next state and the answer's bytes are on disk before the answer is
returned. A request that was answered before gets the same bytes again; another request in its place is refused.
Training happens outside a transaction: a crash there leaves the site as if the request had never come.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from flwr.app import ConfigRecord, Message

from fedseal.client.records import arrays_of, for_the_app, received_digest
from fedseal.client.release import bounded_release
from fedseal.compliance.policy import check_header, read_policy
from fedseal.errors import PeerError
from fedseal.privacy.ledger import Release
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.quantize import BoundedUpdate
from fedseal.privacy.randomness import Stream
from fedseal.privacy.releases import REGISTRY, ReleaseKind, check_layout
from fedseal.privacy.runs import (
    CloseRun,
    ControlMessage,
    Hello,
    Introduction,
    RunClosed,
    admit,
    control_signed_by,
    sign_control,
)
from fedseal.privacy.secagg import client
from fedseal.privacy.secagg.checks import open_header
from fedseal.privacy.secagg.client_states import (
    Advertised,
    Confirmed,
    Idle,
    MaskedOut,
    MaskedUpdate,
    Ready,
    Shared,
    State,
    StoredState,
    Vector,
)
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ConsistencyRequest,
    MaskRequest,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.store import SiteStore, StoredReply, Transaction, request_digest
from fedseal.wire import DecodeError, decode, encode

AppCall = Callable[[Message], Message]
LaterRequest = ShareRequest | MaskRequest | ConsistencyRequest | UnmaskRequest

STAGES: dict[type[LaterRequest], Stage] = {
    ShareRequest: Stage.SHARE,
    MaskRequest: Stage.MASK,
    ConsistencyRequest: Stage.CONSISTENCY,
    UnmaskRequest: Stage.UNMASK,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What leaves: control bytes, and at MASK the masked vector."""

    control: bytes
    vector: RingVector | None = None


class Session:
    """Answers the requests that reach one site.

    Args:
        store: the site's store.
        node: the Flower node id this site runs under.
    """

    def __init__(self, store: SiteStore, node: int) -> None:
        self._store = store
        self._identity = store.identity
        self._node = node

    def answer(self, raw: bytes, message: Message, call_app: AppCall) -> Answer:
        """Answer one request.

        Args:
            raw: the request's control bytes.
            message: the whole Flower message, whose other records are the task.
            call_app: runs the app's own function on a message.

        Raises:
            PeerError, PolicyRefused, BudgetExceeded: the request is refused; nothing has changed.
            Exception: whatever the app's function raises; nothing has changed.
        """
        request = _decode_request(raw)
        match request:
            case ControlMessage():
                return Answer(self._control(request))
            case AdvertiseRequest():
                return self._advertise(raw, request, message)
            case MaskRequest():
                return self._mask(raw, request, message, call_app)
            case _:
                return self._exchange(raw, request)

    # Runs

    def _control(self, message: ControlMessage) -> bytes:
        if not control_signed_by(message, self._identity.roster.server_key):
            raise PeerError("a run message that the roster's server did not sign", peer="server")
        kinds: tuple[type[Hello | CloseRun], ...] = (Hello, CloseRun)
        try:
            payload = decode(message.payload, *kinds)
        except DecodeError as error:
            raise PeerError(f"a run message that cannot be read: {error.message}", peer="server") from None
        return self._introduce(payload) if isinstance(payload, Hello) else self._close(payload)

    def _introduce(self, hello: Hello) -> bytes:
        if hello.roster_hash != self._identity.roster.digest() or hello.node != self._node:
            raise PeerError("a HELLO for another federation, roster or node", peer="server")
        self._store.verify_ledgers()
        answer = Introduction(hello.run, hello.roster_hash, hello.node, hello.nonce, self._identity.number)
        return encode(sign_control(answer, self._identity.key))

    def _close(self, close: CloseRun) -> bytes:
        with self._store.transaction() as transaction:
            record = transaction.run(close.run)
            if not record.closed:
                for population in transaction.populations():
                    ledger = transaction.ledger(population, close.run)
                    for _, plan in list(ledger.reservations):
                        ledger, entry = ledger.release(close.run, decode_plan(plan))
                        transaction.append(population, entry)
                transaction.put_run(replace(record, closed=True))
        return encode(sign_control(RunClosed(close.run, self._identity.number), self._identity.key))

    # Rounds

    def _advertise(self, raw: bytes, request: AdvertiseRequest, message: Message) -> Answer:
        header = open_header(request, self._identity.roster, self._identity.number)
        kind, plan = _kind(header, message), decode_plan(header.plan)
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, header.digest(), Stage.ADVERTISE, raw)) is not None:
                return stored
            check_layout(kind, plan.kind, header.layout)
            check_header(read_policy(self._identity.policy), header, kind, plan)
            record = admit(transaction.run(header.run), header)
            ledger = transaction.ledger(kind.population.value, header.run)
            if (header.run, header.plan) not in ledger.reservations:
                _, entry = ledger.reserve(header.run, plan)
                transaction.append(kind.population.value, entry)
            step = client.step(self._site(transaction), Idle(transaction.charges()), request)
            transaction.put_run(record)
            return self._keep(transaction, header, Stage.ADVERTISE, raw, step)

    def _exchange(self, raw: bytes, request: LaterRequest) -> Answer:
        """SHARE, CONSISTENCY and UNMASK: the state machine alone decides."""
        stage = STAGES[type(request)]
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, request.header_hash, stage, raw)) is not None:
                return stored
            state = transaction.state(request.header_hash)
            step = client.step(self._site(transaction), _known(state), request)
            transaction.put_counters(_counters(request, transaction.known_counters()))
            return self._keep(transaction, _header(state), stage, raw, step)

    def _mask(self, raw: bytes, request: MaskRequest, message: Message, call_app: AppCall) -> Answer:
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, request.header_hash, Stage.MASK, raw)) is not None:
                return stored
            before = transaction.state(request.header_hash)
            site = self._site(transaction)
        header = _header(before)
        ready = client.step(site, _known(before), request).state
        if received_digest(message) != header.input_digest:
            raise PeerError("the task is not the one in the signed header", peer="server")
        update = self._compute(header, message, call_app)
        with self._store.transaction() as transaction:
            # Another process may have answered while this one trained: then its answer stands, and this one's update
            # is dropped.
            if (stored := self._answered(transaction, request.header_hash, Stage.MASK, raw)) is not None:
                return stored
            if transaction.state(request.header_hash) != before or not isinstance(ready, Ready):
                raise PeerError("the round was overtaken by a newer one", peer="server")
            return self._charge_and_mask(transaction, site, header, ready, update, raw)

    def _charge_and_mask(
        self,
        transaction: Transaction,
        site: client.Site,
        header: Header,
        ready: Ready,
        update: BoundedUpdate,
        raw: bytes,
    ) -> Answer:
        population = REGISTRY[header.release_name].population.value
        release = Release(header.run, header.release_name, header.release_seq, header.attempt, header.digest())
        ledger = transaction.ledger(population, header.run)
        _, entry, receipt = ledger.charge(release, decode_plan(header.plan))
        transaction.append(population, entry)
        step = client.step(site, ready, Vector(update, receipt))
        return self._keep(transaction, header, Stage.MASK, raw, step)

    def _compute(self, header: Header, message: Message, call_app: AppCall) -> BoundedUpdate:
        """Run the app's function and bound what it returns."""
        kind, plan = _kind(header, message), decode_plan(header.plan)
        received = {name: a for r in message.content.array_records.values() for name, a in arrays_of(r).items()}
        facts = ConfigRecord(
            {
                "release": header.release_name,
                "sequence": header.release_seq,
                "attempt": header.attempt,
                "plan": header.plan,
            }
        )
        reply = call_app(for_the_app(message, facts))
        return bounded_release(
            header,
            kind,
            plan,
            received,
            reply,
            public_persons=self._public_persons(),
            stream=self._stream("rounding", header.release_seq, header.attempt),
        )

    # The store

    def _answered(self, transaction: Transaction, session: bytes, stage: Stage, raw: bytes) -> Answer | None:
        """The stored answer to this very request; PeerError if another request was answered in its place."""
        stored = transaction.reply(session, int(stage))
        if stored is None:
            return None
        if stored.request != request_digest(raw):
            raise PeerError(f"another request for {stage.label}, which was answered already", peer="server")
        return Answer(stored.control, stored.vector)

    def _keep(self, transaction: Transaction, header: Header, stage: Stage, raw: bytes, step: client.Step) -> Answer:
        """Store the next state and the answer, and hand the answer out."""
        if isinstance(step.state, Idle | Ready) or step.reply is None:
            raise PeerError("a step that answers nothing", peer="server")
        answer = _encode_reply(step.reply)
        session = header.digest()
        transaction.put_state(session, header.run, step.state)
        transaction.put_reply(session, int(stage), StoredReply(request_digest(raw), answer.control, answer.vector))
        return answer

    def _site(self, transaction: Transaction) -> client.Site:
        identity = self._identity
        return client.Site(identity.number, identity.key, identity.roster, transaction.known_counters(), os.urandom)

    def _public_persons(self) -> int:
        entry = self._identity.roster.entry(self._identity.number)
        return entry.persons if entry is not None else 0

    def _stream(self, *purpose: str | int) -> Stream:
        return self._identity.randomness().stream(*purpose)


def _decode_request(raw: bytes) -> AdvertiseRequest | LaterRequest | ControlMessage:
    kinds: tuple[type[AdvertiseRequest | LaterRequest | ControlMessage], ...] = (
        AdvertiseRequest,
        ShareRequest,
        MaskRequest,
        ConsistencyRequest,
        UnmaskRequest,
        ControlMessage,
    )
    try:
        return decode(raw, *kinds)
    except DecodeError as error:
        raise PeerError(f"a request that cannot be read: {error.message}", peer="server") from None


def _counters(request: LaterRequest, known: Mapping[int, int]) -> dict[int, int]:
    """What an accepted request proves about how often peers were charged.

    An advertisement states it; a confirmation proves one charge more, because a site confirms only after it has sent
    its masked vector, and it sends that only after it was charged. So a ledger that loses even its last charge is
    behind what the peers know.
    """
    match request:
        case ShareRequest():
            return {a.site: decode(a.payload, Advertisement).ledger_counter for a in request.advertisements}
        case UnmaskRequest():
            return {c.site: known.get(c.site, 0) + 1 for c in request.confirmations}
        case _:
            return {}


def _kind(header: Header, message: Message) -> ReleaseKind:
    """The registry's entry, if this message type carries it; PeerError otherwise."""
    kind = REGISTRY.get(header.release_name)
    if kind is None or kind.message.value != message.metadata.message_type:
        raise PeerError("a release that is not in the registry, or in the wrong kind of message", peer="server")
    return kind


def _known(state: StoredState | None) -> State:
    """The state of a session; PeerError if this site has none under that header."""
    if state is None:
        raise PeerError(
            "a request for a round that this site did not open, or that a newer one has replaced", peer="server"
        )
    return state


def _header(state: StoredState | None) -> Header:
    match _known(state):
        case Advertised(header=raw) | Shared(header=raw) | MaskedOut(header=raw) | Confirmed(header=raw):
            return decode(raw, Header)
        case _:
            raise PeerError("a request for a round that is over", peer="server")


def _encode_reply(reply: Signed | ShareReply | MaskedUpdate) -> Answer:
    if isinstance(reply, MaskedUpdate):
        return Answer(encode(reply.message), reply.vector)
    return Answer(encode(reply))
