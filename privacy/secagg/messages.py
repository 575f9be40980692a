"""The messages of protocol SA1, as they stand on the wire. Frozen; each checks what can be checked without context.

What a site sends is a `Signed` envelope: its signature covers the stage, the header's hash and the payload. Requests
of the server carry other sites' signed envelopes and sets of site numbers; the server's own word is never enough for
anything that protects a site.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from fedseal.privacy.secagg.keys import SigningKey, signed_message, verify
from fedseal.privacy.secret import Secret
from fedseal.wire import U8, U32, U64, Blob, Bytes16, Bytes32, Bytes33, Bytes64, Fixed, Message, encode

Secret33 = Annotated[Secret, Fixed(33)]


class Stage(IntEnum):
    """The five exchanges of a round."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    CONSISTENCY = 3
    UNMASK = 4

    @property
    def label(self) -> str:
        """The name in signatures and in print."""
        return self.name.lower()


class SecretKind(IntEnum):
    """Which of a dealer's two secrets a share belongs to.

    Of one dealer, a site opens one kind or the other, never both.
    """

    SELF = 0
    MASK_SEED = 1


def _increasing(numbers: tuple[int, ...]) -> None:
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("site numbers are not in strictly increasing order")


@dataclass(frozen=True, slots=True)
class Signed:
    """A site's message at a stage of the round with header hash ``header_hash``."""

    TAG: ClassVar[int] = 12

    stage: U8
    site: U32
    header_hash: Bytes32
    payload: Annotated[bytes, Blob(1 << 20)]
    signature: Bytes64

    def __post_init__(self) -> None:
        if self.stage not in Stage.__members__.values():
            raise ValueError("an unknown stage")

    def valid(self, public_key: bytes) -> bool:
        """Whether the owner of ``public_key`` signed this."""
        message = signed_message(Stage(self.stage).label, self.header_hash, self.payload)
        return verify(public_key, self.signature, message)


def sign(stage: Stage, site: int, header_hash: bytes, payload: Message, key: SigningKey) -> Signed:
    """Wrap and sign a payload."""
    raw = encode(payload)
    return Signed(int(stage), site, header_hash, raw, key.sign(signed_message(stage.label, header_hash, raw)))


@dataclass(frozen=True, slots=True)
class Advertisement:
    """ADVERTISE, payload: a site's two public keys for the round, the commitment to its own mask, and how often its
    ledgers were charged.
    """

    TAG: ClassVar[int] = 20

    mask_key: Bytes32
    channel_key: Bytes32
    self_commitment: Bytes32
    ledger_counter: U64

    def __post_init__(self) -> None:
        if self.ledger_counter >= 1 << 62:
            raise ValueError("a counter that no ledger reaches")


@dataclass(frozen=True, slots=True)
class ShareRequest:
    """SHARE, request: the signed advertisements of all who advertised (U1), by increasing site number."""

    TAG: ClassVar[int] = 21

    header_hash: Bytes32
    advertisements: tuple[Signed, ...]

    def __post_init__(self) -> None:
        _increasing(tuple(a.site for a in self.advertisements))


@dataclass(frozen=True, slots=True)
class Member:
    """A signed advertisement, with the path that leads from it to the root over all of them."""

    advertisement: Signed
    path: tuple[Bytes32, ...]


@dataclass(frozen=True, slots=True)
class NeighbourRequest:
    """SHARE, request on the sparse graph: who advertised (U1), and the advertisements of the receiver and of its
    neighbours, both by increasing site number. ``root`` is that of the Merkle tree over all advertisements of U1.
    """

    TAG: ClassVar[int] = 35

    header_hash: Bytes32
    members: tuple[U32, ...]
    root: Bytes32
    neighbourhood: tuple[Member, ...]

    def __post_init__(self) -> None:
        _increasing(self.members)
        _increasing(tuple(m.advertisement.site for m in self.neighbourhood))


@dataclass(frozen=True, slots=True)
class ShareHead:
    """SHARE, payload: the root of the Merkle tree over the dealer's entries, one for each holder in order."""

    TAG: ClassVar[int] = 22

    session: Bytes32
    root: Bytes32
    size: U32


@dataclass(frozen=True, slots=True)
class ShareEntry:
    """What a dealer has for one receiver: the sealed shares and salted commitments to them.

    The entry for itself seals nothing.
    """

    TAG: ClassVar[int] = 23

    receiver: U32
    ciphertext: Annotated[bytes, Blob(256)]
    self_commitment: Bytes32
    seed_commitment: Bytes32


