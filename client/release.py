"""From what the app's function returned to the bounded vector of a release.

Values are bounded here, never refused: a refusal would be a fact about one site that whoever chose the range can
steer. That something had to be bounded is one more coordinate of the sum. What is refused is a return value of the
wrong form, which is a fault of the code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord
from numpy.typing import NDArray

from fedseal.client.records import views_of
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.plan import PlanKind, PrivacyPlan
from fedseal.privacy.quantize import CLIPPED, UNCLIPPED, WEIGHT_PREFIX, BoundedUpdate, Layout, Real, Segment, bound
from fedseal.privacy.randomness import Stream
from fedseal.privacy.releases import METRIC_PREFIX, REPORTED_PREFIX, VALUES, ReleaseKind, shapes_hash
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import add_share, room_of

# What fedseal's own trainer says it has done. An app is never given this record, so it cannot hand it back by accident.
DONE = "fedseal.done"
DONE_RELEASE, DONE_PLAN = "release", "plan"
# Beside a sum of clipped vectors: a half for each person within the bound, minus a half for each other.
DONE_UNCLIPPED = "unclipped"
# What the app wants to know in later rounds of this run, bytes by name: kept in the site's store with the answer.
MEMORY = "fedseal.memory"
_HOW = "docs/seal-your-app.md shows what a train function returns."


class TaskError(ConfigError):
    """The study's code returned something else than the release needs. Names what is wrong, never a value."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What the app's function came to: the release, and what it wants to know in later rounds."""

    update: BoundedUpdate
    memories: dict[str, bytes]


@dataclass(slots=True)
class _Flag:
    """Whether anything of this site had to be bounded."""

    raised: bool = False


def bounded_release(
    header: Header,
    kind: ReleaseKind,
    plan: PrivacyPlan,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    *,
    public_persons: int,
    stream: Stream,
    noise: Stream,
) -> BoundedUpdate:
    """Check, bound, weight and quantise; under a plan with shared noise also add this site's share.

    Args:
        header: the round; its layout says what has to be there.
        kind: the release.
        plan: the header's plan.
        received: the arrays this site was sent.
        reply: what the app's function returned.
        public_persons: the roster's number for this site, its weight under a private plan.
        stream: the coins of stochastic rounding.
        noise: where a share of noise comes from.

    Raises:
        TaskError: something is missing or has the wrong form, or a private plan did not run.
    """
    private = plan.kind is not PlanKind.NONE
    # A whole update is bounded here, whoever made it: there is nothing that the train function has to have done.
    if kind.declared or (private and plan.kind is not PlanKind.CLIENT):
        _check_done(header, reply)
    if (room := room_of(header, plan)) is not None:
        if kind.counted(plan.kind):
            shared = _counts(header, reply, public_persons)
        else:
            shared = _shared_values(header, kind, plan, received, reply, public_persons)
        update = bound(shared, header.layout, stream)
        add_share(update, room, noise)
        return update
    if kind.counted(plan.kind):
        return bound(_counts(header, reply, public_persons), header.layout, stream)
    public = float(public_persons) if private else None
    return weighted_release(header.layout, header.shapes_hash, kind, received, reply, weight=public, stream=stream)


def weighted_release(
    layout: Layout,
    shapes: bytes,
    kind: ReleaseKind,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    *,
    weight: float | None,
    stream: Stream,
) -> BoundedUpdate:
    """A release that is a weighted mean and takes no noise of the sum: `weighted_values`, quantised."""
    return bound(weighted_values(layout, shapes, kind, received, reply, weight=weight), layout, stream)


def weighted_values(
    layout: Layout,
    shapes: bytes,
    kind: ReleaseKind,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    *,
    weight: float | None,
) -> dict[str, Real]:
    """What of a reply is summed: bounded and weighted, by segment.

    Args:
        layout: the release's.
        shapes: `shapes_hash` of the arrays that have to be there.
        kind: the release.
        received: the arrays this site was sent.
        reply: what the app's function returned.
        weight: a public weight; None for the number of examples that the app reports.

    Raises:
        TaskError: something is missing or has the wrong form.
    """
    bounded, public = _Flag(), weight
    metrics = _metrics(reply)
    vector = _values(layout, shapes, kind, received, reply, bounded) if kind.has_values else None
    weight = _weight(metrics, layout.weight, bounded) if public is None else public
    if vector is None and kind.has_values:
        # Not a number anywhere: no change. Under a private plan the weight is public and stays.
        vector, weight = np.zeros(layout.segment(VALUES).length), 0.0 if public is None else weight
    fraction = _fraction(weight, layout)
    values: dict[str, Real] = {layout.weight.name: np.array([fraction * layout.weight.high])}
    if vector is not None:
        # In place: these are doubles, and a model's worth of them.
        vector *= fraction
        values[VALUES] = vector
    for segment in layout.segments:
        if segment.name.startswith(METRIC_PREFIX):
            row, reported = _metric(metrics, segment, bounded)
            values[segment.name] = fraction * row
            values[REPORTED_PREFIX + segment.name.removeprefix(METRIC_PREFIX)] = np.array([fraction * reported])
    values[CLIPPED] = np.array([float(bounded.raised)])
    return values


def _shared_values(
    header: Header,
    kind: ReleaseKind,
    plan: PrivacyPlan,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    public_persons: int,
) -> dict[str, Real]:
    """The values of a release whose noise is added to their sum: nothing but the vector depends on the data.

    The vector is bounded by projection onto a ball, which never moves two vectors apart: a sum over more persons
    than the roster says is bounded as a whole, and one person still moves it by no more than the clip norm. That
    something was bounded is not told, unless the plan's clip norm adapts: then noise covers the count of it.
    """
    layout = header.layout
    largest = layout.weight.high
    weight = min(float(public_persons), largest)
    limit = layout.segment(VALUES).high
    adapts, unclipped = any(s.name == UNCLIPPED for s in layout.segments), 0.0
    if plan.kind is PlanKind.CLIENT:
        vector = _flat(layout, header.shapes_hash, kind.difference, received, reply)
        inside = brought_within(vector, limit)
        unclipped = 0.5 if inside == 1.0 else -0.5
        vector *= weight / largest
    else:
        vector = _flat(layout, header.shapes_hash, False, received, reply)
        inside = brought_within(vector, weight * limit)
        vector /= largest
        unclipped = _unclipped(reply, weight) if adapts else 0.0
    if inside is None:
        vector = np.zeros(layout.segment(VALUES).length)
    values = {VALUES: vector, layout.weight.name: np.array([weight]), CLIPPED: np.zeros(1)}
    return values | {UNCLIPPED: np.array([unclipped])} if adapts else values


def _unclipped(reply: Message, weight: float) -> float:
    """The app's count of who was not clipped, of at most ``weight`` persons; TaskError if there is none."""
    record = reply.content.config_records.get(DONE) or ConfigRecord()
    count = record.get(DONE_UNCLIPPED)
    if not isinstance(count, float):
        raise TaskError(
            "the train function did not count who was not clipped, which a clip norm that adapts asks for",
            next_step="Train with fedseal.client.app, or let the server plan a fixed clip norm.",
        )
    # Bounding a number moves no two of them apart. Halves are whole in integer units, and are never rounded.
    return float(np.clip(np.nan_to_num(count), -weight / 2, weight / 2))


