"""One release over a Flower Grid:

HELLO to new nodes, then attempts at the five exchanges until one finishes or none is left.

The protocol is `privacy.secagg.server`'s; this file only carries its messages, keeps deadlines and writes down what
must not be forgotten.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedseal.errors import LocalError, PeerError, RoundAborted
from fedseal.operation.events import AnswerRefused, AnswerUnreadable, CloseUnconfirmed, NotIntroduced, Postponed
from fedseal.operation.logs import say
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.quantize import Layout
from fedseal.privacy.releases import MessageKind, ReleaseKind
from fedseal.privacy.roster import Roster
from fedseal.privacy.runs import (
    CloseRun,
    ControlMessage,
    Hello,
    Introduction,
    RunClosed,
    control_signed_by,
    sign_control,
)
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.assurance import Assurance
from fedseal.privacy.secagg.header import AES_256_CTR, COMPLETE_GRAPH, HARARY_GRAPH, PROTOCOL, Header, sparse_for
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, ShareReply, Signed, Stage
from fedseal.privacy.secagg.parameters import threshold
from fedseal.privacy.secagg.server_states import Aborted, Confirming, Finished, MaskedReply, Refused, SiteReply, State
from fedseal.privacy.shares import noise_minimum
from fedseal.server.exchange import Parcel, Traffic, control_of, exchange, vector_of
from fedseal.server.logbook import Losses, ServerLogbook
from fedseal.server.store import ServerStore
from fedseal.wire import DecodeError, decode, encode

log = logging.getLogger("fedseal.server")

# Seconds between two attempts for sites that said "later".
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
# A header's number of an attempt has 16 bits.
MOST_ATTEMPTS = 1 << 16


@dataclass(frozen=True, slots=True)
class CohortRules:
    """What the server asks of every cohort. Sites check it against rules of their own.

    ``colluders``: how many sites may work with the server; ``minimum``: how many sites a sum is over at least;
    ``retries``: how many new attempts a failed release gets; ``stage_timeout``: seconds a stage without training may
    take; ``dropouts``: which share of a cohort of more than 256 sites may fall silent before the sparse graph fails;
    ``patience``: seconds that a release waits for sites that say "later", as one that asks a person first.
    """

    minimum: int = 3
    colluders: int = 0
    retries: int = 1
    stage_timeout: float = 120.0
    dropouts: float = 0.1
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be released: which release, of which layout and plan, computed from what. All public.

    ``layout_for`` gives the layout for a number of sites: the more there are, the coarser the scale. ``model`` is what
    the log names as the model that the sites get; empty where they get none. ``minimum`` is how many sites the sum has
    to be over at least.
    """

    kind: ReleaseKind
    layout_for: Callable[[int], Layout]
    shapes_hash: bytes
    plan: bytes
    input_digest: bytes
    task: Mapping[str, ArrayRecord | ConfigRecord]
    model: Mapping[str, NDArray[Any]]
    fl_round: int
    timeout: float
    minimum: int


@dataclass(slots=True)
class Account:
    """What one release cost: seconds and bytes by stage, and who refused why; and once it is done, what it is sure
    of.
    """

    stages: dict[Stage, Traffic] = field(default_factory=lambda: {stage: Traffic() for stage in Stage})
    attempts: int = 0
    refused: list[Refused] = field(default_factory=list)
    assurance: Assurance | None = None


@runtime_checkable
class StageObserver(Protocol):
    """What a Grid may be besides: told of every exchange of a release. Everything it is told is public to the
    coordinator.
    """

    def stage_began(self, header: Header, stage: Stage, asked: int) -> None:
        """Before so many sites are asked."""

    def stage_ended(self, header: Header, stage: Stage, lost: int) -> None:
        """When all have answered or the deadline is over: so many were silent, or refused."""


