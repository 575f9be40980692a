"""The protocol as a model: who is asked, who drops out, what is summed and what it costs, without keys or masks.

The vectors are those that real sites would mask. Masks cancel, so their sum modulo the ring is the unmasked sum. What
the protocol decides from numbers of sites (thresholds, minimum, whom the next attempt asks) is decided here by the
same rules; what it checks of signatures and shares has nobody to check.
"""

import hashlib
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from fedseal.errors import FedsealError
from fedseal.privacy.ledger import used_up
from fedseal.privacy.plan import PlanKind, decode_plan
from fedseal.privacy.quantize import SumRangeError, check_sum
from fedseal.privacy.releases import REGISTRY
from fedseal.privacy.secagg.assurance import Assurance, assurance
from fedseal.privacy.secagg.degree import NoDegreeError
from fedseal.privacy.secagg.graph import Graph, graph_of
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Refusal, RefusalCode, Stage
from fedseal.privacy.secagg.packing import PACKED_RINGS, extend_sign
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished, Refused, Round
from fedseal.server.exchange import arrays_size
from fedseal.server.sealing import (
    Account,
    CohortRules,
    Federation,
    Number,
    Order,
    until_finished,
)
from fedseal.simulation.engine.charges import Charges
from fedseal.simulation.engine.portions import Failure, Job, Portion
from fedseal.simulation.engine.sites import Memory, Sites
from fedseal.simulation.engine.traffic import Turnout, attempt_traffic
from fedseal.simulation.federation import FIRST_NODE

# Which sites fall silent in an attempt, and before the request of which stage; they stay silent in it.
Losses = Callable[[Header], Mapping[int, Stage]]


class Crew(Protocol):
    """Whoever computes jobs: this process, or several."""

    def portion(self, job: Job) -> Portion:
        """The sum of a job's sites."""


def nobody(_: Header) -> dict[int, Stage]:
    """No losses."""
    return {}


@dataclass(slots=True)
class _Attempt:
    """One attempt, as far as it has come."""

    round: Round
    lost: Mapping[int, Stage]
    turnout: Turnout
    graph: Graph | None = None
    refused: tuple[Refused, ...] = ()

    @property
    def header(self) -> Header:
        """The attempt's header."""
        return self.round.header

    def aborted(self, stage: Stage, remaining: int, reason: AbortReason = AbortReason.TOO_FEW) -> Aborted:
        """The attempt ends at a stage."""
        return Aborted(self.round, stage, reason, remaining, (), self.refused)

    def alone(self, dealers: tuple[int, ...], left: tuple[int, ...]) -> bool:
        """Whether some dealer's secrets could not be rebuilt by those who are left."""
        return self.graph is not None and bool(self.graph.left_alone(dealers, left))

    def present(self, sites: Iterable[int], stage: Stage) -> tuple[int, ...]:
        """Those of ``sites`` who are still there at a stage."""
        return tuple(s for s in sites if self.lost.get(s, len(Stage)) > stage)


