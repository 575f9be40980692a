"""`SealedGrid`: the one line that seals a Flower ServerApp.

    strategy.start(grid=SealedGrid(grid, strategy, store=path, max_examples=1000, metrics={"loss": (0, 20)}), ...)

It is a Flower Grid over any other. A strategy's TRAIN or EVALUATE messages go in; the protocol runs with the sites
behind them; **one** reply comes out, with the weighted mean of the arrays and metrics and the summed weight. To a
strategy that needs nothing but the weighted mean this is the same as having all replies; any other strategy is
refused.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from numpy.typing import NDArray

from fedseal.compliance.journal.federation import FederationJournal
from fedseal.compliance.log.database import open_database
from fedseal.errors import ConfigError
from fedseal.inputs import Setting, input_digest
from fedseal.privacy.adaptive import ClipStep, clip_step
from fedseal.privacy.plan import AdaptiveSkellam, NoPrivacy, PlanKind, PrivacyPlan, encode_plan
from fedseal.privacy.quantize import IntegerSum, Layout, Rounding
from fedseal.privacy.releases import (
    EVALUATION,
    MOMENTS,
    UPDATE,
    VALUES,
    MetricRange,
    ReleaseKind,
    release_layout,
    shapes_hash,
)
from fedseal.privacy.secagg.masks import is_ring
from fedseal.privacy.secagg.server_states import Finished
from fedseal.privacy.shares import Room, is_shared, noise_minimum, room
from fedseal.server.contents import (
    Arrays,
    arrays_in,
    common_records,
    filled,
    kind_of,
    learning_rate,
    moved,
    records_digest,
    round_of,
)
from fedseal.server.counted import SURVIVORS
from fedseal.server.exchange import CONTROL
from fedseal.server.logbook import RunFacts, ServerLogbook
from fedseal.server.means import metric_record, weighted_mean
from fedseal.server.sealing import Account, CohortRules, Order, Sealing
from fedseal.server.store import Checkpoint, ServerStore
from fedseal.server.strategies import check_strategy

DEFAULT_TIMEOUT = 3600.0
# Above this a 32-bit sum leaves every site fewer than 2^20 levels.
LARGEST_IN_32_BITS = 2047
# For a run whose number of rounds is not known beforehand.
UNPLANNED = NoPrivacy(releases=10_000, retries=10_000)


class Carrier(Protocol):
    """Who carries releases to the sites: the protocol, or what stands for it in a simulation."""

    def release(self, nodes: Iterable[int], order: Order, account: Account) -> Finished:
        """Carry one release with these nodes; RoundAborted if nothing was released."""

    def close(self, nodes: Iterable[int]) -> None:
        """End the run at these nodes."""

    def nodes_of(self, sites: Iterable[int]) -> set[int]:
        """The node ids of sites."""


class Checkpoints(Protocol):
    """Where a run's checkpoints are kept."""

    def save(self, run: bytes, checkpoint: Checkpoint) -> None:
        """Replace a run's checkpoint."""

    def load(self, run: bytes) -> Checkpoint | None:
        """A run's checkpoint, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What releases are made of, whoever carries them: see the arguments of `SealedGrid`. ``largest_site`` is the
    roster's largest number of persons.
    """

    max_examples: int
    largest_site: int
    metrics: Mapping[str, MetricRange]
    plan: PrivacyPlan
    update_range: float
    rules: CohortRules
    ring_bits: int
    rounding: Rounding
    run_config: Mapping[str, Setting]


