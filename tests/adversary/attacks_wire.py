"""Messages that are no message, or not the only one: what can be said in two ways has two hashes, and hashes are what
sites agree on.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import replace

from adversary.attack import Attack, Fault, Level, Refusal
from adversary.attacks_sites import ALL
from adversary.field import Field, field
from adversary.removal import Check
from support.keys import SERVER

from fedseal.errors import FedsealError
from fedseal.privacy.secagg import sharing
from fedseal.privacy.secagg.client_states import Advertised
from fedseal.privacy.secagg.header import AdvertiseRequest
from fedseal.privacy.secagg.keys import Agreement, envelope_key, seal, signed_message
from fedseal.privacy.secagg.messages import (
    ConsistencyRequest,
    SealedShares,
    SecretKind,
    ShareEntry,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
    sign,
)
from fedseal.privacy.secagg.shamir import split
from fedseal.privacy.secret import Secret
from fedseal.wire import encode

Refusals = list[Refusal]
BY_SERVER = Fault("site 1", peer="server")
LONG = 100_000


def opening(raw: bytes) -> AdvertiseRequest:
    """The server's signature on any bytes as on a header."""
    return AdvertiseRequest(raw, SERVER.sign(signed_message("header", hashlib.sha256(raw).digest(), raw)))


def header_bytes(change: Callable[[Field], bytes]) -> Callable[[Refusals], bool]:
    """Whether site 1 signs keys for a header that is not the canonical bytes of any."""

    def play(refusals: Refusals) -> bool:
        f = field(refusals, 5)
        raw = change(f)
        answer, state = f.ask(1, opening(raw)), f.cohort.states[1]
        return isinstance(answer, Signed) and isinstance(state, Advertised) and state.header == raw

    return play


def swapped(f: Field, old: bytes, new: bytes) -> bytes:
    """The header with one field written in another way."""
    raw = encode(f.header)
    if raw.count(old) != 1:
        raise LookupError("the field is not where it was")
    return raw.replace(old, new)


def other_flag(f: Field) -> bytes:
    """The last byte says that there is no sparse graph: with a 2 instead of a 0."""
    return encode(f.header)[:-1] + b"\x02"


def negative_zero(f: Field) -> bytes:
    """A range from -0 instead of from 0."""
    layout = f.header.layout
    segment = replace(layout.segments[0], low=0.0)
    f.use(replace(f.header, layout=replace(layout, segments=(segment,))))
    high = struct.pack(">d", segment.high)
    return swapped(f, struct.pack(">d", 0.0) + high, struct.pack(">d", -0.0) + high)


def long_name(f: Field) -> bytes:
    """A text of 100,000 bytes where 256 are allowed."""
    name = b"update"
    return swapped(f, len(name).to_bytes(4, "big") + name, LONG.to_bytes(4, "big") + b"x" * LONG)


def trailing(refusals: Refusals) -> bool:
    """A request with a byte behind its end: the same to whom reads it, another to whom remembers its digest."""
    f = field(refusals, 5)
    f.advertise()
    f.share()
    f.mask()
    return isinstance(f.ask(1, encode(ConsistencyRequest(f.digest, ALL)) + b"\x00"), Signed)


def short_salt(refusals: Refusals) -> bool:
    """Site 5 seals for site 1 what lacks its last byte, and commits to that: site 1 has taken a share that it can
    neither keep nor open.
    """
    f = field(refusals, 5, m=1)
    f.advertise()
    f.share()
    told, mole = f.told[1], f.moles[5]
    holders = told.graph.holders(5)
    parts = [split(s.reveal(), told.graph.threshold, 5, mole.draw) for s in (mole.self_seed, mole.mask_seed)]
    entries = list(f.dealt[5].entries)
    salt = bytes(16)
    plain = SealedShares(Secret(parts[0][0]), salt, Secret(parts[1][0]), salt)
    shared = Agreement(mole.channel.reveal()).shared(told.keys[1].channel_key)
    text = seal(envelope_key(shared, told.session, 5, 1), encode(plain)[:-1], told.session, 5, 1)
    commitments = [
        sharing.share_commitment(told.session, 5, 1, kind, part[0], s)
        for kind, part, s in zip(SecretKind, parts, (salt, salt[:-1]), strict=True)
    ]
    entries[holders.index(1)] = ShareEntry(1, text, *commitments)
    head = ShareHead(told.session, sharing.entry_root(entries), len(entries))
    reply = ShareReply(sign(Stage.SHARE, 5, f.digest, head, mole.key), tuple(entries))
    f.in_place_of[5] = reply
    f.mask(sites=(1,))
    try:
        encode(f.cohort.states[1])  # type: ignore[arg-type]
    except FedsealError:
        return True
    return False


NOTHING_BEHIND = Check("wire.decode", "end != len(data)")

ATTACKS = (
    Attack(
        "A request with a byte behind its end",
        "an answer to bytes that are no message",
        Level.WIRE,
        NOTHING_BEHIND,
        trailing,
        BY_SERVER,
        "bytes after the end",
    ),
    Attack(
        "A message of another format version",
        "keys signed for a header that this build cannot know the meaning of",
        Level.WIRE,
        Check("wire.decode", "data[2] != VERSION"),
        header_bytes(lambda f: b"FS\x02" + encode(f.header)[3:]),
        BY_SERVER,
        "message format version 2",
    ),
    Attack(
        "A truth value that is neither 0 nor 1",
        "two headers, and two hashes, that say the same",
        Level.WIRE,
        Check("wire._flag", "raw not in (b'\\x00', b'\\x01')"),
        header_bytes(other_flag),
        BY_SERVER,
        "neither 0 nor 1",
    ),
    Attack(
        "A range from minus zero",
        "two headers, and two hashes, that say the same",
        Level.WIRE,
        Check("wire._double", "raise DecodeError('a number that is not finite, or a negative zero')", "pass"),
        header_bytes(negative_zero),
        BY_SERVER,
        "negative zero",
        (Check("wire._double", "type(value) is not float or not admissible(value)"),),
    ),
    Attack(
        "A text of 100,000 bytes where 256 are allowed",
        "a site's store filled by whoever sends it headers",
        Level.WIRE,
        Check("wire._counted", "length > limit"),
        header_bytes(long_name),
        BY_SERVER,
        "at most 256 are allowed",
        (Check("wire._text", "len(raw) > limit"),),
    ),
    Attack(
        "Shares without their last byte, under commitments that match",
        "a site that can neither keep nor open what it has accepted",
        Level.WIRE,
        Check("wire._take", "end > len(data)"),
        short_salt,
        Fault("site 1", peer="server", blamed=5),
        "something else than shares",
        (NOTHING_BEHIND,),
    ),
)
