"""Evidence that travels alone: that an entry stands in a log, and that one checkpoint continues another."""

import hashlib
import re

from fedseal.compliance.audit.parties import Parties, witnesses_of
from fedseal.compliance.audit.source import LogCopy
from fedseal.compliance.audit.verify import Verdict
from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.events.registry import Book
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.proof import Proof, check_proof, parse_proof
from fedseal.compliance.log.quorum import Policy, evaluate
from fedseal.compliance.log.quorum import Verdict as Judged
from fedseal.compliance.log.tree import EMPTY_ROOT, verify_consistency
from fedseal.errors import ConfigError, PeerError

# An index, or a digest: of the leaf (as entries and receipts name each other), or its hash in the tree.
_INDEX, _DIGEST = re.compile(r"#?([0-9]{1,15})"), re.compile(r"(sha256:)?([0-9a-f]{64})")


def index_of(copy: LogCopy, name: str) -> int:
    """The entry that is meant: an index such as 17 or #17, the digest of a leaf, or its hash in the tree.

    Raises:
        ConfigError: there is none.
    """
    if (found := _INDEX.fullmatch(name)) is not None:
        index = int(found[1])
        if index < copy.log.size:
            return index
        raise ConfigError(f"the log has {copy.log.size} entries: there is none of index {index}")
    if (found := _DIGEST.fullmatch(name)) is None:
        raise ConfigError("an entry is named by its index, or by 64 hexadecimal digits", next_step="See `audit show`.")
    digest = bytes.fromhex(found[2])
    place = None if found[1] else copy.log.find(digest)
    if place is None:
        leaves = enumerate(copy.leaves())
        place = next((index for index, leaf in leaves if hashlib.sha256(leaf).digest() == digest), None)
    if place is None:
        raise ConfigError("the log has no entry of that digest")
    return place


def proof_of(copy: LogCopy, index: int) -> Proof:
    """The proof of an entry; ConfigError if no checkpoint covers it yet."""
    checkpoint = copy.covering(index)
    note = None if checkpoint is None else copy.log.checkpoint(checkpoint.size)
    if checkpoint is None or note is None:
        raise ConfigError(
            f"no checkpoint covers entry {index} yet",
            next_step="Wait for the next one, or ask the server's log; a site's own log gets one by `audit export`.",
        )
    return Proof(index, copy.log.inclusion(index, checkpoint.size), note)


def author_of(event: Event, policy: Policy, book: Book) -> str:
    """Who signed an entry, in words, as far as a policy alone can say."""
    party = Parties(policy, book, alone=True).owner(event)
    if party is None:
        return f"{event.org}, by a key that the policy does not name: not checked"
    if (party.org, party.actor) != (event.org, event.actor) or not event.signed_by(party.public):
        return f"{event.org}: THE SIGNATURE DOES NOT HOLD"
    return f"{event.org}, whose signature holds"


def check_entry(raw: bytes, leaf: bytes, policy: Policy) -> Verdict:
    """What a proof shows about a leaf: path, checkpoint, quorum, form and author.

    Raises:
        ConfigError: ``raw`` is no proof.
    """
    try:
        proof = parse_proof(raw)
    except MalformedError as error:
        raise ConfigError(f"no proof: {error.message}") from None
    verdict = Verdict(witnesses=witnesses_of(policy))
    try:
        judged = check_proof(proof, leaf, policy)
    except (MalformedError, SignatureError) as error:
        verdict.found(proof.index, error.message)
        return verdict
    verdict.origin, verdict.size, verdict.root = (
        judged.checkpoint.origin,
        judged.checkpoint.size,
        judged.checkpoint.root,
    )
    verdict.cosigned, verdict.final = judged.cosigned, judged.final
    try:
        event = read_event(leaf)
    except PeerError as error:
        verdict.found(proof.index, error.message)
        return verdict
    book = Book.SITE if verdict.origin.split("/")[1:2] == ["site"] else Book.FEDERATION
    said = author_of(event, policy, book)
    if said.endswith("HOLD"):
        verdict.found(proof.index, "a signature that does not hold")
    verdict.types[event.kind.name] += 1
    return verdict


def check_consistency(old: bytes, new: bytes, copy: LogCopy) -> Verdict:
    """Whether the checkpoint ``new`` continues ``old``, by hashes of a copy that reaches as far as both.

    Raises:
        ConfigError: a note is none of a log of the policy, they are of two logs, or the copy cannot tell.
    """
    policy = copy.policy
    first, second = (_signed(policy, note) for note in (old, new))
    if first.checkpoint.origin != second.checkpoint.origin:
        raise ConfigError("the notes are of two logs: they prove nothing about each other")
    verdict = Verdict(
        origin=second.checkpoint.origin,
        size=second.checkpoint.size,
        root=second.checkpoint.root,
        cosigned=second.cosigned,
        witnesses=witnesses_of(policy),
        final=second.final,
    )
    before, after = first.checkpoint, second.checkpoint
    if before.size > after.size:
        verdict.rolled_back = True
        before, after = after, before
    if after.size > copy.log.size:
        raise ConfigError(f"this copy of the log ends before entry {after.size}", next_step="Name a longer one: --log.")
    if before.size == 0:
        holds = before.root == EMPTY_ROOT
    else:
        proof = copy.log.consistency(before.size, after.size)
        holds = verify_consistency(before.size, after.size, before.root, after.root, proof)
    if not holds and before.size != after.size and copy.log.root(after.size) != after.root:
        raise ConfigError("this copy of the log has another history than the newer note: it cannot tell")
    if not holds:
        verdict.found(None, f"two histories of the first {before.size} entries, both signed by the log: a fork")
    return verdict


def _signed(policy: Policy, note: bytes) -> Judged:
    try:
        return evaluate(policy, note)
    except (MalformedError, SignatureError) as error:
        raise ConfigError(f"a note that proves nothing: {error.message}") from None
