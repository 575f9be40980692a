"""The keys of a site's data: derived from one site secret by HKDF-SHA256 (RFC 5869), a label for each use.

The key of row digests is derived from a secret of its own, the *epoch*'s, which erasure destroys: then no row digest
ever written under it can be compared with a guess again.
"""

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedseal.privacy.secret import Secret

KEY_LENGTH = 32
DOMAIN = b"fedseal/data/"
_BLOCK = 64


class KeyedHash:
    """HMAC-SHA256 (RFC 2104) under one key of 32 bytes, its two padded blocks hashed once: a third of the time of
    `hmac.digest` for the short messages of which a dataset has millions.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: Secret) -> None:
        padded = key.reveal().ljust(_BLOCK, b"\x00")
        self._inner = hashlib.sha256(bytes(b ^ 0x36 for b in padded))
        self._outer = hashlib.sha256(bytes(b ^ 0x5C for b in padded))

    def digest(self, *parts: bytes | memoryview) -> bytes:
        """The 32 bytes of HMAC-SHA256 over the parts one after the other."""
        inner = self._inner.copy()
        for part in parts:
            inner.update(part)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.digest()

    def __repr__(self) -> str:
        return "KeyedHash(<key>)"


@dataclass(frozen=True, slots=True)
class DataKeys:
    """The keys of one site and one epoch.

    Attributes:
        subject: of the tags that stand for persons' ids in leaves.
        rows: of the digests of persons' rows; gone once the epoch's secret is.
        commit: of the ids under which versions stand in the federation's log.
        population: of the pseudonyms of populations there.
        split: of commitments to how persons were split.
        wrap: the key encryption key of sealed fields.
        epoch: names the epoch, and is no secret.
    """

    subject: Secret
    rows: Secret
    commit: Secret
    population: Secret
    split: Secret
    wrap: Secret
    epoch: bytes


def derive(secret: Secret, label: str) -> Secret:
    """HKDF-SHA256 with an empty salt and info = domain and label (RFC 5869), 32 bytes."""
    info = DOMAIN + label.encode("ascii")
    return Secret(HKDF(SHA256(), KEY_LENGTH, None, info).derive(secret.reveal()))


def data_keys(site: Secret, epoch: Secret) -> DataKeys:
    """All keys, from the site's secret and the epoch's, 32 bytes each."""
    return DataKeys(
        subject=derive(site, "subject"),
        rows=derive(epoch, "rows"),
        commit=derive(site, "commit"),
        population=derive(site, "population"),
        split=derive(site, "split"),
        wrap=derive(site, "wrap"),
        epoch=derive(epoch, "name").reveal()[:8],
    )


def version_id(commit: Secret, content_root: bytes) -> bytes:
    """``dsv_id = HMAC-SHA256(K_commit, content_root)``: says nothing to whoever has not the key, and the same content
    has the same one.
    """
    return hmac.digest(commit.reveal(), content_root, "sha256")


def population_pseudonym(key: Secret, population: str) -> bytes:
    """What stands for a population in the federation's log."""
    return hmac.digest(key.reveal(), population.encode("utf-8"), "sha256")
