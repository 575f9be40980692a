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
        # With the number of entries, so that the next record's header cannot be read as one more entry of this one.
        _feed(digest, b"arrays", record.encode(), str(len(arrays[record])).encode())
        for name in sorted(arrays[record]):
            array = np.asarray(arrays[record][name], order="C")
            array = array.astype(array.dtype.newbyteorder("<"), copy=False)
            form = f"{array.dtype.str}:{','.join(map(str, array.shape))}"
            _feed(digest, name.encode(), form.encode(), array.tobytes())
    for record in sorted(settings):
        _feed(digest, b"settings", record.encode(), str(len(settings[record])).encode())
        for name in sorted(settings[record]):
            _feed(digest, name.encode(), _canonical(settings[record][name]))
    return digest.digest()


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
