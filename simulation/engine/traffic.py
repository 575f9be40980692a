"""The bytes of an attempt at a release by formula: how long the protocol's messages are, without making them.

Every message of SA1 has a length that follows from how many sites are where in the round, so a message of zeros is as
long as the real one. Counted is what `server.exchange` counts, without what rides along of the log. Exact on the
complete graph, and on the sparse one where nobody drops out; else its deliveries are those of the mean graph.
"""

from dataclasses import dataclass

from fedseal.privacy.npy import npy_size
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
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
    ShareEntry,
    ShareHead,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.secret import Secret
from fedseal.server.exchange import Traffic
from fedseal.wire import Message, encode

HASH, SALT, SHARE, SIGNATURE = bytes(32), bytes(16), bytes(33), bytes(64)
# AES-GCM's tag.
TAG_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Turnout:
    """Who was where in an attempt: who was asked, and who answered each of the stages. Later ones may be empty."""

    cohort: tuple[int, ...]
    advertised: tuple[int, ...] = ()
    shared: tuple[int, ...] = ()
    masked: tuple[int, ...] = ()
    confirmed: tuple[int, ...] = ()
    opened: tuple[int, ...] = ()
    reached: Stage = Stage.ADVERTISE


def attempt_traffic(header: Header, turnout: Turnout, task: int) -> dict[Stage, Traffic]:
    """Bytes to and from all sites, by stage, of an attempt without refusals.

    Args:
        header: the attempt's.
        turnout: who answered what; stages after the last one that was reached have none.
        task: the bytes of the task's arrays.
    """
    lengths = Lengths(header)
    u1, u2, u3 = turnout.advertised, turnout.shared, turnout.masked
    found = {
        Stage.ADVERTISE: (len(turnout.cohort) * lengths.advertise, len(u1) * lengths.signed(ADVERTISEMENT)),
        Stage.SHARE: (lengths.share_requests(len(u1)), len(u2) * lengths.share_reply(len(u1))),
        Stage.MASK: (
            lengths.mask_requests(u1, u2) + len(u2) * task,
            len(u3) * (lengths.signed(Masked(HASH, HASH)) + lengths.vector),
        ),
        Stage.CONSISTENCY: (
            len(u3) * lengths.survivors(len(u3)),
            len(turnout.confirmed) * lengths.signed(Confirmation(HASH, HASH)),
        ),
        Stage.UNMASK: (
            lengths.unmask_requests(len(u1), len(u3), len(turnout.confirmed)),
            len(turnout.opened) * lengths.openings(len(u1), len(u2)),
        ),
    }
    return {stage: Traffic(*found[stage]) if stage <= turnout.reached else Traffic() for stage in Stage}


ADVERTISEMENT = Advertisement(HASH, HASH, HASH, 0)


