"""Keys and rosters that are the same in every run."""

import hashlib

from fedseal.privacy.roster import Roster, RosterEntry, SignedRoster, sign_roster
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret


def key(name: str) -> SigningKey:
    """The signing key of a name."""
    return SigningKey(Secret(hashlib.sha256(name.encode()).digest()))


ROOT, SERVER = key("root"), key("server")


def make_roster(sites: int, *, simulated: bool = True, persons: int = 100) -> Roster:
    """A roster of sites 1 to ``sites``."""
    entries = tuple(RosterEntry(i, f"site-{i}", "org", key(f"site-{i}").public, persons) for i in range(1, sites + 1))
    return Roster("test", 1, simulated, ROOT.public, SERVER.public, entries)


def signed(roster: Roster) -> SignedRoster:
    """The roster, signed by the root key."""
    return sign_roster(roster, ROOT)


class Bytes:
    """A repeatable source of bytes where the operating system's would be."""

    def __init__(self, seed: str) -> None:
        self._seed, self._count = seed.encode(), 0

    def __call__(self, length: int) -> bytes:
        out = b""
        while len(out) < length:
            self._count += 1
            out += hashlib.sha256(self._seed + self._count.to_bytes(8, "big")).digest()
        return out[:length]
