"""An event as a leaf of a log: canonical JSON with its author's signature (DSSE), chained to the author's last one.

    leaf  = JCS({"v": 1, "seq", "type", "time", "actor", "org", "run"?, "subject", "prev", "body", "sealed"?, "sig"})
    sig.s = Ed25519(PAE("application/vnd.fedseal.event+json", JCS(leaf without "sig")))

``seq`` and ``prev`` make a chain of each author's events in a log, so that an author sees when one is dropped or
moved. ``subject`` names what the event is about; it follows from the body, and a leaf that says otherwise is refused.
Pure: no clock, no store.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal, cast

from pydantic import Field, ValidationError

from fedseal.compliance.events.fields import Actor, Commitment, Digest, KeyId, Name, RunId, Time, sha256
from fedseal.compliance.events.registry import EVENTS, EventType, type_of
from fedseal.compliance.log.canonical import CanonicalError, decode, encode, written
from fedseal.config import Frozen
from fedseal.errors import LocalError, PeerError
from fedseal.privacy.secagg.keys import SigningKey, verify

PAYLOAD_TYPE = "application/vnd.fedseal.event+json"
SERVER_ORG = "server"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
FIRST = "sha256:" + 64 * "0"

# What a field of a body names. The list of an event's subjects is read off these.
ENTITIES = MappingProxyType(
    {
        "model": "model",
        "models": "model",
        "model_in": "model",
        "parent": "model",
        "dataset": "dataset",
        "datasets": "dataset",
        "label_set": "label_set",
        "guideline": "guideline",
        "code": "code",
        "preprocessing": "code",
        "environment": "environment",
        "population": "population",
        "contract": "config",
        "aggregate": "aggregate",
        "request": "request",
        "bundle": "bundle",
    }
)


class Subject(Frozen):
    """One thing an event is about: its kind, and its digest or commitment."""

    k: Literal[
        "model",
        "dataset",
        "label_set",
        "guideline",
        "code",
        "environment",
        "population",
        "config",
        "aggregate",
        "request",
        "bundle",
    ]
    d: Digest | Commitment


class LeafSignature(Frozen):
    """The author's signature. ``keyid``: the first 8 hex digits of SHA-256 over the public key."""

    keyid: KeyId
    s: str = Field(pattern=r"^[A-Za-z0-9+/]{86}==$")


class Envelope(Frozen):
    """Everything of a leaf but the form of its body."""

    v: Literal[1]
    seq: int = Field(ge=0, le=(1 << 53) - 1, strict=True)
    type: str
    time: Time
    actor: Actor
    org: Name
    run: RunId | None = None
    subject: tuple[Subject, ...]
    prev: Digest
    body: dict[str, Any]
    sealed: Commitment | None = None
    sig: LeafSignature


@dataclass(frozen=True, slots=True)
class Place:
    """Where an author's chain stands in a log: the next number, and the digest of the last leaf."""

    seq: int = 0
    prev: str = FIRST

    def after(self, leaf: bytes) -> "Place":
        """The place after one more leaf."""
        return Place(self.seq + 1, sha256(leaf))


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was read and found well formed. Whether its signature holds is `signed_by`."""

    leaf: bytes
    kind: EventType
    body: Frozen
    seq: int
    prev: str
    time: str
    actor: str
    org: str
    run: str | None
    keyid: str
    sealed: str | None

    def signed_by(self, public_key: bytes) -> bool:
        """Whether the owner of ``public_key`` signed exactly this leaf."""
        if self.keyid != keyid_of(public_key):
            return False
        value = cast(dict[str, Any], json.loads(self.leaf))
        signature = base64.b64decode(value.pop("sig")["s"])
        # The leaf was found canonical when it was read, so what is left of it need only be written again.
        return verify(public_key, signature, pae(written(value)))

    @property
    def place_after(self) -> Place:
        """Where its author's chain stands after it."""
        return Place(self.seq, self.prev).after(self.leaf)


def keyid_of(public_key: bytes) -> str:
    """How a key is named in a leaf."""
    return hashlib.sha256(public_key).hexdigest()[:8]


def actor_of(public_key: bytes) -> str:
    """The pseudonym under which a party's own programs sign."""
    return "act_" + hashlib.sha256(b"fedseal/actor\x00" + public_key).hexdigest()[:32]


