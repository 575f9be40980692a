"""Whether what a log's database holds belongs together: everything is computed anew from the leaves."""

from fedseal.compliance.log.checkpoint import Checkpoint, read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.store import DAMAGED, Log
from fedseal.compliance.log.tiles import WIDTH
from fedseal.compliance.log.tree import EMPTY
from fedseal.errors import LocalError
from fedseal.merkle import leaf_hash

STEP = 16 * WIDTH


def check_log(log: Log) -> Checkpoint:
    """Read every leaf, compare the stored hashes, the head and every checkpoint with them; return the log's state.

    It says nothing about a history that was rewritten as a whole: the log's witnesses do.

    Raises:
        LocalError: something was damaged, or changed from outside.
    """
    size, frontier = log.size, EMPTY
    promised = dict(map(_promise, log.checkpoints()))
    stops = sorted({*range(STEP, size, STEP), *(n for n in promised if 0 < n <= size), size} - {0})
    start, counts = 0, [0]
    for stop in stops:
        frontier, levels = frontier.extend([leaf_hash(leaf) for leaf in log.leaves(start, stop)])
        for level, gained in enumerate(levels):
            if level == len(counts):
                counts.append(0)
            place = counts[level]
            counts[level] += len(gained)
            if gained and log.hashes(level, place, counts[level]) != gained:
                raise LocalError("stored hashes are not those of the leaves", next_step=DAMAGED)
        start = stop
        if stop in promised and promised.pop(stop) != Checkpoint(log.origin, stop, frontier.root):
            raise LocalError("a checkpoint is not that of the leaves", next_step=DAMAGED)
    if promised.pop(0, None) not in (None, Checkpoint(log.origin, 0, EMPTY.root)) or promised:
        raise LocalError("a checkpoint is not that of the leaves", next_step=DAMAGED)
    if log.root() != frontier.root:
        raise LocalError("the log's root is not that of the leaves", next_step=DAMAGED)
    return Checkpoint(log.origin, size, frontier.root)


def _promise(kept: tuple[int, str]) -> tuple[int, Checkpoint]:
    size, note = kept
    try:
        return size, read_checkpoint(note)[0]
    except MalformedError:
        raise LocalError("a stored checkpoint cannot be read", next_step=DAMAGED) from None