class Lengths:
    """The lengths of the messages of one attempt."""

    def __init__(self, header: Header) -> None:
        self._header = header
        layout = header.layout
        self.advertise = len(encode(AdvertiseRequest(encode(header), SIGNATURE)))
        words = wire_length(layout.length, layout.ring_bits)
        self.vector = npy_size(ring_dtype(layout.ring_bits), words)
        sealed = encode(SealedShares(Secret(SHARE), SALT, Secret(SHARE), SALT))
        self._entry = ShareEntry(0, bytes(len(sealed) + TAG_LENGTH), HASH, HASH)
        self._own = ShareEntry(0, b"", HASH, HASH)

    def signed(self, payload: Message) -> int:
        """Of a signed payload on its own."""
        return len(encode(_signed(payload)))

    def holders(self, members: int) -> int:
        """How many hold a dealer's shares: everyone, or its neighbours on the sparse graph."""
        return members if self._header.sparse is None else self._header.degree(members).neighbours

    def share_requests(self, members: int) -> int:
        """Of all members' SHARE requests."""
        if not members:
            return 0
        one = _signed(ADVERTISEMENT)
        if self._header.sparse is None:
            empty = len(encode(ShareRequest(HASH, ())))
            return members * (empty + members * _inner(ShareRequest(HASH, (one,)), ShareRequest(HASH, ())))
        bare = NeighbourRequest(HASH, (), HASH, ())
        member = _inner(NeighbourRequest(HASH, (), HASH, (Member(one, ()),)), bare)
        number = _inner(NeighbourRequest(HASH, (1,), HASH, ()), bare)
        near = self.holders(members) + 1
        # Each advertisement goes to as many as there are in a neighbourhood, with its own path.
        return members * (len(encode(bare)) + members * number + near * member) + near * 32 * paths_length(members)

    def share_reply(self, members: int) -> int:
        """Of one SHARE reply."""
        if not members:
            return 0
        head = _signed(ShareHead(HASH, HASH, 0))
        empty = ShareReply(head, ())
        entry = _inner(ShareReply(head, (self._entry,)), empty)
        own = _inner(ShareReply(head, (self._own,)), empty)
        holders = self.holders(members)
        if self._header.sparse is None:
            return len(encode(empty)) + (holders - 1) * entry + own
        return len(encode(empty)) + holders * entry

    def mask_requests(self, members: tuple[int, ...], contributors: tuple[int, ...]) -> int:
        """Of all contributors' MASK requests, without the task."""
        if not contributors:
            return 0
        bare = MaskRequest(HASH, (), ())
        number = _inner(MaskRequest(HASH, (1,), ()), bare)
        head = _signed(ShareHead(HASH, HASH, 0))
        delivery = _inner(MaskRequest(HASH, (), (Delivery(head, self._entry, ()),)), bare)
        n, sharing = len(members), len(contributors)
        fixed = sharing * (len(encode(bare)) + sharing * number)
        if self._header.sparse is None:
            # A receiver has the same place under every dealer's root.
            there = set(contributors)
            paths = sum(path_length(place, n) for place, site in enumerate(members) if site in there)
            return fixed + (sharing - 1) * (sharing * delivery + 32 * paths)
        holders = self.holders(n)
        present = sharing * (sharing - 1) / (n * (n - 1))
        return fixed + round(present * n * (holders * delivery + 32 * paths_length(holders)))

    def survivors(self, survivors: int) -> int:
        """Of one CONSISTENCY request."""
        number = _inner(ConsistencyRequest(HASH, (1,)), ConsistencyRequest(HASH, ()))
        return len(encode(ConsistencyRequest(HASH, ()))) + survivors * number

    def unmask_requests(self, members: int, survivors: int, confirmed: int) -> int:
        """Of all survivors' UNMASK requests."""
        if not survivors:
            return 0
        bare = UnmaskRequest(HASH, (), ())
        number = _inner(UnmaskRequest(HASH, (1,), ()), bare)
        shown = _inner(UnmaskRequest(HASH, (), (_signed(Confirmation(HASH, HASH)),)), bare)
        fixed = survivors * (len(encode(bare)) + survivors * number)
        if self._header.sparse is None:
            return fixed + survivors * confirmed * shown
        # Witnesses and neighbours, of whom a witness has as many as anyone: counted once each.
        degree = self.holders(members)
        pairs = members * 2 * degree - degree * degree
        return fixed + round(pairs * survivors * confirmed / (members * members)) * shown

    def openings(self, members: int, contributors: int) -> int:
        """Of one UNMASK reply."""
        if not members:
            return 0
        empty = Openings(HASH, ())
        one = _inner(Openings(HASH, (Opening(0, 0, SHARE, SALT),)), empty)
        held = (
            contributors if self._header.sparse is None else self.holders(members) * (contributors - 1) / (members - 1)
        )
        return self.signed(empty) + round(held * one)


def _signed(payload: Message) -> Signed:
    return Signed(0, 1, HASH, encode(payload), SIGNATURE)


def _inner(longer: Message, shorter: Message) -> int:
    """How much longer one message is than another."""
    return len(encode(longer)) - len(encode(shorter))


def path_length(place: int, size: int) -> int:
    """The hashes on the way from a leaf of a Merkle tree to its root (RFC 9162, 2.1.3)."""
    length = 0
    while size > 1:
        split = 1 << (size - 1).bit_length() - 1
        place, size = (place, split) if place < split else (place - split, size - split)
        length += 1
    return length


def paths_length(size: int) -> int:
    """Of all leaves together."""
    if size <= 1:
        return 0
    split = 1 << (size - 1).bit_length() - 1
    return size + paths_length(split) + paths_length(size - split)
