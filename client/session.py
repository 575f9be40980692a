"""One site answering one request: the state machine, the policy, the ledger and the store, in the order that keeps
promises.

Every answer is one transaction: the charge, the next state and the answer's bytes are on disk before the answer is
returned. A request that was answered before gets the same bytes again; another request in its place is refused.
Training happens outside a transaction: a crash there leaves the site as if the request had never come.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from flwr.app import ArrayRecord, Message

from fedseal.client.charging import Charging
from fedseal.client.datasets.recheck import recheck
from fedseal.client.logbook import Clock, Logbook, utc_now
from fedseal.client.membership import check_membership, other_roster
from fedseal.client.permission import Permission
from fedseal.client.records import arrays_of, for_the_app, log_bytes, tables_in, watch_in
from fedseal.client.release import Computed, bounded_release, memories
from fedseal.client.requests import (
    STAGES,
    Answer,
    LaterRequest,
    Task,
    decode_request,
    encode_answer,
    header_of,
    kind_of,
    known,
    proven_counters,
    task_in,
)
from fedseal.compliance.data.registry import DatasetVersion
from fedseal.compliance.policy import read_policy
from fedseal.errors import BudgetExceeded, PeerError, PolicyRefused
from fedseal.inputs import Setting
from fedseal.privacy.adaptive import accepted
from fedseal.privacy.counts import check_tables
from fedseal.privacy.plan import AdaptiveSkellam, PlanKind, decode_plan
from fedseal.privacy.randomness import Stream
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.releases import (
    DRIFT,
    VALUES,
    ReleaseKind,
    check_layout,
    terms_digest,
)
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
    Idle,
    MaskedUpdate,
    Ready,
    StoredState,
    Vector,
)
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.messages import (
    MaskRequest,
    Stage,
)
from fedseal.privacy.shares import room_of
from fedseal.privacy.store import SiteStore
from fedseal.privacy.transaction import StoredReply, Transaction, request_digest
from fedseal.privacy.watch import check_watch
from fedseal.wire import DecodeError, decode, encode

# The app's own function on a task; the truth value says whether it may see the run's configuration.
AppCall = Callable[[Message, bool], Message]


class Session:
    """Answers the requests that reach one site.

    Args:
        store: the site's store.
        node: the Flower node id this site runs under.
        run_config: the run's configuration as this site was given it.
        data: the site's data folder, if its node names one.
        code: the folder of the study's code, likewise.
    """

    def __init__(
        self,
        store: SiteStore,
        node: int,
        run_config: Mapping[str, Setting],
        data: Path | None = None,
        code: Path | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        policy = read_policy(store.identity.policy)
        self.logbook = Logbook(store, policy, code, clock)
        self._permission = Permission(store, policy, code, run_config, clock)
        self._charging = Charging(self.logbook, self._permission, clock)
        self._asked: Header | None = None
        self._identity = store.identity
        self._node = node
        self._dataset: DatasetVersion | None = None
        self._run_config = run_config
        self._data = data

    def answer(self, raw: bytes, message: Message, call_app: AppCall) -> Answer:
        """Answer one request.

        Args:
            raw: the request's control bytes.
            message: the whole Flower message, whose other records are the task.
            call_app: runs the app's own function on a message.

        Raises:
            PeerError, PolicyRefused, BudgetExceeded: the request is refused; nothing has changed but what the site
                has seen of the log.
            DataError: the data is not the registered version; likewise.
            Exception: whatever the app's function raises. Under a private plan the release stays charged, and this
                site leaves the run.
        """
        request = decode_request(raw)
        self.logbook.hear(log_bytes(message))
        try:
            return self._answer(raw, request, message, call_app)
        except (PolicyRefused, BudgetExceeded) as error:
            if self._asked is not None:
                self._permission.note(error, self._asked, self.logbook)
            raise

    def _answer(
        self,
        raw: bytes,
        request: AdvertiseRequest | LaterRequest | ControlMessage,
        message: Message,
        call_app: AppCall,
    ) -> Answer:
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
        check_membership(self._identity, self.logbook.now())
        if hello.roster_hash != self._identity.roster.digest() and self._identity.epoch is not None:
            raise other_roster(self._identity.epoch.number)
        if hello.roster_hash != self._identity.roster.digest() or hello.node != self._node:
            raise PeerError("a HELLO for another federation, roster or node", peer="server")
        self._store.verify_ledgers()
        with self._store.transaction() as transaction:
            self.logbook.joined(transaction)
        answer = Introduction(hello.run, hello.roster_hash, hello.node, hello.nonce, self._identity.number)
        return encode(sign_control(answer, self._identity.key))

    def _close(self, close: CloseRun) -> bytes:
        with self._store.transaction() as transaction:
            transaction.close_run(close.run)
        return encode(sign_control(RunClosed(close.run, self._identity.number), self._identity.key))

    # Rounds

    def _advertise(self, raw: bytes, request: AdvertiseRequest, message: Message) -> Answer:
        header = self._asked = open_header(request, self._identity.roster, self._identity.number)
        kind, plan = kind_of(header, message), decode_plan(header.plan)
        # What was answered is answered again, whatever became of the data since; files are read in no transaction.
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, header.digest(), Stage.ADVERTISE, raw)) is not None:
                return stored
        dataset = recheck(self._store, self._data)
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, header.digest(), Stage.ADVERTISE, raw)) is not None:
                return stored
            check_layout(kind, plan.kind, header.layout, len(header.cohort), room=room_of(header, plan))
            self._permission.check_opening(transaction, header, dataset)
            self.logbook.check_witnessed()
            self.logbook.computes_from(transaction, dataset)
            before = transaction.run(header.run)
            record = admit(before, header)
            if not transaction.pin_terms(header.run, header.release_name, terms_digest(header.layout, header.plan)):
                raise PeerError("other ranges or another plan than this run began with", peer="server")
            if isinstance(plan, AdaptiveSkellam):
                # Its layout was made from it: the range of the values is the round's clip norm.
                clip_norm, before_clip = header.layout.segment(VALUES).high, transaction.accepted_clip(header.run)
                transaction.accept_clip(header.run, accepted(plan, header.fl_round, clip_norm, before_clip))
            if before.release_seq == 0:
                transaction.verify_ledgers()
            self._charging.reserve(transaction, header)
            self._permission.check_outbox(transaction, header)
            step = client.step(self._site(transaction), Idle(transaction.charges()), request)
            transaction.put_run(record)
            self.logbook.accepted(transaction, header, kind.population.value)
            return self._keep(transaction, header, Stage.ADVERTISE, raw, step)

    def _exchange(self, raw: bytes, request: LaterRequest) -> Answer:
        """SHARE, CONSISTENCY and UNMASK: the state machine alone decides."""
        stage = STAGES[type(request)]
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, request.header_hash, stage, raw)) is not None:
                return stored
            state = transaction.state(request.header_hash)
            step = client.step(self._site(transaction), known(state), request)
            transaction.put_counters(proven_counters(state, request))
            return self._keep(transaction, header_of(state), stage, raw, step)

    def _mask(self, raw: bytes, request: MaskRequest, message: Message, call_app: AppCall) -> Answer:
        with self._store.transaction() as transaction:
            if (stored := self._answered(transaction, request.header_hash, Stage.MASK, raw)) is not None:
                return stored
            before = transaction.state(request.header_hash)
            site = self._site(transaction)
        header = self._asked = header_of(before)
        ready = client.step(site, known(before), request).state
        if not isinstance(ready, Ready):
            raise PeerError("a round that is not ready for vectors", peer="server")
        kind, task = kind_of(header, message), task_in(message, header, self._run_config)
        plan = decode_plan(header.plan)
        private = plan.kind is not PlanKind.NONE
        if kind.name == DRIFT:
            check_watch(watch_in(task.records), header.layout.segment(VALUES).length, plan)
        elif kind.tables and kind.counted(plan.kind):
            check_tables(tables_in(task.records), header.layout.segment(VALUES).length, plan)
        # Again: it is now that the data is used, and a site that stops here has been charged nothing.
        self._dataset = recheck(self._store, self._data)
        with self._store.transaction() as transaction:
            self._permission.check_use(transaction, header, self._dataset)
        # Before the data is touched: whatever happens now, a failure included, was paid for.
        if private and (stored := self._charge(raw, header, before, task)) is not None:
            return stored
        computed = None
        try:
            computed = self._compute(header, kind, task, message, call_app)
        finally:
            if computed is None and private:
                self._give_up(header)
        return self._answer_mask(raw, site, header, before, ready, computed)

    def _answer_mask(
        self,
        raw: bytes,
        site: client.Site,
        header: Header,
        before: StoredState | None,
        ready: Ready,
        computed: Computed,
    ) -> Answer:
        """Mask and answer, if the round is still where it was."""
        with self._store.transaction() as transaction:
            if (stored := self._overtaken(transaction, raw, header, before)) is not None:
                return stored
            receipt = self._charged(transaction, header)
            for name, value in computed.memories.items():
                transaction.remember(header.run, name, value, header.fl_round)
            step = client.step(site, ready, Vector(computed.update, receipt))
            if isinstance(step.reply, MaskedUpdate):
                self.logbook.contributed(transaction, header, step.reply.message)
            return self._keep(transaction, header, Stage.MASK, raw, step)

    def _charge(self, raw: bytes, header: Header, before: StoredState | None, task: Task) -> Answer | None:
        with self._store.transaction() as transaction:
            if (stored := self._overtaken(transaction, raw, header, before)) is not None:
                return stored
            self._charged(transaction, header)
            if header.release_name == DRIFT:
                self._charging.charge_reference(transaction, header, task)
        return None

    def _overtaken(
        self, transaction: Transaction, raw: bytes, header: Header, before: StoredState | None
    ) -> Answer | None:
        """What another process answered meanwhile: that answer stands, and what this one does is dropped.

        Raises:
            PeerError: the round is no longer where it was.
        """
        session = header.digest()
        if (stored := self._answered(transaction, session, Stage.MASK, raw)) is not None:
            return stored
        if transaction.state(session) != before:
            raise PeerError("the round was overtaken by a newer one", peer="server")
        return None

    def _charged(self, transaction: Transaction, header: Header) -> Receipt:
        self.logbook.computes_from(transaction, self._dataset)
        return self._charging.charge(transaction, header)

    def _give_up(self, header: Header) -> None:
        """After a failure under a private plan this site leaves the run.

        That the code failed may be a fact about the data that no noise covers: it is told once a run, and was charged.
        """
        with self._store.transaction() as transaction:
            transaction.close_run(header.run)

    def _compute(self, header: Header, kind: ReleaseKind, task: Task, message: Message, call_app: AppCall) -> Computed:
        """Run the app's function and bound what it returns."""
        arrays = [r for r in task.records.values() if isinstance(r, ArrayRecord)]
        reply = call_app(for_the_app(message, header, task.records), task.configured)
        update = bounded_release(
            header,
            kind,
            decode_plan(header.plan),
            {name: array for record in arrays for name, array in arrays_of(record).items()},
            reply,
            public_persons=self._public_persons(),
            stream=self._stream("rounding", header.release_seq, header.attempt),
            noise=self._stream("noise-share", header.release_seq, header.attempt),
        )
        return Computed(update, memories(reply))

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
        answer = encode_answer(step.reply)
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
