"""Memory that a process shares with those it forks."""

import mmap
import os
import sys
import tempfile

from fedseal.errors import LocalError

# Grown by doubling from here, so that a run's first rounds settle how large it is.
SMALLEST = 1 << 20


class SharedArea:
    """Bytes that one process writes and the others read.

    A file without a name, mapped where it is needed: whatever becomes of the processes, the system frees it with the
    last of them, so there is nothing to clean up and nothing that can be left behind. Made before a fork, it needs
    no name afterwards either. Nobody waits here: who reads has been told where by who wrote.
    """

    def __init__(self) -> None:
        self._file = _nameless()
        self._map: mmap.mmap | None = None
        self._size = 0
        self._used = 0

    def clear(self) -> None:
        """Begin again at the first byte: nobody will read what was written so far."""
        self._used = 0

    def put(self, data: bytes | memoryview) -> int:
        """Write behind what was written since the last `clear`; the place.

        Raises:
            LocalError: the system has no memory left for it.
        """
        place, end = self._used, self._used + len(data)
        if end > self._size:
            self._grow(end)
        if self._map is not None:
            self._map[place:end] = data
        self._used = end
        return place

    def get(self, place: int, length: int) -> bytes:
        """A copy of what another process wrote."""
        if place + length > self._size or self._map is None:
            self._size = os.fstat(self._file).st_size
            self._map = mmap.mmap(self._file, self._size) if self._size else None
        return b"" if self._map is None else self._map[place : place + length]

    def close(self) -> None:
        """Let go of it in this process."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._map, self._size = -1, None, 0

    def _grow(self, needed: int) -> None:
        size = max(self._size, SMALLEST)
        while size < needed:
            size *= 2
        try:
            # Reserved, not only declared: a page that is missing later would end the process without a word.
            os.posix_fallocate(self._file, 0, size)
            self._map = mmap.mmap(self._file, size)
        except OSError as error:
            raise LocalError(
                f"no shared memory for {size >> 20} MiB ({error.strerror})",
                next_step="Use fewer workers, or one: then nothing is shared.",
            ) from None
        self._size = size


def _nameless() -> int:
    """A descriptor of a file in memory where the system has such files, of a deleted one elsewhere."""
    if sys.platform == "linux":
        return os.memfd_create("fedseal", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # type: ignore[unreachable]
        return os.dup(file.fileno())