def pae(body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: ``"DSSEv1" SP LEN(type) SP type SP LEN(body) SP body``."""
    kind = PAYLOAD_TYPE.encode("ascii")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def sign_event(
    body: Frozen,
    key: SigningKey,
    place: Place,
    *,
    org: str,
    time: str,
    run: str | None = None,
    kind: EventType | None = None,
    actor: str | None = None,
    sealed: str | None = None,
) -> bytes:
    """The leaf of an event.

    Args:
        body: what happened.
        key: its author's.
        place: where the author's chain stands in the log it will be appended to.
        org: the author's party: a site's name in the roster, or ``server``.
        time: UTC with six decimals.
        run: the run it belongs to, in hex.
        kind: the type, where a form of body serves several.
        actor: a person's pseudonym; the party's own programs otherwise.
        sealed: the commitment to what the author keeps beside this.

    Raises:
        LocalError: something does not fit its form.
    """
    kind = kind or type_of(body)
    public = key.public
    value: dict[str, Any] = {
        "v": 1,
        "seq": place.seq,
        "type": kind.name,
        "time": time,
        "actor": actor or actor_of(public),
        "org": org,
        "subject": [s.model_dump() for s in subjects_of(body)],
        "prev": place.prev,
        "body": body.model_dump(mode="json"),
    }
    value |= {} if run is None else {"run": run}
    value |= {} if sealed is None else {"sealed": sealed}
    signature = base64.b64encode(key.sign(pae(encode(value)))).decode("ascii")
    leaf = encode(value | {"sig": {"keyid": keyid_of(public), "s": signature}})
    try:
        read_event(leaf)
    except PeerError as error:
        raise LocalError(f"an event of ours that cannot be read: {error.message}") from None
    return leaf


def read_event(leaf: bytes, peer: str = "server") -> Event:
    """The event in a leaf; its signature is not looked at.

    Raises:
        PeerError: it is not canonical, of an unknown type, has a field that its form does not know or a value that
            does not fit, or names other subjects than its body. Quotes none of it.
    """
    try:
        value = decode(leaf)
    except CanonicalError:
        raise PeerError("an entry that is not canonical JSON", peer=peer) from None
    if not isinstance(value, dict):
        raise PeerError("an entry that is no JSON object", peer=peer)
    try:
        envelope = Envelope.model_validate(value)
    except ValidationError as error:
        raise PeerError(f"an entry with a wrong {_place(error)}", peer=peer) from None
    kind = EVENTS.get(envelope.type)
    if kind is None:
        raise PeerError("an entry of an unknown type", peer=peer)
    try:
        body = kind.body.model_validate(envelope.body)
    except ValidationError as error:
        raise PeerError(f"an entry {kind.name} with a wrong {_place(error)}", peer=peer) from None
    # The last digit of base64 has bits to spare, and a pattern knows no calendar: one signature has one form, and a
    # time is one.
    if base64.b64encode(base64.b64decode(envelope.sig.s)).decode("ascii") != envelope.sig.s:
        raise PeerError("an entry with a wrong signature", peer=peer)
    try:
        datetime.strptime(envelope.time, TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise PeerError("an entry with a wrong time", peer=peer) from None
    if envelope.subject != subjects_of(body):
        raise PeerError(f"an entry {kind.name} whose subjects are not those of its body", peer=peer)
    if written(body.model_dump(mode="json")) != written(envelope.body) or ("sealed" in value) != (
        envelope.sealed is not None
    ):
        # Left out defaults or a null in their place: one fact has one form.
        raise PeerError(f"an entry {kind.name} that is not written out", peer=peer)
    if ("run" in value) != (envelope.run is not None):
        raise PeerError(f"an entry {kind.name} that is not written out", peer=peer)
    return Event(
        leaf=leaf,
        kind=kind,
        body=body,
        seq=envelope.seq,
        prev=envelope.prev,
        time=envelope.time,
        actor=envelope.actor,
        org=envelope.org,
        run=envelope.run,
        keyid=envelope.sig.keyid,
        sealed=envelope.sealed,
    )


def subjects_of(body: Frozen) -> tuple[Subject, ...]:
    """What a body is about, in the order of its fields, each once."""
    found: dict[Subject, None] = {}
    for name in type(body).model_fields:
        kind = ENTITIES.get(name)
        value = getattr(body, name)
        if kind is None or value is None:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            found[Subject.model_validate({"k": kind, "d": one})] = None
    return tuple(found)


def _place(error: ValidationError) -> str:
    """Where a leaf is wrong. Names of fields only where they are ours: an unknown one may be anything."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "extra_forbidden":
        return "field"
    return ".".join(str(part) for part in first["loc"] if not isinstance(part, int)) or "form"
