"""How many bytes the five exchanges move: by the protocol's formula, or as a real round has measured them.

By formula nothing is guessed: messages of the production code are made once and encoded, and what depends on how
many sites are left is multiplied. What an exchange shows of the log is left out; it depends on the log.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from fedseal.privacy.plan import NoPrivacy, encode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import REGISTRY, UPDATE, release_layout
from fedseal.privacy.secagg.header import (
    AES_256_CTR,
    COMPLETE_GRAPH,
    HARARY_GRAPH,
    PROTOCOL,
    AdvertiseRequest,
    Header,
    sparse_for,
)
from fedseal.privacy.secagg.masks import ring_dtype, wire_length
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    ConsistencyRequest,
    Delivery,
    Masked,
    MaskRequest,
    Member,
    NeighbourRequest,
    Opening,
    Openings,
    SealedShares,
    SecretKind,
    ShareEntry,
    ShareHead,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.secagg.parameters import threshold
from fedseal.privacy.secret import Secret
from fedseal.server.rounds import RoundRecord
from fedseal.wire import Message, encode

HASH = 32
# AES-256-GCM's tag, behind what an envelope seals.
SEAL_TAG = 16
# What numpy's format puts before a vector (numpy.lib.format pads it to a multiple of 64).
NPY_HEAD = 128


class Sizes(Protocol):
    """Bytes of one exchange with one site, on average over the sites."""

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """Bytes to and from one site.

        Args:
            stage: the exchange.
            left: how many sites are left so far: asked, advertised, shared, and so on, up to those asked now.
        """


@dataclass(frozen=True, slots=True)
class Measured:
    """The same bytes for every site in every round, as measured once."""

    down: Mapping[Stage, float]
    up: Mapping[Stage, float]

    @classmethod
    def of(cls, record: RoundRecord, asked: int) -> "Measured":
        """What a finished round moved a site, if all of ``asked`` sites answered throughout at the first attempt."""
        costs = {stage: record.stages[stage.label] for stage in Stage}
        down = {stage: cost.bytes_down / asked for stage, cost in costs.items()}
        return cls(down, {stage: cost.bytes_up / asked for stage, cost in costs.items()})

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """As `Sizes` says."""
        return self.down[stage], self.up[stage]


@dataclass(frozen=True, slots=True)
class ByFormula:
    """The bytes that the protocol's messages have. ``task``: bytes of what is sent beside MASK's request (the model).

    Exact as a sum over the sites while nobody falls silent between a secret's dealing and its opening.
    """

    header: Header
    task: int

    def exchange(self, stage: Stage, left: tuple[int, ...]) -> tuple[float, float]:
        """As `Sizes` says."""
        match stage:
            case Stage.ADVERTISE:
                request = AdvertiseRequest(encode(self.header), bytes(64))
                return float(len(encode(request))), float(_LENGTH[Advertisement])
            case Stage.SHARE:
                return self._share(left[1])
            case Stage.MASK:
                return self._mask(left[1], left[2])
            case Stage.CONSISTENCY:
                return float(_EMPTY[ConsistencyRequest] + 4 * left[3]), float(_LENGTH[Confirmation])
            case Stage.UNMASK:
                return self._unmask(left[1], left[2], left[4])

    def _joined(self, members: int) -> int:
        """How many neighbours a site has."""
        return members - 1 if self.header.sparse is None else self.header.degree(members).neighbours

    def _holders(self, members: int) -> int:
        """How many hold a site's shares: on the complete graph itself, too."""
        return members if self.header.sparse is None else self._joined(members)

    def _share(self, members: int) -> tuple[float, float]:
        neighbours, holders = self._joined(members), self._holders(members)
        down = float(_EMPTY[ShareRequest] + members * _ADVERTISEMENT)
        if self.header.sparse is not None:
            each = _MEMBER + HASH * mean_depth(members)
            down = _EMPTY[NeighbourRequest] + 4 * members + (neighbours + 1) * each
        up = _EMPTY[ShareReply] + holders * _ENTRY
        if self.header.sparse is None:
            # The entry for oneself seals nothing.
            up -= _ENVELOPE
        return down, float(up)

    def _mask(self, members: int, contributors: int) -> tuple[float, float]:
        around = self._joined(members) * (contributors - 1) / max(members - 1, 1)
        each = _DELIVERY + HASH * mean_depth(self._holders(members))
        down = _EMPTY[MaskRequest] + 4 * contributors + around * each + self.task
        layout = self.header.layout
        words = wire_length(layout.length, layout.ring_bits) * ring_dtype(layout.ring_bits).itemsize
        return down, float(_LENGTH[Masked] + NPY_HEAD + words)

    def _unmask(self, members: int, contributors: int, confirmed: int) -> tuple[float, float]:
        held = self._holders(members) * contributors / members
        shown = float(confirmed)
        if self.header.sparse is not None:
            # Witnesses and neighbours, of whom some are both.
            degree = self._joined(members)
            shown = min(2 * degree - degree * degree / members, confirmed)
        down = _EMPTY[UnmaskRequest] + 4 * confirmed + shown * _CONFIRMATION
        return down, _EMPTY[Openings] + held * _OPENING


