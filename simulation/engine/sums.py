"""Sums of a round in the integer ring, begun where the sites run: the protocol modelled, without its messages.

Each reply becomes the very vector of integers that its site would mask (`client.release`), in the layout that
`SealedGrid` would sign. Integers add up to the same in any order and in any parts, so each worker adds its own sites'
and the sum of the workers' sums is the round's, bit by bit. Sums of floats would depend on who added first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from fedseal.client.records import arrays_of
from fedseal.client.release import weighted_release
from fedseal.errors import ConfigError
from fedseal.privacy.quantize import IntegerSum, Layout, Rounding, check_sum
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import REGISTRY, VALUES, MetricRange, release_layout, shapes_hash
from fedseal.privacy.secagg.masks import RingVector, ring_dtype
from fedseal.server.contents import arrays_in, common_records, filled, kind_of, moved, round_of
from fedseal.server.means import metric_record, weighted_mean
from fedseal.server.strategies import check_strategy


@dataclass(frozen=True, slots=True)
class IntegerSums:
    """How a round's replies become one: what `SealedGrid` is told, as far as it decides about the sum.

    Args:
        strategy: whose messages these are; checked as `SealedGrid` does.
        max_examples: a public upper bound on the number of examples of one site.
        metrics: the public range of every metric that is to be averaged; others are dropped.
        update_range: bound on the L2 norm of one site's update; a longer one is scaled down.
        ring_bits: 32 or 64.
        rounding: how values become integers.
        seed: of the coins of stochastic rounding, which are keyed by node and round.

    Raises:
        ConfigError: the strategy looks at single replies, and there are none; or it asks who is in a sum.
    """

    strategy: Strategy
    max_examples: int
    metrics: Mapping[str, MetricRange] = field(default_factory=dict)
    update_range: float = 100.0
    ring_bits: int = 64
    rounding: Rounding = Rounding.NEAREST
    seed: int = 0

    def __post_init__(self) -> None:
        check_strategy(self.strategy)
        if getattr(self.strategy, "unsummed_prefix", None) is not None:
            raise ConfigError(
                f"{type(self.strategy).__name__} asks who is in a sum, and here nobody is told",
                next_step="Simulate it with a SealedGrid: the protocol itself.",
            )

    @property
    def checked(self) -> FedAvg:
        """The strategy, as what it is."""
        return check_strategy(self.strategy)


@dataclass(frozen=True, slots=True)
class SumOrder:
    """What a worker has to know of one round's sum. Public values only."""

    layout: Layout
    shapes: bytes
    release: str
    fl_round: int
    seed: int

    def begun(self) -> "PartialSum":
        """Nothing added up yet."""
        return PartialSum(self)


@dataclass(frozen=True, slots=True)
class RoundSum:
    """A round to be summed: its order, the arrays it sends, and how its one reply is made."""

    order: SumOrder
    received: dict[str, NDArray[Any]]
    weight_key: str

    def reply(self, request: Message, sites: int, vector: RingVector) -> tuple[Message, IntegerSum]:
        """The one reply of a round, and its sum.

        Args:
            request: any of the round's messages.
            sites: how many are in the sum.
            vector: the sum.

        Raises:
            SumRangeError: no so many sites can make such a sum.
            ConfigError: the sites reported no examples at all.
        """
        total = check_sum(self.order.layout, sites, vector)
        weight = total.weight
        if weight <= 0:
            raise ConfigError("the sites reported no examples at all", next_step="Look at what the app returns.")
        content = RecordDict({"metrics": metric_record(total, self.weight_key, weight)})
        kind = REGISTRY[self.order.release]
        if kind.has_values:
            mean = weighted_mean(total, VALUES)
            arrays = moved(self.received, mean) if kind.difference else filled(self.received, mean)
            content["arrays"] = ArrayRecord(arrays)
        return Message(content, reply_to=request), total


def round_sum(sums: IntegerSums, messages: Sequence[Message]) -> RoundSum:
    """How the replies to these messages will be summed.

    Raises:
        ConfigError: the messages differ, are of a kind that is not sealed, or are fewer than two.
    """
    batch, strategy = list(messages), sums.checked
    kind, records = kind_of(batch), common_records(batch)
    received = arrays_in(records, None) if kind.has_values else {}
    layout = release_layout(
        kind,
        values=sum(a.size for a in received.values()),
        value_range=sums.update_range,
        weight_key=strategy.weighted_by_key,
        largest_weight=sums.max_examples,
        metrics=sums.metrics,
        sites=len(batch),
        ring_bits=sums.ring_bits,
        rounding=sums.rounding,
    )
    hashed = shapes_hash([(n, a.shape) for n, a in received.items()])
    order = SumOrder(layout, hashed, kind.name, round_of(records), sums.seed)
    return RoundSum(order, received, strategy.weighted_by_key)


class PartialSum:
    """What one worker has added up of a round."""

    def __init__(self, order: SumOrder) -> None:
        self._order = order
        self._kind = REGISTRY[order.release]
        self.sites = 0
        self.vector: RingVector = np.zeros(order.layout.length, ring_dtype(order.layout.ring_bits))
        self._received: dict[str, NDArray[Any]] | None = None

    def add(self, message: Message, reply: Message) -> None:
        """Add one site's reply.

        Raises:
            TaskError: it is not what the release needs.
        """
        order, node = self._order, message.metadata.dst_node_id
        # Made in any case and drawn from only where rounding tosses coins.
        stream = KeyedRandomness(order.seed, "engine").stream("rounding", order.fl_round, order.release, node)
        update = weighted_release(
            order.layout, order.shapes, self._kind, self._arrays(message), reply, weight=None, stream=stream
        )
        # Unsigned words: what does not fit wraps around, which is what a ring is.
        self.vector += update.vector
        self.sites += 1

    def _arrays(self, message: Message) -> Mapping[str, NDArray[Any]]:
        """The arrays that a site was sent. All sites are sent the same ones: they are read once a round."""
        if self._received is None:
            records = (r for r in message.content.values() if isinstance(r, ArrayRecord))
            self._received = arrays_of(next(records)) if self._kind.difference else {}
        return self._received


def combined(order: SumOrder, parts: Sequence[RingVector]) -> RingVector:
    """The sum of the workers' sums."""
    total: RingVector = np.zeros(order.layout.length, ring_dtype(order.layout.ring_bits))
    for part in parts:
        total += part
    return total
