"""The site's side of protocol SA1: `step` takes a state and an event and returns the next state and the reply.

It checks everything before it makes anything: an error leaves the caller with the state it had. What keeps a site
safe from the server, in the order of the checks: the header is signed, within the site's limits and new (the site's
policy and `privacy.runs` see to the last two); its graph is the one for its cohort's size; every key is signed by a
site of the pinned roster; the survivor set is signed once; shares are opened once, for one partition of the
contributors, after t witnesses signed that same partition.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fedseal.errors import LocalError, PeerError
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg import sharing
from fedseal.privacy.secagg.checks import (
    agree,
    check_advertisements,
    check_enough,
    check_envelope,
    check_keys,
    check_members,
    check_subset,
    open_header,
    ring_session_id,
    same_round,
    self_commitment,
    session_id,
    survivors_digest,
    vector_digest,
)
from fedseal.privacy.secagg.client_states import (
    Advertised,
    Confirmed,
    Counter,
    Done,
    Event,
    Idle,
    MaskedOut,
    MaskedUpdate,
    Ready,
    Reply,
    Shared,
    State,
    Vector,
)
from fedseal.privacy.secagg.degree import NoDegreeError
from fedseal.privacy.secagg.graph import Graph, graph_of
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.keys import (
    Agreement,
    SigningKey,
    envelope_key,
    mask_private_key,
    pair_mask_key,
    self_mask_key,
    x25519_public,
)
from fedseal.privacy.secagg.masks import apply_masks, wire_form
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    ConsistencyRequest,
    Delivery,
    Masked,
    MaskRequest,
    NeighbourRequest,
    Openings,
    SecretKind,
    ShareHead,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
    sign,
)
from fedseal.privacy.secagg.parameters import PROTOCOL_RULES, GraphRules
from fedseal.privacy.secagg.shamir import RandomBytes, split
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode


@dataclass(frozen=True, slots=True)
class Site:
    """Who this is: number, long-term key, pinned roster, the highest ledger counter seen of each peer, where
    randomness comes from, and what it insists on in a round's graph.
    """

    number: int
    key: SigningKey
    roster: Roster
    known_counters: Mapping[int, int]
    random_bytes: RandomBytes
    graph_rules: GraphRules = PROTOCOL_RULES


@dataclass(frozen=True, slots=True)
class Step:
    """The next state and what to send."""

    state: State
    reply: Reply


def step(site: Site, state: State, event: Event) -> Step:
    """Advance one site by one event.

    Raises:
        PeerError: the event does not fit the state, or what it carries is false; `blamed` names a site where its own
            signature proves it.
        LocalError: the local vector does not fit the header.
    """
    transition = TRANSITIONS.get((type(state), type(event)))
    if transition is None:
        raise PeerError(
            f"{type(event).__name__} cannot follow in state {type(state).__name__}",
            peer="server",
            next_step="The round was left as it was; the server has to open a new attempt.",
        )
    return transition.apply(site, state, event)


def _opened(raw: bytes) -> tuple[Header, bytes]:
    """The header that a state keeps, and its hash."""
    return decode(raw, Header), hashlib.sha256(raw).digest()


def _advertise(site: Site, state: Idle, event: AdvertiseRequest) -> Step:
    header = open_header(event, site.roster, site.number)
    if not header.follows(site.graph_rules):
        raise PeerError("another graph than the one for a cohort of this size", peer="server")
    mask_seed, self_seed, channel_key = (Secret(site.random_bytes(32)) for _ in range(3))
    digest = header.digest()
    payload = Advertisement(
        mask_key=x25519_public(mask_private_key(mask_seed, digest)),
        channel_key=x25519_public(channel_key.reveal()),
        self_commitment=self_commitment(digest, site.number, self_seed.reveal()),
        ledger_counter=state.ledger_counter,
    )
    message = sign(Stage.ADVERTISE, site.number, digest, payload, site.key)
    return Step(Advertised(event.header, mask_seed, self_seed, channel_key, message), message)


def _share(site: Site, state: Advertised, event: ShareRequest) -> Step:
    header, digest = _opened(state.header)
    same_round(event.header_hash, digest)
    if header.sparse is not None:
        raise PeerError("a request for the complete graph in a round on the sparse one", peer="server")
    keys = check_advertisements(site.roster, header, event.advertisements, site.known_counters)
    session = session_id(digest, event.advertisements)
    return _deal(site, state, header, session, _graph(header, session, tuple(keys)), event.advertisements)


def _share_with_neighbours(site: Site, state: Advertised, event: NeighbourRequest) -> Step:
    header, digest = _opened(state.header)
    members = event.members
    same_round(event.header_hash, digest)
    if header.sparse is None:
        raise PeerError("a request for the sparse graph in a round on the complete one", peer="server")
    if not set(header.cohort).issuperset(members) or site.number not in members:
        raise PeerError("members outside the cohort, or without this site", peer="server")
    check_enough(len(members), header)
    session = ring_session_id(digest, members, event.root)
    graph = _graph(header, session, members)
    expected = sorted((*graph.neighbours(site.number), site.number))
    check_members(event.neighbourhood, members, expected, event.root)
    advertisements = tuple(m.advertisement for m in event.neighbourhood)
    check_keys(site.roster, header, advertisements, site.known_counters)
    return _deal(site, state, header, session, graph, advertisements)


def _graph(header: Header, session: bytes, members: tuple[int, ...]) -> Graph:
    try:
        return graph_of(header, session, members)
    except NoDegreeError as error:
        raise PeerError(error.message, peer="server") from None


def _deal(
    site: Site, state: Advertised, header: Header, session: bytes, graph: Graph, advertisements: tuple[Signed, ...]
) -> Step:
    """Share both secrets among those who hold this site's shares."""
    if state.advertisement not in advertisements:
        raise PeerError("this site's own advertisement is missing or altered", peer="server")
    keys = {a.site: decode(a.payload, Advertisement) for a in advertisements}
    holders, channel = graph.holders(site.number), Agreement(state.channel_key.reveal())
    envelopes = {
        v: envelope_key(agree(channel, keys[v].channel_key, v), session, site.number, v)
        for v in holders
        if v != site.number
    }
    entries, own = sharing.deal(
        session,
        site.number,
        holders,
        split(state.self_seed.reveal(), graph.threshold, len(holders), site.random_bytes),
        split(state.mask_seed.reveal(), graph.threshold, len(holders), site.random_bytes),
        envelopes,
        site.random_bytes,
    )
    head = ShareHead(session, sharing.entry_root(entries), len(entries))
    reply = ShareReply(sign(Stage.SHARE, site.number, header.digest(), head, site.key), tuple(entries))
    secrets = (state.mask_seed, state.self_seed, state.channel_key)
    members = tuple(sorted(graph.order))
    return Step(Shared(state.header, *secrets, session, advertisements, own, members), reply)


