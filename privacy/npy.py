"""A flat vector as the bytes of numpy's file format, which is what Flower's arrays carry, without spare copies.

`numpy.save` into a buffer and `numpy.load` from one hold a vector two to three times at once.
"""

from io import BytesIO

import numpy as np

from fedseal.privacy.secagg.masks import RingVector


def to_npy(vector: RingVector) -> bytes:
    """The bytes that `numpy.save` writes for a contiguous vector, shape (d,)."""
    return b"".join((_head(vector.dtype, len(vector)), vector.data.cast("B")))


def npy_size(dtype: np.dtype[np.uint32] | np.dtype[np.uint64], length: int) -> int:
    """How many bytes `to_npy` takes for a vector of ``length`` words."""
    return len(_head(dtype, length)) + length * dtype.itemsize


def from_npy(raw: bytes, dtype: np.dtype[np.uint32] | np.dtype[np.uint64], length: int) -> RingVector | None:
    """The vector behind ``raw``, read-only and in its memory; None if these are not the bytes of `to_npy`."""
    head = _head(dtype, length)
    if not raw.startswith(head) or len(raw) != len(head) + length * dtype.itemsize:
        return None
    place = len(head)
    return np.frombuffer(raw, "<u4", offset=place) if dtype.itemsize == 4 else np.frombuffer(raw, "<u8", offset=place)


def _head(dtype: np.dtype[np.uint32] | np.dtype[np.uint64], length: int) -> bytes:
    head = BytesIO()
    shape = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(head, shape)
    return head.getvalue()
