"""Verify an exported log: every entry and tile, the root, who signed it, and every event."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fedseal_verify import events, merkle, note, tiles
from fedseal_verify.errors import MalformedError, UnreadableError
from fedseal_verify.merkle import HASH_LENGTH, TILE_WIDTH, Tile, TileTree
from fedseal_verify.note import Checkpoint
from fedseal_verify.policy import Author, Policy
from fedseal_verify.report import Check, Exit, Report

_YEAR_9999 = 253402300799


@dataclass(frozen=True)
class Depth:
    """How far to look. Without ``events`` only the tree is checked; without ``signatures`` all but the authors'.

    ``since``: Unix seconds; a quorum must have cosigned then or later.
    """

    events: bool = True
    signatures: bool = True
    since: int | None = None


@dataclass(frozen=True)
class Earlier:
    """A checkpoint the auditor kept, and what to call it."""

    name: str
    checkpoint: Checkpoint


def verify_log(directory: Path, policy: Policy, earlier: Sequence[Earlier], depth: Depth) -> Report:
    """Check an export against a policy and against checkpoints seen earlier.

    Entries are read a bundle at a time; memory does not grow with the log.
    """
    report = Report("log")
    try:
        data = tiles.read_file(directory / "checkpoint", note.MAX_NOTE_BYTES)
        checkpoint = note.parse_checkpoint(data)
    except (MalformedError, UnreadableError) as error:
        report.add(Check.CHECKPOINT, "checkpoint", str(error))
        report.skipped.append((Check.ENTRIES, "there is no checkpoint that says how many there are"))
        return report
    describe(report, checkpoint)
    times = check_signatures(report, checkpoint, policy)
    if depth.since is not None:
        check_fresh(report, policy, times, depth.since)
    check_beyond(report, directory, checkpoint.size)
    walk = _Walk(report, directory, checkpoint, policy.authors(), earlier, depth)
    if walk.run():
        walk.check_root()
        walk.check_partial_tiles()
    walk.finish()
    return report


def describe(report: Report, checkpoint: Checkpoint) -> None:
    """Say which log and which state of it a report is about."""
    report.facts.append(("log", checkpoint.origin))
    report.facts.append(("checkpoint", f"{checkpoint.size} entries, root {checkpoint.root.hex()}"))


def check_signatures(report: Report, checkpoint: Checkpoint, policy: Policy) -> dict[str, int]:
    """The log's signature, every known witness's cosignature, and the quorum.

    Returns when each witness says it cosigned (Unix seconds).
    """
    report.checked += [Check.LOG_SIGNATURE, Check.COSIGNATURE, Check.QUORUM]
    keys = policy.keys_of(checkpoint.origin)
    if not keys:
        report.add(Check.LOG_SIGNATURE, "checkpoint", f"the policy knows no log {checkpoint.origin}")
    elif not note.log_signature_holds(checkpoint, keys):
        ids = " or ".join(key.key_id.hex() for key in keys)
        report.add(Check.LOG_SIGNATURE, "checkpoint", f"no valid signature of the log {checkpoint.origin} (key {ids})")
    times = check_cosignatures(report, checkpoint, policy)
    if times:
        span = f"between {utc(min(times.values()))} and {utc(max(times.values()))}"
        report.facts.append(("cosigned", f"{span}, say the witnesses"))
    unknown = note.strangers(checkpoint, [*keys, *policy.witnesses.values()])
    if unknown:
        report.remarks.append(f"{unknown} signature line(s) of keys the policy does not know were left aside")
    report.remarks += policy.remarks()
    return times


def utc(time: int) -> str:
    """Unix seconds as a date."""
    return f"{datetime.fromtimestamp(min(time, _YEAR_9999), UTC):%Y-%m-%dT%H:%M:%SZ}"


def check_fresh(report: Report, policy: Policy, times: dict[str, int], since: int) -> None:
    """A quorum cosigned at ``since`` or later; otherwise this may be an old state of the log, however honest."""
    report.checked.append(Check.FRESH)
    late = [name for name, time in times.items() if time >= since]
    if not policy.satisfied(set(late)):
        message = f"stale: no quorum since {utc(since)}; cosigned since then: {', '.join(late) or 'none'}"
        report.add(Check.FRESH, "checkpoint", message, Exit.STALE)


def check_cosignatures(report: Report, checkpoint: Checkpoint, policy: Policy) -> dict[str, int]:
    """Verify the witnesses' lines, ask for the quorum, and return the times they claim (Unix seconds)."""
    times: dict[str, int] = {}
    for name, key in policy.witnesses.items():
        try:
            time = note.cosigned_at(checkpoint, key)
        except MalformedError as error:
            report.add(Check.COSIGNATURE, "checkpoint", f"the cosignature of {name} (key {key.key_id.hex()}): {error}")
        else:
            if time is not None:
                times[name] = time
    missing = [name for name in policy.witnesses if name not in times]
    report.facts.append(("witnesses", f"cosigned: {', '.join(times) or 'none'}; not: {', '.join(missing) or 'none'}"))
    if not quorum_holds(policy, set(times)):
        without = f"{len(times)} of {len(policy.witnesses)} witnesses cosigned; without: {', '.join(missing) or 'none'}"
        report.add(Check.QUORUM, "checkpoint", f"quorum {policy.quorum} is not reached: {without}", Exit.NO_QUORUM)
    return times


