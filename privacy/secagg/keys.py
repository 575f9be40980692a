"""Keys of protocol SA1: X25519 agreement, HKDF-SHA256 derivation, Ed25519 signatures, AES-256-GCM envelopes.

Everything is bound to the session: the salt of every derivation is the session id (or the header's hash before there
is one), so two parties that disagree about any field of the header, any key or any member derive different keys and
learn nothing.
"""

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedseal.privacy.secret import Secret

KEY_LENGTH = 32
DOMAIN = b"fedseal/sa1/"


class KeyAgreementError(ValueError):
    """The peer's public key is of low order: the agreed secret would be all zero (RFC 7748, section 6.1)."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A long-term or server Ed25519 identity (RFC 8032)."""

    seed: Secret

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return Ed25519PrivateKey.from_private_bytes(self.seed.reveal()).public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``."""
        return Ed25519PrivateKey.from_private_bytes(self.seed.reveal()).sign(message)


def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether ``signature`` over ``message`` is by the owner of ``public_key``."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def signed_message(stage: str, header_hash: bytes, payload: bytes) -> bytes:
    """What is signed at ``stage``: domain, stage, header and payload, so that a signature cannot be replayed
    elsewhere.
    """
    return DOMAIN + stage.encode("ascii") + b"\x00" + header_hash + hashlib.sha256(payload).digest()


def derive(secret: bytes, salt: bytes, label: str, *identifiers: int) -> bytes:
    """HKDF-SHA256 with info = label and 32-bit big-endian identifiers, separated by zero bytes (RFC 5869)."""
    parts = [DOMAIN + label.encode("ascii"), *(i.to_bytes(4, "big") for i in identifiers)]
    return HKDF(SHA256(), KEY_LENGTH, salt, b"\x00".join(parts)).derive(secret)


def commit(label: str, *parts: bytes) -> bytes:
    """SHA-256 over a labelled list of parts, each of a length that its label fixes."""
    return hashlib.sha256(DOMAIN + label.encode("ascii") + b"\x00" + b"".join(parts)).digest()


def x25519_public(private: bytes) -> bytes:
    """The public key of a 32-byte X25519 private key (RFC 7748)."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def is_canonical(public: bytes) -> bool:
    """Whether a public key is the one encoding of its point (RFC 7748, section 5, accepts others and reduces them)."""
    return int.from_bytes(public, "little") < (1 << 255) - 19


class Agreement:
    """One X25519 private key, parsed once for all the peers it meets in a round."""

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)

    def shared(self, public: bytes) -> bytes:
        """The shared secret with ``public``.

        Raises:
            KeyAgreementError: the key is of low order.
        """
        try:
            return self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise KeyAgreementError("a public key of low order") from None


def mask_private_key(mask_seed: Secret, header_hash: bytes) -> bytes:
    """The private key behind the pairwise masks.

    Its seed is what is shared, so that whoever rebuilds it can check the public key.
    """
    return derive(mask_seed.reveal(), header_hash, "maskkey")


def pair_mask_key(shared: bytes, session: bytes, u: int, v: int, stream: int = 0) -> bytes:
    """The key of the mask that ``u`` and ``v`` have in common; the order of the two does not matter."""
    return derive(shared, session, "pair", min(u, v), max(u, v), stream)


def self_mask_key(self_seed: Secret, session: bytes, u: int, stream: int = 0) -> bytes:
    """The key of the mask that is ``u``'s own."""
    return derive(self_seed.reveal(), session, "self", u, stream)


def envelope_key(shared: bytes, session: bytes, sender: int, receiver: int) -> bytes:
    """The key of the one envelope from ``sender`` to ``receiver`` in this session; the other direction has its own."""
    return derive(shared, session, "share", sender, receiver)


def seal(key: bytes, plaintext: bytes, session: bytes, sender: int, receiver: int) -> bytes:
    """AES-256-GCM. The key serves one envelope only, so the nonce may be zero."""
    aad = session + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
    return AESGCM(key).encrypt(bytes(12), plaintext, aad)


def unseal(key: bytes, ciphertext: bytes, session: bytes, sender: int, receiver: int) -> bytes | None:
    """The plaintext, or None where the envelope is not authentic."""
    aad = session + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
    try:
        return AESGCM(key).decrypt(bytes(12), ciphertext, aad)
    except InvalidTag:
        return None