def _counts(header: Header, reply: Message, public_persons: int) -> dict[str, Real]:
    """The values of a release of counts, or of differences of counts: whole numbers, each what the layout has room for.

    Bounding a count, like rounding one, moves no two counts further apart. The weight is the roster's number under
    any plan: whoever counts learns the number of persons from the counts.
    """
    layout = header.layout
    counts = np.rint(np.nan_to_num(_flat(layout, header.shapes_hash, False, {}, reply)))
    weight = min(float(public_persons), layout.weight.high)
    values = np.clip(counts, layout.segment(VALUES).low, layout.segment(VALUES).high)
    return {VALUES: values, layout.weight.name: np.array([weight]), CLIPPED: np.zeros(1)}


def memories(reply: Message) -> dict[str, bytes]:
    """What an app asks to be kept; TaskError if it is anything but bytes by name."""
    record = reply.content.config_records.get(MEMORY) or ConfigRecord()
    kept = {name: value for name, value in record.items() if isinstance(value, bytes)}
    if len(kept) != len(record):
        raise TaskError("the train function asked to keep something else than bytes")
    return kept


def _check_done(header: Header, reply: Message) -> None:
    """That the train function says it made this release under exactly the plan that is charged."""
    record = reply.content.config_records.get(DONE)
    if record is None or record.get(DONE_PLAN) != header.plan or record.get(DONE_RELEASE) != header.release_name:
        raise TaskError(
            f"the train function did not make release {header.release_name!r} under the round's plan",
            next_step="Train with fedseal.client.app, or let the server plan a round without privacy.",
        )