def quorum_holds(policy: Policy, cosigned: set[str]) -> bool:
    """Whether enough witnesses cosigned."""
    return policy.satisfied(cosigned)


def check_beyond(report: Report, directory: Path, size: int) -> None:
    """Entries after the last one the checkpoint counts: an older checkpoint was put back, or the export is torn."""
    name = tiles.entries_beyond(directory, size)
    if name:
        message = f"{name} holds entries that the checkpoint of {size} does not count"
        report.add(Check.HISTORY, "checkpoint", message, Exit.STALE)


class _Walk:
    """One pass over the entries in order."""

    def __init__(
        self,
        report: Report,
        directory: Path,
        checkpoint: Checkpoint,
        authors: dict[str, Author],
        earlier: Sequence[Earlier],
        depth: Depth,
    ) -> None:
        self._report = report
        self._directory = directory
        self._checkpoint = checkpoint
        self._authors = authors
        self._earlier = sorted(earlier, key=lambda each: each.checkpoint.size)
        self._depth = depth
        self._tree = TileTree()
        self._last: list[bytes] = []
        self._chains = events.Chains()
        self._next = 0
        self._compared = any(each.checkpoint.size > checkpoint.size for each in earlier)

    def run(self) -> bool:
        """Read all entries; False when the export breaks off before the last one."""
        self._report.checked += [Check.ENTRIES, Check.TILES]
        try:
            self._meet_earlier([])
            for first, leaves in tiles.bundles(self._directory, self._checkpoint.size):
                self._take(first, leaves)
        except (MalformedError, UnreadableError) as error:
            where = f"entry {self._next}"
            self._report.add(Check.ENTRIES, where, f"{error}; from there on no entry was checked, nor the root")
            return False
        return True

    def _take(self, first: int, leaves: list[bytes]) -> None:
        hashes = merkle.leaf_hashes(leaves)
        self._next = first
        self._meet_earlier(hashes)
        if self._depth.events:
            for index, leaf in enumerate(leaves, start=first):
                self._check_event(index, leaf)
        if len(hashes) == TILE_WIDTH:
            for tile in self._tree.append(hashes):
                compare_tile(self._report, self._directory, tile)
        else:
            self._last = hashes
        self._next = first + len(leaves)

    def _meet_earlier(self, hashes: list[bytes]) -> None:
        """Compare with the earlier checkpoints whose size lies in the entries at hand."""
        while self._earlier and self._earlier[0].checkpoint.size <= self._next + len(hashes):
            kept = self._earlier.pop(0)
            root = self._tree.root(hashes[: kept.checkpoint.size - self._next])
            check_history(self._report, kept, root)
            self._compared = True

    def _check_event(self, index: int, leaf: bytes) -> None:
        try:
            event = events.read_event(leaf)
        except MalformedError as error:
            self._report.add(Check.FORM, f"entry {index}", str(error))
            return
        check_author(self._report, f"entry {index}", event, self._authors, self._depth.signatures)
        author = self._authors.get(event.key_id)
        gap = self._chains.follow(index, event) if author else None
        if author and gap:
            self._report.add(Check.CHAIN, f"entry {index} ({event.type} of {author.name})", gap)

    def check_root(self) -> None:
        """The entries hash to what was signed."""
        self._report.checked.append(Check.ROOT)
        check_root(self._report, self._checkpoint, self._tree.root(self._last))

    def check_partial_tiles(self) -> None:
        """The tiles at the right edge."""
        for tile in self._tree.partial(self._last):
            compare_tile(self._report, self._directory, tile)

    def finish(self) -> None:
        """Say what was and what was not looked at."""
        if self._compared:
            self._report.checked.append(Check.HISTORY)
        else:
            self._report.skipped.append((Check.HISTORY, "no earlier checkpoint was compared; --against takes one"))
        for kept in self._earlier:
            check_not_behind(self._report, kept, self._checkpoint.size)
            if kept.checkpoint.size <= self._checkpoint.size:
                self._report.skipped.append((Check.HISTORY, f"{kept.name}: the entries break off before its size"))
        if not self._depth.events:
            why = "not asked for"
            self._report.skipped += [(check, why) for check in (Check.FORM, Check.AUTHOR, Check.CHAIN)]
            return
        self._report.checked += [Check.FORM, Check.CHAIN]
        if self._depth.signatures:
            self._report.checked.append(Check.AUTHOR)
        else:
            self._report.skipped.append((Check.AUTHOR, "not asked for"))
        for key_id, chain in self._chains.by_key.items():
            orgs = ", ".join(sorted(chain.orgs))
            if len(chain.orgs) > 1:
                self._report.remarks.append(f"{self._authors[key_id].name} signs for several organisations: {orgs}")
            text = f"{self._authors[key_id].name} (key {key_id}), {chain.count} events, signs for {orgs}"
            self._report.facts.append(("author", text))