class Sealing:
    """Carries releases of one run. Knows which node is which site once a site has said so under its signature.

    Args:
        grid: any Flower Grid.
        store: the server's store.
        run: the run's 16-byte id, open in the store.
        rules: what is asked of every cohort.
        logbook: this run's view of the federation's log.
        workers: how many threads take the masks off a sum.
    """

    def __init__(
        self,
        grid: Grid,
        store: ServerStore,
        run: bytes,
        rules: CohortRules,
        logbook: ServerLogbook,
        *,
        workers: int = 1,
    ) -> None:
        self._grid = grid
        self._store = store
        self._identity = store.identity
        self._federation = Federation.of(store.identity.roster)
        self.run = run
        self._rules = rules
        self._logbook = logbook
        self._workers = workers
        self._nodes: dict[int, int] = {}
        self._observer = grid if isinstance(grid, StageObserver) else None

    def release(self, nodes: Iterable[int], order: Order, account: Account) -> Finished:
        """Run the protocol with these nodes until an attempt finishes.

        Raises:
            RoundAborted: no attempt finished, or too few sites are left to try another. Nothing was released.
        """
        cohort = self._introduced(nodes, order.kind.message.value, order.model)
        first = Number(self.run, self._store.next_sequence(self.run), 0)
        play = partial(self._attempt, order=order, account=account)
        return until_finished(cohort, order, self._rules, self._federation, first, account, play)

    def nodes_of(self, sites: Iterable[int]) -> set[int]:
        """The node ids of sites that have introduced themselves."""
        return {self._nodes[site] for site in sites if site in self._nodes}

    def close(self, nodes: Iterable[int]) -> None:
        """End the run: at the sites, which take back what they had reserved, and in the store."""
        nodes = list(nodes)
        if not self._nodes and self._store.load(self.run) is not None:
            # Gone on with by another process after the last round: this one has not met the sites yet.
            self._introduced(nodes, MessageKind.TRAIN.value, {})
        request = encode(sign_control(CloseRun(self.run), self._identity.key))
        sites = {node: site for site, node in self._nodes.items()}
        parcels = {node: Parcel(request, log=self._logbook.shown(sites[node])) for node in nodes if node in sites}
        traffic = Traffic()
        for node, reply in exchange(
            self._grid, parcels, "train", group="close", timeout=self._rules.stage_timeout, traffic=traffic
        ):
            self._logbook.take(sites[node], reply)
            if self._control(reply, RunClosed) is None:
                say(log, CloseUnconfirmed())
        self._logbook.journal.commit()
        self._store.close_run(self.run)

    # HELLO

    def _introduced(self, nodes: Iterable[int], message_type: str, model: Mapping[str, NDArray[Any]]) -> list[int]:
        """The sites behind these nodes; asks those that have not introduced themselves in this run."""
        wanted = list(nodes)
        known = {node: site for site, node in self._nodes.items()}
        fresh = [node for node in wanted if node not in known]
        nonces = {node: os.urandom(32) for node in fresh}
        roster_hash = self._identity.roster.digest()
        hellos = {node: Hello(self.run, roster_hash, node, nonces[node]) for node in fresh}
        greeting = self._logbook.greeting() if fresh else None
        parcels = {
            node: Parcel(encode(sign_control(hello, self._identity.key)), log=greeting)
            for node, hello in hellos.items()
        }
        replies = exchange(
            self._grid,
            parcels,
            message_type,
            group="hello",
            timeout=self._rules.stage_timeout,
            traffic=Traffic(),
        )
        for node, reply in replies:
            hello, introduction = hellos.get(node), self._control(reply, Introduction)
            if hello is None or introduction is None:
                say(log, NotIntroduced(node))
                continue
            expected = Introduction(hello.run, hello.roster_hash, hello.node, hello.nonce, introduction.site)
            if introduction == expected and introduction.site not in self._nodes:
                self._nodes[introduction.site] = node
                self._logbook.take(introduction.site, reply)
        known = {node: site for site, node in self._nodes.items()}
        sites = sorted(known[node] for node in wanted if node in known)
        if fresh:
            self._logbook.introduced(sites, model)
        return sites

    def _control(self, reply: Message, kind: type[Introduction] | type[RunClosed]) -> Introduction | RunClosed | None:
        """A site's signed run message; None if it is not one of ``kind`` signed by the site it names."""
        raw = control_of(reply)
        try:
            envelope = decode(raw or b"", ControlMessage)
            payload = decode(envelope.payload, kind)
        except DecodeError:
            return None
        entry = self._identity.roster.entry(payload.site)
        if entry is None or payload.run != self.run or not control_signed_by(envelope, entry.signing_key):
            return None
        return payload

    # One attempt

    def _attempt(self, header: Header, order: Order, account: Account) -> Finished | Aborted:
        step = server.open_round(header, self._identity.roster, self._identity.key, workers=self._workers)
        self._write(header, "open", ())
        losses = Losses({}, {})
        while not isinstance(step.state, Finished | Aborted):
            stage, asked = server.stage_of(step.state), frozenset(step.requests)
            if self._observer is not None:
                self._observer.stage_began(header, stage, len(asked))
            step = server.close(self._collect(step, order, account, losses))
            if self._observer is not None:
                self._observer.stage_ended(header, stage, len(asked & (losses.silent.keys() | losses.refused.keys())))
            if isinstance(step.state, Confirming):
                # On disk before anyone is asked to sign it, and so before anyone is asked to unmask it.
                self._write(header, "confirming", step.state.masking.survivors)
        if isinstance(step.state, Finished):
            self._write(header, "finished", step.state.survivors)
        else:
            self._write(header, "aborted", ())
        self._logbook.attempted(header, losses, step.state if isinstance(step.state, Finished) else None, order.model)
        account.refused.extend(step.state.refused)
        return step.state

    def _collect(self, step: server.Step, order: Order, account: Account, losses: Losses) -> State:
        """Send one stage's requests and take the replies as they come, until all have answered or the deadline
        passes.
        """
        state = step.state
        if isinstance(state, Finished | Aborted):
            raise LocalError("a round that is over has no replies to collect")
        stage = server.stage_of(state)
        task = order.task if stage is Stage.MASK else {}
        opening = stage is Stage.ADVERTISE
        parcels = {
            self._nodes[site]: Parcel(encode(request), task, self._logbook.shown(site) if opening else None)
            for site, request in step.requests.items()
        }
        losses.silent |= dict.fromkeys(step.requests, stage)
        sites = {self._nodes[site]: site for site in step.requests}
        following: State = state
        replies = exchange(
            self._grid,
            parcels,
            order.kind.message.value,
            group=str(order.fl_round),
            timeout=order.timeout if stage is Stage.MASK else self._rules.stage_timeout,
            traffic=account.stages[stage],
        )
        for node, reply in replies:
            site, answer = sites.get(node), _read_reply(reply, stage)
            if site is not None:
                self._logbook.take(site, reply)
            if site is None or answer is None:
                say(log, AnswerUnreadable(stage.label, node))
                continue
            losses.answered(site, stage, answer)
            try:
                following = server.receive(following, site, answer)
            except PeerError as error:
                say(log, AnswerRefused(stage.label, error.peer, error.message))
        return following

    def _write(self, header: Header, status: str, survivors: tuple[int, ...]) -> None:
        self._store.record_attempt(
            self.run,
            header.release_seq,
            header.attempt,
            release=header.release_name,
            fl_round=header.fl_round,
            status=status,
            survivors=survivors,
        )


