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
from fedseal.privacy.secagg.header import Header, sign_header
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.masks import MaskedSum, ring_dtype
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


def open_round(header: Header, roster: Roster, key: SigningKey) -> Step:
    """Begin: the same signed header for every site of the cohort."""
    request = sign_header(header, key)
    state = Advertising(Round(header, header.digest(), roster))
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
    taken = {k for m in state.advertisements.values() for k in _public_keys(m)}
    if own.mask_key == own.channel_key or taken & {own.mask_key, own.channel_key}:
        raise PeerError("a key that is already taken", peer=f"site {site}")
    return replace(state, advertisements={**state.advertisements, site: reply})


def _public_keys(message: Signed) -> tuple[bytes, bytes]:
    advertisement = decode_from(message.payload, Advertisement, f"site {message.site}")
    return advertisement.mask_key, advertisement.channel_key


def _close_advertising(state: Advertising) -> Step:
    if len(state.advertisements) < state.round.header.minimum:
        return _abort(state.round, Stage.ADVERTISE, len(state.advertisements), state.refused)
    ordered = tuple(state.advertisements[s] for s in sorted(state.advertisements))
    sharing_state = Sharing(state.round, ordered, session_id(state.round.digest, ordered), refused=state.refused)
    request = ShareRequest(state.round.digest, ordered)
    return Step(sharing_state, dict.fromkeys(sharing_state.members, request))


def _receive_shares(state: Sharing, site: int, reply: ShareReply) -> State:
    if site not in state.members:
        raise PeerError("shares of a site that did not advertise", peer=f"site {site}")
    _envelope(state.round, site, reply.head, Stage.SHARE, state.replies)
    head = decode_from(reply.head.payload, ShareHead, f"site {site}")
    if head.session != state.session:
        raise PeerError("shares for another session", peer=f"site {site}")
    if tuple(e.receiver for e in reply.entries) != state.members or head.size != len(state.members):
        raise PeerError("shares for others than the members", peer=f"site {site}")
    if sharing.entry_root(reply.entries) != head.root:
        raise PeerError("shares that are not the signed ones", peer=f"site {site}")
    return replace(state, replies={**state.replies, site: reply})


def _close_sharing(state: Sharing) -> Step:
    header = state.round.header
    if len(state.replies) < header.minimum:
        return _abort(state.round, Stage.SHARE, len(state.replies), state.refused)
    contributors = tuple(sorted(state.replies))
    keys = check_advertisements(state.round.roster, header, state.advertisements, {})
    total = MaskedSum(header.layout.length, header.layout.ring_bits)
    masking = Masking(state.round, state.session, keys, dict(state.replies), total, refused=state.refused)
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
    if reply.vector.shape != (layout.length,) or reply.vector.dtype != ring_dtype(layout.ring_bits):
        raise PeerError("a vector of another shape or ring than the header's", peer=peer)
    if payload.session != state.session or vector_digest(reply.vector) != payload.vector_digest:
        raise PeerError("a vector that is not the signed one", peer=peer)
    state.total.add(reply.vector)
    return replace(state, survivors=tuple(sorted((*state.survivors, site))))


def _close_masking(state: Masking) -> Step:
    if len(state.survivors) < state.round.header.minimum:
        return _abort(state.round, Stage.MASK, len(state.survivors), state.refused)
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
    masking = state.masking
    if len(state.confirmations) < masking.round.header.threshold:
        return _abort(masking.round, Stage.CONSISTENCY, len(state.confirmations), state.refused)
    ordered = tuple(state.confirmations[s] for s in sorted(state.confirmations))
    request = UnmaskRequest(masking.round.digest, masking.survivors, ordered)
    return Step(Unmasking(masking, refused=state.refused), dict.fromkeys(masking.survivors, request))


def _receive_openings(state: Unmasking, site: int, reply: Signed) -> State:
    masking, peer = state.masking, f"site {site}"
    if site not in masking.survivors:
        raise PeerError("shares opened by a site outside the survivor set", peer=peer)
    _envelope(masking.round, site, reply, Stage.UNMASK, state.openings)
    openings = decode_from(reply.payload, Openings, peer)
    if openings.session != masking.session or tuple(o.dealer for o in openings.openings) != masking.contributors:
        raise PeerError("opened shares of others than the contributors", peer=peer)
    position = list(masking.keys).index(site)
    for opening in openings.openings:
        wanted = SecretKind.SELF if opening.dealer in masking.survivors else SecretKind.MASK_SEED
        entry = masking.shares[opening.dealer].entries[position]
        if opening.kind != wanted or not sharing.opens(opening, entry, masking.session, site):
            raise PeerError("a share that does not open its dealer's commitment", peer=peer, blamed=site)
    return replace(state, openings={**state.openings, site: openings})


def _close_unmasking(state: Unmasking) -> Step:
    masking = state.masking
    if len(state.openings) < masking.round.header.threshold:
        return _abort(masking.round, Stage.UNMASK, len(state.openings), state.refused)
    return Step(unmask(state), {})


def _abort(round_: Round, stage: Stage, remaining: int, refused: tuple[Refused, ...]) -> Step:
    """Too few: the round ends and releases nothing.

    Sites that more than m others blame are named; fewer accusers could all be lying.
    """
    accusers: dict[int, set[int]] = {}
    for entry in refused:
        if entry.refusal.code == RefusalCode.BAD_PEER and entry.refusal.blamed is not None:
            accusers.setdefault(entry.refusal.blamed, set()).add(entry.site)
    blamed = tuple(sorted(s for s, by in accusers.items() if len(by) > round_.header.colluders))
    return Step(Aborted(round_, stage, AbortReason.TOO_FEW, remaining, blamed, refused), {})


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
