"""`SealedGrid`: the one line that seals a Flower ServerApp.

    strategy.start(grid=SealedGrid(grid, strategy, store=path, max_examples=1000, metrics={"loss": (0, 20)}), ...)

It is a Flower Grid over any other. A strategy's TRAIN or EVALUATE messages go in; the protocol runs with the sites
behind them; **one** reply comes out, with the weighted mean of the arrays and metrics and the summed weight. To a
strategy that needs nothing but the weighted mean this is the same as having all replies; any other strategy is
refused.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.inputs import Setting, input_digest, task_digest
from fedseal.privacy.plan import NoPrivacy, PlanKind, PrivacyPlan, encode_plan
from fedseal.privacy.quantize import CLIPPED, IntegerSum, Rounding
from fedseal.privacy.releases import (
    EVALUATION,
    METRIC_PREFIX,
    MOMENTS,
    REGISTRY,
    REPORTED_PREFIX,
    UPDATE,
    VALUES,
    MessageKind,
    MetricRange,
    ReleaseKind,
    release_layout,
    shapes_hash,
)
from fedseal.privacy.secagg.server_states import Finished
from fedseal.server.exchange import CONTROL
from fedseal.server.scaffold import SURVIVORS
from fedseal.server.sealing import Account, CohortRules, Order, Sealing
from fedseal.server.store import ServerStore
from fedseal.server.strategies import check_strategy

DEFAULT_TIMEOUT = 3600.0
# For a run whose number of rounds is not known beforehand.
UNPLANNED = NoPrivacy(releases=10_000, retries=10_000)
Arrays = dict[str, NDArray[Any]]


class SealedGrid(Grid):
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
        ring_bits: 32, or 64 for a finer scale at twice the bytes.
        rounding: stochastic (unbiased) or nearest (deterministic).
        run_config: the run's configuration, as Flower gave it to this ServerApp. It becomes part of what sites compute
            on; without it, sites' apps see an empty one.
        run: the id of a run to go on with; a new one otherwise.

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
    ) -> None:
        self._grid = grid
        self._strategy = check_strategy(strategy)
        # Arrays that a strategy sends for the sites to know, not to sum.
        self._beside: str | None = getattr(strategy, "unsummed_prefix", None)
        self.store = ServerStore.open(Path(store))
        self._metrics = {name: _range(value) for name, value in (metrics or {}).items()}
        self._max_examples = max_examples
        self._plan = plan or UNPLANNED
        self._update_range = update_range
        self._ring_bits = ring_bits
        self._rounding = rounding
        self._run_config = dict(run_config or {})
        self.run_id = run or os.urandom(16)
        self.store.open_run(self.run_id)
        self._sealing = Sealing(grid, self.store, self.run_id, cohort or CohortRules())
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
        kind = _kind_of(batch)
        records = _common_records(batch)
        received = _arrays(records, self._beside) if kind.has_values or kind.name == EVALUATION else {}
        finished = self.release(
            kind,
            [m.metadata.dst_node_id for m in batch],
            task=records,
            shapes=received if kind.has_values else {},
            plan=self._plan if kind.name == UPDATE else UNPLANNED,
            fl_round=_round_of(records),
            timeout=timeout,
        )
        return [self._reply(batch[0], kind, received, finished)]

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
            value_range: bound on the L2 norm of the values; the update range if not given.
        """
        private = plan.kind is not PlanKind.NONE
        metrics = {} if private or kind.name == MOMENTS else self._metrics
        count = sum(a.size for a in shapes.values())
        largest = self.store.identity.roster.largest_site if private else self._max_examples
        order = Order(
            kind=kind,
            layout_for=lambda sites: release_layout(
                kind,
                values=count,
                value_range=value_range or self._update_range,
                weight_key=self._strategy.weighted_by_key,
                largest_weight=largest,
                metrics=metrics,
                sites=sites,
                ring_bits=self._ring_bits,
                rounding=self._rounding,
            ),
            shapes_hash=shapes_hash([(n, a.shape) for n, a in shapes.items()]),
            plan=encode_plan(plan),
            input_digest=input_digest(_task_digest(task), self._run_config),
            task=task,
            fl_round=fl_round,
            timeout=timeout or DEFAULT_TIMEOUT,
        )
        self.last_account = Account()
        finished = self._sealing.release(nodes, order, self.last_account)
        self.last_sum = finished.total
        return finished

    def _reply(self, request: Message, kind: ReleaseKind, received: Arrays, finished: Finished) -> Message:
        total = finished.total
        weight = total.weight
        if weight <= 0:
            raise ConfigError("the sites reported no examples at all", next_step="Look at what data() returns.")
        # Who is in the sum was told to every site at UNMASK: public, and all that is known of single sites.
        cohort = ConfigRecord({SURVIVORS: list(finished.survivors)})
        content = RecordDict({"metrics": self._metric_record(total, weight), CONTROL: cohort})
        if kind.has_values:
            mean = weighted_mean(total, VALUES)
            content["arrays"] = ArrayRecord(_moved(received, mean) if kind.difference else _filled(received, mean))
        return Message(content, reply_to=request)

    def _metric_record(self, total: IntegerSum, weight: float) -> MetricRecord:
        record = MetricRecord({self._strategy.weighted_by_key: weight})
        for segment in total.layout.segments:
            name = segment.name.removeprefix(METRIC_PREFIX)
            if name == segment.name or float(total.real(REPORTED_PREFIX + name)[0]) <= 0:
                continue
            # Over the sites that reported it: a metric of evaluation is absent from training messages, and the reverse.
            mean = total.real(segment.name) / total.real(REPORTED_PREFIX + name)[0]
            record[name] = float(mean[0]) if segment.length == 1 else [float(v) for v in mean]
        return record

    def close(self) -> None:
        """End the run at the sites and in the store. A closed run never reopens."""
        self._sealing.close(list(self._grid.get_node_ids()))

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


