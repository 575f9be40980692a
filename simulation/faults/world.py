"""A federation in memory that a cell of the matrix disturbs: its sites, and a server that may crash."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from fedseal.errors import LocalError, PeerError
from fedseal.privacy.ledger import open_terms
from fedseal.privacy.plan import LocalGaussian, encode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import REGISTRY, UPDATE, release_layout
from fedseal.privacy.roster import Roster, RosterEntry
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.header import AES_256_CTR, COMPLETE_GRAPH, PROTOCOL, Header
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.messages import Refusal, Signed, Stage
from fedseal.privacy.secagg.parameters import threshold
from fedseal.privacy.secagg.server_states import Aborted, Finished, Request, SiteReply, State
from fedseal.privacy.secret import Secret
from fedseal.server.sealing import next_cohort
from fedseal.simulation.faults.attacks import EXCHANGES, Lie, with_other_openings
from fedseal.simulation.faults.cells import SITE_MINIMUM, Cell, Fault, Shape
from fedseal.simulation.faults.memory import COMPONENT, FEATURES, PERSONS, Kept, MemorySite
from fedseal.simulation.faults.tables import FaultStage

RUN = bytes(16)
RANGE = 1.0
# Cheap, so that budgets are not in the way; a private plan, so that a site is charged before it computes.
PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=1000.0, sample_rate=0.5, steps=1, releases=60, retries=10)
EPSILON, DELTA, ORDER = 10.0, 1e-5, 7.25
SEED = 1


@dataclass(frozen=True, slots=True)
class Released:
    """What became of one release."""

    finished: Finished | None
    attempts: int
    convicted: frozenset[int]


@dataclass(frozen=True, slots=True)
class Beginning:
    """A federation after one honest round: what each site keeps now and kept before, and what it answered."""

    roster: Roster
    before: Mapping[int, Kept]
    after: Mapping[int, Kept]
    vectors: Mapping[int, Mapping[bytes, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]]
    answers: Mapping[tuple[int, Stage], SiteReply]


class World:
    """One cell's federation.

    Args:
        cell: what is going to be disturbed.
        beginning: where it stands; after one honest round if not given.
    """

    def __init__(self, cell: Cell, beginning: Beginning | None = None) -> None:
        self.cell = cell
        self._beginning = beginning or honest_beginning(cell.shape)
        self._disturbed = False
        self._sequence = 1 if beginning is None else 0
        self._late: list[tuple[int, SiteReply]] = []
        self._asked: list[tuple[int, Request]] = []
        # By header: the sites whose ledger had a charge for each update that had ever left them, this one included.
        self.paid: dict[bytes, set[int]] = {}
        self.sites: dict[int, MemorySite] = {}
        randomness = KeyedRandomness(SEED, COMPONENT)
        for number, kept in self._beginning.after.items():
            site = MemorySite(number, site_key(number), self._beginning.roster, kept, randomness)
            site.left.vectors.update(self._beginning.vectors.get(number, {}))
            self.sites[number] = site

    def disturbed(self) -> Released:
        """The release in which the faults strike."""
        self._disturbed = True
        for number in self.cell.liars:
            if self.cell.lie is not None:
                self.sites[number].attacks = (self.cell.lie,)
        if self.cell.fault is Fault.CRASH:
            for _ in range(self.cell.count):
                # What was under way is gone with the process; the store has the number of the next release.
                self._attempt(self._header(sorted(self.sites), self._next(), 0), crash=self.cell.stage)
        return self.release(self.cell.retries)

    def calm(self) -> None:
        """From now on nothing is disturbed and nobody lies; what was late or put back stays so."""
        self._disturbed = False
        for site in self.sites.values():
            site.attacks = ()

    def release(self, retries: int) -> Released:
        """One release with all sites, as `server.sealing` makes its attempts."""
        cohort, sequence, convicted = sorted(self.sites), self._next(), frozenset[int]()
        for attempt in range(retries + 1):
            if len(cohort) < max(SITE_MINIMUM, self.cell.shape.colluders + 2):
                return Released(None, attempt, convicted)
            outcome = self._attempt(self._header(cohort, sequence, attempt))
            if isinstance(outcome, Finished):
                return Released(outcome, attempt + 1, convicted)
            if isinstance(outcome, Aborted):
                convicted |= frozenset(outcome.blamed)
                cohort = next_cohort(cohort, outcome)
        return Released(None, retries + 1, convicted)

    def ask_again(self) -> None:
        """Send every request once more to whom it was for, but to no site whose store was put back: it does not
        know what it has answered.
        """
        spared = self.cell.struck if self.cell.fault is Fault.RESTORED else frozenset()
        for number, request in self._asked:
            if number not in spared:
                self.sites[number].answer(request, _MODEL)

    # One attempt

    def _attempt(self, header: Header, crash: FaultStage | None = None) -> State:
        """All exchanges; up to the crash, if there is one."""
        step = server.open_round(header, self._beginning.roster, SERVER)
        self._late.clear()
        while not isinstance(step.state, Finished | Aborted):
            stage = server.stage_of(step.state)
            dies_here = crash is not None and EXCHANGES[crash] is stage
            if dies_here and crash == "before_round":
                return step.state
            state = self._collect(step, header, half=dies_here and crash != "after_train")
            if dies_here:
                return state
            step = server.close(state)
        self._receive_late(step.state)
        return step.state

    def _collect(self, step: server.Step, header: Header, *, half: bool) -> State:
        """One exchange; with ``half`` the server is gone after half of the answers."""
        state = self._receive_late(step.state)
        if isinstance(step.state, Finished | Aborted):
            raise LocalError("a round that is over has no answers to collect")
        stage = server.stage_of(step.state)
        if self._strikes(stage, header) and self.cell.fault is Fault.RESTORED and header.attempt == 0:
            for number in self.cell.struck:
                self.sites[number].kept = self._beginning.before[number]
        requests = list(step.requests.items())
        for number, request in requests[: len(requests) // 2] if half else requests:
            reply = self._delivered(number, request, stage, header)
            if reply is not None:
                state = _received(state, number, reply)
        return state

    def _delivered(self, number: int, request: Request, stage: Stage, header: Header) -> SiteReply | None:
        """What arrives of one site's answer; None where nothing does, in time."""
        fault, struck = self.cell.fault, number in self.cell.struck and self._disturbed
        if struck and fault is Fault.DROPOUT and stage >= EXCHANGES[self.cell.stage]:
            if self.cell.stage == "after_train" and stage is Stage.MASK:
                self._answered(number, request, stage, header)
            return None
        reply = self._answered(number, request, stage, header)
        if struck and header.attempt == 0 and self._strikes(stage, header):
            if fault is Fault.SLOW:
                self._late.append((number, reply))
            if fault in (Fault.SLOW, Fault.LOST):
                return None
        return reply

    def _answered(self, number: int, request: Request, stage: Stage, header: Header) -> SiteReply:
        """One site's answer, false where it lies."""
        site, lie = self.sites[number], self.cell.lie
        self._asked.append((number, request))
        reply = site.answer(request, _MODEL)
        if stage is Stage.MASK and not isinstance(reply, Refusal) and site.kept.charges == len(site.left.vectors):
            self.paid.setdefault(header.digest(), set()).add(number)
        if not (self._disturbed and lie is not None and number in self.cell.liars and lie.stage is stage):
            return reply
        if lie.lie is Lie.REPLAY:
            return self._beginning.answers[number, stage]
        if lie.lie is Lie.WRONG_SHARE and stage is Stage.UNMASK and isinstance(reply, Signed):
            return with_other_openings(reply, site.key)
        return reply

    def _receive_late(self, state: State) -> State:
        """What comes after its exchange is over."""
        for number, reply in self._late:
            state = _received(state, number, reply)
        self._late.clear()
        return state

    def _strikes(self, stage: Stage, header: Header) -> bool:
        return self._disturbed and EXCHANGES[self.cell.stage] is stage

    # The server

    def _next(self) -> int:
        """The next release's number: on disk before it is used."""
        self._sequence += 1
        return self._sequence

    def _header(self, cohort: list[int], sequence: int, attempt: int) -> Header:
        n, m, roster = len(cohort), self.cell.shape.colluders, self._beginning.roster
        layout = release_layout(
            REGISTRY[UPDATE],
            values=FEATURES + 1,
            value_range=RANGE,
            weight_key="num-examples",
            largest_weight=2 * PERSONS,
            metrics={},
            sites=n,
            rounding=Rounding.NEAREST,
        )
        return Header(
            protocol=PROTOCOL,
            federation=roster.federation,
            roster_hash=roster.digest(),
            run=RUN,
            fl_round=sequence,
            release_seq=sequence,
            attempt=attempt,
            release_name=UPDATE,
            cohort=tuple(cohort),
            threshold=threshold(n, m),
            colluders=m,
            site_minimum=SITE_MINIMUM,
            noise_minimum=0,
            mask_generator=AES_256_CTR,
            graph=COMPLETE_GRAPH,
            layout=layout,
            shapes_hash=bytes(32),
            plan=encode_plan(PLAN),
            input_digest=bytes(32),
        )

    def snapshot(self) -> Beginning:
        """Where the federation stands, to begin other cells from."""
        after = {number: site.kept for number, site in self.sites.items()}
        answers: dict[tuple[int, Stage], SiteReply] = {}
        for number, kept in after.items():
            answers |= {(number, stage): reply for (_, stage), (_, reply) in kept.replies.items()}
        vectors = {number: dict(site.left.vectors) for number, site in self.sites.items()}
        return replace(self._beginning, after=after, vectors=vectors, answers=answers)


_MODEL = np.zeros(FEATURES + 1)


def site_key(number: int) -> SigningKey:
    """A site's key, of the matrix's seed."""
    return SigningKey(Secret(KeyedRandomness(SEED, COMPONENT).stream("key", number).raw(32)))


SERVER = site_key(0)


def _received(state: State, number: int, reply: SiteReply) -> State:
    """The state with one answer; as it was where the answer is refused."""
    try:
        return server.receive(state, number, reply)
    except PeerError:
        return state


@lru_cache(maxsize=8)
def honest_beginning(shape: Shape) -> Beginning:
    """A federation of that shape after one honest round."""
    entries = tuple(RosterEntry(n, f"site-{n}", "org", site_key(n).public, 10) for n in sorted(shape.everyone))
    roster = Roster("fault-matrix", 1, True, site_key(-1).public, SERVER.public, entries)
    terms = open_terms("train", epsilon=EPSILON, delta=DELTA, order=ORDER)
    new = {number: Kept.new(terms, RUN) for number in shape.everyone}
    world = World(Cell(shape, Fault.DROPOUT, "before_round", 0), Beginning(roster, new, new, {}, {}))
    if world.release(0).finished is None:
        raise LocalError("an honest round did not finish")
    return world.snapshot()