def _receive_shares(site: Site, state: Shared, event: MaskRequest) -> Step:
    header, digest = _opened(state.header)
    same_round(event.header_hash, digest)
    graph = _graph(header, state.session, state.members)
    check_subset(event.contributors, state.members, site.number, header.minimum, "contributors")
    contributing = set(event.contributors)
    dealers = [v for v in graph.neighbours(site.number) if v in contributing]
    if [d.head.site for d in event.deliveries] != dealers:
        raise PeerError("the deliveries are not those of the contributors", peer="server")
    if graph.left_alone([site.number], event.contributors):
        raise PeerError("too few of this site's neighbours are among the contributors", peer="server")
    keys = {a.site: decode(a.payload, Advertisement) for a in state.advertisements}
    channel = Agreement(state.channel_key.reveal())
    held = [*state.own, *(_accept(site, state, digest, graph, d, keys, channel) for d in event.deliveries)]
    add, subtract = _mask_keys(site.number, state, keys, dealers, digest)
    counters = tuple(Counter(number, advertised.ledger_counter) for number, advertised in keys.items())
    following = Ready(
        state.header,
        state.session,
        counters,
        event.contributors,
        tuple(sorted(held, key=lambda h: h.dealer)),
        graph.witnesses,
        graph.threshold,
        add,
        subtract,
    )
    return Step(following, None)


def _accept(
    site: Site,
    state: Shared,
    digest: bytes,
    graph: Graph,
    delivery: Delivery,
    keys: Mapping[int, Advertisement],
    channel: Agreement,
) -> sharing.HeldShares:
    """What one dealer dealt to this site, if it is what the dealer signed and committed to."""
    dealer = delivery.head.site
    check_envelope(site.roster, delivery.head, Stage.SHARE, digest, peer="server")
    key = envelope_key(agree(channel, keys[dealer].channel_key, dealer), state.session, dealer, site.number)
    holders = graph.holders(dealer)
    try:
        return sharing.receive(delivery, state.session, site.number, holders.index(site.number), len(holders), key)
    except sharing.DeliveryError as error:
        raise PeerError(f"from site {dealer}: {error}", peer="server") from None
    except sharing.DealerError as error:
        raise PeerError(f"site {dealer} dealt {error}", peer="server", blamed=dealer) from None


