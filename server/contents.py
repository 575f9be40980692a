"""What a strategy's messages hold, and arrays as it wants them back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from numpy.typing import NDArray

from fedseal.errors import ConfigError
from fedseal.inputs import task_digest
from fedseal.privacy.releases import EVALUATION, REGISTRY, UPDATE, MessageKind, ReleaseKind
from fedseal.server.exchange import CONTROL

Arrays = dict[str, NDArray[Any]]
# What sites may be told beside the model.
TaskSetting = float | int | str | list[float] | list[str]


def records_digest(task: Mapping[str, ArrayRecord | ConfigRecord]) -> bytes:
    """The digest of what the sites are sent to compute on."""
    arrays = {
        name: {n: a.numpy() for n, a in record.items()}
        for name, record in task.items()
        if isinstance(record, ArrayRecord)
    }
    settings = {name: dict(record) for name, record in task.items() if isinstance(record, ConfigRecord)}
    return task_digest(arrays, settings)


def common_records(messages: list[Message]) -> dict[str, ArrayRecord | ConfigRecord]:
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


def arrays_in(records: Mapping[str, ArrayRecord | ConfigRecord], beside: str | None) -> Arrays:
    """The arrays by name, without those whose names begin with ``beside``."""
    return {
        name: array.numpy()
        for record in records.values()
        if isinstance(record, ArrayRecord)
        for name, array in record.items()
        if beside is None or not name.startswith(beside)
    }


def round_of(records: Mapping[str, ArrayRecord | ConfigRecord]) -> int:
    """Flower's round number, which its strategies put into the config."""
    for record in records.values():
        if isinstance(record, ConfigRecord) and isinstance(number := record.get("server-round"), int):
            return number
    return 0


def learning_rate(records: Mapping[str, ArrayRecord | ConfigRecord]) -> float:
    """The step size that the strategy's messages carry, by which a mean gradient becomes a mean model."""
    for record in records.values():
        if isinstance(record, ConfigRecord) and isinstance(rate := record.get("learning-rate"), int | float):
            return float(rate)
    raise ConfigError(
        "plan 'distributed' sums gradients, and the strategy's config has no 'learning-rate' to step along them",
        next_step="Put it into the train config, or use plan 'client'.",
    )


def moved(received: Arrays, mean: NDArray[np.float64]) -> dict[str, Array]:
    """The received arrays plus the mean difference, each in its own dtype. ``mean`` is used up."""
    start = 0
    for name in sorted(received):
        model = received[name]
        mean[start : start + model.size].reshape(model.shape)[...] += model
        start += model.size
    return filled(received, mean)


def filled(like: Arrays, flat: NDArray[np.float64]) -> dict[str, Array]:
    """A flat vector in the order of names, cut into arrays of the names, order, shapes and dtypes of ``like``."""
    arrays, start = {}, 0
    for name in sorted(like):
        model = like[name]
        part = flat[start : start + model.size].reshape(model.shape)
        start += model.size
        whole = np.issubdtype(model.dtype, np.integer)
        arrays[name] = Array((np.rint(part) if whole else part).astype(model.dtype))
    return {name: arrays[name] for name in like}


def kind_of(messages: list[Message]) -> ReleaseKind:
    """The release that messages of this type carry; ConfigError if there is none."""
    types = {m.metadata.message_type for m in messages}
    if types == {MessageKind.TRAIN.value}:
        return REGISTRY[UPDATE]
    if types == {MessageKind.EVALUATE.value}:
        return REGISTRY[EVALUATION]
    raise ConfigError(
        f"messages of type {', '.join(sorted(types))} cannot be sealed", next_step="Send TRAIN or EVALUATE messages."
    )
