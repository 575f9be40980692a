"""The closed registry of releases: every kind of number that can leave a site, and under which plans.

A new statistic is a new entry here, never a new message. An entry says which persons it is about (each population has
a ledger of its own), which Flower message carries it, which plans may protect it, and how its vector is laid out.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from fedseal.errors import ConfigError, LocalError, PeerError
from fedseal.privacy.plan import PlanKind
from fedseal.privacy.quantize import (
    CLIPPED,
    LARGEST_LEVEL,
    UNCLIPPED,
    WEIGHT_PREFIX,
    Layout,
    Rounding,
    Segment,
    ranged_segment,
    weight_segment,
)
from fedseal.privacy.secagg.parameters import MAX_COHORT
from fedseal.privacy.shares import Room

UPDATE = "update"
EVALUATION = "evaluation"
MOMENTS = "moments"
COUNTS = "counts"
MEMBERS = "members"
DRIFT = "drift"
VALUES = "values"
METRIC_PREFIX = "metric:"
# Beside each metric: whether the site reported it in this message, so that the mean is over those that did.
REPORTED_PREFIX = "reported:"
# Beside an update: validation persons as a fraction of training persons, at most 1.
VALIDATION_RATIO = "validation-ratio"


class Population(Enum):
    """Whose data a release is about.

    Test persons are other persons than those trained on, with a budget of their own. So are those of the windows in
    which a model in use is watched.
    """

    TRAIN = "train"
    TEST = "test"
    MONITOR = "monitor"


class MessageKind(Enum):
    """Which Flower message type carries a release."""

    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class MetricRange:
    """The public range of a metric, declared before the round: a site bounds what lies outside.

    Args:
        low: smallest value.
        high: largest value.
        length: number of values, for a metric that is a list (a histogram).
    """

    low: float
    high: float
    length: int = 1

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high) or self.length < 1:
            raise ConfigError("a metric's range needs finite numbers, low < high, and a length of at least 1")


@dataclass(frozen=True, slots=True)
class ReleaseKind:
    """An entry of the registry.

    ``difference`` tells what the vector holds: the difference between the trained and the received arrays, or the
    arrays as they are. With ``counts`` it holds whole numbers of persons, which are added up and not averaged: always
    where the release has values anyway, else under plan histogram alone. ``tables`` says that its task names tables of
    the closed list, which the counts are of. With ``signed`` they are differences of counts, and may be negative.
    """

    name: str
    population: Population
    message: MessageKind
    plans: frozenset[PlanKind]
    has_values: bool
    difference: bool
    declared: bool
    counts: bool = False
    signed: bool = False
    tables: bool = False

    def counted(self, plan: PlanKind) -> bool:
        """Whether what is summed under this plan are counts."""
        return self.counts and (self.has_values or plan is PlanKind.HISTOGRAM)


_VECTORS = frozenset({PlanKind.NONE, PlanKind.LOCAL, PlanKind.DISTRIBUTED, PlanKind.CLIENT})
_COUNTS = frozenset({PlanKind.NONE, PlanKind.HISTOGRAM})
_NONE = frozenset({PlanKind.NONE})

REGISTRY: Mapping[str, ReleaseKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            # The change of the trainable parameters; with metrics of the received model riding along under plan none.
            ReleaseKind(UPDATE, Population.TRAIN, MessageKind.TRAIN, _VECTORS, True, True, False),
            # Of the received model on test persons: metrics, or under plan histogram tables of counts from which
            # metrics follow.
            ReleaseKind(
                EVALUATION, Population.TEST, MessageKind.EVALUATE, _COUNTS, False, False, False, True, tables=True
            ),
            # Means of features and of their squares, for normalisation.
            ReleaseKind(MOMENTS, Population.TRAIN, MessageKind.TRAIN, _VECTORS, True, False, True),
            # Tables of counts: classes, features, scores of a model, how two columns agree.
            ReleaseKind(COUNTS, Population.TRAIN, MessageKind.TRAIN, _COUNTS, True, False, True, True, tables=True),
            # How many sites each of a few received models fits best: one a site.
            ReleaseKind(MEMBERS, Population.TRAIN, MessageKind.TRAIN, _NONE, True, False, True, True),
            # By how much a window of new persons differs from each site's past: a `Watch`.
            ReleaseKind(DRIFT, Population.MONITOR, MessageKind.TRAIN, _COUNTS, True, False, True, True, signed=True),
        )
    }
)


def release_layout(
    kind: ReleaseKind,
    *,
    values: int,
    value_range: float,
    weight_key: str,
    largest_weight: int,
    metrics: Mapping[str, MetricRange],
    sites: int,
    ring_bits: int = 32,
    rounding: Rounding = Rounding.STOCHASTIC,
    room: Room | None = None,
) -> Layout:
    """How a release's vector is laid out.

    Args:
        kind: the registry's entry.
        values: number of coordinates of the arrays; 0 where the release has none.
        value_range: bound R on the L2 norm of the values, so each lies in [-R, R]; of counts, the most persons that a
            site may have in a cell, or the largest difference of such counts.
        weight_key: the name under which a task reports its number of examples.
        largest_weight: the largest such number.
        metrics: declared metrics by name.
        sites: the cohort's size.
        ring_bits: 12 to 32, or 64.
        rounding: how values become integers.
        room: under a plan with shared noise; it then decides the values' range and scale.

    Raises:
        ConfigError: there is nothing to release, or a number is out of range.
    """
    if kind.has_values and values < 1:
        raise ConfigError(f"release {kind.name!r} has no values: does the model have trainable parameters?")
    if not 2 <= sites <= MAX_COHORT:
        raise ConfigError(f"expected 2 to {MAX_COHORT} sites")

    def ranged(name: str, length: int, low: float, high: float, *, weighted: bool) -> Segment:
        return ranged_segment(name, length, low, high, sites=sites, ring_bits=ring_bits, weighted=weighted)

    segments = []
    if kind.counts and (kind.has_values or room is not None):
        segments.append(_count_segment(values, value_range, room, kind.signed))
    elif kind.has_values and room is not None:
        limit, scale = room.value_range(largest_weight), room.scale(largest_weight)
        if not 1 <= limit * scale <= LARGEST_LEVEL:
            raise ConfigError("the plan's resolution is finer than doubles can count for the largest site's persons")
        segments.append(Segment(VALUES, values, -limit, limit, scale, True, room.headroom, room.in_a_ball))
    elif kind.has_values:
        segments.append(replace(ranged(VALUES, values, -value_range, value_range, weighted=True), ball=True))
    segments.append(weight_segment(weight_key, largest_weight, sites=sites, ring_bits=ring_bits))
    segments.append(ranged(CLIPPED, 1, 0.0, 1.0, weighted=False))
    if room is not None and room.count_units:
        most = room.largest_count(largest_weight)
        segments.append(Segment(UNCLIPPED, 1, -most, most, float(room.count_units), False, room.headroom))
    for name in sorted(metrics):
        declared = metrics[name]
        segments.append(ranged(METRIC_PREFIX + name, declared.length, declared.low, declared.high, weighted=True))
        segments.append(ranged(REPORTED_PREFIX + name, 1, 0.0, 1.0, weighted=True))
    layout = Layout(ring_bits, int(rounding), tuple(segments))
    if layout.capacity() < sites:
        raise ConfigError(
            f"values and noise of {sites} sites do not fit {ring_bits} bits",
            next_step="Use a larger ring_bits, or a plan with a lower resolution.",
        )
    return layout


def _count_segment(cells: int, most: float, room: Room | None, signed: bool) -> Segment:
    """Whole numbers from 0, or from minus ``most``, to ``most``, and the room that noise takes."""
    if cells < 1 or not 1 <= most <= LARGEST_LEVEL or most != int(most):
        raise ConfigError("counts need at least one cell, and a whole number of persons a site may have in one")
    low = -float(most) if signed else 0.0
    return Segment(VALUES, cells, low, float(most), 1.0, False, 0 if room is None else room.headroom)


def shapes_hash(shapes: Sequence[tuple[str, tuple[int, ...]]]) -> bytes:
    """SHA-256 over names and shapes of the arrays behind the values, in the order of their names.

    The values are flattened in that order too. Dtypes do not count: some strategies change them.
    """
    digest = hashlib.sha256(b"fedseal/shapes/1")
    for name, shape in sorted(shapes):
        for part in (name, ",".join(map(str, shape))):
            raw = part.encode("utf-8")
            digest.update(len(raw).to_bytes(4, "big") + raw)
    return digest.digest()


def check_layout(kind: ReleaseKind, plan: PlanKind, layout: Layout, sites: int, *, room: Room | None = None) -> None:
    """That a header's layout is the one this registry makes from its ranges: the server chooses ranges, nothing else.

    A scale of its choice would turn a sum of values into a count of values above a threshold. Under a plan with
    shared noise not even the range of the values is its choice: it is the plan's clip norm.

    Raises:
        PeerError: it is another layout, or metrics of persons ride along with a private plan.
    """
    if plan not in kind.plans:
        raise PeerError(f"release {kind.name!r} under plan {plan.name.lower()}", peer="server")
    by_name = {segment.name: segment for segment in layout.segments}
    has_values = kind.has_values or kind.counted(plan)
    metrics = {n.removeprefix(METRIC_PREFIX): s for n, s in by_name.items() if n.startswith(METRIC_PREFIX)}
    if metrics and plan is not PlanKind.NONE:
        raise PeerError("metrics of persons beside a private release", peer="server")
    if room is not None and room.count_units and kind.name != UPDATE:
        raise PeerError(f"a clip norm that adapts, for release {kind.name!r}, of which there is one", peer="server")
    try:
        made = release_layout(
            kind,
            values=by_name[VALUES].length if has_values else 0,
            value_range=by_name[VALUES].high if has_values else 0.0,
            weight_key=layout.weight.name.removeprefix(WEIGHT_PREFIX),
            largest_weight=int(layout.weight.high),
            metrics={name: MetricRange(s.low, s.high, s.length) for name, s in metrics.items()},
            sites=sites,
            ring_bits=layout.ring_bits,
            rounding=Rounding(layout.rounding),
            room=room,
        )
    except (ConfigError, LocalError, KeyError, ValueError):
        made = None
    if made != layout:
        raise PeerError(f"a layout that is not that of release {kind.name!r}", peer="server")


def terms_digest(layout: Layout, plan: bytes) -> bytes:
    """What stays the same for a release throughout a run: its plan and the ranges of its segments, not their scales.

    A site pins it at the first header. Ranges that move from round to round would let a server feel its way to a value.
    One may move: that of values whose clip norm adapts, under noise that moves with it. `adaptive` says how far.
    """
    adapts = any(s.name == UNCLIPPED for s in layout.segments)
    digest = hashlib.sha256(b"fedseal/terms/1")
    header = f"{layout.ring_bits}:{layout.rounding}:{len(layout.segments)}"
    lines = [
        f"{s.length}:adapts:{s.weighted}:{s.name}"
        if adapts and s.name == VALUES
        else f"{s.length}:{s.low!r}:{s.high!r}:{s.weighted}:{s.name}"
        for s in layout.segments
    ]
    for part in (plan, header.encode(), *(line.encode() for line in lines)):
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
