"""Between Flower's records and the messages that pass to the study's process and back.

Arrays are read by their form, from a closed list, and never unpickled; a value's bytes are read by its kind. What does
not fit is a `DecodeError`, whoever sent it.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message
from numpy.typing import NDArray

from fedseal.client.facts import settings_of, task_of
from fedseal.client.isolation.messages import Answered, ArrayPart, Asked, Value
from fedseal.client.records import CONTROL, LIFETIME, views_of
from fedseal.client.release import DONE, DONE_UNCLIPPED, MEMORY
from fedseal.inputs import Setting
from fedseal.wire import DecodeError

FORMS = frozenset(
    {"|b1", "|i1", "|u1", *(f"<{kind}{size}" for kind in "iu" for size in (2, 4, 8)), "<f2", "<f4", "<f8"}
)
MOST_DIMENSIONS = 32
# A whole number of any setting: 2^63 and its sign.
MOST_DIGITS = 20


class Kind(IntEnum):
    """How a value's bytes are to be read."""

    TRUTH = 0
    WHOLE = 1
    REAL = 2
    TEXT = 3
    BYTES = 4


def parts_of(arrays: Mapping[str, NDArray[Any]]) -> tuple[ArrayPart, ...]:
    """Arrays as they pass."""
    return tuple(_part(name, np.asarray(array)) for name, array in arrays.items())


def _part(name: str, array: NDArray[Any]) -> ArrayPart:
    plain = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
    return ArrayPart(name, plain.dtype.str, plain.shape, plain.tobytes())


def arrays_in(parts: Sequence[ArrayPart]) -> dict[str, NDArray[Any]]:
    """Arrays that have passed, read-only; DecodeError if a name comes twice or a form is none."""
    found = {part.name: _array(part) for part in parts}
    if len(found) != len(parts):
        raise DecodeError("an array that comes twice")
    return found


def _array(part: ArrayPart) -> NDArray[Any]:
    if part.form not in FORMS or len(part.shape) > MOST_DIMENSIONS:
        raise DecodeError("an array of a form that is not in the closed list")
    dtype = np.dtype(part.form)
    if math.prod(part.shape) * dtype.itemsize != len(part.data):
        raise DecodeError("an array whose bytes do not fit its shape")
    try:
        return np.frombuffer(part.data, dtype=dtype).reshape(part.shape)
    except ValueError:
        # Nothing, in dimensions that numpy cannot count.
        raise DecodeError("an array of a shape that cannot be") from None


def values_of(record: Mapping[str, Any]) -> tuple[Value, ...]:
    """Settings, facts or metrics as they pass."""
    found = []
    for name, value in record.items():
        listed = isinstance(value, list | tuple)
        items = list(value) if listed else [value]
        kind = _kind(items[0]) if items else Kind.WHOLE
        found.append(Value(name, int(kind), listed, tuple(_written(kind, item) for item in items)))
    return tuple(found)


def settings_in(values: Sequence[Value]) -> dict[str, Setting]:
    """Values that have passed; DecodeError if a name comes twice or bytes are not of their kind."""
    found = {value.name: _read(value) for value in values}
    if len(found) != len(values):
        raise DecodeError("a value that comes twice")
    return found


def _kind(item: object) -> Kind:
    match item:
        case bool():
            return Kind.TRUTH
        case int():
            return Kind.WHOLE
        case float():
            return Kind.REAL
        case str():
            return Kind.TEXT
        case bytes():
            return Kind.BYTES
    raise DecodeError(f"a value of type {type(item).__name__}, which no record has")


def _written(kind: Kind, item: Any) -> bytes:
    if _kind(item) is not kind:
        raise DecodeError("a list of values of several types, which no record has")
    match kind:
        case Kind.TRUTH:
            return bytes([item])
        case Kind.WHOLE:
            return str(item).encode("ascii")
        case Kind.REAL:
            return struct.pack(">d", item)
        case Kind.TEXT:
            return bytes(item.encode("utf-8"))
        case Kind.BYTES:
            return bytes(item)


