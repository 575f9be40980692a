"""What waits for whose signature; what they are asked to sign, as a file; and the signed file on its way into the log.

A private key never comes here: a person signs on a computer of their own, with `fedseal model sign`. What comes back is
the event as they signed it, and it goes into the log by the same way as that of `fedseal model submit`.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fedseal.compliance.events.fields import Alias, Meaning, Role
from fedseal.compliance.events.leaf import keyid_of, read_event
from fedseal.compliance.events.subjects import Signature
from fedseal.compliance.journal.tables import place_in
from fedseal.compliance.log.canonical import MAX_BYTES
from fedseal.compliance.registry.aliases import Registration, State, Status
from fedseal.compliance.registry.approvals import Request, count, request
from fedseal.compliance.registry.bundle import CONTENTS, MANIFEST, BundleStore
from fedseal.compliance.registry.people import Person
from fedseal.compliance.registry.rules import AliasRules, RegistryRules
from fedseal.errors import ConfigError, PeerError, PolicyRefused
from fedseal.server.console.evidence.gating import GateLine, Standing, rules_for, way_of
from fedseal.server.console.evidence.models import find_bundle
from fedseal.server.console.evidence.place import Evidence, View
from fedseal.server.console.evidence.witnessed import zipped
from fedseal.server.console.evidence.words import digits, line
from fedseal.server.registry import registry_at

# A signed event in base64, with the line ends of any program.
LARGEST_FILE = 2 * MAX_BYTES


@dataclass(frozen=True, slots=True)
class SignerLine:
    """Somebody who could sign, as what. ``person`` is the name, where whoever looks may know it."""

    actor: str
    person: str
    org: str
    meaning: str
    role: str


@dataclass(frozen=True, slots=True)
class GivenLine:
    """A signature that is there and counts."""

    person: str
    meaning: str
    role: str
    index: int


@dataclass(frozen=True, slots=True)
class WaitingLine:
    """A bundle on its way to an alias: what is missing, in words, who could sign, and what the gates come to."""

    bundle: str
    model: str
    alias: str
    missing: tuple[str, ...]
    given: tuple[GivenLine, ...]
    signers: tuple[SignerLine, ...]
    gates: tuple[GateLine, ...]

    @property
    def signed(self) -> bool:
        """Whether all signatures are there."""
        return not self.missing

    @property
    def blocked(self) -> tuple[GateLine, ...]:
        """The gates that are not passed."""
        return tuple(gate for gate in self.gates if not gate.passed)


@dataclass(frozen=True, slots=True)
class ApprovalsPage:
    """All that waits, newest bundle first. ``rules``: whether the console knows what aliases ask for."""

    waiting: tuple[WaitingLine, ...]
    rules: bool

    @property
    def unsigned(self) -> tuple[WaitingLine, ...]:
        """What waits for a signature."""
        return tuple(one for one in self.waiting if not one.signed)

    @property
    def complete(self) -> tuple[WaitingLine, ...]:
        """What has all its signatures, and waits for a gate or for the coordinator."""
        return tuple(one for one in self.waiting if one.signed)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A signature that is in the log now, and what it says."""

    index: int
    said: str


def read_approvals(view: View, rules: RegistryRules | None, names: Mapping[str, str]) -> ApprovalsPage:
    """What waits for whose signature, for every alias with rules and every bundle that it does not point to.

    Args:
        view: the log.
        rules: what aliases ask for; None if that is not known here.
        names: persons by pseudonym, for whoever may know them.
    """
    if rules is None:
        return ApprovalsPage((), rules=False)
    standing = Standing.of(view)
    state, found = standing.state, []
    for registration in reversed(list(state.registered.values())):
        if state.status(registration.model) is not Status.ACTIVE:
            continue
        for alias in Alias:
            asked = rules_for(rules, alias)
            if asked is None or _was_there(state, registration, alias):
                continue
            way = way_of(standing, registration, alias, asked)
            given = tuple(_given(state, asked, registration, alias, names))
            signers = tuple(_signers(state, asked, registration, alias, names)) if way.missing else ()
            aim = (registration.bundle, registration.model, alias.value)
            found.append(WaitingLine(*aim, way.missing, given, signers, way.gates))
    return ApprovalsPage(tuple(found), rules=True)


def request_for(view: View, bundle: str, alias: str, meaning: str, person: str, role: str) -> Request:
    """What somebody is asked to sign, complete: the file for `fedseal model sign`.

    Raises:
        ConfigError: there is no such bundle, alias, meaning, role or person.
        PolicyRefused: the person may not sign this.
    """
    state = view.state()
    registration, who = find_bundle(state, bundle), state.persons.get(person)
    if alias not in tuple(Alias) or meaning not in tuple(Meaning) or role not in tuple(Role) or who is None:
        raise ConfigError("nobody can be asked for that", next_step="The page of approvals lists what is missing.")
    body = Signature(
        model=registration.model,
        alias=Alias(alias),
        meaning=Meaning(meaning),
        role=Role(role),
        bundle=registration.bundle,
    )
    return request(state, who, body, place_in(view.connection, view.log.origin, keyid_of(who.key)))