def author_name(key_id: str, authors: dict[str, Author]) -> str:
    """Whose key this is by the policy."""
    return authors[key_id].name if key_id in authors else f"unknown key {key_id}"


def check_author(
    report: Report, where: str, event: events.Event, authors: dict[str, Author], signatures: bool = True
) -> None:
    """The event names a key of the policy, and that key signed it."""
    author = authors.get(event.key_id)
    if author is None:
        report.add(Check.AUTHOR, where, f"{event.type} is signed by key {event.key_id}, which the policy does not know")
    elif signatures and not events.signature_holds(event, author.key):
        report.add(
            Check.AUTHOR, where, f"the signature of {author.name} (key {event.key_id}) on {event.type} does not verify"
        )


def check_root(report: Report, checkpoint: Checkpoint, root: bytes) -> None:
    """The root computed from the entries is the one that was signed."""
    if root != checkpoint.root:
        report.add(Check.ROOT, "checkpoint", f"the entries hash to root {root.hex()}, not to the one that was signed")


def check_history(report: Report, kept: Earlier, root: bytes) -> None:
    """An earlier checkpoint is a prefix: the log's root at its size is the one it was signed with."""
    if root != kept.checkpoint.root:
        message = f"its first {kept.checkpoint.size} entries hash to {root.hex()}, {kept.name} says otherwise"
        report.add(Check.HISTORY, "log", f"history was rewritten: {message}")


def check_not_behind(report: Report, kept: Earlier, size: int) -> None:
    """The log has not become shorter than it was when an earlier checkpoint was signed."""
    if kept.checkpoint.size > size:
        message = f"rolled back: {kept.name} counts {kept.checkpoint.size} entries, this one {size}"
        report.add(Check.HISTORY, "checkpoint", message, Exit.STALE)


def compare_tile(report: Report, directory: Path, tile: Tile) -> None:
    """A tile in the export holds what the entries hash to."""
    name = tiles.tile_path(tile.level, tile.index, len(tile.hashes))
    try:
        data = tiles.read_file(directory / name, TILE_WIDTH * HASH_LENGTH)
        held = tiles.split_tile(data, len(tile.hashes))
    except (MalformedError, UnreadableError) as error:
        report.add(Check.TILES, name, str(error))
        return
    wrong = [at for at, pair in enumerate(zip(held, tile.hashes, strict=True)) if pair[0] != pair[1]]
    if wrong:
        span = TILE_WIDTH**tile.level
        start = (tile.index * TILE_WIDTH + wrong[0]) * span
        which = f"entry {start}" if span == 1 else f"entries {start} to {start + span - 1}"
        report.add(Check.TILES, name, f"{len(wrong)} hash(es) are not those of the entries, the first for {which}")
