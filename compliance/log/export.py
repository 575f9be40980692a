"""A log as the files that C2SP's other programs read (c2sp.org/tlog-tiles)."""

from collections.abc import Iterator
from pathlib import Path

from fedseal.compliance.log.checkpoint import read_checkpoint
from fedseal.compliance.log.quorum import Policy, format_policy
from fedseal.compliance.log.reading import ReadableLog
from fedseal.compliance.log.tiles import bundles_of, encode_entries, encode_hashes, tiles_of
from fedseal.errors import LocalError


def export(log: ReadableLog, directory: Path, policy: Policy | None = None) -> int:
    """Write the log up to its newest checkpoint, and return how many leaves that are.

    ``checkpoint``, ``tile/<level>/...``, ``tile/entries/...``, and ``policy.txt`` where a policy is given. The
    checkpoint comes last, so that whoever reads meanwhile finds what it promises. Files of an earlier export are
    written again.

    Raises:
        LocalError: there is no checkpoint, or the stored hashes are incomplete.
    """
    size, contents = files(log, policy)
    for path, content in contents:
        _write(directory / path, content)
    return size


def files(log: ReadableLog, policy: Policy | None = None) -> tuple[int, Iterator[tuple[str, bytes]]]:
    """How many leaves an export has, and its files one by one: path and content, the checkpoint last.

    Raises:
        LocalError: there is no checkpoint; while files are read, the stored hashes are incomplete.
    """
    note = log.checkpoint()
    if note is None:
        raise LocalError("a log without a checkpoint cannot be exported", next_step="Sign a checkpoint first.")
    size = read_checkpoint(note)[0].size
    return size, _contents(log, size, note, policy)


def _contents(log: ReadableLog, size: int, note: str, policy: Policy | None) -> Iterator[tuple[str, bytes]]:
    for tile in tiles_of(size):
        hashes = log.hashes(tile.level or 0, tile.start, tile.stop)
        if len(hashes) != tile.width:
            raise LocalError("the log's stored hashes are incomplete", next_step="Restore the log from a mirror.")
        yield tile.path, encode_hashes(hashes)
    for bundle in bundles_of(size):
        yield bundle.path, encode_entries(log.leaves(bundle.start, bundle.stop))
    if policy is not None:
        yield "policy.txt", format_policy(policy).encode("utf-8", "surrogateescape")
    yield "checkpoint", note.encode("utf-8")


def _write(path: Path, content: bytes) -> None:
    """Whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    partial.replace(path)
