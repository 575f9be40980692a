"""How long `fedseal-verify log` takes, beside the bare SHA-256 of the same leaves.

The log is made here with honest events of a few authors, written as an export of its own, and verified three ways: the
tree alone (`--no-events`), without the authors' signatures, and whole. Both sides of every ratio alternate in one run.
Peak memory is that of a process of its own (VmHWM; Linux only).
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from support import exported

from fedseal_verify import tiles
from fedseal_verify.audit import Depth, verify_log
from fedseal_verify.merkle import TILE_WIDTH, Tile, TileTree, leaf_hashes
from fedseal_verify.policy import parse_policy

MODES = {"tree": Depth(events=False), "no signatures": Depth(signatures=False), "whole": Depth()}


def write_tile(directory: Path, tile: Tile) -> None:
    """One hash tile of the export."""
    exported.write_file(directory, tiles.tile_path(tile.level, tile.index, len(tile.hashes)), b"".join(tile.hashes))


def make_log(directory: Path, size: int) -> int:
    """An honest export of ``size`` entries, written as they are made; returns the mean length of a leaf in bytes."""
    tree, book, total, last = TileTree(), exported.Book(), 0, list[bytes]()
    for start in range(0, size, TILE_WIDTH):
        book.leaves.clear()
        for index in range(start, min(size, start + TILE_WIDTH)):
            total += len(book.add((exported.LOG, *exported.SITES)[index % 4]))
        name = tiles.tile_path(tiles.ENTRIES, start // TILE_WIDTH, len(book.leaves))
        exported.write_file(directory, name, b"".join(len(each).to_bytes(2, "big") + each for each in book.leaves))
        hashes = leaf_hashes(book.leaves)
        if len(hashes) < TILE_WIDTH:
            last = hashes
            break
        for tile in tree.append(hashes):
            write_tile(directory, tile)
    for tile in tree.partial(last):
        write_tile(directory, tile)
    (directory / "checkpoint").write_text(exported.note(size, tree.root(last)), encoding="utf-8")
    (directory / "policy.txt").write_text(exported.policy(), encoding="utf-8")
    return total // size


def bare(directory: Path, size: int) -> None:
    """Read every entry and hash it: what no verifier can do without."""
    for _, leaves in tiles.bundles(directory, size):
        for leaf in leaves:
            hashlib.sha256(leaf).digest()


def verify(directory: Path, mode: str) -> None:
    """One verification, which has to hold."""
    policy = parse_policy((directory / "policy.txt").read_bytes())
    report = verify_log(directory, policy, [], MODES[mode])
    if report.exit:
        raise SystemExit(report.text())


def seconds(run: Callable[[], None]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak(directory: Path, option: str) -> int:
    """Resident memory of the command at most, in MiB."""
    code = (
        "import sys; from fedseal_verify.cli import main\n"
        f"main(['log', {str(directory)!r}, {option!r}])\n"
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')][0], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    return int(done.stderr) // 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=5, help="of the tree; the rest runs once, on --events entries")
    parser.add_argument("--events", type=int, default=50_000, help="entries of the log whose events are checked too")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        large, small = Path(folder, "large"), Path(folder, "small")
        result["leaf bytes"] = make_log(large, options.entries)
        make_log(small, options.events)
        pairs = [
            (seconds(lambda: verify(large, "tree")), seconds(lambda: bare(large, options.entries)))
            for _ in range(options.repeat)
        ]
        result["entries"] = options.entries
        result["tree, median s"] = statistics.median(ours for ours, _ in pairs)
        result["tree, best s"] = min(ours for ours, _ in pairs)
        result["bare hashing, median s"] = statistics.median(other for _, other in pairs)
        result["tree / bare hashing, median"] = statistics.median(ours / other for ours, other in pairs)
        for mode in ("no signatures", "whole"):
            taken = seconds(lambda mode=mode: verify(small, mode))  # type: ignore[misc]
            result[f"{mode}, microseconds an entry"] = taken / options.events * 1e6
        result["peak MiB, large"] = peak(large, "--no-events")
        result["peak MiB, small"] = peak(small, "--no-events")
    text = json.dumps(result, indent=2)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
