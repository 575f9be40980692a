"""What a log offers whoever only reads it, wherever it is kept."""

from typing import Protocol

from fedseal.compliance.log.quorum import Policy


class ReadableLog(Protocol):
    """A log that can be read: `Log` of `compliance.log.store`, or `ExportedLog`."""

    origin: str

    @property
    def size(self) -> int:
        """How many leaves it has."""

    def root(self, size: int | None = None) -> bytes:
        """The Merkle tree hash of the first ``size`` leaves, or of all; IndexError if there are fewer."""

    def leaf(self, index: int) -> bytes:
        """One leaf; IndexError where there is none."""

    def leaves(self, start: int, stop: int) -> list[bytes]:
        """The leaves from ``start`` up to before ``stop``, or up to the last."""

    def hashes(self, level: int, start: int, stop: int) -> list[bytes]:
        """Stored hashes of a tile level."""

    def find(self, digest: bytes) -> int | None:
        """The first index of a leaf with this leaf hash, or None."""

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        """The path from a leaf to the root of the first ``size`` leaves."""

    def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        """The proof that the tree of ``new`` leaves begins with that of ``old``."""

    def checkpoint(self, size: int | None = None) -> str | None:
        """The newest signed checkpoint, or that of a size, with its cosignatures."""

    def checkpoints(self) -> list[tuple[int, str]]:
        """Every checkpoint kept, with its size, oldest first."""

    def latest_final(self, policy: Policy) -> int | None:
        """The largest size whose checkpoint has a quorum."""