@lru_cache(maxsize=4096)
def mean_depth(leaves: int) -> float:
    """The mean length of an inclusion path in the Merkle tree of RFC 6962 over so many leaves."""
    return _depths(leaves) / leaves


def _depths(leaves: int) -> int:
    if leaves <= 1:
        return 0
    left = 1 << (leaves - 1).bit_length() - 1
    return _depths(left) + _depths(leaves - left) + leaves


def sizes_for(
    cohort: int,
    values: int,
    *,
    colluders: int = 0,
    minimum: int = 3,
    dropouts: float = 0.1,
    ring_bits: int = 32,
    task: int | None = None,
) -> ByFormula:
    """The bytes of an update of so many numbers over a cohort of so many sites.

    Args:
        cohort: how many sites are asked.
        values: how many numbers the model has.
        colluders, minimum, dropouts: the cohort's rules, see `server.sealing.CohortRules`.
        ring_bits: of one number of the sum.
        task: bytes of the model that is sent along; 4 a number if not given.
    """
    sparse = sparse_for(cohort, colluders, dropouts)
    header = Header(
        protocol=PROTOCOL,
        federation="simulated",
        roster_hash=bytes(32),
        run=bytes(16),
        fl_round=1,
        release_seq=1,
        attempt=0,
        release_name=UPDATE,
        cohort=tuple(range(1, cohort + 1)),
        threshold=threshold(cohort, colluders),
        colluders=colluders,
        site_minimum=minimum,
        noise_minimum=0,
        mask_generator=AES_256_CTR,
        graph=COMPLETE_GRAPH if sparse is None else HARARY_GRAPH,
        layout=release_layout(
            REGISTRY[UPDATE],
            values=values,
            value_range=100.0,
            weight_key="num-examples",
            largest_weight=1000,
            metrics={},
            sites=cohort,
            ring_bits=64 if cohort > 2047 else ring_bits,
            rounding=Rounding.STOCHASTIC,
        ),
        shapes_hash=bytes(32),
        plan=encode_plan(NoPrivacy(releases=1, retries=0)),
        input_digest=bytes(32),
        sparse=sparse,
    )
    return ByFormula(header, 4 * values if task is None else task)


def _signed(stage: Stage, payload: Message) -> Signed:
    return Signed(int(stage), 1, bytes(32), encode(payload), bytes(64))


# One message of each kind, empty where it lists things, and one of each thing listed: their lengths are all there is
# to the formula.
_ADVERTISED = _signed(Stage.ADVERTISE, Advertisement(bytes(32), bytes(32), bytes(32), 0))
_CONFIRMED = _signed(Stage.CONSISTENCY, Confirmation(bytes(32), bytes(32)))
_HEAD = _signed(Stage.SHARE, ShareHead(bytes(32), bytes(32), 1))
_OPENINGS = Openings(bytes(32), ())
_LENGTH: Mapping[type[Message], int] = {
    Advertisement: len(encode(_ADVERTISED)),
    Masked: len(encode(_signed(Stage.MASK, Masked(bytes(32), bytes(32))))),
    Confirmation: len(encode(_CONFIRMED)),
}
_EMPTY: Mapping[type[Message], int] = {
    ShareRequest: len(encode(ShareRequest(bytes(32), ()))),
    NeighbourRequest: len(encode(NeighbourRequest(bytes(32), (), bytes(32), ()))),
    ShareReply: len(encode(ShareReply(_HEAD, ()))),
    MaskRequest: len(encode(MaskRequest(bytes(32), (), ()))),
    ConsistencyRequest: len(encode(ConsistencyRequest(bytes(32), ()))),
    UnmaskRequest: len(encode(UnmaskRequest(bytes(32), (), ()))),
    Openings: len(encode(_signed(Stage.UNMASK, _OPENINGS))),
}
_SHARE = Secret(bytes(33))
_ENVELOPE = len(encode(SealedShares(_SHARE, bytes(16), _SHARE, bytes(16)))) + SEAL_TAG
_ENTRY_MADE = ShareEntry(1, bytes(_ENVELOPE), bytes(32), bytes(32))
_ENTRY = len(encode(ShareReply(_HEAD, (_ENTRY_MADE,)))) - _EMPTY[ShareReply]
_DELIVERY = len(encode(MaskRequest(bytes(32), (), (Delivery(_HEAD, _ENTRY_MADE, ()),)))) - _EMPTY[MaskRequest]
_ADVERTISEMENT = len(encode(ShareRequest(bytes(32), (_ADVERTISED,)))) - _EMPTY[ShareRequest]
_CONFIRMATION = len(encode(UnmaskRequest(bytes(32), (), (_CONFIRMED,)))) - _EMPTY[UnmaskRequest]
_MEMBER = len(encode(NeighbourRequest(bytes(32), (), bytes(32), (Member(_ADVERTISED, ()),)))) - _EMPTY[NeighbourRequest]
_OPENED = Openings(bytes(32), (Opening(1, int(SecretKind.SELF), bytes(33), bytes(16)),))
_OPENING = len(encode(_signed(Stage.UNMASK, _OPENED))) - _EMPTY[Openings]
