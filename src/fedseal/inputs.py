"""The digest of everything a site is asked to compute on: arrays, the task's settings, and the run's configuration.

Server and site compute it each for itself; it stands in the signed header and so in every key of the round. What is
not in it, a site's app does not get to see: two sites that were asked to compute different things cannot be summed.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Setting: TypeAlias = bool | int | float | str | bytes | Sequence[Any]


def task_digest(
    arrays: Mapping[str, Mapping[str, NDArray[Any]]], settings: Mapping[str, Mapping[str, Setting]]
) -> bytes:
    """SHA-256 over the records of a task, each entry with its name, type and value.

    Arrays count in the order they have: an app may use them by position. Settings are used by name, and a transport
    may reorder them.

    Args:
        arrays: record name -> array name -> array.
        settings: record name -> setting name -> value.

    Raises:
        TypeError: a setting of a type that Flower's records do not have.
    """
    digest = hashlib.sha256(b"fedseal/task/1")
    for record in sorted(arrays):
        # With the number of entries, so that the next record's header cannot be read as one more entry of this one.
        _feed(digest, b"arrays", record.encode(), str(len(arrays[record])).encode())
        for name, value in arrays[record].items():
            array = np.asarray(value, order="C")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            form = f"{array.dtype.str}:{','.join(map(str, array.shape))}"
            _feed(digest, name.encode(), form.encode(), array.tobytes())
    for record in sorted(settings):
        _feed_settings(digest, record, settings[record])
    return digest.digest()


def input_digest(task: bytes, run_config: Mapping[str, Setting]) -> bytes:
    """What the header carries: a task's digest together with the run's configuration."""
    digest = hashlib.sha256(b"fedseal/inputs/1" + task)
    _feed_settings(digest, "run-config", run_config)
    return digest.digest()


def _feed_settings(digest: Any, record: str, settings: Mapping[str, Setting]) -> None:
    _feed(digest, b"settings", record.encode(), str(len(settings)).encode())
    for name in sorted(settings):
        _feed(digest, name.encode(), _canonical(settings[name]))


def _feed(digest: Any, *parts: bytes) -> None:
    """Length-prefixed, so that no two lists of parts hash alike."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)


def _canonical(value: Setting) -> bytes:
    match value:
        case bool():
            return b"b" + bytes([value])
        case int():
            return b"i" + str(value).encode()
        case float():
            return b"f" + struct.pack(">d", value)
        case str():
            return b"s" + value.encode()
        case bytes():
            return b"y" + value
        case list() | tuple():
            parts = [_canonical(v) for v in value]
            return b"l" + b"".join(len(p).to_bytes(8, "big") + p for p in parts)
    raise TypeError(f"a setting of type {type(value).__name__}")