@dataclass(frozen=True, slots=True)
class ShareReply:
    """SHARE, reply: the signed head and the entries it commits to."""

    TAG: ClassVar[int] = 24

    head: Signed
    entries: tuple[ShareEntry, ...]

    def __post_init__(self) -> None:
        _increasing(tuple(e.receiver for e in self.entries))


@dataclass(frozen=True, slots=True)
class SealedShares:
    """The plaintext of an entry's ciphertext: a share of each of the dealer's secrets, with the salts of their
    commitments.
    """

    TAG: ClassVar[int] = 25

    self_share: Secret33
    self_salt: Bytes16
    seed_share: Secret33
    seed_salt: Bytes16


@dataclass(frozen=True, slots=True)
class Delivery:
    """One dealer's entry on its way to its receiver, with the dealer's signed head and the path that leads from one
    to the other.
    """

    TAG: ClassVar[int] = 26

    head: Signed
    entry: ShareEntry
    path: tuple[Bytes32, ...]


@dataclass(frozen=True, slots=True)
class MaskRequest:
    """MASK, request: who shared (U2) and what each of the receiver's neighbours among them dealt to it.

    The task travels beside it.
    """

    TAG: ClassVar[int] = 27

    header_hash: Bytes32
    contributors: tuple[U32, ...]
    deliveries: tuple[Delivery, ...]

    def __post_init__(self) -> None:
        _increasing(self.contributors)
        _increasing(tuple(d.head.site for d in self.deliveries))


@dataclass(frozen=True, slots=True)
class Masked:
    """MASK, payload: the digest of the masked vector, which travels beside it."""

    TAG: ClassVar[int] = 28

    session: Bytes32
    vector_digest: Bytes32


@dataclass(frozen=True, slots=True)
class ConsistencyRequest:
    """CONSISTENCY, request: whose masked vectors arrived (U3)."""

    TAG: ClassVar[int] = 29

    header_hash: Bytes32
    survivors: tuple[U32, ...]

    def __post_init__(self) -> None:
        _increasing(self.survivors)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """CONSISTENCY, payload: the survivor set this site will unmask, and no other."""

    TAG: ClassVar[int] = 30

    session: Bytes32
    survivors_digest: Bytes32


@dataclass(frozen=True, slots=True)
class UnmaskRequest:
    """UNMASK, request: the survivor set again, with the signatures of at least t sites on it."""

    TAG: ClassVar[int] = 31

    header_hash: Bytes32
    survivors: tuple[U32, ...]
    confirmations: tuple[Signed, ...]

    def __post_init__(self) -> None:
        _increasing(self.survivors)
        _increasing(tuple(c.site for c in self.confirmations))


@dataclass(frozen=True, slots=True)
class Opening:
    """A share, with the salt that opens its dealer's commitment."""

    TAG: ClassVar[int] = 32

    dealer: U32
    kind: U8
    share: Bytes33
    salt: Bytes16

    def __post_init__(self) -> None:
        if self.kind not in SecretKind.__members__.values():
            raise ValueError("an unknown kind of secret")


@dataclass(frozen=True, slots=True)
class Openings:
    """UNMASK, payload: one share for each contributor whose shares the site holds; of its own mask if it survived, of
    its mask seed if it did not.
    """

    TAG: ClassVar[int] = 33

    session: Bytes32
    openings: tuple[Opening, ...]

    def __post_init__(self) -> None:
        _increasing(tuple(o.dealer for o in self.openings))


class RefusalCode(IntEnum):
    """Why a site does not answer. A closed list: nothing else about an error leaves the site."""

    NOT_ENROLLED = 1
    PROTOCOL = 2
    BAD_PEER = 3
    POLICY = 4
    BUDGET = 5
    TASK = 6
    INTERNAL = 7
    LOG = 8
    # Not now: ask again. Nothing has changed at the site.
    LATER = 9
    WAITING = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """A site's answer when it does not answer: a fixed code and, for BAD_PEER, the site it blames."""

    TAG: ClassVar[int] = 34

    code: U8
    blamed: U32 | None

    def __post_init__(self) -> None:
        if self.code not in RefusalCode.__members__.values():
            raise ValueError("an unknown code")
