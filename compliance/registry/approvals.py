"""Approvals: what a person signs, which signatures count for an alias, and what is still missing (21 CFR 11.50, 11.70).

A signature binds person, role, meaning, model, bundle and alias, and stands in the person's own chain of the log, so
it cannot be moved to another model, nor given again by whoever has seen it.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fedseal.compliance.events.fields import Actor, Alias, Count, Digest, Meaning, Name
from fedseal.compliance.events.leaf import Event, Place, sign_event
from fedseal.compliance.events.subjects import Signature
from fedseal.compliance.registry.aliases import Registration, State
from fedseal.compliance.registry.people import Approval, Person
from fedseal.compliance.registry.rules import AliasRules, Required, unmet
from fedseal.config import Frozen
from fedseal.errors import ConfigError, PolicyRefused
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret

# The index of a signature that is not in the log yet.
_LATER = 1 << 62


@dataclass(frozen=True, slots=True)
class Counted:
    """The signatures that count for a bundle and an alias, and what is missing, in words."""

    approvals: tuple[Approval, ...]
    missing: tuple[str, ...]


def count(state: State, rules: AliasRules, registration: Registration, alias: Alias) -> Counted:
    """Which signatures under a bundle count for an alias, and what its rules still ask for."""
    aim = (registration.model, registration.bundle)
    signed = [a for a in state.approvals if (a.model, a.bundle) == aim]
    given = [a for a in signed if a.alias is alias]
    authors = {a.actor for a in signed if a.meaning is Meaning.AUTHORED}
    counted: list[Approval] = []
    for required in rules.approvals:
        barred = authors if rules.not_author and required.meaning is not Meaning.AUTHORED else set()
        counted += [
            a for a in given if a.meaning is required.meaning and a.role in required.roles and a.actor not in barred
        ]
    signers = {r.meaning: frozenset(a.actor for a in counted if a.meaning is r.meaning) for r in rules.approvals}
    missing = [_in_words(group, signers, rules) for group in unmet(rules.approvals, signers)]
    organisations = len({a.org for a in counted})
    if 1 < rules.organisations > organisations:
        missing.append(f"persons of {rules.organisations} organisations have to sign; {organisations} did")
    return Counted(tuple(counted), tuple(missing))


def _in_words(group: tuple[Required, ...], signers: dict[Meaning, frozenset[str]], rules: AliasRules) -> str:
    wanted = " and ".join(f"{r.persons} as {r.meaning.value} ({' or '.join(r.roles)})" for r in group)
    have = len(frozenset[str]().union(*(signers[r.meaning] for r in group)))
    others = any(r.meaning is not Meaning.AUTHORED for r in group)
    barred = ", none of them the author" if rules.not_author and others else ""
    persons = "persons" if sum(r.persons for r in group) == 1 else "different persons"
    return f"{persons} have to sign: {wanted}{barred}; {have} did"


class Request(Frozen):
    """What a person is asked to sign, complete: for somebody who has a key, and no access to the log.

    ``seq`` and ``prev`` say what the person's next event has to follow.
    """

    version: Literal[1] = 1
    person: Actor
    org: Name
    seq: Count
    prev: Digest
    body: Signature


def request(state: State, person: Person, body: Signature, place: Place) -> Request:
    """Ask a person to sign a bundle.

    Args:
        state: the registry as it stands.
        person: who is asked.
        body: what is signed.
        place: where the person's chain stands: `FederationJournal.place_of`.

    Raises:
        PolicyRefused: the person may not sign this, or there is no such bundle.
    """
    if not person.active:
        raise PolicyRefused("this person was removed, and signs no more")
    if body.role not in person.roles:
        raise PolicyRefused(
            f"this person does not have the role {body.role.value}",
            next_step=f"Theirs are: {', '.join(sorted(role.value for role in person.roles)) or 'none'}.",
        )
    registration = state.registered.get(body.bundle or "")
    if registration is None or registration.model != body.model:
        raise PolicyRefused("this bundle is not registered", next_step="See `fedseal model list`.")
    return Request(person=person.actor, org=person.org, seq=place.seq, prev=place.prev, body=body)


def sign(asked: Request, key: SigningKey, time: str) -> bytes:
    """A person's signature as a leaf, for `FederationJournal.append_signed`. ``time``: UTC with six decimals."""
    return sign_event(asked.body, key, Place(asked.seq, asked.prev), org=asked.org, time=time, actor=asked.person)


