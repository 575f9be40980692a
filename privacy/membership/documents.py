"""An epoch of a federation: its roster, and beside it the membership that says when it holds and with which keys.

The root signs both. A roster stays what headers carry and sites pin; the membership names its digest and adds what a
federation needs to be run for years: how long it holds, each node's key, the server's address and certificate, every
key that no longer counts and why, and the digest of every membership before it. What is handed over is a bundle of
both. There is no secret in it.
"""

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from fedseal.errors import ConfigError
from fedseal.privacy.roster import Roster, SignedRoster, open_roster
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify
from fedseal.wire import U8, U32, U64, Blob, Bytes32, Bytes64, DecodeError, Str, Text, decode, encode

# The number under which the server stands among former keys; sites count from 1.
SERVER = 0
OpenSsh = Annotated[str, Text(512)]
Der = Annotated[bytes, Blob(1 << 14)]
Document = Annotated[bytes, Blob(1 << 20)]

ASK_ROOT = "Ask the federation's root for the bundle once more, and compare its fingerprint over another channel."


class KeyKind(IntEnum):
    """What a key is for."""

    SIGNING = 1
    NODE = 2
    CERTIFICATE = 3


class Reason(IntEnum):
    """Why a key no longer counts."""

    LEFT = 1
    REVOKED = 2
    ROTATED = 3

    @property
    def label(self) -> str:
        """As people write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """The public key by which a site's node signs itself in: one line of OpenSSH's form, without a comment."""

    site: U32
    key: OpenSsh


@dataclass(frozen=True, slots=True)
class FormerKey:
    """A key that counted up to and with an epoch.

    ``site`` is 0 for the server's. ``public`` is 32 bytes for a signing key, OpenSSH's line for a node's, and the
    SHA-256 of a certificate. ``retired`` is in seconds since 1970.
    """

    kind: U8
    site: U32
    name: Str
    public: Annotated[bytes, Blob(512)]
    epoch: U32
    reason: U8
    retired: U64

    def __post_init__(self) -> None:
        KeyKind(self.kind), Reason(self.reason)
        if self.kind == KeyKind.SIGNING and len(self.public) != 32:
            raise ValueError("a former signing key of another length")


@dataclass(frozen=True, slots=True)
class Membership:
    """What holds beside a roster. Times are seconds since 1970, in UTC.

    Attributes:
        roster: the digest of the roster of this epoch.
        previous: the digests of all memberships before, the first one first: an epoch cannot be told in two ways.
        address: where the server listens, as host:port.
        authority, certificate: SHA-256 of the DER of the TLS authority's certificate and of the server's.
        nodes: one for each site of the roster, in the order of their numbers.
        former: all keys that ever counted and do no longer.
    """

    TAG: ClassVar[int] = 93

    federation: Str
    epoch: U32
    roster: Bytes32
    previous: tuple[Bytes32, ...]
    valid_from: U64
    valid_until: U64
    address: Str
    authority: Bytes32
    certificate: Bytes32
    nodes: tuple[NodeEntry, ...]
    former: tuple[FormerKey, ...]

    def __post_init__(self) -> None:
        numbers = [node.site for node in self.nodes]
        if numbers != sorted(set(numbers)):
            raise ValueError("nodes are not in strictly increasing order")
        if len({node.key for node in self.nodes}) != len(numbers):
            raise ValueError("two nodes share a key")
        if self.epoch < 1 or len(self.previous) != self.epoch - 1:
            raise ValueError("a membership names every epoch before it")
        if not self.valid_from < self.valid_until:
            raise ValueError("it ends before it begins")
        gone = {former.public for former in self.former if former.kind == KeyKind.NODE}
        if any(node.key.encode("utf-8") in gone for node in self.nodes):
            raise ValueError("a node's key that no longer counts")

    def digest(self) -> bytes:
        """What later memberships name."""
        return hashlib.sha256(encode(self)).digest()

    def node_key(self, site: int) -> str | None:
        """The key of a site's node, or None."""
        return next((node.key for node in self.nodes if node.site == site), None)

    def signing_keys(self, site: int) -> tuple[bytes, ...]:
        """The signing keys that a site, or with 0 the server, had before."""
        return tuple(f.public for f in self.former if f.kind == KeyKind.SIGNING and f.site == site)


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the root hands out: both signed documents, and the two certificates that the membership names.

    Certificates are DER. The fingerprint that people compare is over the encoding of this.
    """

    TAG: ClassVar[int] = 95

    roster: Document
    roster_signature: Bytes64
    membership: Document
    membership_signature: Bytes64
    authority: Der
    certificate: Der


@dataclass(frozen=True, slots=True)
class Epoch:
    """A bundle that was opened: its signatures hold, and its parts belong together."""

    bundle: Bundle
    roster: Roster
    membership: Membership

    @property
    def number(self) -> int:
        """Which epoch, from 1."""
        return self.membership.epoch

    @property
    def signed(self) -> SignedRoster:
        """The roster as stores keep it."""
        return SignedRoster(self.bundle.roster, self.bundle.roster_signature)


def sign_membership(membership: Membership, root: SigningKey) -> bytes:
    """The root's signature over a membership, 64 bytes."""
    return root.sign(_message(encode(membership)))


