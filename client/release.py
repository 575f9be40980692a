"""From what the app's function returned to the bounded vector of a release."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Message, MetricRecord
from numpy.typing import NDArray

from fedseal.client.records import CONTROL, arrays_of
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.plan import PlanKind, PrivacyPlan
from fedseal.privacy.quantize import CLIPPED, WEIGHT_PREFIX, BoundedUpdate, RangeError, Real, bound
from fedseal.privacy.randomness import Stream
from fedseal.privacy.releases import METRIC_PREFIX, VALUES, ReleaseKind, shapes_hash
from fedseal.privacy.secagg.header import Header

PLAN_RAN = "plan"
_HOW = "docs/seal-your-app.md shows what a train function returns."


class TaskError(ConfigError):
    """The study's code returned something else than the release needs. Names what is wrong, never a value."""


def bounded_release(
    header: Header,
    kind: ReleaseKind,
    plan: PrivacyPlan,
    received: Mapping[str, NDArray[Any]],
    reply: Message,
    *,
    public_persons: int,
    stream: Stream,
) -> BoundedUpdate:
    """Check, weight, clip and quantise.

    Args:
        header: the round; its layout says what has to be there.
        kind: the release.
        plan: the header's plan.
        received: the arrays this site was sent.
        reply: what the app's function returned.
        public_persons: the roster's number for this site, its weight under a private plan.
        stream: the coins of stochastic rounding.

    Raises:
        TaskError: something is missing, or a private plan did not run.
        RangeError: a value is outside its declared range, or not a number.
    """
    if plan.kind is not PlanKind.NONE:
        _check_plan_ran(header, reply)
    metrics = _metrics(reply)
    weight_segment = header.layout.weight
    weight = float(public_persons) if plan.kind is not PlanKind.NONE else _weight(metrics, weight_segment.name)
    if not 0 <= weight <= weight_segment.high:
        raise RangeError(weight_segment.name)
    fraction = weight / weight_segment.high
    values: dict[str, Real] = {weight_segment.name: np.array([weight])}
    if kind.has_values:
        vector, clipped = _values(header, kind, received, reply)
        values[VALUES] = fraction * vector
        values[CLIPPED] = np.array([clipped])
    for segment in header.layout.segments:
        if segment.name.startswith(METRIC_PREFIX):
            values[segment.name] = fraction * _metric(metrics, segment.name, segment.low, segment.high, segment.length)
    return bound(values, header.layout, stream)


def _check_plan_ran(header: Header, reply: Message) -> None:
    """That the train function says it ran exactly the plan that is charged. fedseal's trainer says so; an ordinary
    one does not.
    """
    record = reply.content.config_records.get(CONTROL)
    if record is None or record.get(PLAN_RAN) != header.plan:
        raise TaskError(
            "the round has a private plan, but the train function did not run it",
            next_step="Train with fedseal.client.app, or let the server plan a round without privacy.",
        )


def _metrics(reply: Message) -> MetricRecord:
    records = list(reply.content.metric_records.values())
    if len(records) > 1:
        raise TaskError("the train or evaluate function returned several metric records", next_step=_HOW)
    return records[0] if records else MetricRecord()


def _weight(metrics: MetricRecord, name: str) -> float:
    key = name.removeprefix(WEIGHT_PREFIX)
    value = metrics.get(key)
    if not isinstance(value, int | float):
        raise TaskError(f"the metrics lack the number of examples, {key!r}", next_step=_HOW)
    return float(value)


def _metric(metrics: MetricRecord, name: str, low: float, high: float, length: int) -> Real:
    value = metrics.get(name.removeprefix(METRIC_PREFIX))
    row = np.atleast_1d(np.asarray([] if value is None else value, dtype=np.float64))
    if row.shape != (length,):
        raise TaskError(f"{name!r} was declared with {length} values, the metrics have {row.size}", next_step=_HOW)
    if not (row.min() >= low and row.max() <= high):
        raise RangeError(name)
    return row


def _values(
    header: Header, kind: ReleaseKind, received: Mapping[str, NDArray[Any]], reply: Message
) -> tuple[Real, float]:
    """The flat vector of the arrays, of L2 norm at most the layout's range, and whether it had to be scaled down."""
    records = list(reply.content.array_records.values())
    if len(records) != 1:
        raise TaskError(f"the train function returned {len(records)} array records, expected one", next_step=_HOW)
    arrays = arrays_of(records[0])
    shapes = [(name, a.shape) for name, a in arrays.items()]
    if shapes_hash(shapes) != header.shapes_hash:
        raise TaskError("the train function returned other arrays than it received", next_step=_HOW)
    parts = [
        (a.astype(np.float64) - received[name]).ravel() if kind.difference else a.astype(np.float64).ravel()
        for name, a in sorted(arrays.items())
    ]
    flat = np.concatenate(parts)
    norm = float(np.linalg.norm(flat))
    limit = header.layout.segment(VALUES).high
    if not np.isfinite(norm):
        raise RangeError(VALUES)
    if flat.shape != (header.layout.segment(VALUES).length,):
        raise LocalError("the header's layout does not fit its shapes")
    return (flat * (limit / norm), 1.0) if norm > limit else (flat, 0.0)
