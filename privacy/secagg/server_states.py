"""States and events of the server in one round.

They hold no secret but the masked sum, which is one only while fewer than t sites answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from fedseal.privacy.quantize import IntegerSum
from fedseal.privacy.roster import Roster
from fedseal.privacy.secagg.assurance import Assurance
from fedseal.privacy.secagg.graph import Graph
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.masks import MaskedSum, RingVector
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ConsistencyRequest,
    MaskRequest,
    NeighbourRequest,
    Openings,
    Refusal,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)


@dataclass(frozen=True, slots=True)
class Round:
    """What stays the same from the first exchange to the last. ``workers``: how many threads take the masks off."""

    header: Header
    digest: bytes
    roster: Roster
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Refused:
    """Who refused at which stage, and whom it blames."""

    site: int
    stage: Stage
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Advertising:
    """Collecting keys (U1); ``taken`` are those that are in use."""

    round: Round
    advertisements: Mapping[int, Signed] = field(default_factory=dict)
    taken: frozenset[bytes] = frozenset()
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Sharing:
    """Collecting shares (U2)."""

    round: Round
    advertisements: tuple[Signed, ...]
    session: bytes
    graph: Graph
    replies: Mapping[int, ShareReply] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()

    @property
    def members(self) -> tuple[int, ...]:
        """U1."""
        return tuple(a.site for a in self.advertisements)


@dataclass(frozen=True, slots=True)
class Masking:
    """Collecting masked vectors (U3), added up as they come."""

    round: Round
    session: bytes
    graph: Graph
    keys: Mapping[int, Advertisement]
    shares: Mapping[int, ShareReply]
    total: MaskedSum
    survivors: tuple[int, ...] = ()
    refused: tuple[Refused, ...] = ()

    @property
    def contributors(self) -> tuple[int, ...]:
        """U2."""
        return tuple(sorted(self.shares))


@dataclass(frozen=True, slots=True)
class Confirming:
    """Collecting signatures on U3."""

    masking: Masking
    confirmations: Mapping[int, Signed] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Unmasking:
    """Collecting opened shares."""

    masking: Masking
    openings: Mapping[int, Openings] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The sum over the survivors, and nothing else."""

    round: Round
    session: bytes
    total: IntegerSum
    contributors: tuple[int, ...]
    survivors: tuple[int, ...]
    refused: tuple[Refused, ...]
    assurance: Assurance


class AbortReason(Enum):
    """Why a round released nothing."""

    TOO_FEW = "too few sites answered"
    TOO_FEW_NEIGHBOURS = "some site has too few neighbours left"
    NO_GRAPH = "no sparse graph on so few sites withstands the colluders"
    WRONG_SHARES = "a dealer's shares do not rebuild what it committed to"
    OUT_OF_RANGE = "the sum is outside what honest sites can make"


@dataclass(frozen=True, slots=True)
class Aborted:
    """Nothing was released. ``blamed`` are sites whose own signatures convict them."""

    round: Round
    stage: Stage
    reason: AbortReason
    remaining: int
    blamed: tuple[int, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class MaskedReply:
    """A site's answer at MASK: the signed digest and the vector as it crossed the wire (`masks.wire_form`)."""

    message: Signed
    vector: RingVector


Collecting: TypeAlias = Advertising | Sharing | Masking | Confirming | Unmasking
State: TypeAlias = Collecting | Finished | Aborted
SiteReply: TypeAlias = Signed | ShareReply | MaskedReply | Refusal
Request: TypeAlias = (
    AdvertiseRequest | ShareRequest | NeighbourRequest | MaskRequest | ConsistencyRequest | UnmaskRequest
)
