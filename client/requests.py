"""Reading requests and writing answers: what a message is, which round it belongs to, what it proves about peers."""

from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import ArrayRecord, ConfigRecord, Message

from fedseal.client.records import received_digest, task_records
from fedseal.errors import PeerError
from fedseal.inputs import Setting, input_digest
from fedseal.privacy.releases import REGISTRY, ReleaseKind
from fedseal.privacy.runs import ControlMessage
from fedseal.privacy.secagg.client_states import (
    Advertised,
    Confirmed,
    MaskedOut,
    MaskedUpdate,
    Shared,
    State,
    StoredState,
)
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.masks import RingVector
from fedseal.privacy.secagg.messages import (
    Advertisement,
    ConsistencyRequest,
    MaskRequest,
    NeighbourRequest,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.wire import DecodeError, decode, encode

LaterRequest = ShareRequest | NeighbourRequest | MaskRequest | ConsistencyRequest | UnmaskRequest

STAGES: dict[type[LaterRequest], Stage] = {
    ShareRequest: Stage.SHARE,
    NeighbourRequest: Stage.SHARE,
    MaskRequest: Stage.MASK,
    ConsistencyRequest: Stage.CONSISTENCY,
    UnmaskRequest: Stage.UNMASK,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What leaves: control bytes, and at MASK the masked vector."""

    control: bytes
    vector: RingVector | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """What a site is asked to compute on, as the signed header has it.

    ``configured``: the run's configuration is part of it.
    """

    records: dict[str, ArrayRecord | ConfigRecord]
    configured: bool


def decode_request(raw: bytes) -> AdvertiseRequest | LaterRequest | ControlMessage:
    """The request in control bytes; PeerError if it is none."""
    kinds: tuple[type[AdvertiseRequest | LaterRequest | ControlMessage], ...] = (
        AdvertiseRequest,
        ShareRequest,
        NeighbourRequest,
        MaskRequest,
        ConsistencyRequest,
        UnmaskRequest,
        ControlMessage,
    )
    try:
        return decode(raw, *kinds)
    except DecodeError as error:
        raise PeerError(f"a request that cannot be read: {error.message}", peer="server") from None


def proven_counters(state: StoredState | None, request: LaterRequest) -> dict[int, int]:
    """What an accepted request proves about how often peers were charged.

    An advertisement states it; a confirmation proves one charge more than the same site advertised in this session,
    because a site confirms only after it has sent its masked vector, and it sends that only after it was charged. So
    a ledger that loses even its last charge is behind what the peers know.
    """
    match state, request:
        case _, ShareRequest():
            return {a.site: decode(a.payload, Advertisement).ledger_counter for a in request.advertisements}
        case _, NeighbourRequest():
            messages = [m.advertisement for m in request.neighbourhood]
            return {a.site: decode(a.payload, Advertisement).ledger_counter for a in messages}
        case Confirmed(), UnmaskRequest():
            advertised = {c.site: c.charges for c in state.counters}
            # On the sparse graph a witness need not be a neighbour, and what it advertised is not known here.
            return {c.site: advertised[c.site] + 1 for c in request.confirmations if c.site in advertised}
        case _:
            return {}


def kind_of(header: Header, message: Message) -> ReleaseKind:
    """The registry's entry, if this message type carries it; PeerError otherwise."""
    kind = REGISTRY.get(header.release_name)
    if kind is None or kind.message.value != message.metadata.message_type:
        raise PeerError("a release that is not in the registry, or in the wrong kind of message", peer="server")
    return kind


def known(state: StoredState | None) -> State:
    """The state of a session; PeerError if this site has none under that header."""
    if state is None:
        raise PeerError(
            "a request for a round that this site did not open, or that a newer one has replaced", peer="server"
        )
    return state


def header_of(state: StoredState | None) -> Header:
    """The header of the round that a state belongs to; PeerError if the round is over."""
    match known(state):
        case Advertised(header=raw) | Shared(header=raw) | MaskedOut(header=raw) | Confirmed(header=raw):
            return decode(raw, Header)
        case _:
            raise PeerError("a request for a round that is over", peer="server")


def encode_answer(reply: Signed | ShareReply | MaskedUpdate) -> Answer:
    """A state machine's reply as it leaves."""
    if isinstance(reply, MaskedUpdate):
        return Answer(encode(reply.message), reply.vector)
    return Answer(encode(reply))


def task_in(message: Message, header: Header, run_config: Mapping[str, Setting]) -> Task:
    """The task that came with a request, if it is the one in the signed header; PeerError otherwise."""
    records = task_records(message)
    digest = received_digest(records)
    for configured, seen in ((True, run_config), (False, {})):
        if input_digest(digest, seen) == header.input_digest:
            return Task(records, configured)
    raise PeerError("the task is not the one in the signed header", peer="server")
