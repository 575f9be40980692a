"""Fuzz targets: what server and sites send each other."""

import hashlib
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

import hypothesis
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.events import bodies
from support.fuzzing import Target
from support.keys import SERVER, key, make_roster, signed
from support.logs import leaves
from support.messages import message_classes, messages

from fedseal.client.fleet import DeclinedError, identify, inflated
from fedseal.client.requests import decode_request
from fedseal.compliance.events.leaf import Place, read_event, sign_event
from fedseal.compliance.events.registry import EVENTS
from fedseal.compliance.journal.attachment import LogReply, LogRequest, read_reply, read_request
from fedseal.compliance.log import canonical
from fedseal.compliance.log.checkpoint import (
    Checkpoint,
    Cosigner,
    cosign,
    log_key,
    read_checkpoint,
    server_origin,
    sign_checkpoint,
    site_origin,
    witness_key,
)
from fedseal.compliance.log.malformed import MalformedError
from fedseal.compliance.log.note import parse_note, parse_signature, parse_vkey
from fedseal.compliance.log.proof import Proof, parse_proof
from fedseal.compliance.log.quorum import federation_policy, format_policy, parse_policy
from fedseal.compliance.log.tiles import decode_entries, decode_hashes, encode_entries, encode_hashes, parse_path
from fedseal.compliance.log.tree import EMPTY
from fedseal.compliance.log.witness import decode_request as witness_request
from fedseal.compliance.log.witness import encode_request
from fedseal.errors import ConfigError, PeerError
from fedseal.merkle import leaf_hash
from fedseal.privacy.counts import Tables, read_tables
from fedseal.privacy.npy import bytes_npy, to_npy, view_npy
from fedseal.privacy.plan import PLANS, decode_plan, encode_plan
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.watch import Watch, read_watch
from fedseal.wire import DecodeError, decode, encode

TIME = "2026-11-28T09:00:00.000000Z"
KINDS = tuple(message_classes())
ENTRIES = leaves(0, 5)


def drawn(strategy: st.SearchStrategy[Any], count: int) -> list[Any]:
    """So many values of a strategy, always the same."""
    found: list[Any] = []

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def take(value: Any) -> None:
        found.append(value)

    take()
    return found


@cache
def wire_corpus(*names: str) -> tuple[bytes, ...]:
    """Messages of these classes, or of all."""
    kinds = [kind for kind in KINDS if not names or kind.__name__ in names]
    found: list[bytes] = []
    for kind in kinds:
        found += [encode(value) for value in drawn(messages(kind), 4)]
    return tuple(found)


def wire(*names: str) -> Callable[[], Sequence[bytes]]:
    """What makes them."""
    return lambda: wire_corpus(*names)


def named(*kinds: type) -> Callable[[], Sequence[bytes]]:
    """What makes messages of these classes."""
    return cache(lambda: tuple(encode(value) for kind in kinds for value in drawn(messages(kind), 8)))


def written(value: object) -> bytes:
    """A message in its only encoding."""
    return encode(cast(Any, value))


@cache
def event_corpus() -> tuple[bytes, ...]:
    """An event or two of every type."""
    found = []
    for kind in EVENTS.values():
        for body in drawn(bodies(kind.body), 2):
            found.append(sign_event(body, SERVER, Place(), org="server", time=TIME, kind=kind))
    return tuple(found)


def note(size: int = len(ENTRIES)) -> str:
    """A checkpoint of the first entries, cosigned by two sites."""
    root = EMPTY.extend([leaf_hash(leaf) for leaf in ENTRIES[:size]])[0].root
    checkpoint = Checkpoint(server_origin("test"), size, root)
    whole = str(sign_checkpoint(checkpoint, SERVER))
    sites = [Cosigner(site_origin("test", f"site-{n}"), key(f"site-{n}")) for n in (1, 2)]
    return whole + "".join(cosign(checkpoint, site, 1_790_000_000).line + "\n" for site in sites)


def policy() -> str:
    """Who has to have cosigned it."""
    sites = [witness_key(site_origin("test", f"site-{n}"), key(f"site-{n}").public) for n in (1, 2, 3)]
    return format_policy(federation_policy(log_key(server_origin("test"), SERVER.public), sites, 0))


def proof() -> str:
    """A proof's file."""
    return str(Proof(0, (32 * b"a", 32 * b"b", 32 * b"c"), note()))


def flower_message() -> tuple[str, dict[str, bytes]]:
    """A message of Flower's as its objects, and the name of its head."""
    record = RecordDict({"m": ArrayRecord([np.arange(6, dtype=np.float32).reshape(2, 3)]), "c": ConfigRecord({"a": 1})})
    identify(1, 1)
    message = Message(record, dst_node_id=1, message_type="train", group_id="1")
    objects = get_all_nested_objects(message)
    return message.object_id, {name: one.deflate() for name, one in objects.items()}


def framed(number: str, contents: dict[str, bytes]) -> bytes:
    """Objects as one string: each with its name and its length, the head first."""
    order = [number, *(name for name in contents if name != number)]
    return b"".join(name.encode() + struct.pack(">I", len(contents[name])) + contents[name] for name in order)


