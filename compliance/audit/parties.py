"""Who may sign what in a log: the keys that a policy names, and the persons that its parties have added since."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import unquote

from fedseal.compliance.events.bodies import Joined, PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.events.leaf import SERVER_ORG, Event, Place, actor_of, keyid_of, read_event
from fedseal.compliance.events.registry import Author, Book
from fedseal.compliance.log.checkpoint import witness_key
from fedseal.compliance.log.quorum import FORMER, Policy, Witness
from fedseal.errors import PeerError

PERSON = "person"


@dataclass(frozen=True, slots=True)
class Party:
    """Who owns a key: the organisation it signs for, in which quality, and the pseudonym."""

    org: str
    author: Author
    public: bytes
    actor: str


class Parties:
    """The keys that may sign entries of one log, as they stand after the entries seen so far.

    Args:
        policy: the log's; its log signs for the server, its witnesses for the sites.
        book: whether this is the federation's log or a site's own.
        alone: whether single entries are looked at: persons that the policy names are then known from it. In a whole
            log its own entries say who was added, and when.
    """

    def __init__(self, policy: Policy, book: Book = Book.FEDERATION, *, alone: bool = False) -> None:
        self._book = book
        self._keys: dict[str, Party] = {}
        self._places: dict[str, Place] = {}
        for entry in policy.logs:
            if book is Book.FEDERATION:
                self._add(SERVER_ORG, Author.SERVER, entry.key.public)
            else:
                self._add(site_named(entry.key.name), Author.SITE, entry.key.public)
        for witness in policy.witnesses:
            if not is_person(witness.name):
                self._add(site_named(witness.key.name), Author.SITE, witness.key.public)
            elif alone:
                org, _, actor = witness.name.split("/")
                self._add(org, Author.PERSON, witness.key.public, actor)

    def _add(self, org: str, author: Author, public: bytes, actor: str | None = None) -> None:
        self._keys.setdefault(keyid_of(public), Party(org, author, public, actor or actor_of(public)))

    def owner(self, event: Event) -> Party | None:
        """Whose key an entry names, wherever in the log it stands; None if nobody has named it so far."""
        return self._keys.get(event.keyid)

    def accept(self, event: Event) -> Party:
        """Check an entry that comes next, and remember what it changes.

        Raises:
            PeerError: its author is unknown or may not say this here, signed something else, or left out an entry.
        """
        party = self._keys.get(event.keyid)
        if party is None:
            raise PeerError("signed by a key that nobody has named", peer=event.org)
        if (event.org, event.actor) != (party.org, party.actor):
            raise PeerError("signed by one party in the name of another", peer=party.org)
        if party.author not in event.kind.authors or self._book not in event.kind.books:
            raise PeerError(f"an entry {event.kind.name} that its author may not make here", peer=party.org)
        if not event.signed_by(party.public):
            raise PeerError("a signature that does not hold", peer=party.org)
        follows = Place(event.seq, event.prev) == self._places.get(event.keyid, Place())
        # Also after a gap: one missing entry is one finding, not one for everything that its author said since.
        self._places[event.keyid] = event.place_after
        if not follows:
            raise PeerError("not the next entry of its author: one is missing, moved or doubled", peer=party.org)
        if isinstance(event.body, Joined) and (event.body.name, event.body.key) != (party.org, party.public.hex()):
            raise PeerError("a site that joins under another name or key than its own", peer=party.org)
        match event.body:
            case PersonAdded(person=person, key=key):
                self._add(party.org, Author.PERSON, bytes.fromhex(key), person)
            case PersonRemoved(person=person):
                # Only the organisation that added a person can remove it.
                gone = (party.org, Author.PERSON, person)
                self._keys = {k: p for k, p in self._keys.items() if (p.org, p.author, p.actor) != gone}
        return party


def is_person(name: str) -> bool:
    """Whether a policy's witness of this name is a person: an author whose cosignature nobody asks for."""
    parts = name.split("/")
    return len(parts) == 3 and parts[1] == PERSON


def is_former(name: str) -> bool:
    """Whether a policy's witness of this name is one that cosigns no more."""
    return name.split("/")[-2:-1] == [FORMER]


def witnesses_of(policy: Policy) -> int:
    """How many there are, without the persons, and without those that cosign no more."""
    return sum(not (is_person(witness.name) or is_former(witness.name)) for witness in policy.witnesses)


def with_persons(policy: Policy, leaves: Iterable[bytes]) -> Policy:
    """A policy that also names the persons whom the log's parties have added, for whoever reads no such entries.

    They become witnesses outside of every group: `fedseal-verify` takes a policy's keys for those that may sign.
    """
    found = {witness.key.public: witness for witness in policy.witnesses}
    for leaf in leaves:
        if b'"type":"actor.added/v1"' not in leaf:
            continue
        try:
            event = read_event(leaf)
        except PeerError:
            continue
        if isinstance(event.body, PersonAdded):
            name, public = f"{event.org}/{PERSON}/{event.body.person}", bytes.fromhex(event.body.key)
            known = {witness.name for witness in found.values()}
            if name not in known and public not in {entry.key.public for entry in policy.logs}:
                found.setdefault(public, Witness(name, witness_key(name, public)))
    return replace(policy, witnesses=tuple(found.values()))


def site_named(origin: str) -> str:
    """The name of the site whose log or witness is called so; see `checkpoint.site_origin`."""
    parts = origin.split("/")
    return public_name(unquote(parts[2])) if len(parts) == 3 and parts[1] == "site" else public_name(origin)
