"""Who may sign what in a log: the keys that a policy names, and the persons that its parties have added since."""

from dataclasses import dataclass
from urllib.parse import unquote

from fedseal.compliance.events.bodies import Joined, PersonAdded, PersonRemoved
from fedseal.compliance.events.fields import public_name
from fedseal.compliance.events.leaf import SERVER_ORG, Event, Place, actor_of, keyid_of
from fedseal.compliance.events.registry import Author, Book
from fedseal.compliance.log.quorum import Policy
from fedseal.errors import PeerError


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
    """

    def __init__(self, policy: Policy, book: Book = Book.FEDERATION) -> None:
        self._book = book
        self._keys: dict[str, Party] = {}
        self._places: dict[str, Place] = {}
        for entry in policy.logs:
            if book is Book.FEDERATION:
                self._add(SERVER_ORG, Author.SERVER, entry.key.public)
            else:
                self._add(_site_of(entry.key.name), Author.SITE, entry.key.public)
        for witness in policy.witnesses:
            self._add(_site_of(witness.name), Author.SITE, witness.key.public)

    def _add(self, org: str, author: Author, public: bytes, actor: str | None = None) -> None:
        self._keys.setdefault(keyid_of(public), Party(org, author, public, actor or actor_of(public)))

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
        if Place(event.seq, event.prev) != self._places.get(event.keyid, Place()):
            raise PeerError("not the next entry of its author: one is missing, moved or doubled", peer=party.org)
        if not event.signed_by(party.public):
            raise PeerError("a signature that does not hold", peer=party.org)
        if isinstance(event.body, Joined) and (event.body.name, event.body.key) != (party.org, party.public.hex()):
            raise PeerError("a site that joins under another name or key than its own", peer=party.org)
        self._places[event.keyid] = event.place_after
        match event.body:
            case PersonAdded(person=person, key=key):
                self._add(party.org, Author.PERSON, bytes.fromhex(key), person)
            case PersonRemoved(person=person):
                self._keys = {k: p for k, p in self._keys.items() if p.actor != person or p.author is not Author.PERSON}
        return party


def _site_of(origin: str) -> str:
    """The name of the site whose log or witness is called so; see `checkpoint.site_origin`."""
    parts = origin.split("/")
    return public_name(unquote(parts[2])) if len(parts) == 3 and parts[1] == "site" else public_name(origin)
