"""A log as `compliance.log.export` wrote it: the files of c2sp.org/tlog-tiles, read when asked for, not verified."""

from collections.abc import Sequence
from pathlib import Path

from fedseal.compliance.log import tree
from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.tiles import WIDTH, Tile, decode_entries, decode_hashes, row
from fedseal.errors import ConfigError, PeerError
from fedseal.merkle import HASH_LENGTH, leaf_hash

# Where a run's folder keeps its exported log.
FOLDER = "log"
CHECKPOINT = "checkpoint"
POLICY = "policy.txt"
_AGAIN = "Ask whoever keeps the log to write it out again: `fedseal audit export`."


class ExportedLog:
    """Reads like `compliance.log.store.Log`.

    Raises:
        ConfigError: the folder has no checkpoint that can be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._note = (folder / CHECKPOINT).read_bytes().decode("utf-8")
            self._checkpoint = read_checkpoint(self._note)[0]
        except (OSError, UnicodeDecodeError, MalformedError):
            raise ConfigError(
                f"no exported log in {folder}: it has no checkpoint that can be read", next_step=_AGAIN
            ) from None
        self.origin = self._checkpoint.origin

    @property
    def size(self) -> int:
        """How many leaves the checkpoint promises."""
        return self._checkpoint.size

    def root(self, size: int | None = None) -> bytes:
        """The Merkle tree hash of the first ``size`` leaves, or of all, computed from the tiles."""
        return tree.root(self._within(self.size if size is None else size), self._hashes)

    def leaf(self, index: int) -> bytes:
        """One leaf; IndexError where there is none."""
        if not 0 <= index < self.size:
            raise IndexError("no such leaf")
        return self.leaves(index, index + 1)[0]

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from ``start`` up to before ``stop``, or up to the last; PeerError if files are damaged."""
        start, stop = max(start, 0), min(stop, self.size)
        found: list[bytes] = []
        for bundle in self._covering(None, self.size, start, stop):
            try:
                entries = decode_entries(self._read(bundle), bundle.width)
            except MalformedError as error:
                raise self._damaged(bundle, error.message) from None
            found += entries[max(start - bundle.start, 0) : stop - bundle.start]
        return found

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Hashes of a tile level: the roots of complete subtrees of 256^level leaves. Fewer where there are."""
        return list(self._hashes(level, start, stop))

    def find(self, digest: bytes) -> int | None:
        """The first index of a leaf with this leaf hash, or None."""
        if len(digest) != HASH_LENGTH:
            return None
        for bundle in row(None, self.size):
            for index, leaf in enumerate(self.leaves(bundle.start, bundle.stop), start=bundle.start):
                if leaf_hash(leaf) == digest:
                    return index
        return None

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from leaf ``index`` to the root of the first ``size`` leaves; IndexError where there is none."""
        return tree.inclusion_path(index, self._within(size), self._hashes)

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of ``new`` leaves begins with that of ``old``; IndexError where there is none."""
        return tree.consistency_proof(old, self._within(new), self._hashes)

    def checkpoint(self, size: int | None = None) -> str | None:
        """The signed checkpoint that was exported, if it is of that size."""
        return self._note if size in (None, self.size) else None

    def checkpoints(self) -> list[tuple[int, str]]:
        """The one there is, with its size."""
        return [(self.size, self._note)]

    def latest_final(self, policy: Policy) -> int | None:
        """The checkpoint's size if it has a quorum."""
        return self.size if evaluate(policy, self._note).final else None

    def _within(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise IndexError("the log is not that long")
        return size

    def _hashes(self, level: int, start: int, stop: int) -> Sequence[bytes]:
        found: list[bytes] = []
        for tile in self._covering(level, self.size // WIDTH**level, start, stop):
            try:
                hashes = decode_hashes(self._read(tile), tile.width)
            except MalformedError as error:
                raise self._damaged(tile, error.message) from None
            found += hashes[max(start - tile.start, 0) : stop - tile.start]
        return found

    def _covering(self, level: int | None, count: int, start: int, stop: int) -> list[Tile]:
        """The tiles of a level of ``count`` places that hold any of those from ``start`` to before ``stop``."""
        last, width = divmod(count, WIDTH)
        stop = min(stop, count)
        if stop <= start:
            return []
        numbers = range(start // WIDTH, (stop - 1) // WIDTH + 1)
        return [Tile(level, number, width if number == last else WIDTH) for number in numbers]

    def _read(self, tile: Tile) -> bytes:
        try:
            return (self._folder / tile.path).read_bytes()
        except OSError:
            raise self._damaged(tile, "is missing") from None

    def _damaged(self, tile: Tile, what: str) -> PeerError:
        return PeerError(f"{tile.path} of the exported log: {what}", peer=self.origin, next_step=_AGAIN)
