"""What sites and server compute alike and check alike: digests, commitments, signed envelopes, the members' keys."""

import hashlib
from collections.abc import Mapping, Sequence

from fedseal.errors import PeerError
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg.header import AdvertiseRequest, Header, header_signed_by
from fedseal.privacy.secagg.keys import Agreement, KeyAgreementError, commit, is_canonical
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import Advertisement, Signed, Stage
from fedseal.wire import DecodeError, M, decode, encode


def self_commitment(header_hash: bytes, number: int, self_seed: bytes) -> bytes:
    """com_b: fixes a site's own mask before it knows who takes part."""
    return commit("com-b", header_hash, number.to_bytes(4, "big"), self_seed)


def session_id(header_hash: bytes, advertisements: Sequence[Signed]) -> bytes:
    """sid: commits to the header and to the keys of all members (U1), in their order."""
    return commit("sid", header_hash, *(hashlib.sha256(encode(a)).digest() for a in advertisements))


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
    if site not in header.cohort or any(roster.entry(s) is None for s in header.cohort):
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
    """The keys of U1 by site: enough of them, signed by sites of the cohort, distinct, from ledgers that did not go
    back.

    Raises:
        PeerError: otherwise.
    """
    digest = header.digest()
    keys: dict[int, Advertisement] = {}
    for message in advertisements:
        if message.site not in header.cohort:
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
    if len(keys) < header.minimum:
        raise PeerError(f"{len(keys)} sites advertised, at least {header.minimum} are needed", peer="server")
    public = [key for a in keys.values() for key in (a.mask_key, a.channel_key)]
    if len(set(public)) != len(public):
        raise PeerError("two sites advertised the same key", peer="server")
    for site, advertised in keys.items():
        if not (is_canonical(advertised.mask_key) and is_canonical(advertised.channel_key)):
            raise PeerError("a key with two encodings", peer="server", blamed=site)
    return keys


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
