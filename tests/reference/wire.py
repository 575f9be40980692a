"""The encoding of docs/protocol.md, written from its table of messages; nothing of fedseal is used."""

import struct
from collections import namedtuple
from io import BytesIO
from typing import Any

# As on the page: tag, name, fields; *x is a list of x, ?x an optional x. What has no tag stands inside others only.
TABLE = """
1 Roster federation:text epoch:u32 simulated:bool root_key:b32 server_key:b32 sites:*RosterEntry
3 Layout ring_bits:u8 rounding:u8 segments:*Segment
10 Header protocol:text federation:text roster_hash:b32 run:b16 fl_round:u32 release_seq:u64 attempt:u16\
 release_name:text cohort:*u32 threshold:u32 colluders:u32 site_minimum:u32 noise_minimum:u32 mask_generator:u8\
 graph:u8 layout:Layout shapes_hash:b32 plan:blob input_digest:b32 sparse:?Sparse
11 AdvertiseRequest header:blob signature:b64
12 Signed stage:u8 site:u32 header_hash:b32 payload:blob signature:b64
20 Advertisement mask_key:b32 channel_key:b32 self_commitment:b32 ledger_counter:u64
21 ShareRequest header_hash:b32 advertisements:*Signed
22 ShareHead session:b32 root:b32 size:u32
23 ShareEntry receiver:u32 ciphertext:blob self_commitment:b32 seed_commitment:b32
24 ShareReply head:Signed entries:*ShareEntry
25 SealedShares self_share:b33 self_salt:b16 seed_share:b33 seed_salt:b16
26 Delivery head:Signed entry:ShareEntry path:*b32
27 MaskRequest header_hash:b32 contributors:*u32 deliveries:*Delivery
28 Masked session:b32 vector_digest:b32
29 ConsistencyRequest header_hash:b32 survivors:*u32
30 Confirmation session:b32 survivors_digest:b32
31 UnmaskRequest header_hash:b32 survivors:*u32 confirmations:*Signed
32 Opening dealer:u32 kind:u8 share:b33 salt:b16
33 Openings session:b32 openings:*Opening
35 NeighbourRequest header_hash:b32 members:*u32 root:b32 neighbourhood:*Member
- RosterEntry site:u32 name:text organisation:text signing_key:b32 persons:u64
- Segment name:text length:u32 low:f64 high:f64 scale:f64 weighted:bool headroom:u64 ball:bool
- Sparse dropouts:u32 sigma:u8 eta:u8
- Member advertisement:Signed path:*b32
"""
SIZES = {"bool": 1, "u8": 1, "u16": 2, "u32": 4, "u64": 8}
FIELDS: dict[str, list[str]] = {}
TAGS: dict[str, int] = {}
TYPES: dict[str, Any] = {}
for _line in TABLE.strip().splitlines():
    _tag, _name, *_fields = _line.split()
    FIELDS[_name] = [f.split(":")[1] for f in _fields]
    TYPES[_name] = namedtuple(_name, [f.split(":")[0] for f in _fields])
    if _tag != "-":
        TAGS[_name] = int(_tag)


def make(name: str, *values: Any) -> Any:
    return TYPES[name](*values)


def u32(*numbers: int) -> bytes:
    return b"".join(n.to_bytes(4, "big") for n in numbers)


def put(kind: str, value: Any) -> bytes:
    """The bytes of one field, without magic and tag."""
    if kind[0] == "*":
        return u32(len(value)) + b"".join(put(kind[1:], v) for v in value)
    if kind[0] == "?":
        return b"\0" if value is None else b"\1" + put(kind[1:], value)
    if kind in FIELDS:
        return b"".join(map(put, FIELDS[kind], value))
    if kind in ("text", "blob"):
        raw: bytes = value.encode() if kind == "text" else value
        return u32(len(raw)) + raw
    if kind == "f64":
        return struct.pack(">d", float(value))
    return int(value).to_bytes(SIZES[kind], "big") if kind in SIZES else bytes(value)


def take(kind: str, source: BytesIO) -> Any:
    """The value of one field that comes next."""
    if kind[0] == "*":
        return tuple([take(kind[1:], source) for _ in range(take("u32", source))])
    if kind[0] == "?":
        return take(kind[1:], source) if source.read(1) == b"\1" else None
    if kind in FIELDS:
        return TYPES[kind](*[take(field, source) for field in FIELDS[kind]])
    if kind in ("text", "blob"):
        raw = source.read(take("u32", source))
        return raw.decode() if kind == "text" else raw
    if kind == "f64":
        return struct.unpack(">d", source.read(8))[0]
    return int.from_bytes(source.read(SIZES[kind]), "big") if kind in SIZES else source.read(int(kind[1:]))


def encode(message: Any) -> bytes:
    name = type(message).__name__
    return b"FS\1" + bytes([TAGS[name]]) + put(name, message)


def decode(data: bytes, *names: str) -> Any:
    """The message in `data`, one of `names`; whatever encodes otherwise than it stands there is refused."""
    name = names[[TAGS[n] for n in names].index(data[3])]
    message = take(name, BytesIO(data[4:]))
    if encode(message) != data:
        raise ValueError("not the one encoding of this message")
    return message