def unframed(raw: bytes) -> Message:
    """The message in such a string, of which names and lengths may be wrong."""
    contents: dict[str, bytes] = {}
    place, number = 0, ""
    while place < len(raw):
        name = raw[place : place + 64].decode("latin-1")
        (length,) = struct.unpack(">I", raw[place + 64 : place + 68].rjust(4, b"\0"))
        contents[name] = raw[place + 68 : place + 68 + length]
        number = number or name
        place += 68 + length
    return inflated(number, contents)


def npy_corpus() -> Sequence[bytes]:
    arrays = [np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(4, np.uint64), np.ones((1, 2, 2), np.int8)]
    return [cast(bytes, bytes_npy(cast(Any, array))) for array in arrays] + [to_npy(np.arange(9, dtype=np.uint32))]


def viewed(raw: bytes) -> NDArray[Any]:
    """The array behind some bytes; MalformedError where only numpy itself could read them."""
    found = view_npy(raw)
    if found is None:
        raise MalformedError("no array")
    return found


def pinned_roster(raw: bytes) -> Roster:
    """A roster of which the site has pinned the digest of whatever it was handed."""
    whole = decode(raw, SignedRoster)
    return open_roster(whole, pinned=hashlib.sha256(whole.roster).digest())


WIRE = (
    Target("wire", lambda raw: decode(raw, *KINDS), (DecodeError,), wire(), written),
    Target("request", decode_request, (PeerError,), wire("ShareRequest", "MaskRequest", "UnmaskRequest"), written),
    Target("plan", decode_plan, (PeerError,), named(*PLANS), lambda plan: encode_plan(cast(Any, plan))),
    Target("tables", read_tables, (PeerError,), named(Tables), written),
    Target("watch", read_watch, (PeerError,), named(Watch), written),
    Target(
        "roster",
        pinned_roster,
        (DecodeError, ConfigError),
        lambda: [encode(signed(make_roster(n))) for n in (2, 5)],
    ),
    Target(
        "log-request",
        read_request,
        (PeerError,),
        lambda: [encode(LogRequest(encode_request(3, [32 * b"h"], note()), tuple(ENTRIES)))],
        written,
    ),
    Target(
        "log-reply",
        lambda raw: read_reply(raw, 1),
        (PeerError,),
        lambda: [encode(LogReply(200, 5, b"a line", event_corpus()[:3]))],
        written,
    ),
    Target("flower-objects", unframed, (DeclinedError,), lambda: [framed(*flower_message())]),
    Target("array", viewed, (MalformedError,), npy_corpus, lambda array: cast(bytes, bytes_npy(cast(Any, array)))),
)
LOG = (
    Target("note", parse_note, (MalformedError,), lambda: [note().encode()], lambda value: str(value).encode()),
    Target("checkpoint", read_checkpoint, (MalformedError,), lambda: [note().encode(), note(1).encode()]),
    Target("proof", parse_proof, (MalformedError,), lambda: [proof().encode()], lambda value: str(value).encode()),
    Target("policy", parse_policy, (MalformedError,), lambda: [policy().encode()]),
    Target(
        "verifier-key",
        lambda raw: parse_vkey(raw.decode("utf-8", "surrogateescape")),
        (MalformedError,),
        lambda: [line.split()[-1].encode() for line in policy().splitlines()[:3]],
        lambda value: str(value).encode(),
    ),
    Target(
        "signature-line",
        # The parser takes a line with its newline and without; here one without gets one.
        lambda raw: parse_signature(raw.decode("utf-8", "surrogateescape") + "\n"),
        (MalformedError,),
        lambda: [note().splitlines()[-1].encode()],
        lambda value: cast(Any, value).line.encode(),
    ),
    Target(
        "witness-request",
        witness_request,
        (MalformedError,),
        lambda: [encode_request(3, [32 * b"h"], note()), encode_request(0, [], note(1))],
    ),
    Target(
        "tile-path",
        lambda raw: parse_path(raw.decode("latin-1")),
        (MalformedError,),
        lambda: [b"tile/0/000", b"tile/entries/x001/234.p/7", b"tile/2/x012/x345/678"],
        lambda value: cast(Any, value).path.encode(),
    ),
    Target(
        "tile",
        lambda raw: decode_hashes(raw, 3),
        (MalformedError,),
        lambda: [96 * b"a"],
        lambda value: encode_hashes(cast(Any, value)),
    ),
    Target(
        "entries",
        lambda raw: decode_entries(raw, len(ENTRIES)),
        (MalformedError,),
        lambda: [encode_entries(ENTRIES)],
        lambda value: encode_entries(cast(Any, value)),
    ),
    Target("event", read_event, (PeerError,), event_corpus, lambda value: cast(Any, value).leaf),
    Target(
        "canonical-json",
        canonical.decode,
        (MalformedError,),
        event_corpus,
        lambda value: canonical.encode(cast(Any, value)),
    ),
)
