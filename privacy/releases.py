"""The closed registry of releases: every kind of number that can leave a site, and under which plans.

A new statistic is a new entry here, never a new message. An entry says which persons it is about (each population has
a ledger of its own), which Flower message carries it, which plans may protect it, and how its vector is laid out.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from fedseal.errors import ConfigError, PeerError
from fedseal.privacy.plan import PlanKind
from fedseal.privacy.quantize import CLIPPED, WEIGHT_PREFIX, Layout, Rounding, Segment, ranged_segment, weight_segment

UPDATE = "update"
EVALUATION = "evaluation"
MOMENTS = "moments"
VALUES = "values"
METRIC_PREFIX = "metric:"
# Beside an update: validation persons as a fraction of training persons, at most 1.
VALIDATION_RATIO = "validation-ratio"


class Population(Enum):
    """Whose data a release is about.

    Test persons are other persons than those trained on, with a budget of their own.
    """

    TRAIN = "train"
    TEST = "test"


class MessageKind(Enum):
    """Which Flower message type carries a release."""

    TRAIN = "train"
    EVALUATE = "evaluate"


@dataclass(frozen=True, slots=True)
class MetricRange:
    """The public range of a metric, declared before the round: a site refuses to send what lies outside.

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

    ``values`` tells what the vector holds: the difference between the trained and the received arrays, or the arrays
    as they are.
    """

    name: str
    population: Population
    message: MessageKind
    plans: frozenset[PlanKind]
    has_values: bool
    difference: bool


REGISTRY: Mapping[str, ReleaseKind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            # The change of the trainable parameters, with metrics of the received model riding along where the plan
            # is none.
            ReleaseKind(
                UPDATE, Population.TRAIN, MessageKind.TRAIN, frozenset({PlanKind.NONE, PlanKind.LOCAL}), True, True
            ),
            # Metrics of the received model on test persons. A private one needs counting noise, which this build does
            # not have.
            ReleaseKind(EVALUATION, Population.TEST, MessageKind.EVALUATE, frozenset({PlanKind.NONE}), False, False),
            # Means of features and of their squares, for normalisation.
            ReleaseKind(
                MOMENTS, Population.TRAIN, MessageKind.TRAIN, frozenset({PlanKind.NONE, PlanKind.LOCAL}), True, False
            ),
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
) -> Layout:
    """How a release's vector is laid out.

    Args:
        kind: the registry's entry.
        values: number of coordinates of the arrays; 0 where the release has none.
        value_range: bound R on the L2 norm of the values, so each lies in [-R, R].
        weight_key: the name under which a task reports its number of examples.
        largest_weight: the largest such number.
        metrics: declared metrics by name.
        sites: the cohort's size.
        ring_bits: 32 or 64.
        rounding: how values become integers.

    Raises:
        ConfigError: there is nothing to release, or a number is out of range.
    """
    if kind.has_values and values < 1:
        raise ConfigError(f"release {kind.name!r} has no values: does the model have trainable parameters?")
    segments: list[Segment] = []
    if kind.has_values:
        segments.append(
            ranged_segment(VALUES, values, -value_range, value_range, sites=sites, ring_bits=ring_bits, weighted=True)
        )
    segments.append(weight_segment(weight_key, largest_weight, sites=sites, ring_bits=ring_bits))
    if kind.has_values:
        segments.append(ranged_segment(CLIPPED, 1, 0.0, 1.0, sites=sites, ring_bits=ring_bits, weighted=False))
    for name in sorted(metrics):
        declared = metrics[name]
        segments.append(
            ranged_segment(
                METRIC_PREFIX + name,
                declared.length,
                declared.low,
                declared.high,
                sites=sites,
                ring_bits=ring_bits,
                weighted=True,
            )
        )
    return Layout(ring_bits, int(rounding), tuple(segments))


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


def check_layout(kind: ReleaseKind, plan: PlanKind, layout: Layout) -> None:
    """That a header's layout is one this registry makes: nothing else can be summed, whatever the server asks for.

    Raises:
        PeerError: a segment is unknown or has the wrong form, or metrics of persons ride along with a private plan.
    """
    if plan not in kind.plans:
        raise PeerError(f"release {kind.name!r} under plan {plan.name.lower()}", peer="server")
    names = [s.name for s in layout.segments]
    weight = next((n for n in names if n.startswith(WEIGHT_PREFIX)), WEIGHT_PREFIX)
    expected = [VALUES, weight, CLIPPED] if kind.has_values else [weight]
    metrics = names[len(expected) :]
    if names[: len(expected)] != expected or any(not n.startswith(METRIC_PREFIX) for n in metrics):
        raise PeerError(f"a layout that is not that of release {kind.name!r}", peer="server")
    if metrics and plan is not PlanKind.NONE:
        raise PeerError("metrics of persons beside a private release", peer="server")
    if not all(_well_formed(segment, segment.name in metrics) for segment in layout.segments):
        raise PeerError(f"a layout that is not that of release {kind.name!r}", peer="server")


def _well_formed(segment: Segment, metric: bool) -> bool:
    """Whether a segment has the length, range and weighting that its name stands for."""
    if segment.name.startswith(WEIGHT_PREFIX):
        return segment.length == 1 and not segment.weighted and segment.low == 0.0 and segment.scale.is_integer()
    if segment.name == CLIPPED:
        return segment.length == 1 and not segment.weighted and (segment.low, segment.high) == (0.0, 1.0)
    return segment.weighted and (metric or segment.low == -segment.high)
