"""What a site or a server asks the federation's root for: to be let in with these keys, or to go on with new ones.

Every key in a request has signed it, so nobody can ask for somebody else's. Who asks is for people to compare.
"""

import re
from dataclasses import dataclass
from typing import Annotated, ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from fedseal.errors import ConfigError
from fedseal.privacy.membership.documents import Der, Document, OpenSsh
from fedseal.privacy.membership.tls import make_csr, openssh_line, read_csr, read_openssh
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify
from fedseal.wire import U64, Blob, Bytes32, Bytes64, DecodeError, Str, decode, encode

# Of federations and sites: they become names of logs, folders and lines of tables.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# As a log calls the federation's server.
TAKEN = frozenset({"server"})
LARGEST_SITE = 10**12

_AGAIN = "Ask for a new request: `fedseal site init` or `fedseal server init` makes one."


@dataclass(frozen=True, slots=True)
class SiteRequest:
    """A site's. ``persons`` is public and rounded; ``made`` is in seconds since 1970. ``previous`` is the signing key
    that this one follows, of a site that is a member already.
    """

    TAG: ClassVar[int] = 90

    federation: Str
    name: Str
    organisation: Str
    persons: U64
    signing_key: Bytes32
    node_key: OpenSsh
    previous: Bytes32 | None
    made: U64


@dataclass(frozen=True, slots=True)
class ServerRequest:
    """The server's. ``certificate`` is a request for one, DER, by which its TLS key proves itself."""

    TAG: ClassVar[int] = 91

    federation: Str
    signing_key: Bytes32
    certificate: Der
    previous: Bytes32 | None
    made: U64


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request and the signatures of all its keys. ``by_node`` is empty for a server."""

    TAG: ClassVar[int] = 92

    payload: Document
    signature: Bytes64
    by_node: Annotated[bytes, Blob(128)]
    by_previous: Bytes64 | None


@dataclass(frozen=True, slots=True)
class SiteKeys:
    """A site's new keys."""

    signing: SigningKey
    node: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class ServerKeys:
    """A server's new keys."""

    signing: SigningKey
    tls: ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a site says of itself."""

    federation: str
    name: str
    organisation: str
    persons: int


def ask_as_site(who: Applicant, keys: SiteKeys, made: int, before: SigningKey | None = None) -> SignedRequest:
    """A site's request; with ``before``, its key so far, to go on with new ones."""
    payload = encode(
        SiteRequest(
            who.federation,
            who.name,
            who.organisation,
            who.persons,
            keys.signing.public,
            openssh_line(keys.node.public_key()),
            None if before is None else before.public,
            made,
        )
    )
    by_node = keys.node.sign(_message(payload), ec.ECDSA(SHA256()))
    return SignedRequest(payload, keys.signing.sign(_message(payload)), by_node, _by(before, payload))


def ask_as_server(federation: str, keys: ServerKeys, made: int, before: SigningKey | None = None) -> SignedRequest:
    """A server's request; with ``before``, its key so far, to go on with new ones."""
    csr = make_csr(f"{federation} server", keys.tls)
    previous = None if before is None else before.public
    payload = encode(ServerRequest(federation, keys.signing.public, csr, previous, made))
    return SignedRequest(payload, keys.signing.sign(_message(payload)), b"", _by(before, payload))


def open_request(signed: SignedRequest, source: str) -> SiteRequest | ServerRequest:
    """What is asked for, once every key in it has proved itself.

    Args:
        signed: the request.
        source: its file's name, for messages.

    Raises:
        ConfigError: a signature does not hold, or it says what no request says.
    """
    kinds: tuple[type[SiteRequest | ServerRequest], ...] = (SiteRequest, ServerRequest)
    try:
        request = decode(signed.payload, *kinds)
    except DecodeError as error:
        raise ConfigError(f"{source} holds a request that cannot be read: {error.message}", next_step=_AGAIN) from None
    _expect(verify(request.signing_key, signed.signature, _message(signed.payload)), source, "signing key")
    if request.previous is None:
        _expect(signed.by_previous is None, source, "former key")
    else:
        by = signed.by_previous
        _expect(by is not None and verify(request.previous, by, _message(signed.payload)), source, "former key")
    try:
        if isinstance(request, SiteRequest):
            check_name("site", request.name)
            _expect(_node_signed(request.node_key, signed), source, "node key")
            if not 0 < request.persons <= LARGEST_SITE:
                raise ConfigError("a number of persons that no site has")
        else:
            read_csr(request.certificate)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error.message}", next_step=error.next_step or _AGAIN) from None
    return request


def check_name(what: str, name: str) -> None:
    """Whether a federation or a site may be called so; ConfigError if not."""
    if not NAME.fullmatch(name) or (what == "site" and name in TAKEN):
        raise ConfigError(
            f"{name!r} cannot be the name of a {what}",
            next_step="Use letters, digits, dots, hyphens and underscores, at most 63, and not `server` for a site.",
        )


def _node_signed(line: str, signed: SignedRequest) -> bool:
    try:
        read_openssh(line).verify(signed.by_node, _message(signed.payload), ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _expect(holds: bool, source: str, what: str) -> None:
    if not holds:
        raise ConfigError(f"{source}: its {what} has not signed the request", next_step=_AGAIN)


def _by(before: SigningKey | None, payload: bytes) -> bytes | None:
    return None if before is None else before.sign(_message(payload))


def _message(payload: bytes) -> bytes:
    return DOMAIN + b"request\x00" + payload