def _mask_keys(
    number: int, state: Shared, keys: Mapping[int, Advertisement], neighbours: list[int], header_hash: bytes
) -> tuple[tuple[Secret, ...], tuple[Secret, ...]]:
    """The masks to add and to subtract: this site's own, and one a pair with the sign that cancels at the other end."""
    agreement = Agreement(mask_private_key(state.mask_seed, header_hash))
    add = [Secret(self_mask_key(state.self_seed, state.session, number))]
    subtract: list[Secret] = []
    for v in neighbours:
        key = pair_mask_key(agree(agreement, keys[v].mask_key, v), state.session, number, v)
        (add if number < v else subtract).append(Secret(key))
    return tuple(add), tuple(subtract)


def _mask(site: Site, state: Ready, event: Vector) -> Step:
    header, digest = _opened(state.header)
    if event.update.layout != header.layout:
        raise LocalError("the update was quantised for another layout than the header's")
    if event.receipt.session != digest or event.receipt.plan != header.plan:
        raise LocalError("the ledger's receipt is for another round or another plan")
    vector = event.update.vector
    apply_masks(vector, [k.reveal() for k in state.add], [k.reveal() for k in state.subtract])
    sent = wire_form(vector, header.layout.ring_bits)
    message = sign(Stage.MASK, site.number, digest, Masked(state.session, vector_digest(sent)), site.key)
    kept = (state.header, state.session, state.counters, state.contributors, state.held)
    following = MaskedOut(*kept, state.witnesses, state.needed)
    return Step(following, MaskedUpdate(message, sent))


def _confirm(site: Site, state: MaskedOut, event: ConsistencyRequest) -> Step:
    header, digest = _opened(state.header)
    same_round(event.header_hash, digest)
    check_subset(event.survivors, state.contributors, site.number, header.minimum, "survivors")
    surviving = set(event.survivors)
    if sum(h.dealer in surviving for h in state.held) < state.needed:
        raise PeerError("too few of this site's neighbours are among the survivors", peer="server")
    payload = Confirmation(state.session, survivors_digest(state.session, event.survivors))
    message = sign(Stage.CONSISTENCY, site.number, digest, payload, site.key)
    kept = (state.header, state.session, state.counters, state.contributors, state.held)
    return Step(Confirmed(*kept, state.witnesses, state.needed, event.survivors), message)


def _open_shares(site: Site, state: Confirmed, event: UnmaskRequest) -> Step:
    _, digest = _opened(state.header)
    same_round(event.header_hash, digest)
    if event.survivors != state.survivors:
        raise PeerError("another survivor set than the one this site signed", peer="server")
    if len({c.site for c in event.confirmations}.intersection(state.witnesses)) < state.needed:
        raise PeerError(f"fewer than {state.needed} confirmations of the survivor set", peer="server")
    expected = encode(Confirmation(state.session, survivors_digest(state.session, state.survivors)))
    survivors = set(state.survivors)
    # Witnesses make the set certain; a neighbour's signature beside theirs shows how often that neighbour was charged.
    heard = survivors.intersection((*state.witnesses, *(c.site for c in state.counters)))
    for confirmation in event.confirmations:
        if confirmation.site not in heard or confirmation.payload != expected:
            raise PeerError("a confirmation of another survivor set, or by a site outside it", peer="server")
        check_envelope(site.roster, confirmation, Stage.CONSISTENCY, digest, peer="server")
    # One partition of the contributors decides which secret of a dealer is opened: never both.
    openings = tuple(h.opening(SecretKind.SELF if h.dealer in survivors else SecretKind.MASK_SEED) for h in state.held)
    message = sign(Stage.UNMASK, site.number, digest, Openings(state.session, openings), site.key)
    return Step(Done(state.session), message)


@dataclass(frozen=True, slots=True)
class Transition:
    """What an event does in a state, and the state it leads to."""

    apply: Callable[[Site, Any, Any], Step]
    to: type[State]


# The whole protocol of a site. Every pair that is not here is refused; docs/protocol.md and the exhaustive test are
# drawn from it. The functions' parameters are narrower than State and Event, which only the key of the table knows:
# hence Any.
TRANSITIONS: Mapping[tuple[type[State], type[Event]], Transition] = {
    (Idle, AdvertiseRequest): Transition(_advertise, Advertised),
    (Advertised, ShareRequest): Transition(_share, Shared),
    (Advertised, NeighbourRequest): Transition(_share_with_neighbours, Shared),
    (Shared, MaskRequest): Transition(_receive_shares, Ready),
    (Ready, Vector): Transition(_mask, MaskedOut),
    (MaskedOut, ConsistencyRequest): Transition(_confirm, Confirmed),
    (Confirmed, UnmaskRequest): Transition(_open_shares, Done),
}
