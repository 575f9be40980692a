"""Dealing, delivering and opening shares, with commitments that name the author of a wrong one.

A dealer commits to every share with a salt, puts the commitments in a Merkle tree and signs its root once. A receiver
checks its own entry when it gets it; whoever opens a share later shows the salt too. So a share that does not open
its commitment names the opener, and opened shares that do not rebuild the dealer's public commitment name the dealer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedseal import merkle
from fedseal.privacy.secagg.keys import commit, seal, unseal
from fedseal.privacy.secagg.messages import (
    Delivery,
    Opening,
    SealedShares,
    Secret33,
    SecretKind,
    ShareEntry,
    ShareHead,
    ShareReply,
)
from fedseal.privacy.secagg.shamir import RandomBytes, is_share
from fedseal.privacy.secret import Secret
from fedseal.wire import U32, Bytes16, DecodeError, decode, encode

SALT_LENGTH = 16


@dataclass(frozen=True, slots=True)
class HeldShares:
    """What a site holds of one dealer: a share of each of its two secrets."""

    dealer: U32
    self_share: Secret33
    self_salt: Bytes16
    seed_share: Secret33
    seed_salt: Bytes16

    def opening(self, kind: SecretKind) -> Opening:
        """The share of one kind, ready to be sent."""
        if kind is SecretKind.SELF:
            return Opening(self.dealer, int(kind), self.self_share.reveal(), self.self_salt)
        return Opening(self.dealer, int(kind), self.seed_share.reveal(), self.seed_salt)


class DeliveryError(ValueError):
    """What was delivered is not what its dealer signed for this receiver in this session: whoever delivered it is at
    fault.
    """


class DealerError(ValueError):
    """What a dealer signed does not hold together: its own signature convicts it."""


def share_commitment(session: bytes, dealer: int, receiver: int, kind: SecretKind, share: bytes, salt: bytes) -> bytes:
    """The salted hash of one share; session, both parties and the kind are part of it."""
    where = session + dealer.to_bytes(4, "big") + receiver.to_bytes(4, "big") + bytes((int(kind),))
    return commit("share-commitment", where, salt, share)


def deal(
    session: bytes,
    dealer: int,
    receivers: Sequence[int],
    self_shares: Sequence[bytes],
    seed_shares: Sequence[bytes],
    envelope_keys: dict[int, bytes],
    random_bytes: RandomBytes,
) -> tuple[list[ShareEntry], tuple[HeldShares, ...]]:
    """The entries for all receivers in order, and what the dealer keeps of its own: nothing where it is no receiver.

    Args:
        session: the session id.
        dealer: the dealer's site number.
        receivers: who holds its shares, in order; the share at position i goes to receiver i.
        self_shares: shares of the self seed.
        seed_shares: shares of the mask seed.
        envelope_keys: the key of the envelope to each receiver but the dealer.
        random_bytes: for the salts.
    """
    entries: list[ShareEntry] = []
    own: list[HeldShares] = []
    for receiver, self_share, seed_share in zip(receivers, self_shares, seed_shares, strict=True):
        salts = random_bytes(SALT_LENGTH), random_bytes(SALT_LENGTH)
        plain = SealedShares(Secret(self_share), salts[0], Secret(seed_share), salts[1])
        if receiver == dealer:
            own.append(HeldShares(dealer, plain.self_share, plain.self_salt, plain.seed_share, plain.seed_salt))
            sealed = b""
        else:
            sealed = seal(envelope_keys[receiver], encode(plain), session, dealer, receiver)
        entries.append(
            ShareEntry(
                receiver,
                sealed,
                share_commitment(session, dealer, receiver, SecretKind.SELF, self_share, salts[0]),
                share_commitment(session, dealer, receiver, SecretKind.MASK_SEED, seed_share, salts[1]),
            )
        )
    return entries, tuple(own)


def entry_root(entries: Sequence[ShareEntry]) -> bytes:
    """The root that a dealer signs."""
    return merkle.root([merkle.leaf_hash(encode(e)) for e in entries])


def deliveries(reply: ShareReply) -> list[Delivery]:
    """A dealer's entries, each with the path that proves it belongs under the signed root.

    In the order of the receivers.
    """
    paths = merkle.inclusion_paths([merkle.leaf_hash(encode(e)) for e in reply.entries])
    return [Delivery(reply.head, entry, path) for entry, path in zip(reply.entries, paths, strict=True)]


def receive(
    delivery: Delivery, session: bytes, receiver: int, position: int, size: int, envelope_key: bytes
) -> HeldShares:
    """Open one delivery at its receiver.

    The head's signature is checked by the caller.

    Raises:
        DeliveryError: the entry does not stand under the dealer's signed root at this receiver's place.
        DealerError: it does, but it is for someone else, is not authentic, or does not match its commitments.
    """
    dealer = delivery.head.site
    try:
        head = decode(delivery.head.payload, ShareHead)
    except DecodeError:
        raise DealerError("a share head that cannot be read") from None
    if head.session != session or head.size != size:
        raise DeliveryError("shares for another session")
    leaf = merkle.leaf_hash(encode(delivery.entry))
    if not merkle.verify_inclusion(leaf, position, size, delivery.path, head.root):
        raise DeliveryError("an entry that its dealer did not sign for this site")
    if delivery.entry.receiver != receiver:
        raise DealerError("an entry for another site in this site's place")
    plaintext = unseal(envelope_key, delivery.entry.ciphertext, session, dealer, receiver)
    if plaintext is None:
        raise DealerError("an envelope that is not authentic")
    try:
        plain = decode(plaintext, SealedShares)
    except DecodeError:
        raise DealerError("an envelope with something else than shares in it") from None
    held = HeldShares(dealer, plain.self_share, plain.self_salt, plain.seed_share, plain.seed_salt)
    for kind in SecretKind:
        if not opens(held.opening(kind), delivery.entry, session, receiver):
            raise DealerError("a share that does not match its commitment")
    return held


def opens(opening: Opening, entry: ShareEntry, session: bytes, receiver: int) -> bool:
    """Whether an opened share is a field element and matches the commitment in the dealer's entry for ``receiver``."""
    kind = SecretKind(opening.kind)
    expected = entry.self_commitment if kind is SecretKind.SELF else entry.seed_commitment
    actual = share_commitment(session, opening.dealer, receiver, kind, opening.share, opening.salt)
    return is_share(opening.share) and actual == expected
