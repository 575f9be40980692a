"""Whether a bundle may be used, by what a log says of it: for a site that applies a model and trusts no folder's word.

What permits use is an entry that points an alias to the bundle, under a checkpoint that a quorum has cosigned. What is
newer than that checkpoint can take the permission away, and never give it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fedseal.compliance.audit.parties import is_person, site_named
from fedseal.compliance.audit.source import LogCopy
from fedseal.compliance.events.fields import Alias
from fedseal.compliance.events.leaf import SERVER_ORG, read_event
from fedseal.compliance.events.subjects import Promoted, RolledBack
from fedseal.compliance.log.checkpoint import Checkpoint
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import SignatureError
from fedseal.compliance.log.proof import Proof, check_proof, parse_proof
from fedseal.compliance.log.quorum import Policy, Verdict, evaluate
from fedseal.compliance.log.tree import EMPTY
from fedseal.compliance.registry.aliases import TYPES, State, Status, replay
from fedseal.compliance.registry.bundle import short
from fedseal.compliance.registry.entries import Entry
from fedseal.compliance.registry.people import Parties
from fedseal.errors import PeerError, PolicyRefused
from fedseal.merkle import leaf_hash

LIST = "See where it stands: `fedseal model list`."
_MARKS = tuple(f'"type":"{name}"'.encode() for name in TYPES)


@dataclass(frozen=True, slots=True)
class Standing:
    """What permits the use of a bundle.

    Attributes:
        origin: the log's name.
        simulated: whether it is a simulated federation's; None where only a proof was given.
        alias: what points to the bundle.
        model: the model's digest.
        index: the entry by which it does.
        time: when that entry was signed, by its author's clock.
        size: of the checkpoint that covers it.
        cosigned: who has cosigned that checkpoint.
        proof: of the entry, as a file has it.
        read: up to which entry suspensions and later promotions were looked for; None where only a proof was given.
    """

    origin: str
    simulated: bool | None
    alias: Alias
    model: str
    index: int
    time: str
    size: int
    cosigned: tuple[str, ...]
    proof: str
    read: int | None


def parties_of(policy: Policy, origin: str) -> Parties:
    """The organisations that a policy names: the server of the log ``origin``, and the witnesses, who are the sites."""
    sites = [(site_named(w.key.name), w.key.public) for w in policy.witnesses if not is_person(w.name)]
    servers = [(SERVER_ORG, entry.key.public) for entry in policy.logs if entry.key.name == origin]
    return Parties.named([*sites, *servers])


def standing_in(copy: LogCopy, bundle: str, alias: Alias, evidence: bytes | None = None) -> Standing:
    """What a log says of a bundle.

    Args:
        copy: the log, as whoever asks holds it.
        bundle: the bundle's digest.
        alias: what has to point to it.
        evidence: a proof file, whose checkpoint has the cosignatures that a site's own mirror lacks.

    Raises:
        PeerError: a proof or signature does not hold, the log is not the one that was cosigned, or no quorum covers it.
        PolicyRefused: the alias does not point to the bundle, or its model was suspended or retired.
    """
    final = _final(copy, None if evidence is None else _parsed(evidence))
    entries = _read(copy, final.checkpoint)
    parties = parties_of(copy.policy, final.checkpoint.origin)
    covered = replay([entry for entry in entries if entry.index < final.checkpoint.size], parties)
    model = _permitted(covered, bundle, alias, "")
    latest = replay(entries, parties)
    _permitted(latest, bundle, alias, ", since the checkpoint that a quorum has cosigned")
    index = covered.aliases[alias].index
    path = copy.log.inclusion(index, final.checkpoint.size)
    note = _note(copy, final, evidence)
    proof = Proof(index, path, note)
    _hold(proof, copy.log.leaf(index), copy.policy)
    time = next(entry.event.time for entry in entries if entry.index == index)
    size, origin = final.checkpoint.size, final.checkpoint.origin
    return Standing(
        origin, covered.simulated, alias, model, index, time, size, final.cosigned, str(proof), copy.log.size
    )


def standing_by_proof(evidence: bytes, leaf: bytes, policy: Policy, bundle: str, alias: Alias) -> Standing:
    """What a proof alone says of a bundle: that it was promoted. Not what came after.

    Args:
        evidence: the proof's file.
        leaf: the promotion's entry, byte for byte.
        policy: whose signatures count.
        bundle: the bundle's digest.
        alias: what has to point to it.

    Raises:
        PeerError: a proof or signature does not hold, or no quorum has cosigned.
        PolicyRefused: the entry does not point the alias to the bundle.
    """
    proof = _parsed(evidence)
    verdict = _hold(proof, leaf, policy)
    event = read_event(leaf, verdict.checkpoint.origin)
    if not parties_of(policy, verdict.checkpoint.origin).by_server(event):
        raise PeerError("the entry is not signed by the log's server", peer=verdict.checkpoint.origin)
    body = event.body
    if not isinstance(body, Promoted | RolledBack) or (body.bundle, body.alias) != (bundle, alias):
        raise PolicyRefused(
            f"the proof is of another entry than one that points {alias.value} to bundle {short(bundle)}",
            next_step="Ask for a proof of its promotion: fedseal audit prove ENTRY.",
        )
    size, origin = verdict.checkpoint.size, verdict.checkpoint.origin
    return Standing(origin, None, alias, body.model, proof.index, event.time, size, verdict.cosigned, str(proof), None)


def _parsed(evidence: bytes) -> Proof:
    try:
        return parse_proof(evidence)
    except MalformedError as error:
        raise PeerError(f"the proof cannot be read: {error.message}", peer="whoever made the proof") from None


def _hold(proof: Proof, leaf: bytes, policy: Policy) -> Verdict:
    """Check a proof: path, signatures, quorum."""
    try:
        verdict = check_proof(proof, leaf, policy)
    except (MalformedError, SignatureError) as error:
        raise PeerError(f"the proof does not hold: {error.message}", peer="whoever made the proof") from None
    if not verdict.final:
        raise PeerError("no quorum of witnesses has cosigned the proof's checkpoint", peer=verdict.checkpoint.origin)
    return verdict


def _final(copy: LogCopy, proof: Proof | None) -> Verdict:
    """The checkpoint that a quorum has cosigned: the proof's, or the newest one of the copy."""
    if proof is not None:
        if proof.index >= copy.log.size:
            raise PeerError(
                "the proof is of an entry that this copy of the log does not have",
                peer=copy.log.origin,
                next_step="A site's mirror grows with the messages that it answers: wait for the next.",
            )
        return _hold(proof, copy.log.leaf(proof.index), copy.policy)
    try:
        size = copy.log.latest_final(copy.policy)
        note = None if size is None else copy.log.checkpoint(size)
        verdict = None if note is None else evaluate(copy.policy, note)
    except (MalformedError, SignatureError) as error:
        raise PeerError(f"the log's checkpoint does not hold: {error.message}", peer=copy.log.origin) from None
    if verdict is None:
        raise PeerError(
            "no quorum of witnesses has cosigned a checkpoint that this copy of the log has",
            peer=copy.log.origin,
            next_step="A site's mirror has no other site's cosignature: give a proof, which the server's people make "
            "with `fedseal audit prove`: --proof FILE.",
        )
    return verdict


