"""The server's side of protocol SA1:

`open_round`, then `receive` for each reply and `close` at the end of each stage.

All three return the next state; `close` also returns the requests of the next stage. A reply that is refused leaves
the state as it was: its author counts as not having answered. `Masking` hands its running sum on to the next state,
so a state is used once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fedseal.errors import PeerError
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg import sharing
from fedseal.privacy.secagg.checks import (
    check_advertisements,
    check_envelope,
    decode_from,
    session_id,
    survivors_digest,
    vector_digest,
)
from fedseal.privacy.secagg.degree import NoDegreeError
from fedseal.privacy.secagg.graph import graph_of
from fedseal.privacy.secagg.header import Header, sign_header
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.masks import MaskedSum, ring_dtype, wire_length
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    ConsistencyRequest,
    Delivery,
    Masked,
    MaskRequest,
    Openings,
    Refusal,
    RefusalCode,
    SecretKind,
    ShareHead,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.secagg.neighbourhoods import sparse_session
from fedseal.privacy.secagg.packing import PACKED_RINGS, is_canonical
from fedseal.privacy.secagg.server_states import (
    Aborted,
    AbortReason,
    Advertising,
    Collecting,
    Confirming,
    Finished,
    MaskedReply,
    Masking,
    Refused,
    Request,
    Round,
    Sharing,
    SiteReply,
    State,
    Unmasking,
)
from fedseal.privacy.secagg.unmasking import unmask
from fedseal.wire import encode


@dataclass(frozen=True, slots=True)
class Step:
    """The next state and what to send, by site."""

    state: State
    requests: Mapping[int, Request]


def open_round(header: Header, roster: Roster, key: SigningKey, *, workers: int = 1) -> Step:
    """Begin: the same signed header for every site of the cohort.

    Args:
        header: the round.
        roster: the federation's.
        key: the server's.
        workers: how many threads take the masks off at the end.
    """
    request = sign_header(header, key)
    state = Advertising(Round(header, header.digest(), roster, workers))
    return Step(state, dict.fromkeys(header.cohort, request))


def receive(state: State, site: int, reply: SiteReply) -> State:
    """Take one site's reply.

    Args:
        state: where the round stands.
        site: who answered, as the transport says; the signature has to agree.
        reply: what it answered.

    Raises:
        PeerError: the reply does not fit the stage, is not signed by that site, or is false. The state stays as it was.
    """
    if isinstance(reply, Refusal):
        return _receive_refusal(state, site, reply)
    transition = RECEIVES.get((type(state), type(reply)))
    if transition is None:
        raise PeerError(
            f"{type(reply).__name__} cannot be received in state {type(state).__name__}", peer=f"site {site}"
        )
    return transition(state, site, reply)


def close(state: State) -> Step:
    """End a stage: go on with those who answered, or abort if they are too few.

    Raises:
        PeerError: the round is over already.
    """
    transition = CLOSES.get(type(state))
    if transition is None:
        raise PeerError(f"a round in state {type(state).__name__} has no stage to close", peer="server")
    return transition.apply(state)


def stage_of(state: Collecting) -> Stage:
    """The exchange that a state collects replies of."""
    return STAGES[type(state)]


def awaited(state: Collecting) -> tuple[int, ...]:
    """Who was asked at this stage."""
    match state:
        case Advertising():
            return state.round.header.cohort
        case Sharing():
            return state.members
        case Masking():
            return state.contributors
        case Confirming() | Unmasking():
            return state.masking.survivors


def _receive_refusal(state: State, site: int, refusal: Refusal) -> State:
    if not isinstance(state, Collecting) or site not in awaited(state):
        raise PeerError("a refusal by a site that was not asked", peer=f"site {site}")
    if any(r.site == site for r in state.refused):
        raise PeerError("a second answer at one stage", peer=f"site {site}")
    return replace(state, refused=(*state.refused, Refused(site, stage_of(state), refusal)))


def _envelope(round_: Round, site: int, message: Signed, stage: Stage, taken: Mapping[int, Any]) -> None:
    """That ``site`` itself signed this, for this stage of this round, and for the first time."""
    peer = f"site {site}"
    if message.site != site:
        raise PeerError(f"a message of site {message.site}", peer=peer)
    if site in taken:
        raise PeerError("a second answer at one stage", peer=peer)
    check_envelope(round_.roster, message, stage, round_.digest, peer=peer)


def _receive_advertisement(state: Advertising, site: int, reply: Signed) -> State:
    if site not in state.round.header.cohort:
        raise PeerError("an advertisement of a site outside the cohort", peer=f"site {site}")
    _envelope(state.round, site, reply, Stage.ADVERTISE, state.advertisements)
    own = decode_from(reply.payload, Advertisement, f"site {site}")
    own_keys = {own.mask_key, own.channel_key}
    if len(own_keys) < 2 or state.taken & own_keys:
        raise PeerError("a key that is already taken", peer=f"site {site}")
    return replace(state, advertisements={**state.advertisements, site: reply}, taken=state.taken | own_keys)


def _close_advertising(state: Advertising) -> Step:
    round_, header = state.round, state.round.header
    if len(state.advertisements) < header.minimum:
        return _abort(round_, Stage.ADVERTISE, len(state.advertisements), state.refused)
    members = tuple(sorted(state.advertisements))
    ordered = tuple(state.advertisements[s] for s in members)
    if header.sparse is None:
        session = session_id(round_.digest, ordered)
        following = Sharing(round_, ordered, session, graph_of(header, session, members), refused=state.refused)
        return Step(following, dict.fromkeys(members, ShareRequest(round_.digest, ordered)))
    try:
        session, graph, requests = sparse_session(header, round_.digest, ordered)
    except NoDegreeError:
        return _abort(round_, Stage.ADVERTISE, len(members), state.refused, AbortReason.NO_GRAPH)
    return Step(Sharing(round_, ordered, session, graph, refused=state.refused), requests)


def _receive_shares(state: Sharing, site: int, reply: ShareReply) -> State:
    if site not in state.members:
        raise PeerError("shares of a site that did not advertise", peer=f"site {site}")
    _envelope(state.round, site, reply.head, Stage.SHARE, state.replies)
    head = decode_from(reply.head.payload, ShareHead, f"site {site}")
    if head.session != state.session:
        raise PeerError("shares for another session", peer=f"site {site}")
    holders = state.graph.holders(site)
    if tuple(e.receiver for e in reply.entries) != holders or head.size != len(holders):
        raise PeerError("shares for others than those who hold them", peer=f"site {site}")
    if sharing.entry_root(reply.entries) != head.root:
        raise PeerError("shares that are not the signed ones", peer=f"site {site}")
    return replace(state, replies={**state.replies, site: reply})


def _close_sharing(state: Sharing) -> Step:
    header = state.round.header
    if len(state.replies) < header.minimum:
        return _abort(state.round, Stage.SHARE, len(state.replies), state.refused)
    contributors = tuple(sorted(state.replies))
    if state.graph.left_alone(contributors, contributors):
        return _abort(state.round, Stage.SHARE, len(contributors), state.refused, AbortReason.TOO_FEW_NEIGHBOURS)
    keys = check_advertisements(state.round.roster, header, state.advertisements, {})
    total = MaskedSum(header.layout.length, header.layout.ring_bits)
    masking = Masking(state.round, state.session, state.graph, keys, dict(state.replies), total, refused=state.refused)
    parcels: dict[int, list[Delivery]] = {site: [] for site in contributors}
    for dealer in contributors:
        for delivery in sharing.deliveries(state.replies[dealer]):
            if delivery.entry.receiver in parcels and delivery.entry.receiver != dealer:
                parcels[delivery.entry.receiver].append(delivery)
    digest = state.round.digest
    return Step(masking, {s: MaskRequest(digest, contributors, tuple(parcels[s])) for s in contributors})


def _receive_vector(state: Masking, site: int, reply: MaskedReply) -> State:
    layout, peer = state.round.header.layout, f"site {site}"
    if site not in state.shares:
        raise PeerError("a vector of a site that did not share", peer=peer)
    _envelope(state.round, site, reply.message, Stage.MASK, dict.fromkeys(state.survivors))
    payload = decode_from(reply.message.payload, Masked, peer)
    shape = (wire_length(layout.length, layout.ring_bits),)
    if reply.vector.shape != shape or reply.vector.dtype != ring_dtype(layout.ring_bits):
        raise PeerError("a vector of another shape or ring than the header's", peer=peer)
    if payload.session != state.session or vector_digest(reply.vector) != payload.vector_digest:
        raise PeerError("a vector that is not the signed one", peer=peer)
    packed = layout.ring_bits in PACKED_RINGS
    if packed and not is_canonical(reply.vector.view("<u4"), layout.length, layout.ring_bits):
        raise PeerError("a packed vector with something in its padding", peer=peer)
    state.total.add(reply.vector)
    return replace(state, survivors=tuple(sorted((*state.survivors, site))))


def _close_masking(state: Masking) -> Step:
    graph, remaining = state.graph, len(state.survivors)
    if remaining < state.round.header.minimum:
        return _abort(state.round, Stage.MASK, remaining, state.refused)
    witnesses = set(graph.witnesses).intersection(state.survivors)
    if len(witnesses) < graph.threshold or graph.left_alone(state.contributors, state.survivors):
        return _abort(state.round, Stage.MASK, remaining, state.refused, AbortReason.TOO_FEW_NEIGHBOURS)
    request = ConsistencyRequest(state.round.digest, state.survivors)
    return Step(Confirming(state, refused=state.refused), dict.fromkeys(state.survivors, request))


def _receive_confirmation(state: Confirming, site: int, reply: Signed) -> State:
    masking = state.masking
    if site not in masking.survivors:
        raise PeerError("a confirmation by a site outside the survivor set", peer=f"site {site}")
    _envelope(masking.round, site, reply, Stage.CONSISTENCY, state.confirmations)
    expected = Confirmation(masking.session, survivors_digest(masking.session, masking.survivors))
    if reply.payload != encode(expected):
        raise PeerError("a confirmation of another survivor set", peer=f"site {site}")
    return replace(state, confirmations={**state.confirmations, site: reply})


def _close_confirming(state: Confirming) -> Step:
    masking, graph = state.masking, state.masking.graph
    witnesses = set(graph.witnesses).intersection(state.confirmations)
    if len(witnesses) < graph.threshold:
        return _abort(masking.round, Stage.CONSISTENCY, len(state.confirmations), state.refused)
    requests = {}
    for site in masking.survivors:
        shown = sorted(witnesses.union(graph.holders(site)).intersection(state.confirmations))
        confirmations = tuple(state.confirmations[s] for s in shown)
        requests[site] = UnmaskRequest(masking.round.digest, masking.survivors, confirmations)
    return Step(Unmasking(masking, refused=state.refused), requests)


def _receive_openings(state: Unmasking, site: int, reply: Signed) -> State:
    masking, peer = state.masking, f"site {site}"
    if site not in masking.survivors:
        raise PeerError("shares opened by a site outside the survivor set", peer=peer)
    _envelope(masking.round, site, reply, Stage.UNMASK, state.openings)
    openings = decode_from(reply.payload, Openings, peer)
    dealers = tuple(dealer for dealer in masking.graph.holders(site) if dealer in masking.shares)
    if openings.session != masking.session or tuple(o.dealer for o in openings.openings) != dealers:
        raise PeerError("opened shares of others than the contributors", peer=peer)
    survivors = set(masking.survivors)
    for opening in openings.openings:
        wanted = SecretKind.SELF if opening.dealer in survivors else SecretKind.MASK_SEED
        entry = masking.shares[opening.dealer].entries[masking.graph.holders(opening.dealer).index(site)]
        if opening.kind != wanted or not sharing.opens(opening, entry, masking.session, site):
            raise PeerError("a share that does not open its dealer's commitment", peer=peer, blamed=site)
    return replace(state, openings={**state.openings, site: openings})


def _close_unmasking(state: Unmasking) -> Step:
    masking, opened = state.masking, tuple(state.openings)
    if masking.graph.left_alone(masking.contributors, opened):
        complete = masking.round.header.sparse is None
        reason = AbortReason.TOO_FEW if complete else AbortReason.TOO_FEW_NEIGHBOURS
        return _abort(masking.round, Stage.UNMASK, len(opened), state.refused, reason)
    return Step(unmask(state), {})


def _abort(
    round_: Round,
    stage: Stage,
    remaining: int,
    refused: tuple[Refused, ...],
    reason: AbortReason = AbortReason.TOO_FEW,
) -> Step:
    """Too few, in all or around some site: the round ends and releases nothing.

    Sites that more than m others blame are named; fewer accusers could all be lying.
    """
    accusers: dict[int, set[int]] = {}
    for entry in refused:
        if entry.refusal.code == RefusalCode.BAD_PEER and entry.refusal.blamed is not None:
            accusers.setdefault(entry.refusal.blamed, set()).add(entry.site)
    blamed = tuple(sorted(s for s, by in accusers.items() if len(by) > round_.header.colluders))
    return Step(Aborted(round_, stage, reason, remaining, blamed, refused), {})


STAGES: Mapping[type[State], Stage] = {
    Advertising: Stage.ADVERTISE,
    Sharing: Stage.SHARE,
    Masking: Stage.MASK,
    Confirming: Stage.CONSISTENCY,
    Unmasking: Stage.UNMASK,
}


@dataclass(frozen=True, slots=True)
class Closing:
    """What the end of a stage does, and the state it leads to where enough sites answered; to `Aborted` otherwise."""

    apply: Callable[[Any], Step]
    to: type[State]


# The whole protocol of the server; refusals are taken in every collecting state. As in client.py, the key knows the
# types.
RECEIVES: Mapping[tuple[type[State], type[SiteReply]], Callable[[Any, int, Any], State]] = {
    (Advertising, Signed): _receive_advertisement,
    (Sharing, ShareReply): _receive_shares,
    (Masking, MaskedReply): _receive_vector,
    (Confirming, Signed): _receive_confirmation,
    (Unmasking, Signed): _receive_openings,
}
CLOSES: Mapping[type[State], Closing] = {
    Advertising: Closing(_close_advertising, Sharing),
    Sharing: Closing(_close_sharing, Masking),
    Masking: Closing(_close_masking, Confirming),
    Confirming: Closing(_close_confirming, Unmasking),
    Unmasking: Closing(_close_unmasking, Finished),
}
