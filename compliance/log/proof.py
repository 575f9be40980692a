"""Proof files of C2SP (c2sp.org/tlog-proof): that a leaf stands in a log, for someone who has only the policy."""

from dataclasses import dataclass

from fedseal.compliance.log.checkpoint import parse_decimal, read_checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import MAX_NOTE, SignatureError, from_base64, to_base64
from fedseal.compliance.log.quorum import Policy, Verdict, evaluate
from fedseal.merkle import HASH_LENGTH, leaf_hash, verify_inclusion

HEADER = "c2sp.org/tlog-proof@v1"
MAX_PATH = 63


@dataclass(frozen=True, slots=True)
class Proof:
    """Leaf ``index``'s inclusion path, nearest first, in the tree of the signed checkpoint ``note``.

    Nothing authenticates ``extra``. ``str()`` gives the file.
    """

    index: int
    path: tuple[bytes, ...]
    note: str
    extra: bytes = b""

    def __str__(self) -> str:
        extra = [f"extra {to_base64(self.extra)}"] if self.extra else []
        return "\n".join([HEADER, *extra, f"index {self.index}", *map(to_base64, self.path), "", self.note])


def parse_proof(raw: str | bytes) -> Proof:
    """Read a proof's file; its checkpoint is parsed, and nothing is verified.

    Raises:
        MalformedError: it is none.
    """
    if len(raw) > 2 * MAX_NOTE:
        raise MalformedError("a proof that is too long")
    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    except UnicodeDecodeError:
        raise MalformedError("a proof that is not UTF-8") from None
    head, _, note = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != HEADER:
        raise MalformedError("not a proof of version 1")
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = from_base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise MalformedError("a proof without an index")
    index = parse_decimal(lines.pop(0).removeprefix("index "))
    path = tuple(from_base64(line) for line in lines)
    if len(path) > MAX_PATH or any(len(step) != HASH_LENGTH for step in path):
        raise MalformedError("a proof whose path cannot be")
    read_checkpoint(note)
    return Proof(index, path, note, extra)


def check_proof(proof: Proof, leaf: bytes, policy: Policy) -> Verdict:
    """What ``policy`` says about the proof's checkpoint, if ``leaf`` stands in its tree.

    The verdict's ``final`` says whether a quorum has cosigned it: look at it.

    Raises:
        SignatureError: the checkpoint's signatures do not hold, or the path does not lead from the leaf to its root.
        MalformedError: the proof's note is no checkpoint.
    """
    verdict = evaluate(policy, proof.note)
    checkpoint = verdict.checkpoint
    if not verify_inclusion(leaf_hash(leaf), proof.index, checkpoint.size, proof.path, checkpoint.root):
        raise SignatureError("the path does not lead from the leaf to the checkpoint's root")
    return verdict
