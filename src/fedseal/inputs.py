"""The digest of everything a site is asked to compute on: the model's arrays and the task's settings.

Server and site compute it each for itself; it stands in the signed header and so in every key of the round.
"""

import hashlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Setting: TypeAlias = bool | int | float | str | bytes | Sequence[Any]


def input_digest(
    arrays: Mapping[str, Mapping[str, NDArray[Any]]], settings: Mapping[str, Mapping[str, Setting]]
) -> bytes:
    """SHA-256 over all records, in the order of their names, each entry with its name, type and value.

    Args:
        arrays: record name -> array name -> array.
        settings: record name -> setting name -> value.

    Raises:
        TypeError: a setting of a type that Flower's records do not have.
    """
    digest = hashlib.sha256(b"fedseal/inputs/1")
    for record in sorted(arrays):
        _feed(digest, b"arrays", record.encode())
        for name in sorted(arrays[record]):
            array = np.ascontiguousarray(arrays[record][name])
            form = f"{array.dtype.newbyteorder('<').str}:{','.join(map(str, array.shape))}"
            _feed(digest, name.encode(), form.encode(), array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    for record in sorted(settings):
        _feed(digest, b"settings", record.encode())
        for name in sorted(settings[record]):
            _feed(digest, name.encode(), _canonical(settings[record][name]))
    return digest.digest()


def _feed(digest: Any, *parts: bytes | memoryview) -> None:
    """Length-prefixed, so that no two lists of parts hash alike."""
    for part in parts:
        raw = memoryview(part)
        digest.update(raw.nbytes.to_bytes(8, "big"))
        digest.update(raw)


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
