"""States and events of a site in one round.

States go to the site's disk between two messages, in the same encoding as the wire.

They hold secrets, which do not print; each state keeps only what later ones need, so a secret is gone as soon as its
use is.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, TypeAlias

from fedseal.privacy.quantize import BoundedUpdate
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg.header import HEADER_LIMIT, AdvertiseRequest
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import (
    ConsistencyRequest,
    MaskRequest,
    NeighbourRequest,
    ShareReply,
    ShareRequest,
    Signed,
    UnmaskRequest,
)
from fedseal.privacy.secagg.sharing import HeldShares
from fedseal.privacy.secret import Secret
from fedseal.wire import U32, U64, Blob, Bytes32, Fixed

Secret32 = Annotated[Secret, Fixed(32)]
HeaderBytes = Annotated[bytes, Blob(HEADER_LIMIT)]


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing has happened yet. ``ledger_counter``: how often this site was charged, which it will advertise."""

    ledger_counter: int


@dataclass(frozen=True, slots=True)
class Advertised:
    """Keys are out. Holds the round's three secrets."""

    TAG: ClassVar[int] = 41

    header: HeaderBytes
    mask_seed: Secret32
    self_seed: Secret32
    channel_key: Secret32
    advertisement: Signed


@dataclass(frozen=True, slots=True)
class Shared:
    """Shares are out; ``session`` fixes who takes part with which keys (U1).

    ``advertisements`` are those of this site and its neighbours, ``own`` what it holds of itself: on the complete
    graph one share of each secret, on the sparse one nothing.
    """

    TAG: ClassVar[int] = 42

    header: HeaderBytes
    mask_seed: Secret32
    self_seed: Secret32
    channel_key: Secret32
    session: Bytes32
    advertisements: tuple[Signed, ...]
    own: tuple[HeldShares, ...]
    members: tuple[U32, ...]


@dataclass(frozen=True, slots=True)
class Counter:
    """How often this site or a neighbour in this session said that its ledgers had been charged, before this round."""

    site: U32
    charges: U64


@dataclass(frozen=True, slots=True)
class Ready:
    """The others' shares are in and true: the vector may be made and masked. Lives in memory only."""

    header: bytes
    session: bytes
    counters: tuple[Counter, ...]
    contributors: tuple[int, ...]
    held: tuple[HeldShares, ...]
    witnesses: tuple[int, ...]
    needed: int
    add: tuple[Secret, ...]
    subtract: tuple[Secret, ...]


@dataclass(frozen=True, slots=True)
class MaskedOut:
    """The masked vector is out. The round's own secrets are gone; what others entrusted remains.

    ``needed`` of ``witnesses`` have to sign a survivor set before shares are opened for it.
    """

    TAG: ClassVar[int] = 44

    header: HeaderBytes
    session: Bytes32
    counters: tuple[Counter, ...]
    contributors: tuple[U32, ...]
    held: tuple[HeldShares, ...]
    witnesses: tuple[U32, ...]
    needed: U32


@dataclass(frozen=True, slots=True)
class Confirmed:
    """One survivor set is signed. No other will be."""

    TAG: ClassVar[int] = 45

    header: HeaderBytes
    session: Bytes32
    counters: tuple[Counter, ...]
    contributors: tuple[U32, ...]
    held: tuple[HeldShares, ...]
    witnesses: tuple[U32, ...]
    needed: U32
    survivors: tuple[U32, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """Shares were opened once and erased."""

    TAG: ClassVar[int] = 46

    session: Bytes32


@dataclass(frozen=True, slots=True)
class Vector:
    """The local event: this site's update, quantised, with the ledger's receipt for it."""

    update: BoundedUpdate
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class MaskedUpdate:
    """What a site sends at MASK: a signed digest and the vector as it crosses the wire (`masks.wire_form`).

    Made by the state machine only.
    """

    message: Signed
    vector: RingVector


State: TypeAlias = Idle | Advertised | Shared | Ready | MaskedOut | Confirmed | Done
StoredState: TypeAlias = Advertised | Shared | MaskedOut | Confirmed | Done
Event: TypeAlias = (
    AdvertiseRequest | ShareRequest | NeighbourRequest | MaskRequest | Vector | ConsistencyRequest | UnmaskRequest
)
Reply: TypeAlias = Signed | ShareReply | MaskedUpdate | None

STORED_STATES: tuple[type[StoredState], ...] = (Advertised, Shared, MaskedOut, Confirmed, Done)
