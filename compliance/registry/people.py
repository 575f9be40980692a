"""Who may sign what: persons as the log knows them, their signatures, and the keys that they sign with.

An organisation (the server or a site) gives a person a key and roles in a signed event; a log holds the pseudonym
only. The organisation's own directory says who that is, see `directory`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fedseal.compliance.events.bodies import PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import Alias, Meaning, Role, public_name
from fedseal.compliance.events.leaf import SERVER_ORG, Event, keyid_of
from fedseal.compliance.events.subjects import Signature
from fedseal.compliance.registry.entries import Entry
from fedseal.errors import PolicyRefused
from fedseal.privacy.membership.documents import SERVER, FormerKey, KeyKind
from fedseal.privacy.roster import Roster


@dataclass(frozen=True, slots=True)
class Person:
    """A person as the log knows them. ``removed_at`` is the index of the last removal, -1 where there was none."""

    actor: str
    org: str
    key: bytes
    roles: frozenset[Role]
    active: bool = True
    removed_at: int = -1


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's signature under a bundle for an alias, that held when it was given."""

    index: int
    actor: str
    org: str
    time: str
    bundle: str
    model: str
    alias: Alias
    meaning: Meaning
    role: Role


@dataclass(frozen=True, slots=True)
class Parties:
    """The keys of those who sign as organisations: the server, and the sites of the roster, by their name in a log.

    Of each all that it ever had, and of those that have left as well: what they signed stays signed.
    """

    keys: Mapping[str, frozenset[bytes]]

    @classmethod
    def of(cls, roster: Roster, former: Sequence[FormerKey] = ()) -> "Parties":
        """Those of a roster, and of the epochs before it."""
        pairs = [(public_name(site.name), site.signing_key) for site in roster.sites]
        pairs += [
            (SERVER_ORG if f.site == SERVER else public_name(f.name), f.public)
            for f in former
            if f.kind == KeyKind.SIGNING
        ]
        return cls.named([*pairs, (SERVER_ORG, roster.server_key)])

    @classmethod
    def named(cls, pairs: Iterable[tuple[str, bytes]]) -> "Parties":
        """Organisations and their keys, an organisation once for each key."""
        found: dict[str, set[bytes]] = {}
        for org, key in pairs:
            found.setdefault(org, set()).add(key)
        return cls({org: frozenset(keys) for org, keys in found.items()})

    def has(self, key: bytes) -> bool:
        """Whether a key is an organisation's."""
        return any(key in keys for keys in self.keys.values())

    def signed(self, event: Event) -> bool:
        """Whether the organisation that an event names has signed it."""
        return any(event.signed_by(key) for key in self.keys.get(event.org, ()) if keyid_of(key) == event.keyid)

    def by_server(self, event: Event) -> bool:
        """Whether the server has signed an event as the server."""
        return event.org == SERVER_ORG and self.signed(event)


@dataclass(slots=True)
class People:
    """Persons and their signatures, while a log is read from its beginning."""

    parties: Parties
    known: dict[str, Person] = field(default_factory=dict)
    approvals: dict[int, Approval] = field(default_factory=dict)
    owners: dict[bytes, str] = field(default_factory=dict)

    def take(self, entry: Entry) -> str | None:
        """Read one event; why it counts for nothing, or None if it counts or is about something else."""
        match entry.event.body:
            case PersonAdded() as body:
                return self._add(body, entry.event)
            case PersonRemoved() as body:
                return self._remove(body, entry)
            case Signature() as body:
                return self._approve(body, entry)
        return None

    def _add(self, body: PersonAdded, event: Event) -> str | None:
        """A new person, or new roles or another key of one. A key is one person's for good, so nobody counts twice."""
        key, before = bytes.fromhex(body.key), self.known.get(body.person)
        if not self.parties.signed(event):
            return "a person whom no organisation of the roster has signed for"
        if before is not None and before.org != event.org:
            return "a person of another organisation"
        if self.parties.has(key) or self.owners.get(key, body.person) != body.person:
            return "a person with somebody else's key"
        removed_at = -1 if before is None else before.removed_at
        self.known[body.person] = Person(body.person, event.org, key, frozenset(body.roles), True, removed_at)
        self.owners[key] = body.person
        return None

    def _remove(self, body: PersonRemoved, entry: Entry) -> str | None:
        person = self.known.get(body.person)
        if person is None or person.org != entry.event.org or not self.parties.signed(entry.event):
            return "a removal that is not the person's organisation's"
        self.known[person.actor] = Person(person.actor, person.org, person.key, person.roles, False, entry.index)
        return None

    def _approve(self, body: Signature, entry: Entry) -> str | None:
        event = entry.event
        person = self.known.get(event.actor)
        if person is None or not person.active:
            return "a signature of a person who was not added, or was removed"
        if event.org != person.org or not event.signed_by(person.key):
            return "a signature that is not made with the person's key"
        if body.role not in person.roles:
            return "a signature in a role that the person does not have"
        if body.bundle is None:
            return "a signature that names no bundle"
        self.approvals[entry.index] = Approval(
            entry.index,
            person.actor,
            person.org,
            event.time,
            body.bundle,
            body.model,
            body.alias,
            body.meaning,
            body.role,
        )
        return None

    def stands(self, approval: Approval) -> bool:
        """Whether a signature still counts: its person was not removed since, even if added again."""
        person = self.known[approval.actor]
        return person.active and approval.index > person.removed_at


def check_person(
    persons: Mapping[str, Person],
    owners: Mapping[bytes, str],
    parties: Parties,
    body: PersonAdded | PersonRemoved,
    org: str,
) -> None:
    """That an organisation may say this of a person, before it is written where it would count for nothing.

    Raises:
        PolicyRefused: it is another organisation's person, or the key is somebody else's.
    """
    known = persons.get(body.person)
    if known is not None and known.org != org:
        raise PolicyRefused("this person is another organisation's", next_step="Ask it to write this down.")
    if isinstance(body, PersonRemoved):
        if known is None or not known.active:
            raise PolicyRefused("no such person may sign", next_step="See `fedseal person list`.")
        return
    key = bytes.fromhex(body.key)
    if owners.get(key, body.person) != body.person or parties.has(key):
        raise PolicyRefused(
            "this key is somebody else's already",
            next_step="Every person has a key of their own: `fedseal person key`.",
        )
