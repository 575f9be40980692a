"""Everything that can be checked about a log by whoever holds a copy and the policy: tree, checkpoint, quorum, entries.

One pass over the leaves. What is wrong is listed, not raised: an auditor wants all of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from fedseal.compliance.audit.parties import Parties, is_former, witnesses_of
from fedseal.compliance.events.leaf import read_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.log.checkpoint import Checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.tree import EMPTY, Frontier
from fedseal.errors import LocalError, PeerError
from fedseal.merkle import leaf_hash

MOST_FINDINGS = 100
BATCH = 4096


class AuditCode(IntEnum):
    """How `fedseal audit` ends, in the order of what weighs more."""

    OK = 0
    TAMPERED = 1
    QUORUM_MISSING = 3
    ROLLED_BACK = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and at which entry where it is about one."""

    index: int | None
    what: str


@dataclass(slots=True)
class Verdict:
    """What a check has found. ``cosigned``: the witnesses whose cosignatures on the newest checkpoint hold."""

    origin: str = ""
    size: int = 0
    root: bytes = b""
    cosigned: tuple[str, ...] = ()
    witnesses: int = 0
    final: bool = False
    rolled_back: bool = False
    beyond: int = 0
    types: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    more: int = 0

    def found(self, index: int | None, what: str) -> None:
        """Note something that is wrong; after a hundred only how many."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(Finding(index, what))
        else:
            self.more += 1

    @property
    def code(self) -> AuditCode:
        """What weighs most."""
        if self.findings:
            return AuditCode.TAMPERED
        if self.rolled_back:
            return AuditCode.ROLLED_BACK
        return AuditCode.OK if self.final else AuditCode.QUORUM_MISSING


def verify(
    leaves: Iterable[bytes],
    note: str | None,
    policy: Policy,
    *,
    book: Book = Book.FEDERATION,
    earlier: Sequence[str] = (),
    seen: Sequence[Checkpoint] = (),
    entries: bool = True,
) -> Verdict:
    """Check a log.

    Args:
        leaves: all of them, from the first.
        note: its newest checkpoint with the cosignatures it has; None where it has none. A site's own log needs none:
            what holds it are the states of it that stand in the federation's log.
        policy: whose signatures count.
        book: the federation's log or a site's own.
        earlier: checkpoints that somebody kept: the log has to contain each.
        seen: states of the log that are known from elsewhere, without a signature: it has to contain each.
        entries: whether entries are read and their signatures checked, beside the tree.
    """
    verdict = Verdict(witnesses=witnesses_of(policy))
    checkpoint = None
    if note is not None or book is Book.FEDERATION:
        checkpoint = _judge_note(verdict, note, policy)
    kept = [*seen, *(k for k in (_read_kept(verdict, text, policy) for text in earlier) if k is not None)]
    wanted = {k.size for k in kept} | ({checkpoint.size} if checkpoint is not None else set())
    frontier, roots, fresh = EMPTY, {0: EMPTY.root}, list[bytes]()
    parties = Parties(policy, book)
    for index, leaf in enumerate(_read(verdict, leaves)):
        fresh.append(leaf_hash(leaf))
        # Many at once: one at a time the tree would cost as much as the hashing.
        if len(fresh) == BATCH or index + 1 in wanted:
            frontier, fresh = frontier.extend(fresh)[0], []
            roots[frontier.size] = frontier.root
        if entries:
            _judge_entry(verdict, parties, index, leaf)
    frontier = frontier.extend(fresh)[0]
    if note is None and book is Book.SITE:
        verdict.size, verdict.root, verdict.final = frontier.size, frontier.root, True
    _judge_tree(verdict, checkpoint, kept, frontier, roots)
    return verdict


def _read(verdict: Verdict, leaves: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from leaves
    except (PeerError, LocalError) as error:
        verdict.found(None, f"the entries cannot be read to the end: {error.message}")


def _judge_note(verdict: Verdict, note: str | None, policy: Policy) -> Checkpoint | None:
    if note is None:
        verdict.found(None, "there is no checkpoint")
        return None
    try:
        judged = evaluate(policy, note)
    except (MalformedError, SignatureError) as error:
        verdict.found(None, f"the checkpoint: {error.message}")
        return None
    verdict.origin, verdict.size, verdict.root = (
        judged.checkpoint.origin,
        judged.checkpoint.size,
        judged.checkpoint.root,
    )
    # Keys that cosign no more are in the policy for the entries that they have signed.
    verdict.cosigned = tuple(name for name in judged.cosigned if not is_former(name))
    verdict.final = judged.final
    return judged.checkpoint


def _read_kept(verdict: Verdict, text: str, policy: Policy) -> Checkpoint | None:
    try:
        return evaluate(policy, text).checkpoint
    except (MalformedError, SignatureError) as error:
        verdict.found(None, f"a checkpoint that was kept: {error.message}")
        return None


def _judge_entry(verdict: Verdict, parties: Parties, index: int, leaf: bytes) -> None:
    try:
        event = read_event(leaf)
        parties.accept(event)
    except PeerError as error:
        verdict.found(index, error.message)
        return
    verdict.types[event.kind.name] += 1


def _judge_tree(
    verdict: Verdict,
    checkpoint: Checkpoint | None,
    kept: Sequence[Checkpoint],
    frontier: Frontier,
    roots: dict[int, bytes],
) -> None:
    if checkpoint is not None:
        verdict.beyond = max(frontier.size - checkpoint.size, 0)
        if checkpoint.size > frontier.size:
            verdict.found(None, f"{checkpoint.size - frontier.size} entries of the checkpoint are missing")
        elif roots[checkpoint.size] != checkpoint.root:
            verdict.found(None, "the entries do not lead to the root of the checkpoint: one was changed")
    for before in kept:
        if before.size > frontier.size:
            verdict.rolled_back = True
        elif roots[before.size] != before.root:
            verdict.found(None, f"another history than the one whose checkpoint of {before.size} entries was kept")
