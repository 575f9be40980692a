"""Sums of a round in the integer ring, begun where the sites run: the protocol modelled, without its messages.

Each reply becomes the very vector of integers that its site would mask (`client.release`), in the layout that
`SealedGrid` would sign. Integers add up to the same in any order and in any parts, so each worker adds its own sites'
and the sum of the workers' sums is the round's, bit by bit. Sums of floats would depend on who added first.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg, Strategy
from numpy.typing import NDArray

from fedseal.client.records import arrays_of
from fedseal.client.release import reported_fraction, returned_arrays, weighted_values
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.quantize import IntegerSum, Layout, Real, Rounding, add_bound, check_sum
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.releases import REGISTRY, VALUES, MetricRange, release_layout, shapes_hash
from fedseal.privacy.secagg.masks import RingVector, ring_dtype
from fedseal.server.contents import arrays_in, common_records, filled, kind_of, moved, round_of
from fedseal.server.means import metric_record, weighted_mean
from fedseal.server.strategies import check_strategy

# Coordinates whose doubles and integers fit a small cache.
PIECE = 1 << 15
# Far above what the order of a sum makes of a norm.
NEAR = 1e-6
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


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
        if getattr(self.strategy, "asks_who", False):
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
        # The same release without its values.
        self._beside = replace(self._kind, has_values=False, difference=False)
        updates = self._kind.difference and order.layout.rounding == Rounding.NEAREST
        self._quick = QuickUpdates(order.layout) if updates else None

    def add(self, message: Message, reply: Message) -> None:
        """Add one site's reply.

        Raises:
            TaskError: it is not what the release needs.
        """
        if self._quick is None or not self._added(self._quick, message, reply):
            self.add_as_a_site(message, reply)
        self.sites += 1

    def add_as_a_site(self, message: Message, reply: Message) -> None:
        """Add a reply by what a site does with it."""
        order, node = self._order, message.metadata.dst_node_id
        values = weighted_values(order.layout, order.shapes, self._kind, self._arrays(message), reply, weight=None)
        # Made in any case and drawn from only where rounding tosses coins.
        stream = KeyedRandomness(order.seed, "engine").stream("rounding", order.fl_round, order.release, node)
        add_bound(values, order.layout, stream, self.vector)

    def _added(self, quick: "QuickUpdates", message: Message, reply: Message) -> bool:
        order, received = self._order, self._arrays(message)
        arrays = returned_arrays(order.layout, order.shapes, reply)
        pairs = [(array.reshape(-1), received[name].reshape(-1)) for name, array in arrays]
        fraction = reported_fraction(order.layout, reply)
        if not quick.added(pairs, fraction, self.vector[: quick.length]):
            return False
        beside = weighted_values(quick.beside, b"", self._beside, {}, reply, weight=None)
        quick.add_beside(beside, self.vector[quick.length :])
        return True

    def _arrays(self, message: Message) -> Mapping[str, NDArray[Any]]:
        """The arrays that a site was sent. All sites are sent the same ones: they are read once a round."""
        if self._received is None:
            records = (r for r in message.content.values() if isinstance(r, ArrayRecord))
            self._received = arrays_of(next(records)) if self._kind.difference else {}
        return self._received


class QuickUpdates:
    """The values of updates that need not be bounded, into a sum without a model's worth of doubles on the way.

    What a site does takes a dozen passes over vectors that no cache holds; this takes one, in pieces that one does,
    with the same operations on each coordinate. Updates near their bound or beyond it are left to the site's way, in
    which the norm is one sum.
    """

    def __init__(self, layout: Layout) -> None:
        values = layout.segment(VALUES)
        others = tuple(s for s in layout.segments if s.name != VALUES)
        if layout.segments[0] != values:
            raise LocalError("the values of a release stand first")
        self.length = values.length
        # Of everything beside the values.
        self.beside = Layout(layout.ring_bits, layout.rounding, others)
        self._limit, self._scale = values.high, values.scale
        lengths = [s.length for s in others]
        self._scales = np.repeat([s.scale for s in others], lengths)
        ranges = np.array([s.integer_range(1) for s in others], np.float64)
        self._ends = np.repeat(ranges[:, 0], lengths), np.repeat(ranges[:, 1], lengths)
        length = min(PIECE, values.length)
        self._doubles = np.empty(length)
        self._integers: NDArray[Any] = np.empty(length, np.int32 if layout.ring_bits <= 32 else np.int64)

    def added(self, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], fraction: float, total: RingVector) -> bool:
        """Add the difference of arrays, returned and received, as `privacy.quantize` weights and rounds it.

        Returns:
            Whether it was clearly within the bound; if not, nothing was added.
        """
        if any(array.dtype not in FLOATS for pair in pairs for array in pair):
            return False
        # Known only when all has been added. Integers can be taken away again, to the last bit.
        with np.errstate(invalid="ignore", over="ignore"):
            norm = math.sqrt(self._add(pairs, fraction, total, np.add))
            # Written so that what is not a number does not fit.
            fits = norm <= self._limit * (1 - NEAR)
            if not fits:
                self._add(pairs, fraction, total, np.subtract)
        return fits

    def add_beside(self, values: Mapping[str, Real], total: RingVector) -> None:
        """Add the few numbers beside the values, all at once; what they come from has bounded them."""
        row = np.concatenate([values[s.name] for s in self.beside.segments])
        row *= self._scales
        np.rint(row, out=row)
        signed = total.view(self._integers.dtype)
        signed += np.clip(row, *self._ends).astype(signed.dtype)

    def _add(
        self, pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], fraction: float, total: RingVector, how: np.ufunc
    ) -> float:
        """The sum of the squares of the difference."""
        signed, place, squares = total.view(self._integers.dtype), 0, 0.0
        for returned, received in pairs:
            for start in range(0, len(returned), PIECE):
                piece = self._difference(returned, received, start)
                whole, part = self._integers[: len(piece)], signed[place : place + len(piece)]
                squares += float(piece @ piece)
                # One after the other: their product may be another double.
                piece *= fraction
                piece *= self._scale
                np.rint(piece, out=piece)
                np.copyto(whole, piece, casting="unsafe")
                how(part, whole, out=part)
                place += len(piece)
        return squares

    def _difference(self, returned: NDArray[Any], received: NDArray[Any], start: int) -> NDArray[np.float64]:
        end = min(start + PIECE, len(returned))
        piece = self._doubles[: end - start]
        np.subtract(returned[start:end], received[start:end], out=piece, dtype=np.float64)
        return piece


def combined(order: SumOrder, parts: Sequence[RingVector]) -> RingVector:
    """The sum of the workers' sums."""
    total: RingVector = np.zeros(order.layout.length, ring_dtype(order.layout.ring_bits))
    for part in parts:
        total += part
    return total