def _read(value: Value) -> Setting:
    if value.kind not in tuple(Kind) or (not value.listed and len(value.items) != 1):
        raise DecodeError("a value of a kind that is not in the closed list")
    items = [_item(Kind(value.kind), raw) for raw in value.items]
    return items if value.listed else items[0]


def _item(kind: Kind, raw: bytes) -> bool | int | float | str | bytes:
    match kind:
        case Kind.TRUTH if raw in (b"\x00", b"\x01"):
            return raw == b"\x01"
        case Kind.WHOLE if len(raw) <= MOST_DIGITS and raw.removeprefix(b"-").isdigit():
            return int(raw)
        case Kind.REAL if len(raw) == 8:
            number: float = struct.unpack(">d", raw)[0]
            return number
        case Kind.TEXT:
            try:
                return raw.decode("utf-8")
            except UnicodeDecodeError:
                raise DecodeError("a text that is not UTF-8") from None
        case Kind.BYTES:
            return raw
    raise DecodeError("a value whose bytes are not of its kind")


def asked_of(message: Message, memory: bytes | None) -> Asked:
    """A request as it passes."""
    arrays_name, settings_name = None, None
    arrays: tuple[ArrayPart, ...] = ()
    for name, record in task_of(message).items():
        if isinstance(record, ArrayRecord):
            arrays_name, arrays = name, parts_of(views_of(record))
        else:
            settings_name = name
    return Asked(
        message.metadata.group_id,
        values_of(message.content.config_records[CONTROL]),
        arrays_name,
        arrays,
        settings_name,
        values_of(settings_of(message)),
        memory,
    )


def message_of(asked: Asked) -> Message:
    """A request that has passed, as `records.for_the_app` makes it."""
    content = RecordDict({CONTROL: ConfigRecord(dict(settings_in(asked.facts)))})  # type: ignore[arg-type]
    records: dict[str, ArrayRecord | ConfigRecord] = {}
    if asked.arrays_name is not None:
        records[asked.arrays_name] = array_record(arrays_in(asked.arrays))
    if asked.settings_name is not None:
        records[asked.settings_name] = ConfigRecord(dict(settings_in(asked.settings)))  # type: ignore[arg-type]
    for name in sorted(records):
        content[name] = records[name]
    metadata = Metadata(
        run_id=0,
        message_id="",
        src_node_id=0,
        dst_node_id=0,
        reply_to_message_id="",
        group_id=asked.group,
        created_at=0.0,
        ttl=LIFETIME,
        message_type="train",
    )
    return make_message(metadata=metadata, content=content)


def array_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Arrays as Flower carries them."""
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def answered_by(reply: Message) -> Answered:
    """What the app's function returned, as it passes."""
    content = reply.content
    arrays = {name: a for record in content.array_records.values() for name, a in views_of(record).items()}
    metrics = [values_of(record) for record in content.metric_records.values()]
    made = content.config_records.get(DONE)
    kept = list((content.config_records.get(MEMORY) or ConfigRecord()).values())
    unclipped = None if made is None else made.get(DONE_UNCLIPPED)
    return Answered(
        parts_of(arrays),
        metrics[0] if metrics else None,
        # A negative zero is none.
        float(unclipped) + 0.0 if isinstance(unclipped, float) else None,
        made is not None,
        kept[0] if kept and isinstance(kept[0], bytes) else None,
        None,
    )


def metric_record(values: Sequence[Value]) -> MetricRecord:
    """Metrics that have passed: numbers and lists of them; DecodeError if there is anything else."""
    if any(value.kind not in (Kind.WHOLE, Kind.REAL) for value in values):
        raise DecodeError("a metric that is no number")
    return MetricRecord(dict(settings_in(values)))  # type: ignore[arg-type]
