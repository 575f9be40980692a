"""Between Flower's records and ours.

What leaves a site is built here and nowhere else: control bytes, and one flat integer array.
"""

import copy
import time
from collections.abc import Mapping
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from numpy.typing import NDArray

from fedseal.errors import PeerError
from fedseal.inputs import task_digest
from fedseal.privacy.counts import Tables, read_tables
from fedseal.privacy.npy import to_npy, view_npy
from fedseal.privacy.releases import VALUES
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.watch import Watch, read_watch

CONTROL = "fedseal"
# Seconds; nothing of ours waits on it.
LIFETIME = 3600.0
BYTES = "message"
VECTOR = "vector"
LOG = "log"
# The setting of a release of counts that says what is counted.
TABLES = "tables"
# Of a window of new persons: what is watched, and which window it is.
WATCH = "watch"
WINDOW = "window"


def control_bytes(message: Message) -> bytes:
    """The control bytes of a request; PeerError if it has none: an unsealed message."""
    record = message.content.get(CONTROL)
    raw = record.get(BYTES) if isinstance(record, ConfigRecord) else None
    if not isinstance(raw, bytes):
        raise PeerError("a message without fedseal's control record", peer="server")
    return raw


def log_bytes(message: Message) -> bytes | None:
    """What a request shows of the federation's log, if it does."""
    record = message.content.get(CONTROL)
    raw = record.get(LOG) if isinstance(record, ConfigRecord) else None
    return raw if isinstance(raw, bytes) else None


def sealed_reply(
    message: Message, control: bytes, vector: RingVector | None = None, log: bytes | None = None
) -> Message:
    """The one form of everything that leaves a site."""
    record = ConfigRecord({BYTES: control} if log is None else {BYTES: control, LOG: log})
    content = RecordDict({CONTROL: record})
    if vector is not None:
        content[VECTOR] = ArrayRecord({VECTOR: vector_array(vector)})
    return Message(content, reply_to=message)


def vector_array(vector: RingVector) -> Array:
    """What Flower's ``Array(vector)`` is, made with one copy of the vector."""
    return Array(vector.dtype.name, vector.shape, "numpy.ndarray", to_npy(vector))


def arrays_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """An ArrayRecord as numpy arrays, in its order; PeerError if the bytes of one are none."""
    return {name: _read(array) for name, array in record.items()}


def views_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """As `arrays_of`, to be read only: where the record keeps them.

    Raises:
        PeerError: an array's bytes are none that numpy reads.
    """
    views = {name: view_npy(array.data) for name, array in record.items() if array.stype == "numpy.ndarray"}
    return {name: _read(array) if (view := views.get(name)) is None else view for name, array in record.items()}


def _read(array: Array) -> NDArray[Any]:
    """An array as numpy reads it, whose reader raises what Python's tokenizer, its parser and zip files do."""
    try:
        return array.numpy()
    except (ArithmeticError, EOFError, LookupError, MemoryError, OSError, SyntaxError, TypeError, ValueError):
        raise PeerError("an array that cannot be read", peer="server") from None
    except (TokenError, BadZipFile, NotImplementedError):
        raise PeerError("an array that cannot be read", peer="server") from None


def task_records(message: Message) -> dict[str, ArrayRecord | ConfigRecord]:
    """The task beside the control record: at most one record of arrays and one of settings.

    Raises:
        PeerError: there is more. An app that takes the first of several could be sent different firsts.
    """
    records = {name: record for name, record in message.content.items() if name != CONTROL}
    if any(name.startswith(CONTROL) for name in records):
        raise PeerError("a task with a record under one of fedseal's own names", peer="server")
    arrays = [r for r in records.values() if isinstance(r, ArrayRecord)]
    settings = [r for r in records.values() if isinstance(r, ConfigRecord)]
    if len(arrays) > 1 or len(settings) > 1 or len(arrays) + len(settings) != len(records):
        raise PeerError("a task with more than one record of arrays and one of settings", peer="server")
    return {name: r for name, r in records.items() if isinstance(r, ArrayRecord | ConfigRecord)}


def tables_in(records: Mapping[str, ArrayRecord | ConfigRecord]) -> Tables:
    """The tables of counts that a task asks for; PeerError if there are none of the closed list."""
    settings = [record for record in records.values() if isinstance(record, ConfigRecord)]
    return read_tables(settings[0].get(TABLES) if settings else None)


def watch_in(records: Mapping[str, ArrayRecord | ConfigRecord]) -> Watch:
    """The watch that a task asks for; PeerError if there is none of the closed list."""
    settings = [record for record in records.values() if isinstance(record, ConfigRecord)]
    return read_watch(settings[0].get(WATCH) if settings else None)


def received_digest(records: dict[str, ArrayRecord | ConfigRecord]) -> bytes:
    """The digest of a received task."""
    arrays = {name: arrays_of(record) for name, record in records.items() if isinstance(record, ArrayRecord)}
    settings = {name: dict(record) for name, record in records.items() if isinstance(record, ConfigRecord)}
    return task_digest(arrays, settings)


def for_the_app(message: Message, header: Header, records: dict[str, ArrayRecord | ConfigRecord]) -> Message:
    """The request as the app's own function gets it: the task in one fixed order, and the facts of the signed header.

    Nothing else that a server could vary from site to site reaches the app: settings are sorted, Flower's group id is
    the header's round.
    """
    facts = ConfigRecord(
        {
            "run": header.run,
            "release": header.release_name,
            "sequence": header.release_seq,
            "attempt": header.attempt,
            "plan": header.plan,
            "ranges": [segment.high for segment in header.layout.segments if segment.name == VALUES],
        }
    )
    content = RecordDict({CONTROL: facts})
    for name in sorted(records):
        record = records[name]
        if isinstance(record, ConfigRecord):
            content[name] = ConfigRecord(dict(sorted(record.items())))
        else:
            content[name] = ArrayRecord({n: Array(_plain(a)) for n, a in views_of(record).items()})
    came = message.metadata
    metadata = Metadata(
        run_id=came.run_id,
        message_id="",
        src_node_id=came.src_node_id,
        dst_node_id=came.dst_node_id,
        reply_to_message_id="",
        group_id=str(header.fl_round),
        created_at=time.time(),
        ttl=LIFETIME,
        message_type=came.message_type,
    )
    return make_message(metadata=metadata, content=content)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in row order and little-endian."""
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def without_run_config(context: Context) -> Context:
    """The context for an app whose run configuration is not bound into the round: it sees none."""
    bare = copy.copy(context)
    bare.run_config = {}
    return bare