def bundle_files(evidence: Evidence, view: View, bundle: str) -> tuple[str, Iterator[bytes]]:
    """A bundle's four files as a ZIP, for whoever signs it, and what the ZIP is called.

    Raises:
        ConfigError: there is no such bundle, or its files are not here or were changed.
    """
    registration = find_bundle(view.state(), bundle)
    kept = BundleStore(evidence.bundles)
    try:
        kept.get(registration.bundle)
    except ConfigError:
        raise ConfigError(
            "the bundle's files are not kept at this server, or are not those that the log names",
            next_step="Take the bundle from whoever registered it: `fedseal model sign` checks its digest.",
        ) from None
    name = registration.bundle.removeprefix("sha256:")
    folder = kept.path(registration.bundle)
    return name[:12], zipped(((file, (folder / file).read_bytes()) for file in (*CONTENTS, MANIFEST)), name)


def accept(evidence: Evidence, raw: bytes, roles: frozenset[str]) -> Accepted:
    """Append a signature that somebody has made elsewhere, if it counts.

    Args:
        evidence: where the log is.
        raw: the signed file, as `fedseal model sign` wrote it.
        roles: those of whoever hands it in: they hand in what is signed in a role that they have.

    Raises:
        ConfigError: it is no signed file, or nobody knows here what aliases ask for.
        PolicyRefused: it is not signed by whom it names, is not the next entry of its author, or would count for
            nothing; with the reason.
    """
    leaf = leaf_in(raw)
    rules = evidence.asked()
    if rules is None:
        raise ConfigError(
            "this console does not know what aliases ask for, and so takes no signatures",
            next_step="Its operator puts registry.toml beside the server's file; `fedseal model submit` does without.",
        )
    try:
        event = read_event(leaf, "a signer")
    except PeerError as error:
        raise ConfigError(f"this is no signed file: {error.message}", next_step=_HOW) from None
    if not isinstance(event.body, Signature):
        raise PolicyRefused("this is an event of another kind than a signature under a bundle")
    if event.body.role.value not in roles:
        raise PolicyRefused(
            f"it is signed as {event.body.role.value}, and that is no role of yours here",
            next_step="Whoever has the role hands it in.",
        )
    with registry_at(evidence.store, evidence.bundles, evidence.database) as opened:
        try:
            index = opened.registry.submit(leaf, rules)
        except PeerError:
            raise PolicyRefused(
                "it is not the next entry of its author: it is in the log already, or the person has signed something "
                "else since they were asked",
                next_step="Take a new request, and sign that.",
            ) from None
    return Accepted(index, line(event))


_HOW = "Choose the file that `fedseal model sign REQUEST --bundle DIR --key KEY --out FILE` has written."


def leaf_in(raw: bytes) -> bytes:
    """The event in a signed file; ConfigError if it cannot be one."""
    if len(raw) > LARGEST_FILE:
        raise ConfigError("this is no signed file: it is too long", next_step=_HOW)
    try:
        leaf = base64.b64decode(b"".join(raw.split()), validate=True)
    except binascii.Error:
        raise ConfigError("this is no signed file: it is not base64", next_step=_HOW) from None
    if not 0 < len(leaf) <= MAX_BYTES:
        raise ConfigError("this is no signed file: it is empty, or too long for the log", next_step=_HOW)
    return leaf


def _was_there(state: State, registration: Registration, alias: Alias) -> bool:
    """A bundle that an alias has pointed to needs no signatures any more: it is gone back to by a rollback."""
    return any(binding.bundle == registration.bundle for binding in state.held.get(alias, ()))


def _given(
    state: State, rules: AliasRules, registration: Registration, alias: Alias, names: Mapping[str, str]
) -> Iterator[GivenLine]:
    for a in count(state, rules, registration, alias).approvals:
        yield GivenLine(names.get(a.actor, digits(a.actor)), a.meaning.value, a.role.value, a.index)


def _signers(
    state: State, rules: AliasRules, registration: Registration, alias: Alias, names: Mapping[str, str]
) -> Iterator[SignerLine]:
    """Whoever could fill one of the places that are open: active, in the role, and not in another place already."""
    signed = [a for a in state.approvals if a.bundle == registration.bundle]
    authors = {a.actor for a in signed if a.meaning is Meaning.AUTHORED}
    here = {a.actor for a in signed if a.alias is alias}
    for required in rules.approvals:
        given = {a.actor for a in signed if a.alias is alias and a.meaning is required.meaning}
        if len(given) >= required.persons:
            continue
        for person in state.persons.values():
            barred = rules.not_author and required.meaning is not Meaning.AUTHORED and person.actor in authors
            if person.active and person.actor not in here and not barred:
                yield from _as(person, required.meaning, required.roles, names)


def _as(person: Person, meaning: Meaning, roles: tuple[Role, ...], names: Mapping[str, str]) -> Iterator[SignerLine]:
    for role in roles:
        if role in person.roles:
            name = names.get(person.actor, digits(person.actor))
            yield SignerLine(person.actor, name, person.org, meaning.value, role.value)
