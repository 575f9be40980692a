"""Events, the leaves of the log: their fields, their author's signature (DSSE), their place in the author's chain."""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import datetime

from fedseal_verify import canonical
from fedseal_verify.canonical import Json
from fedseal_verify.errors import MalformedError
from fedseal_verify.note import SIGNATURE_LENGTH, Key, strict_base64

MAX_ORGS = 5
PAYLOAD_TYPE = b"application/vnd.fedseal.event+json"
NO_EVENT = "sha256:" + "0" * 64
_REQUIRED = frozenset({"v", "seq", "type", "time", "actor", "org", "subject", "prev", "body", "sig"})
_OPTIONAL = frozenset({"run", "sealed"})
_TYPE = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*/v[1-9][0-9]*")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
_ACTOR = re.compile(r"act_[0-9a-f]{32}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SEALED = re.compile(r"hmac:[0-9a-f]{64}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Event:
    """What the checks need of a leaf. ``signed`` is what the author's signature is over."""

    digest: str
    seq: int
    type: str
    time: str
    org: str
    prev: str
    key_id: str
    signature: bytes
    signed: bytes


def read_event(leaf: bytes) -> Event:
    """Read a leaf: canonical JSON with exactly the fields of an event.

    What a type's body has to hold is not checked: that is the schema's, not the log's.

    Raises:
        MalformedError: with the rule that is broken.
    """
    value = canonical.decode(leaf)
    if value.get("v") != 1 or isinstance(value["v"], bool):
        raise MalformedError("its version v is not 1")
    names = value.keys()
    if not _REQUIRED <= names <= _REQUIRED | _OPTIONAL:
        raise MalformedError("its fields are not those of an event")
    _check_subject(value["subject"])
    if not isinstance(value["body"], dict):
        raise MalformedError("its body is not an object")
    if "run" in value:
        _text(value["run"], "run")
    if "sealed" in value:
        _text(value["sealed"], "sealed", _SEALED)
    _text(value["actor"], "actor", _ACTOR)
    key_id, signature = _read_signature(value["sig"])
    unsigned = {name: each for name, each in value.items() if name != "sig"}
    return Event(
        digest="sha256:" + hashlib.sha256(leaf).hexdigest(),
        seq=_count(value["seq"]),
        type=_text(value["type"], "type", _TYPE),
        time=_time(value["time"]),
        org=_text(value["org"], "org"),
        prev=_text(value["prev"], "prev", _DIGEST),
        key_id=key_id,
        signature=signature,
        signed=pae(canonical.encode(unsigned)),
    )


def _text(value: Json, name: str, form: re.Pattern[str] | None = None) -> str:
    if not isinstance(value, str) or not value or (form and not form.fullmatch(value)):
        raise MalformedError(f"its field {name} has not the form it should have")
    return value


def _count(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise MalformedError("its field seq is not a count")
    return value


def _time(value: Json) -> str:
    text = _text(value, "time", _TIME)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise MalformedError("its field time is no date") from None
    return text


def _check_subject(value: Json) -> None:
    if not isinstance(value, list):
        raise MalformedError("its field subject is not a list")
    for each in value:
        if not isinstance(each, dict) or each.keys() != {"k", "d"}:
            raise MalformedError("its field subject holds something else than kind (k) and digest (d)")
        _text(each["k"], "subject")
        _text(each["d"], "subject")


def _read_signature(value: Json) -> tuple[str, bytes]:
    if not isinstance(value, dict) or value.keys() != {"keyid", "s"}:
        raise MalformedError("its field sig is not keyid and s")
    key_id = _text(value["keyid"], "sig.keyid", _KEY_ID)
    signature = strict_base64(_text(value["s"], "sig.s"), "its signature")
    if len(signature) != SIGNATURE_LENGTH:
        raise MalformedError("its signature is not 64 bytes")
    return key_id, signature


def pae(body: bytes) -> bytes:
    """DSSE's pre-authentication encoding: ``DSSEv1 SP LEN(type) SP type SP LEN(body) SP body``."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(body), body)


def signature_holds(event: Event, key: Key) -> bool:
    """Whether ``key`` signed this event."""
    return key.verifies(event.signature, event.signed)


@dataclass
class Chain:
    """Where one author's chain stands: the next ``seq`` and the digest its ``prev`` has to be.

    ``orgs``: the organisations the author signed for, the first five.
    """

    seq: int = 0
    digest: str = NO_EVENT
    last_index: int | None = None
    count: int = 0
    orgs: set[str] = field(default_factory=set)


class Chains:
    """Every author's events counted from 0 and each naming the one before, through the whole log."""

    def __init__(self) -> None:
        self.by_key: dict[str, Chain] = {}

    def follow(self, index: int, event: Event) -> str | None:
        """Take the next event; return what breaks the chain of its author, if anything does.

        A broken chain goes on from the event that broke it, so that one gap is reported once.
        """
        chain = self.by_key.setdefault(event.key_id, Chain())
        problem = _gap(chain, event)
        chain.seq, chain.digest, chain.last_index = event.seq + 1, event.digest, index
        chain.count += 1
        if len(chain.orgs) < MAX_ORGS:
            chain.orgs.add(event.org)
        return problem


def _gap(chain: Chain, event: Event) -> str | None:
    before = "no event before" if chain.last_index is None else f"entry {chain.last_index} before"
    if event.seq != chain.seq:
        return f"its seq is {event.seq}, expected {chain.seq} ({before})"
    if event.prev != chain.digest:
        return f"its prev is not the digest of the author's previous event ({before})"
    return None
