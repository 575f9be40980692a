"""Portable evidence: a proof that one event is in the log, that one checkpoint continues another, that a log forked."""

import base64
from dataclasses import dataclass
from pathlib import Path

from fedseal_verify import audit, events, merkle, note
from fedseal_verify.errors import MalformedError, UnreadableError, UsageError
from fedseal_verify.note import Checkpoint, decimal, strict_base64
from fedseal_verify.policy import Policy
from fedseal_verify.report import Check, Exit, Report
from fedseal_verify.tiles import TileReader

MAX_PROOF_BYTES = 2 << 20
MAX_PATH = 63
_HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True)
class Proof:
    """A tlog-proof: where an entry stands, the path to the root, and the checkpoint with that root."""

    index: int
    path: tuple[bytes, ...]
    checkpoint: Checkpoint


def parse_proof(data: bytes) -> Proof:
    """Read a ``.tlog-proof`` (C2SP tlog-proof). Its ``extra`` line is not authenticated and is left aside.

    Raises:
        MalformedError: with the rule that is broken.
    """
    head, blank, rest = data.partition(b"\n\n")
    try:
        lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise MalformedError("the proof holds other characters than ASCII before its checkpoint") from None
    if not blank or lines[0] != _HEADER:
        raise MalformedError(f"the proof does not begin with {_HEADER}, or has no checkpoint")
    lines = lines[1:]
    if lines and lines[0].startswith("extra "):
        strict_base64(lines[0].removeprefix("extra "), "the proof's extra line")
        lines = lines[1:]
    if not lines or not lines[0].startswith("index "):
        raise MalformedError("the proof has no index")
    index = decimal(lines[0].removeprefix("index "), "the proof's index")
    if len(lines) - 1 > MAX_PATH:
        raise MalformedError(f"the proof has more than {MAX_PATH} hashes")
    path = tuple(strict_base64(line, "a hash of the proof") for line in lines[1:])
    return Proof(index, path, note.parse_checkpoint(rest))


def check_proof(proof_data: bytes, leaf: bytes, policy: Policy) -> Report:
    """Whether ``leaf`` is in the log: inclusion, checkpoint, quorum, form and author's signature."""
    report = Report("proof", skipped=[(Check.CHAIN, "a single entry shows no chain")])
    try:
        proof = parse_proof(proof_data)
    except MalformedError as error:
        report.add(Check.INCLUSION, "proof", str(error))
        return report
    audit.describe(report, proof.checkpoint)
    audit.check_signatures(report, proof.checkpoint, policy)
    report.checked += [Check.INCLUSION, Check.FORM, Check.AUTHOR]
    where = f"entry {proof.index}"
    if not inclusion_holds(proof, leaf):
        report.add(Check.INCLUSION, where, "the path does not lead from this leaf to the checkpoint's root")
    try:
        event = events.read_event(leaf)
    except MalformedError as error:
        report.add(Check.FORM, where, str(error))
        return report
    authors = policy.authors()
    audit.check_author(report, where, event, authors)
    named = audit.author_name(event.key_id, authors)
    report.facts.append(("event", f"{event.type} at {event.time}, signed by {named} (key {event.key_id})"))
    return report


def inclusion_holds(proof: Proof, leaf: bytes) -> bool:
    """Whether the path leads from the leaf at the index to the checkpoint's root."""
    (hashed,) = merkle.leaf_hashes([leaf])
    return merkle.verify_inclusion(hashed, proof.index, proof.checkpoint.size, proof.path, proof.checkpoint.root)


def check_consistency(old: Checkpoint, new: Checkpoint, directory: Path, policy: Policy) -> Report:
    """Whether ``new`` continues ``old``, by the hash tiles of an export that reaches at least as far as ``new``."""
    report = Report("consistency")
    describe_two(report, old, new)
    require_log_signatures(report, old, new, policy)
    report.checked.append(Check.HISTORY)
    if old.size > new.size:
        message = f"rolled back: NEW has {new.size} entries, OLD had {old.size}"
        report.add(Check.HISTORY, "checkpoints", message, Exit.STALE)
        return report
    try:
        first, second = roots_from_tiles(old, new, directory)
    except (MalformedError, UnreadableError) as error:
        report.add(Check.TILES, "export", str(error))
        return report
    if second != new.root:
        report.add(Check.TILES, "export", "its tiles do not hash to NEW's root: damaged, or of another log")
    elif first != old.root:
        message = f"NEW does not continue OLD: its first {old.size} entries have root {first.hex()}"
        report.add(Check.HISTORY, "log", message)
    return report