def _note(copy: LogCopy, final: Verdict, evidence: bytes | None) -> str:
    note = copy.log.checkpoint(final.checkpoint.size) if evidence is None else _parsed(evidence).note
    return note or ""


def _read(copy: LogCopy, final: Checkpoint) -> list[Entry]:
    """The entries that aliases are made of, out of a log whose leaves are those of its checkpoints."""
    wanted = {one.size: one.root for one in copy.seen} | {final.size: final.root}
    if max(wanted) > copy.log.size:
        raise PeerError(
            f"this copy of the log ends at {copy.log.size} entries, before a checkpoint of {max(wanted)}",
            peer=copy.log.origin,
            next_step="A site's mirror grows with the messages that it answers: wait for the next.",
        )
    frontier, found, start = EMPTY, list[Entry](), 0
    for stop in sorted({*wanted, copy.log.size} - {0}):
        hashes = []
        for index, leaf in enumerate(_leaves(copy, start, stop), start=start):
            hashes.append(leaf_hash(leaf))
            if any(mark in leaf for mark in _MARKS):
                found.append(Entry(index, read_event(leaf, copy.log.origin)))
        frontier, start = frontier.extend(hashes)[0], stop
        if len(hashes) and frontier.size != stop:
            raise PeerError("this copy of the log lacks entries", peer=copy.log.origin)
        if wanted.get(stop, frontier.root) != frontier.root:
            raise PeerError(
                f"the first {stop} entries are not those of the cosigned checkpoint: this copy was changed",
                peer=copy.log.origin,
                next_step="Look at it with `fedseal audit verify`.",
            )
    return found


def _leaves(copy: LogCopy, start: int, stop: int, step: int = 4096) -> Iterator[bytes]:
    for first in range(start, stop, step):
        yield from copy.log.leaves(first, min(first + step, stop))


def _permitted(state: State, bundle: str, alias: Alias, when: str) -> str:
    """The model of the bundle that an alias points to, if it is this one and may be used."""
    registration = state.registered.get(bundle)
    if registration is None:
        raise PolicyRefused(f"bundle {short(bundle)} is not registered in the federation's log", next_step=LIST)
    status = state.status(registration.model)
    if status is not Status.ACTIVE:
        raise PolicyRefused(f"model {short(registration.model)} is {status.value}{when}", next_step=LIST)
    binding = state.aliases.get(alias)
    if binding is None or binding.bundle != bundle:
        instead = "no bundle" if binding is None else f"bundle {short(binding.bundle)}"
        raise PolicyRefused(f"{alias.value} points to {instead}, not to bundle {short(bundle)}{when}", next_step=LIST)
    return registration.model
