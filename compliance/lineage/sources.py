"""Where a lineage is read from: a log in a database, or one that was exported as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fedseal.compliance.log import tree
from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.proof import Proof
from fedseal.compliance.log.tiles import WIDTH, Tile, decode_entries, decode_hashes, row
from fedseal.errors import ConfigError, DataError

_AGAIN = "Export the log again: `fedseal audit export`."


class Source(Protocol):
    """A log that can be read. `compliance.log.store.Log` is one."""

    origin: str

    @property
    def size(self) -> int:
        """How many leaves it has."""

    def root(self, size: int) -> bytes:
        """The Merkle tree hash of the first ``size`` leaves; IndexError if there are fewer."""

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from ``start`` up to before ``stop``, or up to the last."""

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from a leaf to the root of the first ``size`` leaves."""

    def checkpoint(self, size: int | None = None) -> str | None:
        """The newest signed checkpoint, or that of a size."""


class ExportedLog:
    """A log as `compliance.log.export` wrote it. Its tiles are read when asked for, and not verified.

    Raises:
        ConfigError: the folder holds no checkpoint that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._note = (folder / "checkpoint").read_text(encoding="utf-8")
            self._checkpoint = read_checkpoint(self._note)[0]
        except (OSError, UnicodeDecodeError, MalformedError):
            raise ConfigError(
                f"no exported log at {folder}: no checkpoint that can be read", next_step=_AGAIN
            ) from None
        self.origin = self._checkpoint.origin

    @property
    def size(self) -> int:
        """As the checkpoint says."""
        return self._checkpoint.size

    def root(self, size: int) -> bytes:
        """The Merkle tree hash of the first ``size`` leaves.

        Raises:
            IndexError: there are fewer.
            DataError: tiles are missing.
        """
        if size == self.size:
            return self._checkpoint.root
        if not 0 <= size < self.size:
            raise IndexError("the log is not that long")
        return tree.root(size, self._hashes)

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from ``start`` up to before ``stop``, or up to the last; DataError if bundles are missing."""
        stop = min(stop, self.size)
        found: list[bytes] = []
        for bundle in row(None, self.size):
            if bundle.start < stop and bundle.stop > start:
                entries = decode_entries(self._read(bundle), bundle.width)
                found += entries[max(start - bundle.start, 0) : stop - bundle.start]
        return found

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from a leaf to the root of the first ``size`` leaves; IndexError where there is none."""
        if size > self.size:
            raise IndexError("the log is not that long")
        return tree.inclusion_path(index, size, self._hashes)

    def checkpoint(self, size: int | None = None) -> str | None:
        """The signed checkpoint that was exported."""
        return self._note if size in (None, self.size) else None

    def _hashes(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        found: list[bytes] = []
        for tile in row(level, self.size // WIDTH**level):
            if tile.start < stop and tile.stop > start:
                hashes = decode_hashes(self._read(tile), tile.width)
                found += hashes[max(start - tile.start, 0) : stop - tile.start]
        return found

    def _read(self, tile: Tile) -> bytes:
        try:
            return (self._folder / tile.path).read_bytes()
        except OSError:
            raise DataError(f"the exported log lacks {tile.path}", next_step=_AGAIN) from None


def prove(source: Source, index: int) -> Proof:
    """The proof that an entry stands in the log, by its newest checkpoint.

    Raises:
        ConfigError: no checkpoint covers it yet.
    """
    note = source.checkpoint()
    size = 0 if note is None else read_checkpoint(note)[0].size
    if note is None or index >= size:
        raise ConfigError(
            f"no checkpoint covers entry {index} yet",
            next_step="Wait for the next checkpoint, or ask the server's log.",
        )
    return Proof(index, source.inclusion(index, size), note)