def weighted_mean(total: IntegerSum, name: str) -> NDArray[np.float64]:
    """The weighted mean of a weighted segment: sum(w/W * v) / sum(w/W), W the largest weight a site may have."""
    return total.real(name) / (total.weight / total.layout.weight.high)


def clipped_share(total: IntegerSum) -> float:
    """The share of the sites that had to bound something: values, a weight or a metric outside its range."""
    return float(total.real(CLIPPED)[0]) / total.sites


def _task_digest(task: Mapping[str, ArrayRecord | ConfigRecord]) -> bytes:
    """The digest of what the sites are sent to compute on."""
    arrays = {
        name: {n: a.numpy() for n, a in record.items()}
        for name, record in task.items()
        if isinstance(record, ArrayRecord)
    }
    settings = {name: dict(record) for name, record in task.items() if isinstance(record, ConfigRecord)}
    return task_digest(arrays, settings)


def _range(value: MetricRange | tuple[float, float]) -> MetricRange:
    return value if isinstance(value, MetricRange) else MetricRange(*value)


def _kind_of(messages: list[Message]) -> ReleaseKind:
    types = {m.metadata.message_type for m in messages}
    if types == {MessageKind.TRAIN.value}:
        return REGISTRY[UPDATE]
    if types == {MessageKind.EVALUATE.value}:
        return REGISTRY[EVALUATION]
    raise ConfigError(
        f"messages of type {', '.join(sorted(types))} cannot be sealed", next_step="Send TRAIN or EVALUATE messages."
    )


def _common_records(messages: list[Message]) -> dict[str, ArrayRecord | ConfigRecord]:
    """The records that all messages carry; ConfigError if they differ: sites that compute on different things cannot
    be summed.
    """
    first = messages[0].content
    if any(m.content is not first and m.content != first for m in messages[1:]):
        raise ConfigError("the strategy sent different contents to different sites")
    if len(first.array_records) > 1 or len(first.config_records) > 1 or first.metric_records:
        raise ConfigError("expected at most one ArrayRecord, one ConfigRecord and no MetricRecord in a message")
    if reserved := [name for name in first if name.startswith(CONTROL)]:
        raise ConfigError(f"a record called {reserved[0]!r}: names that begin with {CONTROL!r} are fedseal's own")
    return {**first.array_records, **first.config_records}


def _arrays(records: Mapping[str, ArrayRecord | ConfigRecord], beside: str | None) -> Arrays:
    """The arrays by name, without those whose names begin with ``beside``."""
    return {
        name: array.numpy()
        for record in records.values()
        if isinstance(record, ArrayRecord)
        for name, array in record.items()
        if beside is None or not name.startswith(beside)
    }


def _round_of(records: Mapping[str, ArrayRecord | ConfigRecord]) -> int:
    """Flower's round number, which its strategies put into the config."""
    for record in records.values():
        if isinstance(record, ConfigRecord) and isinstance(number := record.get("server-round"), int):
            return number
    return 0


def _moved(received: Arrays, mean: NDArray[np.float64]) -> dict[str, Array]:
    """The received arrays plus the mean difference, each in its own dtype."""
    return _filled(
        received, np.concatenate([received[name].astype(np.float64).ravel() for name in sorted(received)]) + mean
    )


def _filled(like: Arrays, flat: NDArray[np.float64]) -> dict[str, Array]:
    """A flat vector in the order of names, cut into arrays of the names, order, shapes and dtypes of ``like``."""
    arrays, start = {}, 0
    for name in sorted(like):
        model = like[name]
        part = flat[start : start + model.size].reshape(model.shape)
        start += model.size
        whole = np.issubdtype(model.dtype, np.integer)
        arrays[name] = Array((np.rint(part) if whole else part).astype(model.dtype))
    return {name: arrays[name] for name in like}