def check_fork(a: Checkpoint, b: Checkpoint, directory: Path | None, policy: Policy) -> Report:
    """Whether two checkpoints prove that the log showed two histories; exit 1 when they do.

    Raises:
        UsageError: the notes decide nothing: not both signed by one log, of different sizes without an export, or with
            an export that is not the larger one's.
    """
    report = Report("fork")
    describe_two(report, a, b)
    require_log_signatures(report, a, b, policy)
    report.checked.append(Check.HISTORY)
    old, new = sorted((a, b), key=lambda each: each.size)
    if old.size == new.size:
        first = new.root
    elif directory is None:
        raise UsageError(f"the sizes differ ({old.size}, {new.size}): give the export of the larger one with --dir")
    else:
        first = _prefix_root(old, new, directory)
    if first == old.root:
        report.verdict = "NO FORK: " + ("the roots are equal" if old.size == new.size else "one continues the other")
        return report
    message = f"the log signed two roots for its first {old.size} entries: {old.root.hex()} and {first.hex()}"
    report.add(Check.HISTORY, "log", message)
    report.verdict = "FORK PROVEN"
    both = [name for name, key in policy.witnesses.items() if _cosigned(a, key) and _cosigned(b, key)]
    report.remarks.append(f"witnesses that cosigned both: {', '.join(both) or 'none'}")
    report.evidence += [each.note for each in (a, b)]
    if directory is not None and 0 < old.size < new.size:
        nodes = TileReader(directory, new.size).consistency_nodes(old.size)
        lines = [f"nodes that hash to both trees of {old.size} and {new.size} entries (RFC 9162, 2.1.4.2, from step 3)"]
        report.evidence.append("\n".join([*lines, *(base64.b64encode(each).decode() for each in nodes)]))
    return report


def _cosigned(checkpoint: Checkpoint, key: note.Key) -> bool:
    try:
        return note.cosigned_at(checkpoint, key) is not None
    except MalformedError:
        return False


def _prefix_root(old: Checkpoint, new: Checkpoint, directory: Path) -> bytes:
    try:
        first, second = roots_from_tiles(old, new, directory)
    except (MalformedError, UnreadableError) as error:
        raise UsageError(f"the export decides nothing: {error}") from None
    if second != new.root:
        raise UsageError("the export decides nothing: its tiles do not hash to the root of the larger checkpoint")
    return first


def roots_from_tiles(old: Checkpoint, new: Checkpoint, directory: Path) -> tuple[bytes, bytes]:
    """The roots at both sizes, hashed from the same tree nodes: if the second is NEW's, the first is its prefix's.

    Raises:
        MalformedError, UnreadableError: a tile is damaged or missing.
    """
    if old.size == new.size:
        return new.root, new.root
    if old.size == 0:
        return merkle.EMPTY_ROOT, TileReader(directory, new.size).subtree(0, new.size)
    nodes = TileReader(directory, new.size).consistency_nodes(old.size)
    roots = merkle.consistency_roots(old.size, new.size, nodes)
    if roots is None:
        raise MalformedError("its tiles give no consistency proof")
    return roots


def describe_two(report: Report, a: Checkpoint, b: Checkpoint) -> None:
    """Say which two checkpoints a report is about."""
    audit.describe(report, a)
    audit.describe(report, b)


def require_log_signatures(report: Report, a: Checkpoint, b: Checkpoint, policy: Policy) -> None:
    """Two checkpoints are evidence only if one log of the policy signed both.

    Raises:
        UsageError: it did not.
    """
    report.checked.append(Check.LOG_SIGNATURE)
    if a.origin != b.origin:
        raise UsageError(f"the notes are of two logs: {a.origin} and {b.origin}")
    for name, each in (("first", a), ("second", b)):
        require_log_signature(name, each, policy)


def require_log_signature(name: str, checkpoint: Checkpoint, policy: Policy) -> None:
    """A checkpoint the auditor brings has to be the log's own word.

    Raises:
        UsageError: it is not signed by a log of the policy.
    """
    if not note.log_signature_holds(checkpoint, policy.keys_of(checkpoint.origin)):
        raise UsageError(f"the {name} note is not signed by a log of the policy: it proves nothing")