class ModelledCarrier:
    """Carries the releases of one run by computing what its sites would have sent.

    Args:
        sites: the federation's.
        crew: computes.
        rules: what is asked of every cohort.
        charges: what the sites are charged.
        losses: who falls silent.
    """

    def __init__(self, sites: Sites, crew: Crew, rules: CohortRules, charges: Charges, losses: Losses = nobody) -> None:
        self._sites = sites
        self._crew = crew
        self._rules = rules
        self._charges = charges
        self._losses = losses
        self._federation = Federation.of(sites.roster)
        self._sequence = 0
        self._memories: dict[int, Memory] = {}
        # Of a private run, once their code has failed: told once, and charged.
        self._gone: set[int] = set()
        self.run = hashlib.sha256(b"fedseal/modelled-run/" + str(sites.seed).encode()).digest()[:16]
        self.failures: list[Failure] = []

    def release(self, nodes: Iterable[int], order: Order, account: Account) -> Finished:
        """Model the protocol with these nodes until an attempt finishes.

        Raises:
            RoundAborted: no attempt finished, or too few sites are left to try another.
            BudgetExceeded: the run does not fit the sites' ledgers.
        """
        cohort = sorted(node - FIRST_NODE + 1 for node in nodes)
        self._sequence += 1
        first = Number(self.run, self._sequence, 0)

        def play(header: Header) -> Finished | Aborted:
            outcome = self._attempt(header, order, account)
            account.refused.extend(outcome.refused)
            return outcome

        return until_finished(cohort, order, self._rules, self._federation, first, account, play)

    def close(self, nodes: Iterable[int]) -> None:
        """Forget what sites remember of the run, but for their personal models."""
        for memory in self._memories.values():
            memory.close()

    def nodes_of(self, sites: Iterable[int]) -> set[int]:
        """The node ids of sites."""
        return {FIRST_NODE + site - 1 for site in sites}

    def kept(self, site: int, name: str) -> bytes | None:
        """What a site kept last under a name, as `Transaction.kept` gives it."""
        memory = self._memories.get(site)
        return None if memory is None else memory.newest(name)

    def _attempt(self, header: Header, order: Order, account: Account) -> Finished | Aborted:
        round_ = Round(header, header.digest(), self._sites.roster)
        attempt = _Attempt(round_, self._losses(header), Turnout(header.cohort))
        outcome = self._played(attempt, order, account)
        traffic = attempt_traffic(header, attempt.turnout, arrays_size(order.task))
        for stage, found in traffic.items():
            account.stages[stage].down += found.down
            account.stages[stage].up += found.up
        return outcome

    def _played(self, attempt: _Attempt, order: Order, account: Account) -> Finished | Aborted:
        """The five stages, each with those who are still there."""
        header = attempt.header
        advertised = self._advertised(attempt)
        if len(advertised) < header.minimum:
            return attempt.aborted(Stage.ADVERTISE, len(advertised))
        try:
            sure = assurance(header, len(advertised))
            # Another ring than the real one, whose order follows from its keys; as good as any where someone is lost.
            attempt.graph = graph_of(header, attempt.round.digest, advertised) if attempt.lost else None
        except NoDegreeError:
            return attempt.aborted(Stage.ADVERTISE, len(advertised), AbortReason.NO_GRAPH)
        shared = attempt.present(advertised, Stage.SHARE)
        attempt.turnout = Turnout(header.cohort, advertised, shared, reached=Stage.SHARE)
        if len(shared) < header.minimum or attempt.alone(shared, shared):
            return attempt.aborted(Stage.SHARE, len(shared))
        portion = self._computed(attempt, order, shared, account)
        masked = tuple(sorted(portion.survivors))
        attempt.turnout = Turnout(header.cohort, advertised, shared, masked, reached=Stage.MASK)
        if len(masked) < header.minimum or attempt.alone(shared, masked):
            return attempt.aborted(Stage.MASK, len(masked))
        return self._unmasked(attempt, portion, masked, sure)

    def _advertised(self, attempt: _Attempt) -> tuple[int, ...]:
        """U1, after the refusals of sites that have left the run or have nothing left for it."""
        header = attempt.header
        kind, plan = REGISTRY[header.release_name], decode_plan(header.plan)
        self._charges.reserve(kind.population, self.run, plan, header.plan)
        present = attempt.present(header.cohort, Stage.ADVERTISE)
        refusing: dict[int, RefusalCode] = {}
        for site in present:
            if site in self._gone:
                refusing[site] = RefusalCode.PROTOCOL
            elif not self._charges.affordable(kind.population, site, plan, header.plan):
                refusing[site] = RefusalCode.BUDGET
        attempt.refused = tuple(Refused(s, Stage.ADVERTISE, Refusal(int(c), None)) for s, c in refusing.items())
        spent = [site for site, code in refusing.items() if code is RefusalCode.BUDGET]
        self.failures += [Failure(site, int(RefusalCode.BUDGET), _text(used_up())) for site in spent]
        advertised = tuple(s for s in present if s not in refusing)
        attempt.turnout = Turnout(header.cohort, advertised)
        return advertised

    def _computed(self, attempt: _Attempt, order: Order, shared: tuple[int, ...], account: Account) -> Portion:
        """What those who get the task make of it, charged for it."""
        header = attempt.header
        kind, private = REGISTRY[header.release_name], decode_plan(header.plan).kind is not PlanKind.NONE
        asked = attempt.present(shared, Stage.MASK)
        start = time.monotonic()
        portion = self._crew.portion(Job(header, order.task, asked, self._memories))
        account.stages[Stage.MASK].seconds += time.monotonic() - start
        # Under a private plan before the data is touched; without one with the answer.
        self._charges.charge(kind.population, list(asked) if private else portion.survivors, header.plan)
        self._memories |= portion.memories
        failed = sorted(portion.failures, key=lambda failure: failure.site)
        self.failures += failed
        attempt.refused += tuple(Refused(f.site, Stage.MASK, Refusal(f.code, None)) for f in failed)
        if private:
            self._gone.update(f.site for f in failed)
        return portion

    def _unmasked(
        self, attempt: _Attempt, portion: Portion, masked: tuple[int, ...], sure: Assurance
    ) -> Finished | Aborted:
        header, turnout = attempt.header, attempt.turnout
        confirmed = attempt.present(masked, Stage.CONSISTENCY)
        attempt.turnout = Turnout(
            header.cohort, turnout.advertised, turnout.shared, masked, confirmed, reached=Stage.CONSISTENCY
        )
        graph = attempt.graph
        if graph is not None and len(set(graph.witnesses).intersection(confirmed)) < graph.threshold:
            return attempt.aborted(Stage.CONSISTENCY, len(confirmed))
        opened = attempt.present(masked, Stage.UNMASK)
        attempt.turnout = Turnout(
            header.cohort, turnout.advertised, turnout.shared, masked, confirmed, opened, reached=Stage.UNMASK
        )
        if attempt.alone(turnout.shared, opened):
            return attempt.aborted(Stage.UNMASK, len(opened))
        if header.layout.ring_bits in PACKED_RINGS:
            extend_sign(portion.total.view("<u4"), header.layout.ring_bits)
        try:
            total = check_sum(header.layout, len(masked), portion.total)
        except SumRangeError:
            return attempt.aborted(Stage.UNMASK, len(opened), AbortReason.OUT_OF_RANGE)
        round_ = attempt.round
        return Finished(round_, round_.digest, total, turnout.shared, masked, attempt.refused, sure)


def _text(error: FedsealError) -> str:
    """As a site would have written it down."""
    return "".join(traceback.format_exception(error))