@dataclass(frozen=True, slots=True)
class Federation:
    """What a header says of a roster."""

    name: str
    roster_hash: bytes

    @classmethod
    def of(cls, roster: Roster) -> "Federation":
        """A roster's name and hash."""
        return cls(roster.federation, roster.digest())


@dataclass(frozen=True, slots=True)
class Number:
    """Which attempt at which release of which run."""

    run: bytes
    sequence: int
    attempt: int


def until_finished(
    cohort: list[int],
    order: Order,
    rules: CohortRules,
    federation: Federation,
    first: Number,
    account: Account,
    play: Callable[[Header], Finished | Aborted],
) -> Finished:
    """Make attempts at a release until one finishes.

    An attempt that ended before anyone was charged, because sites said "later", is not counted among the retries while
    the rules' patience lasts: it is made again after a pause.

    Args:
        cohort: the sites that are asked first.
        order: what is released.
        rules: how many attempts, and how many sites are needed.
        federation: whose headers they are.
        first: the number of the first attempt.
        account: gets how many there were, and what the one that finished is sure of.
        play: plays one attempt.

    Raises:
        RoundAborted: no attempt finished, or too few sites are left to try another. Nothing was released.
    """
    needed = max(order.minimum, rules.colluders + 2)
    until, pause, failures = seconds() + rules.patience, FIRST_PAUSE, 0
    for attempt in range(MOST_ATTEMPTS):
        if len(cohort) < needed:
            raise RoundAborted(
                f"{len(cohort)} sites can take part in round {order.fl_round}, {needed} are needed",
                next_step=reasons(account),
            )
        account.attempts += 1
        number = replace(first, attempt=attempt)
        outcome = play(release_header(cohort, order, rules, federation, number))
        if isinstance(outcome, Finished):
            account.assurance = outcome.assurance
            return outcome
        cohort = next_cohort(cohort, outcome)
        if postponed(outcome) and seconds() < until:
            sleep_before_asking_again(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            continue
        failures += 1
        if failures > rules.retries:
            break
    raise RoundAborted(f"round {order.fl_round} failed {account.attempts} times", next_step=reasons(account))


def release_header(
    cohort: Sequence[int], order: Order, rules: CohortRules, federation: Federation, number: Number
) -> Header:
    """The header of one attempt.

    Args:
        cohort: the sites, by increasing number.
        order: what is to be released.
        rules: what is asked of the cohort.
        federation: whose sites they are.
        number: which attempt.
    """
    n, m = len(cohort), rules.colluders
    sparse = sparse_for(n, m, rules.dropouts)
    return Header(
        protocol=PROTOCOL,
        federation=federation.name,
        roster_hash=federation.roster_hash,
        run=number.run,
        fl_round=order.fl_round,
        release_seq=number.sequence,
        attempt=number.attempt,
        release_name=order.kind.name,
        cohort=tuple(cohort),
        threshold=threshold(n, m),
        colluders=m,
        site_minimum=order.minimum,
        noise_minimum=noise_minimum(decode_plan(order.plan), n, m, rules.minimum),
        mask_generator=AES_256_CTR,
        graph=COMPLETE_GRAPH if sparse is None else HARARY_GRAPH,
        layout=order.layout_for(n),
        shapes_hash=order.shapes_hash,
        plan=order.plan,
        input_digest=order.input_digest,
        sparse=sparse,
    )


def _read_reply(reply: Message, stage: Stage) -> SiteReply | None:
    """A site's answer at a stage; None where it is nothing that can be one."""
    kinds: tuple[type[Signed | ShareReply | Refusal], ...] = (Signed, ShareReply, Refusal)
    try:
        answer = decode(control_of(reply) or b"", *kinds)
    except DecodeError:
        return None
    if stage is not Stage.MASK or not isinstance(answer, Signed):
        return answer
    vector = vector_of(reply)
    return None if vector is None else MaskedReply(answer, vector)


def next_cohort(cohort: list[int], outcome: Aborted) -> list[int]:
    """Who is asked again: not those who refused for a reason that stays, and not those convicted of breaking the
    protocol.
    """
    lasting = {
        RefusalCode.NOT_ENROLLED,
        RefusalCode.POLICY,
        RefusalCode.BUDGET,
        RefusalCode.TASK,
        RefusalCode.LOG,
    }
    gone = {r.site for r in outcome.refused if r.refusal.code in lasting} | set(outcome.blamed)
    return [site for site in cohort if site not in gone]


def postponed(outcome: Aborted) -> bool:
    """Whether an attempt ended at its first exchange, where nobody is charged, and a site asked to be asked later."""
    later = {int(RefusalCode.LATER), int(RefusalCode.WAITING)}
    return outcome.stage is Stage.ADVERTISE and any(r.refusal.code in later for r in outcome.refused)


def seconds() -> float:
    """Monotonic; replaced in tests, as is the pause."""
    return time.monotonic()


def sleep_before_asking_again(pause: float) -> None:
    """Leave sites that said "later" alone for so many seconds."""
    say(log, Postponed(pause))
    time.sleep(pause)


def reasons(account: Account) -> str:
    """The reasons that sites gave, as counts by code: what a coordinator may know."""
    counts: dict[str, int] = {}
    for refused in account.refused:
        name = RefusalCode(refused.refusal.code).name.lower()
        counts[name] = counts.get(name, 0) + 1
    if not counts:
        return "Sites did not answer in time. Raise the timeouts, or look whether they are running."
    reasons = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
    return f"Sites refused: {reasons}. Each keeps the text of its reason in its own store."