def _metrics(reply: Message) -> MetricRecord:
    records = list(reply.content.metric_records.values())
    if len(records) > 1:
        raise TaskError("the train or evaluate function returned several metric records", next_step=_HOW)
    return records[0] if records else MetricRecord()


def _weight(metrics: MetricRecord, segment: Segment, bounded: _Flag) -> float:
    key = segment.name.removeprefix(WEIGHT_PREFIX)
    value = metrics.get(key)
    if not isinstance(value, int | float):
        raise TaskError(f"the metrics lack the number of examples, {key!r}", next_step=_HOW)
    # Written so that NaN is bounded too.
    if 0 <= value <= segment.high:
        return float(value)
    bounded.raised = True
    return segment.high if value > segment.high else 0.0


def reported_fraction(layout: Layout, reply: Message) -> float:
    """By what the values of a reply are multiplied: the examples that it reports, of the most that there may be.

    Raises:
        TaskError: it reports none.
    """
    return _fraction(_weight(_metrics(reply), layout.weight, _Flag()), layout)


def _fraction(weight: float, layout: Layout) -> float:
    return min(weight, layout.weight.high) / layout.weight.high


def _metric(metrics: MetricRecord, segment: Segment, bounded: _Flag) -> tuple[Real, float]:
    """A metric's values inside its range, and 1; zeros and 0 if this app does not report it in this message."""
    value = metrics.get(segment.name.removeprefix(METRIC_PREFIX))
    if value is None:
        return np.zeros(segment.length), 0.0
    row = np.atleast_1d(np.asarray(value, dtype=np.float64))
    if row.shape != (segment.length,):
        raise TaskError(
            f"{segment.name!r} was declared with {segment.length} values, the metrics have {row.size}", next_step=_HOW
        )
    if np.isnan(row).any():
        bounded.raised = True
        return np.zeros(segment.length), 0.0
    inside = np.clip(row, segment.low, segment.high)
    bounded.raised |= not np.array_equal(inside, row)
    return inside, 1.0


def _values(
    layout: Layout,
    shapes: bytes,
    kind: ReleaseKind,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    bounded: _Flag,
) -> Real | None:
    """The flat vector of the arrays, of L2 norm at most the layout's range; None if it is not a number somewhere."""
    flat = _flat(layout, shapes, kind.difference, received, reply)
    factor = brought_within(flat, layout.segment(VALUES).high)
    bounded.raised |= factor != 1.0
    return None if factor is None else flat


def _flat(
    layout: Layout, shapes: bytes, difference: bool, received: Mapping[str, NDArray[Any]], reply: Message
) -> Real:
    """The arrays that the app returned, or their difference from those received, as one vector in doubles."""
    flat, start = np.empty(layout.segment(VALUES).length), 0
    for name, array in returned_arrays(layout, shapes, reply):
        part = flat[start : start + array.size].reshape(array.shape)
        part[...] = array
        if difference:
            part -= received[name]
        start += array.size
    return flat


def returned_arrays(layout: Layout, shapes: bytes, reply: Message) -> list[tuple[str, NDArray[Any]]]:
    """The arrays that the app returned, read-only and in the order of a release's values: that of their names.

    Raises:
        TaskError: it returned none, or others than it received.
    """
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise TaskError(f"the train function returned {len(records)} array records, expected one", next_step=_HOW)
    arrays = views_of(records[0])
    if shapes_hash([(name, a.shape) for name, a in arrays.items()]) != shapes:
        raise TaskError("the train function returned other arrays than it received", next_step=_HOW)
    length = layout.segment(VALUES).length
    if sum(a.size for a in arrays.values()) != length:
        raise LocalError("the header's layout does not fit its shapes")
    return sorted(arrays.items())


def brought_within(flat: Real, limit: float) -> float | None:
    """Scale a vector down to an L2 norm of at most ``limit``, in place: it is a model's worth of doubles.

    Returns:
        What it was multiplied by, 1 if it was inside. None if it is no number somewhere: then it stays as it was.
    """
    norm = float(np.linalg.norm(flat))
    if not np.isfinite(norm):
        return None
    if norm <= limit:
        return 1.0
    flat *= limit / norm
    return limit / norm