def open_bundle(bundle: Bundle) -> Epoch:
    """The epoch in a bundle.

    Whether its root is the right one is not for a bundle to say: that is compared with what was pinned before, or by
    people.

    Raises:
        ConfigError: a signature does not hold, or its parts do not belong together.
    """
    roster = open_roster(
        SignedRoster(bundle.roster, bundle.roster_signature), pinned=hashlib.sha256(bundle.roster).digest()
    )
    try:
        membership = decode(bundle.membership, Membership)
    except DecodeError as error:
        raise ConfigError(f"the membership cannot be read: {error.message}", next_step=ASK_ROOT) from None
    if not verify(roster.root_key, bundle.membership_signature, _message(bundle.membership)):
        raise ConfigError("the federation's root key has not signed the membership", next_step=ASK_ROOT)
    together = (
        membership.federation == roster.federation
        and membership.epoch == roster.epoch
        and membership.roster == roster.digest()
        and membership.authority == hashlib.sha256(bundle.authority).digest()
        and membership.certificate == hashlib.sha256(bundle.certificate).digest()
        and [node.site for node in membership.nodes] == [entry.site for entry in roster.sites]
    )
    if not together or roster.simulated:
        raise ConfigError("the parts of the bundle do not belong together", next_step=ASK_ROOT)
    return Epoch(bundle, roster, membership)


def moves(current: Epoch, offered: Epoch) -> bool:
    """Whether an epoch is a later one of the same federation; False if it is the very same.

    Raises:
        ConfigError: it is of another federation or root, older, or of another history.
    """
    if offered.roster.federation != current.roster.federation:
        raise ConfigError(
            f"the bundle is of federation {offered.roster.federation!r}, and this is a member of "
            f"{current.roster.federation!r}",
            next_step="Give a bundle of its own federation.",
        )
    if offered.roster.root_key != current.roster.root_key:
        raise ConfigError(
            "the bundle is signed by another root key than the one that was pinned",
            next_step="Do not use it. Ask the federation's root, over another channel, who made it.",
        )
    if offered.number < current.number:
        raise ConfigError(
            f"the bundle is of epoch {offered.number}, and this has adopted epoch {current.number} already",
            next_step="An older epoch never comes back. Ask for the newest bundle.",
        )
    told = (*offered.membership.previous, offered.membership.digest())
    if told[current.number - 1] != current.membership.digest():
        raise ConfigError(
            f"the bundle tells of another epoch {current.number} than the one that was adopted here: the root has "
            "signed two",
            next_step="Do not use it. Compare both with the federation's root, and tell the other sites.",
        )
    return offered.number > current.number


def _message(encoded: bytes) -> bytes:
    return DOMAIN + b"membership\x00" + encoded
