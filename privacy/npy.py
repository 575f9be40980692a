"""Arrays as the bytes of numpy's file format, which is what Flower's arrays carry, without spare copies.

`numpy.save` into a buffer and `numpy.load` from one hold a vector two to three times at once.
"""

import re
from functools import lru_cache
from io import BytesIO
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fedseal.privacy.secagg.masks import RingVector

VERSION_1 = b"\x93NUMPY\x01\x00"
LONGEST_HEAD = 1024
# A plain number's type, and a shape.
_HEAD = re.compile(
    rb"\{'descr': '([<>|][biufc][0-9]{1,2})', 'fortran_order': False, "
    rb"'shape': \(([0-9]{1,15},(?: [0-9]{1,15}(?:, [0-9]{1,15}){0,30})?|)\), \} *\n"
)


def to_npy(vector: RingVector) -> bytes:
    """The bytes that `numpy.save` writes for a contiguous vector, shape (d,)."""
    return b"".join((head_npy(vector.dtype, (len(vector),)), vector.data.cast("B")))


def npy_size(dtype: np.dtype[np.uint32] | np.dtype[np.uint64], length: int) -> int:
    """How many bytes `to_npy` takes for a vector of ``length`` words."""
    return len(head_npy(dtype, (length,))) + length * dtype.itemsize


def from_npy(raw: bytes, dtype: np.dtype[np.uint32] | np.dtype[np.uint64], length: int) -> RingVector | None:
    """The vector behind ``raw``, read-only and in its memory; None if these are not the bytes of `to_npy`."""
    head = head_npy(dtype, (length,))
    if not raw.startswith(head) or len(raw) != len(head) + length * dtype.itemsize:
        return None
    place = len(head)
    return np.frombuffer(raw, "<u4", offset=place) if dtype.itemsize == 4 else np.frombuffer(raw, "<u8", offset=place)


def view_npy(raw: bytes) -> NDArray[Any] | None:
    """The array behind the bytes of `numpy.save`, read-only and in their memory.

    None where only numpy itself can read them: another version, columns before rows, objects, nothing at all.
    """
    if not raw.startswith(VERSION_1):
        return None
    start = 10 + int.from_bytes(raw[8:10], "little")
    form = _form(raw[:start]) if start <= LONGEST_HEAD else None
    if form is None:
        return None
    dtype, shape = form
    count = prod(shape)
    if count == 0 or len(raw) - start != count * dtype.itemsize:
        return None
    return cast(NDArray[Any], np.frombuffer(raw, dtype, offset=start).reshape(shape))


def bytes_npy(array: NDArray[Any]) -> bytes | None:
    """The bytes of `numpy.save`, made with one copy; None where only numpy itself makes them, as for `view_npy`."""
    if array.dtype.hasobject or not array.flags.c_contiguous or not array.size:
        return None
    return b"".join((head_npy(array.dtype, array.shape), array.reshape(-1).view(np.uint8).data))


@lru_cache(maxsize=1024)
def head_npy(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What `numpy.save` writes before the numbers of an array whose rows are together."""
    head = BytesIO()
    form = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, form)
    return head.getvalue()


@lru_cache(maxsize=1024)
def _form(head: bytes) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Type and shape that a header states, if it is written as numpy writes it; ``head`` begins with magic and length.

    numpy itself reads a header as Python, and raises whatever Python's tokenizer does for one that is none.
    """
    found = _HEAD.fullmatch(head[10:])
    if found is None:
        return None
    try:
        dtype = np.dtype(found[1].decode("ascii"))
    except TypeError:
        return None
    shape = tuple(int(size) for size in found[2].split(b",") if size)
    return (dtype, shape) if head_npy(dtype, shape) == head else None