class AveragingGrid(Grid):
    """A Grid that returns one averaged reply, whoever carries the sum.

    Args:
        grid: the Grid that knows the nodes.
        strategy: the strategy whose messages these are; checked, see `server.strategies`.
        asking: what releases are made of.
        carrier: who carries them.
        store: where checkpoints are kept.
        run: the run's 16-byte id.

    Raises:
        ConfigError: the strategy cannot work on sums.
    """

    def __init__(
        self, grid: Grid, strategy: Strategy, asking: Asking, *, carrier: Carrier, store: Checkpoints, run: bytes
    ) -> None:
        self._grid = grid
        self._strategy = check_strategy(strategy)
        # Arrays that a strategy sends for the sites to know, not to sum.
        self._beside: str | None = getattr(strategy, "unsummed_prefix", None)
        self.store: Checkpoints = store
        self.run_id = run
        # What a strategy wants to have summed beside an update for itself comes on top.
        self._asking = replace(asking, metrics={**asking.metrics, **getattr(strategy, "own_metrics", {})})
        self._plan = asking.plan
        self._rules = asking.rules
        self._carrier = carrier
        # Where the plan's clip norm adapts: the next round's, and what the last round said of its own.
        self.clip_norm = self._plan.clip_norm if isinstance(self._plan, AdaptiveSkellam) else None
        self.last_clip: ClipStep | None = None
        self.last_account: Account | None = None
        self.last_sum: IntegerSum | None = None

    # What a strategy calls

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run one release and return one reply, or none if there was nothing to send.

        Raises:
            RoundAborted: too few sites finished; nothing was released.
            ConfigError: the messages differ, or are of a kind that is not sealed.
        """
        batch = list(messages)
        if not batch:
            return []
        kind = kind_of(batch)
        records = common_records(batch)
        received = arrays_in(records, self._beside) if kind.has_values or kind.name == EVALUATION else {}
        plan = self._plan if kind.name == UPDATE else UNPLANNED
        step = learning_rate(records) if plan.kind is PlanKind.DISTRIBUTED else None
        finished = self.release(
            kind,
            [m.metadata.dst_node_id for m in batch],
            task=records,
            shapes=received if kind.has_values else {},
            plan=plan,
            fl_round=round_of(records),
            timeout=timeout,
            # A strategy may know that a sum over fewer would say too much.
            minimum=getattr(self._strategy, "fewest", None),
        )
        if isinstance(plan, AdaptiveSkellam) and self.clip_norm is not None:
            self.last_clip = clip_step(plan, self.clip_norm, finished.total)
            self.clip_norm = self.last_clip.following
        return [self._reply(batch[0], kind, received, finished, step)]

    def release(
        self,
        kind: ReleaseKind,
        nodes: Sequence[int],
        *,
        task: Mapping[str, ArrayRecord | ConfigRecord],
        shapes: Mapping[str, NDArray[Any]],
        plan: PrivacyPlan,
        fl_round: int,
        timeout: float | None,
        value_range: float | None = None,
        minimum: int | None = None,
    ) -> Finished:
        """Run any release of the registry with these nodes.

        Args:
            kind: the registry's entry.
            nodes: Flower node ids.
            task: the records that the sites' app gets.
            shapes: arrays whose names, dtypes and shapes the values have; empty for a release without values.
            plan: the privacy plan.
            fl_round: the round's number.
            timeout: seconds that training may take.
            value_range: bound on the L2 norm of the values; the update range if not given. A plan with shared noise
                has its own. Of counts, the most persons that a site may have in a cell.
            minimum: how many sites the sum has to be over at least, where that is more than the rules ask for.

        Raises:
            ConfigError: a plan with shared noise, and no site is assumed to work with the server.
        """
        if is_shared(plan) and self._rules.colluders < 1:
            raise ConfigError(
                f"plan {plan.kind.label!r} in rounds that trust every site: each knows its own share of the noise",
                next_step="Set cohort.colluders to at least 1.",
            )
        asking, private, counted = self._asking, plan.kind is not PlanKind.NONE, kind.counted(plan.kind)
        metrics = {} if private or counted or kind.name == MOMENTS else asking.metrics
        count = sum(a.size for a in shapes.values())
        largest = asking.largest_site if private else asking.max_examples

        def layout_for(sites: int) -> Layout:
            return release_layout(
                kind,
                values=count,
                value_range=value_range or asking.update_range,
                weight_key=self._strategy.weighted_by_key,
                largest_weight=largest,
                metrics=metrics,
                sites=sites,
                # Counts are no coarser for a short word, only too large.
                ring_bits=max(asking.ring_bits, 32) if counted else asking.ring_bits,
                rounding=asking.rounding,
                room=self._room(plan, sites),
            )

        order = Order(
            kind=kind,
            layout_for=layout_for,
            shapes_hash=shapes_hash([(n, a.shape) for n, a in shapes.items()]),
            plan=encode_plan(plan),
            input_digest=input_digest(records_digest(task), asking.run_config),
            task=task,
            model=shapes if kind.difference else {},
            fl_round=fl_round,
            timeout=timeout or DEFAULT_TIMEOUT,
            minimum=max(minimum or 0, self._rules.minimum),
        )
        self.last_account = Account()
        finished = self._carrier.release(nodes, order, self.last_account)
        self.last_sum = finished.total
        return finished

    def nodes_of(self, sites: Iterable[int]) -> set[int]:
        """The node ids of sites that have introduced themselves in this run."""
        return self._carrier.nodes_of(sites)

    def noise_shares(self, plan: PrivacyPlan, finished: Finished) -> int:
        """How many sites the shares of noise in a finished release counted on."""
        found = self._room(plan, len(finished.round.header.cohort))
        return 0 if found is None else found.honest

    def _room(self, plan: PrivacyPlan, sites: int) -> Room | None:
        rules = self._rules
        minimum = noise_minimum(plan, sites, rules.colluders, rules.minimum)
        return room(plan, sites=sites, minimum=minimum, colluders=rules.colluders, clip_norm=self.clip_norm)

    def _reply(
        self, request: Message, kind: ReleaseKind, received: Arrays, finished: Finished, step: float | None
    ) -> Message:
        """The one reply. ``step`` is the learning rate where the sum is one of gradients: the mean model is then the
        received one after one step along their mean.
        """
        total = finished.total
        weight = total.weight
        if weight <= 0:
            raise ConfigError("the sites reported no examples at all", next_step="Look at what data() returns.")
        # Who is in the sum was told to every site at UNMASK: public, and all that is known of single sites.
        cohort = ConfigRecord({SURVIVORS: list(finished.survivors)})
        content = RecordDict({"metrics": metric_record(total, self._strategy.weighted_by_key, weight), CONTROL: cohort})
        if kind.has_values:
            mean = weighted_mean(total, VALUES)
            if step is not None:
                mean *= -step
            content["arrays"] = ArrayRecord(moved(received, mean) if kind.difference else filled(received, mean))
        return Message(content, reply_to=request)

    def close(self, *, rounds: int = 0, model: Arrays | None = None) -> None:
        """End the run at the sites. A closed run never reopens.

        Args:
            rounds: how many there were.
            model: what came of them.
        """
        self._carrier.close(list(self._grid.get_node_ids()))

    # The rest of a Grid

    def get_node_ids(self) -> Iterable[int]:
        """The node ids of the Grid below."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes of the Grid below."""
        return self._grid.get_nodes()

    def set_run(self, run: Run) -> None:
        """Set Flower's run on the Grid below."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """Flower's run of the Grid below."""
        return self._grid.run

    @property
    def inner(self) -> Grid:
        """The Grid below."""
        return self._grid

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message, as the Grid below makes it."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Refused: a message on its own has no cohort to be summed with."""
        raise ConfigError(
            "SealedGrid sends rounds, not single messages",
            next_step="Use send_and_receive with all messages of a round.",
        )

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Refused, as `push_messages` is."""
        raise ConfigError(
            "SealedGrid sends rounds, not single messages",
            next_step="Use send_and_receive with all messages of a round.",
        )


class SealedGrid(AveragingGrid):
    """A Grid that returns one averaged reply and learns nothing else.

    Args:
        grid: the Grid that carries the messages.
        strategy: the strategy whose messages these are; checked, see `server.strategies`.
        store: the server's store.
        max_examples: a public upper bound on the number of examples of one site.
        metrics: the public range of every metric that is to be averaged; others are dropped. A value outside is bounded
            at its site, and how many sites had to bound something is part of the sum.
        plan: the privacy plan of training releases; without one, sites have to allow plan none.
        update_range: bound on the L2 norm of one site's update; a longer one is scaled down at the site.
        cohort: what is asked of every cohort.
        ring_bits: 32; 12 to 31 for fewer bytes and a coarser scale, or 64 for a finer one at twice the bytes; 64 in
            any case in a federation of more than 2047 sites. docs/protocol.md says what the scale comes to.
        rounding: stochastic (unbiased) or nearest (deterministic).
        run_config: the run's configuration, as Flower gave it to this ServerApp. It becomes part of what sites compute
            on; without it, sites' apps see an empty one.
        run: the id of a run to go on with; a new one otherwise.
        log: the database of the federation's log: a path, or a PostgreSQL URL. The server's own store otherwise.
        facts: what the log says of the run; what this grid knows otherwise.
        workers: how many threads take the masks off a sum.

    Raises:
        ConfigError: the strategy cannot work on sums, or a number is out of range.
    """

    def __init__(
        self,
        grid: Grid,
        strategy: Strategy,
        *,
        store: str | Path,
        max_examples: int,
        metrics: Mapping[str, MetricRange | tuple[float, float]] | None = None,
        plan: PrivacyPlan | None = None,
        update_range: float = 100.0,
        cohort: CohortRules | None = None,
        ring_bits: int = 32,
        rounding: Rounding = Rounding.STOCHASTIC,
        run_config: Mapping[str, Setting] | None = None,
        run: bytes | None = None,
        log: str | Path | None = None,
        facts: RunFacts | None = None,
        workers: int = 1,
    ) -> None:
        opened = ServerStore.open(Path(store))
        roster = opened.identity.roster
        if not is_ring(ring_bits) or workers < 1:
            raise ConfigError("expected ring_bits of 12 to 32, or 64, and at least one worker")
        run_id = run or os.urandom(16)
        asking = Asking(
            max_examples=max_examples,
            largest_site=roster.largest_site,
            metrics={name: _range(value) for name, value in (metrics or {}).items()},
            plan=plan or UNPLANNED,
            update_range=update_range,
            rules=cohort or CohortRules(),
            ring_bits=bits_for(len(roster.sites), ring_bits),
            rounding=rounding,
            run_config=dict(run_config or {}),
        )
        check_strategy(strategy)
        opened.open_run(run_id)
        self.store: ServerStore = opened
        self.journal = FederationJournal(
            opened.engine if log is None else open_database(log),
            opened.identity.key,
            roster,
            faulty=asking.rules.colluders,
            now=lambda: datetime.now(UTC),
            former=opened.identity.former,
        )
        facts = facts or _facts_of(strategy, asking.run_config)
        self._logbook = ServerLogbook(self.journal, run_id, facts, asking.plan)
        sealing = Sealing(grid, opened, run_id, asking.rules, self._logbook, workers=workers)
        super().__init__(grid, strategy, asking, carrier=sealing, store=opened, run=run_id)

    def close(self, *, rounds: int = 0, model: Arrays | None = None) -> None:
        """End the run at the sites, in the log and in the store. A closed run never reopens.

        Args:
            rounds: how many there were, for the log.
            model: what came of them, for the log.
        """
        self._logbook.finished(rounds, model)
        super().close(rounds=rounds, model=model)


def bits_for(sites: int, ring_bits: int) -> int:
    """The bits of a word in a federation of so many sites."""
    # By the federation's size, which stays the same throughout a run, not the cohort's.
    return 64 if sites > LARGEST_IN_32_BITS else ring_bits


def _facts_of(strategy: Strategy, run_config: Mapping[str, Setting]) -> RunFacts:
    """What is known of a run that nobody has described: its strategy, and the digest of its configuration."""
    contract = "sha256:" + input_digest(b"", run_config).hex()
    return RunFacts(study="app", contract=contract, strategy=type(strategy).__name__)


def _range(value: MetricRange | tuple[float, float]) -> MetricRange:
    return value if isinstance(value, MetricRange) else MetricRange(*value)