def signer(state: State, public_key: bytes) -> Person:
    """The person with this key; PolicyRefused if there is none, or they were removed."""
    found = next((p for p in state.persons.values() if p.key == public_key), None)
    if found is None or not found.active:
        raise PolicyRefused(
            "nobody signs with this key: its person was not added, was removed, or has another key by now",
            next_step="The person's organisation adds them with `fedseal person add`.",
        )
    return found


def check_signature(state: State, event: Event) -> Approval:
    """What a signature that was made elsewhere would be in the log; that it is the person's is looked at there too.

    Raises:
        PolicyRefused: it would count for nothing, and why.
    """
    body, person = event.body, state.persons.get(event.actor)
    if not isinstance(body, Signature) or person is None or not person.active:
        raise PolicyRefused("this is no signature of a person who may sign", next_step="See `fedseal person list`.")
    if event.org != person.org or not event.signed_by(person.key):
        raise PolicyRefused(
            "this signature is not made with the key of the person that it names",
            next_step="Sign again, with your own key, what you were asked to.",
        )
    if body.role not in person.roles:
        raise PolicyRefused(f"this person does not have the role {body.role.value}")
    registration = state.registered.get(body.bundle or "")
    if registration is None or registration.model != body.model:
        raise PolicyRefused("this signature is under a bundle that is not registered, or names another model")
    said = (registration.bundle, registration.model, body.alias, body.meaning, body.role)
    # Later than every entry that the state was made of.
    return Approval(_LATER, person.actor, person.org, event.time, *said)


def check_counts(state: State, rules: AliasRules, approval: Approval) -> None:
    """That a signature would count for its alias, and void nobody else's or an earlier one of the same person.

    Raises:
        PolicyRefused: it would not, and why.
    """
    registration = state.registered[approval.bundle]
    aim = (approval.actor, approval.bundle, approval.alias)
    given = [a for a in state.approvals if (a.actor, a.bundle, a.alias) == aim]
    if any((a.meaning, a.role) == (approval.meaning, approval.role) for a in given):
        raise PolicyRefused("this person has signed that already")
    before = count(state, rules, registration, approval.alias).approvals
    after = count(replace(state, approvals=(*state.approvals, approval)), rules, registration, approval.alias).approvals
    if not set(before) <= set(after):
        raise PolicyRefused(
            "with this signature an earlier one of the same person would count no longer: an author approves nothing",
            next_step="Somebody else has to sign.",
        )
    if approval not in after:
        raise PolicyRefused(
            f"this signature would not count for {approval.alias.value}: its rules ask for no {approval.meaning.value} "
            f"by {approval.role.value}, or the person is the bundle's author",
            next_step="Four eyes: somebody else has to sign. The rules are in registry.toml.",
        )


# Keys


def new_key() -> SigningKey:
    """A key of the operating system's randomness."""
    return SigningKey(Secret(os.urandom(32)))


def save_key(key: SigningKey, path: Path, passphrase: Secret | None) -> None:
    """Write a person's key into a new file that only its owner may read.

    Raises:
        ConfigError: the file exists, or cannot be made.
    """
    how: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        how = BestAvailableEncryption(passphrase.reveal())
    private = Ed25519PrivateKey.from_private_bytes(key.seed.reveal())
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path} cannot be made: {reason}", next_step="Give another file.") from None
    with os.fdopen(handle, "wb") as file:
        file.write(pem)


def is_encrypted(path: Path) -> bool:
    """Whether a key file asks for a passphrase."""
    return b"ENCRYPTED" in _pem(path)


def load_key(path: Path, passphrase: Secret | None = None) -> SigningKey:
    """A person's key.

    Raises:
        ConfigError: there is none, others may read the file, or the passphrase is not its own.
    """
    pem = _pem(path)
    try:
        private = load_pem_private_key(pem, None if passphrase is None else passphrase.reveal())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(
            f"{path} holds no key that can be read, or this is not its passphrase",
            next_step="Keys are made with `fedseal person key`.",
        ) from None
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(f"{path} holds another kind of key", next_step="Keys are made with `fedseal person key`.")
    return SigningKey(Secret(private.private_bytes_raw()))


def _pem(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"{path} can be read by others than its owner", next_step=f"Run: chmod 600 {path}")
        return path.read_bytes()
    except OSError:
        raise ConfigError(f"no key at {path}", next_step="Make one with `fedseal person key`.") from None
