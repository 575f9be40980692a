"""Private facts behind a public commitment, in a form that can be erased: crypto-shredding.

    commitment = HMAC-SHA256(k, JCS(private))        k: 32 fresh random bytes for every record
    kept       = AES-256-GCM(DEK, k || JCS(private)) DEK: of one subject or one dataset, wrapped by the site's key

The commitment may stand in a log for ever. Erasing deletes the scope's wrapped DEK and all that it encrypted, k with
it; after that not even a value of two possible ones can be compared with its commitment, by the site neither.

What this does not reach: copies of the store, and blocks that a file system or a disk keeps after they were
overwritten.
While k exists, a commitment is personal data in a form that only the site can link (GDPR, recital 26).
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Connection, delete, insert, select

from fedseal.compliance.data.keys import KEY_LENGTH, DataKeys
from fedseal.compliance.data.tables import SCOPES, SEALED
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.secret import Secret

Json: TypeAlias = bool | int | str | Sequence["Json"] | Mapping[str, "Json"] | None
_NONCE = 12
_DEK = b"fedseal/data/dek\x00"
_FIELDS = b"fedseal/data/sealed\x00"
# RFC 8785 writes numbers as ECMAScript does; up to here that is the integer's digits.
_LARGEST = (1 << 53) - 1


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed record: its number in the store, and the commitment for a log."""

    number: int
    commitment: bytes


def seal(connection: Connection, keys: DataKeys, scope: bytes, private: Mapping[str, Json]) -> Sealed:
    """Keep private facts, and commit to them.

    Args:
        connection: to a store that has been prepared.
        keys: the site's.
        scope: what they are erased with: a subject's tag, or a version's dsv_id; 32 bytes.
        private: texts, integers, truth values, and lists and tables of them; no floats.

    Raises:
        LocalError: something else, or a scope of another length.
    """
    if len(scope) != hashlib.sha256().digest_size:
        raise LocalError("a scope of another length than 32 bytes")
    text, key = canonical_json(private), os.urandom(KEY_LENGTH)
    commitment = hmac.digest(key, text, "sha256")
    dek = _dek(connection, keys, scope)
    ciphertext = _encrypt(dek, key + text, _FIELDS + scope + commitment)
    values = {"scope": scope, "commitment": commitment, "ciphertext": ciphertext}
    number = connection.execute(insert(SEALED).values(**values)).inserted_primary_key
    if number is None:
        raise LocalError("a sealed record without a number")
    return Sealed(number[0], commitment)


def unseal(connection: Connection, keys: DataKeys, number: int) -> Mapping[str, Json]:
    """The private facts of a record.

    Raises:
        ConfigError: there is none of that number, or it was erased.
        LocalError: it was changed from outside.
    """
    row = connection.execute(select(SEALED).where(SEALED.c.number == number)).one_or_none()
    if row is None:
        raise ConfigError(f"there is no sealed record {number}, or it was erased")
    plain = _decrypt(_dek(connection, keys, row.scope), row.ciphertext, _FIELDS + row.scope + row.commitment)
    key, text = plain[:KEY_LENGTH], plain[KEY_LENGTH:]
    if not verify_commitment(row.commitment, key, text):
        raise LocalError("a sealed record that contradicts its commitment")
    facts: Mapping[str, Json] = json.loads(text)
    return facts


def verify_commitment(commitment: bytes, key: bytes, text: bytes) -> bool:
    """Whether ``commitment`` is that of the canonical JSON ``text`` under ``key``."""
    return hmac.compare_digest(commitment, hmac.digest(key, text, "sha256"))


def commitments_of(connection: Connection, scope: bytes) -> tuple[bytes, ...]:
    """The commitments of all records of a scope, in their order."""
    query = select(SEALED.c.commitment).where(SEALED.c.scope == scope).order_by(SEALED.c.number)
    return tuple(connection.execute(query).scalars())


def shred(connection: Connection, scope: bytes) -> tuple[bytes, ...]:
    """Delete a scope's key and records; the commitments that nothing opens any more.

    They are gone from the file once `erasure.overwrite` has run after this transaction.
    """
    lost = commitments_of(connection, scope)
    connection.execute(delete(SEALED).where(SEALED.c.scope == scope))
    connection.execute(delete(SCOPES).where(SCOPES.c.scope == scope))
    return lost


def canonical_json(value: Mapping[str, Json]) -> bytes:
    """RFC 8785 for documents without floats whose keys are ASCII: there Python's own order of keys is that of UTF-16.

    Raises:
        LocalError: anything else.
    """
    _check(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode("utf-8")


def _check(value: Json) -> None:
    match value:
        case None | bool() | str():
            return
        case int() if abs(value) <= _LARGEST:
            return
        case list() | tuple():
            for entry in value:
                _check(entry)
        case Mapping():
            for key, entry in value.items():
                if not key.isascii():
                    raise LocalError("a private fact whose key is not ASCII")
                _check(entry)
        case _:
            raise LocalError(f"a private fact of type {type(value).__name__}, or too large a number")


def _dek(connection: Connection, keys: DataKeys, scope: bytes) -> Secret:
    """The scope's key, made when it is first needed."""
    wrapped = connection.execute(select(SCOPES.c.wrapped).where(SCOPES.c.scope == scope)).scalar()
    if wrapped is not None:
        return Secret(_decrypt(keys.wrap, wrapped, _DEK + scope))
    dek = Secret(AESGCM.generate_key(8 * KEY_LENGTH))
    wrapped = _encrypt(keys.wrap, dek.reveal(), _DEK + scope)
    connection.execute(insert(SCOPES).values(scope=scope, wrapped=wrapped))
    return dek


def _encrypt(key: Secret, plain: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + AESGCM(key.reveal()).encrypt(nonce, plain, bound)


def _decrypt(key: Secret, sealed: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key.reveal()).decrypt(sealed[:_NONCE], sealed[_NONCE:], bound)
    except InvalidTag:
        raise LocalError(
            "a sealed record was changed from outside", next_step="Restore the site's store from a backup."
        ) from None
