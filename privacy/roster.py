"""The roster: which sites belong to a federation, with which keys.

Signed by the federation's root key, pinned at each site by its hash.

The coordination server is not a certificate authority: it cannot add a site, swap a key or change a public number.
"""

import hashlib
from bisect import bisect_left
from dataclasses import dataclass
from typing import Annotated, ClassVar

from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.secagg.keys import DOMAIN, SigningKey, verify
from fedseal.wire import U32, U64, Blob, Bool, Bytes32, Bytes64, DecodeError, Str, decode, encode


@dataclass(frozen=True, slots=True)
class RosterEntry:
    """One site.

    ``persons`` is public: a rounded number the site agreed to publish, used as its weight under a private plan.
    """

    site: U32
    name: Str
    organisation: Str
    signing_key: Bytes32
    persons: U64


@dataclass(frozen=True, slots=True)
class Roster:
    """All sites of one federation at one epoch, in increasing order of their numbers."""

    TAG: ClassVar[int] = 1

    federation: Str
    epoch: U32
    simulated: Bool
    root_key: Bytes32
    server_key: Bytes32
    sites: tuple[RosterEntry, ...]

    def __post_init__(self) -> None:
        numbers = [s.site for s in self.sites]
        if numbers != sorted(set(numbers)):
            raise ValueError("sites are not in strictly increasing order")
        if len({s.name for s in self.sites}) != len(numbers) or len({s.signing_key for s in self.sites}) != len(
            numbers
        ):
            raise ValueError("two sites share a name or a key")

    def entry(self, site: int) -> RosterEntry | None:
        """The entry of a site number, or None."""
        place = bisect_left(self.sites, site, key=lambda entry: entry.site)
        found = self.sites[place : place + 1]
        return found[0] if found and found[0].site == site else None

    @property
    def largest_site(self) -> int:
        """The largest public number of persons, at least 1: the denominator of public weights."""
        return max((s.persons for s in self.sites), default=1) or 1

    def digest(self) -> bytes:
        """The hash that sites pin and headers carry."""
        return hashlib.sha256(encode(self)).digest()


@dataclass(frozen=True, slots=True)
class SignedRoster:
    """A roster with the root key's signature over its encoding."""

    TAG: ClassVar[int] = 2

    roster: Annotated[bytes, Blob(1 << 20)]
    signature: Bytes64


def public_persons(persons: int) -> int:
    """The number a site publishes: rounded to tens, at least 10."""
    return max(10, 10 * round(persons / 10))


def sign_roster(roster: Roster, root: SigningKey) -> SignedRoster:
    """Raises LocalError if ``root`` is not the key that the roster names."""
    if root.public != roster.root_key:
        raise LocalError("the signing key is not the roster's root key")
    return SignedRoster(encode(roster), root.sign(DOMAIN + b"roster\x00" + encode(roster)))


def open_roster(signed: SignedRoster, *, pinned: bytes) -> Roster:
    """The roster inside, if it is the pinned one and its root key signed it.

    Raises:
        ConfigError: it is another roster, or the signature does not hold.
    """
    advice = "Compare the roster's hash with the federation's root over another channel before you pin it."
    if hashlib.sha256(signed.roster).digest() != pinned:
        raise ConfigError("the roster is not the one this site has pinned", next_step=advice)
    try:
        roster = decode(signed.roster, Roster)
    except DecodeError as error:
        raise ConfigError(f"the roster cannot be read: {error.message}", next_step=advice) from None
    if not verify(roster.root_key, signed.signature, DOMAIN + b"roster\x00" + signed.roster):
        raise ConfigError("the roster's signature does not hold", next_step=advice)
    return roster
