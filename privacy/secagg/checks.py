"""What sites and server compute alike and check alike: digests, commitments, signed envelopes, the members' keys."""

import hashlib
from collections.abc import Mapping, Sequence

from fedseal import merkle
from fedseal.errors import PeerError
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg.header import AdvertiseRequest, Header, header_signed_by
from fedseal.privacy.secagg.keys import Agreement, KeyAgreementError, commit, is_canonical
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import Advertisement, Member, Signed, Stage
from fedseal.wire import DecodeError, M, decode, encode


def self_commitment(header_hash: bytes, number: int, self_seed: bytes) -> bytes:
    """com_b: fixes a site's own mask before it knows who takes part."""
    return commit("com-b", header_hash, number.to_bytes(4, "big"), self_seed)


def session_id(header_hash: bytes, advertisements: Sequence[Signed]) -> bytes:
    """sid: commits to the header and to the keys of all members (U1), in their order."""
    return commit("sid", header_hash, *(hashlib.sha256(encode(a)).digest() for a in advertisements))


def ring_session_id(header_hash: bytes, members: Sequence[int], root: bytes) -> bytes:
    """sid on the sparse graph: commits to the header, to who the members are and, by the Merkle root, to their keys."""
    numbers = b"".join(site.to_bytes(4, "big") for site in members)
    return commit("ring-sid", header_hash, len(members).to_bytes(4, "big"), numbers, root)


def survivors_digest(session: bytes, survivors: Sequence[int]) -> bytes:
    """What a confirmation signs."""
    return commit("survivors", session, *(s.to_bytes(4, "big") for s in survivors))


def vector_digest(vector: RingVector) -> bytes:
    """SHA-256 over the little-endian words."""
    return hashlib.sha256(vector.data.cast("B")).digest()


def open_header(request: AdvertiseRequest, roster: Roster, site: int) -> Header:
    """The header, if the roster's server signed it and it speaks of this federation and this site.

    Raises:
        PeerError: otherwise.
    """
    if not header_signed_by(request, roster.server_key):
        raise PeerError("the header is not signed by the roster's server", peer="server")
    header = decode_from(request.header, Header, "server")
    if header.federation != roster.federation or header.roster_hash != roster.digest():
        raise PeerError("the header is for another federation or another roster", peer="server")
    listed = {entry.site for entry in roster.sites}
    if site not in header.cohort or not listed.issuperset(header.cohort):
        raise PeerError("the header's cohort lacks this site or has one that is not in the roster", peer="server")
    return header


def check_envelope(roster: Roster, message: Signed, stage: Stage, header_hash: bytes, *, peer: str) -> None:
    """That a roster site signed this message, for this stage of this round.

    Raises:
        PeerError: otherwise; the fault is ``peer``'s, who passed it on.
    """
    entry = roster.entry(message.site)
    if entry is None or message.stage != stage or message.header_hash != header_hash:
        raise PeerError(f"a message of another round, stage or federation at {stage.label}", peer=peer)
    if not message.valid(entry.signing_key):
        raise PeerError(f"a signature of site {message.site} does not hold", peer=peer)


def check_advertisements(
    roster: Roster, header: Header, advertisements: Sequence[Signed], known_counters: Mapping[int, int]
) -> dict[int, Advertisement]:
    """The keys of U1 by site: enough of them, and each as `check_keys` wants it.

    Raises:
        PeerError: otherwise.
    """
    keys = check_keys(roster, header, advertisements, known_counters)
    check_enough(len(keys), header)
    return keys


def check_enough(advertised: int, header: Header) -> None:
    """That so many sites who advertised are enough; PeerError otherwise."""
    if advertised < header.minimum:
        raise PeerError(f"{advertised} sites advertised, at least {header.minimum} are needed", peer="server")


def check_keys(
    roster: Roster, header: Header, advertisements: Sequence[Signed], known_counters: Mapping[int, int]
) -> dict[int, Advertisement]:
    """Keys by site: signed by sites of the cohort, distinct, canonical, from ledgers that did not go back.

    Raises:
        PeerError: otherwise.
    """
    digest, cohort = header.digest(), set(header.cohort)
    keys: dict[int, Advertisement] = {}
    for message in advertisements:
        if message.site not in cohort:
            raise PeerError("an advertisement of a site outside the cohort", peer="server")
        check_envelope(roster, message, Stage.ADVERTISE, digest, peer="server")
        keys[message.site] = decode_from(message.payload, Advertisement, f"site {message.site}")
        if keys[message.site].ledger_counter < known_counters.get(message.site, 0):
            raise PeerError(
                f"the ledger of site {message.site} went back: it was restored from a backup, or another round was "
                "held back",
                peer="server",
                blamed=message.site,
                next_step="That site has to bring its ledger up to date before anyone trains with it.",
            )
    public = [key for a in keys.values() for key in (a.mask_key, a.channel_key)]
    if len(set(public)) != len(public):
        raise PeerError("two sites advertised the same key", peer="server")
    for site, advertised in keys.items():
        if not (is_canonical(advertised.mask_key) and is_canonical(advertised.channel_key)):
            raise PeerError("a key with two encodings", peer="server", blamed=site)
    return keys


def check_members(
    neighbourhood: Sequence[Member], members: Sequence[int], expected: Sequence[int], root: bytes
) -> None:
    """That these are the advertisements of ``expected`` and stand in their places under the root over all members.

    Raises:
        PeerError: otherwise.
    """
    if [m.advertisement.site for m in neighbourhood] != list(expected):
        raise PeerError("others than this site and its neighbours on the ring", peer="server")
    places = {site: place for place, site in enumerate(members)}
    for member in neighbourhood:
        leaf, place = merkle.leaf_hash(encode(member.advertisement)), places[member.advertisement.site]
        if not merkle.verify_inclusion(leaf, place, len(members), member.path, root):
            raise PeerError("an advertisement that is not under the root of this session", peer="server")


def check_subset(subset: Sequence[int], whole: Sequence[int], own: int, minimum: int, what: str) -> None:
    """That a set of sites the server names is part of the former one, contains this site and is large enough.

    Raises:
        PeerError: otherwise.
    """
    if not set(subset) <= set(whole):
        raise PeerError(f"{what} that did not take part before", peer="server")
    if own not in subset:
        raise PeerError(f"this site is not among the {what}", peer="server")
    if len(subset) < minimum:
        raise PeerError(f"{len(subset)} {what}, at least {minimum} are needed", peer="server")


def same_round(received: bytes, expected: bytes) -> None:
    """That a request names the round this session belongs to; PeerError otherwise."""
    if received != expected:
        raise PeerError("a request of another round", peer="server")


def agree(own: Agreement, public: bytes, peer: int) -> bytes:
    """The secret shared with site ``peer``; PeerError blaming it if its key is of low order."""
    try:
        return own.shared(public)
    except KeyAgreementError as error:
        raise PeerError(str(error), peer="server", blamed=peer) from None


def decode_from(data: bytes, kind: type[M], peer: str) -> M:
    """A message as ``peer`` sent it: what cannot be read is the peer's fault."""
    try:
        return decode(data, kind)
    except DecodeError as error:
        raise PeerError(f"{kind.__name__} cannot be read: {error.message}", peer=peer) from None
