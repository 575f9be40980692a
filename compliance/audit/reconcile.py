"""Two-sided truth: what the federation's log says of a site beside what the site's own log and ledger say.

The federation's log cannot put words into a site's mouth: it has not the key. It can leave words out, or claim that a
site was in a sum. And a site can sign one thing and do another. Each comparison here is one such disagreement.

An entry that is on its way is none: a site that fell out of a round has signed what the server never received. It was
left out where the site has seen it in the log before, or where the log holds the site's cosignature from an answer that
brought the entry along.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from fedseal.compliance.events.bodies import (
    Access,
    Aggregated,
    Charged,
    Contributed,
    ForeignAnchor,
    RunCreated,
)
from fedseal.compliance.events.fields import ReleaseName, sha256
from fedseal.compliance.events.leaf import Event, read_event
from fedseal.compliance.events.subjects import Shared
from fedseal.compliance.journal.attachment import MOST_EVENTS
from fedseal.compliance.log.tree import EMPTY
from fedseal.errors import PeerError
from fedseal.merkle import leaf_hash


class Dispute(StrEnum):
    """What the two sides disagree about."""

    PARTICIPATION = "the federation says that this site was in a sum, and the site never sent anything for it"
    UNLOGGED = "the site signed an entry that the federation's log does not have"
    INVENTED = "the federation's log has an entry of this site that the site does not know"
    DATASET = "the site signed for one dataset and read another"
    LABELS = "the site signed for one label set and read another"
    CODE = "the site ran other code than the run was created with, or than it signed for"
    PLAN = "the site charged another plan than the run was created with"
    CHARGES = "the site's ledger has other charges than the federation's log"
    OWN_HISTORY = "the site's own log is not the one it had named in the federation's log"
    FEDERATION_HISTORY = "the federation's log is not the one this site had cosigned"
    UNREADABLE = "an entry cannot be read"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One of them, with the entries it is about: in the federation's log, and in the site's own."""

    dispute: Dispute
    federation: int | None = None
    own: int | None = None


@dataclass(frozen=True, slots=True)
class SiteSide:
    """What a site holds: its number and name for the log, its own log, every entry it has signed for the federation's,
    which of these it has seen there, and its ledger's charges as (run, plan) in hex.
    """

    number: int
    org: str
    own: Sequence[bytes]
    signed: Sequence[bytes]
    seen: frozenset[bytes]
    charges: Sequence[tuple[str, str]]


@dataclass(slots=True)
class Reconciled:
    """What came of it. ``waiting``: how many entries of the site are on their way to the log."""

    found: list[Disagreement] = field(default_factory=list)
    waiting: int = 0


Key = tuple[str | None, ReleaseName, int, int]


@dataclass(slots=True)
class _Federation:
    """The federation's log, sorted for comparing."""

    created: dict[str, RunCreated] = field(default_factory=dict)
    contributed: dict[Key, tuple[int, Contributed]] = field(default_factory=dict)
    aggregated: list[tuple[int, Event, Aggregated]] = field(default_factory=list)
    charged: list[tuple[int, str | None, Charged]] = field(default_factory=list)
    of_site: dict[bytes, int] = field(default_factory=dict)
    roots: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class _Own:
    """The site's own log, sorted for comparing: what it read for which release, which states of the federation's log it
    cosigned, and where it noted that it had signed an entry, by the entry's digest.
    """

    accesses: dict[Key, tuple[int, Access]] = field(default_factory=dict)
    anchors: list[tuple[int, ForeignAnchor]] = field(default_factory=list)
    shared: dict[str, int] = field(default_factory=dict)


def reconcile(entries: Iterable[bytes], site: SiteSide, *, answered: int = 0) -> Reconciled:
    """Everything that the federation's log and a site disagree about.

    Args:
        entries: the federation's log.
        site: the site's side.
        answered: the largest size of the log that it holds a cosignature of this site for; see `LogCopy.cosigned_by`.
    """
    result = Reconciled()
    federation = _sorted(entries, site, result.found)
    own = _own(site, result.found)
    signed = _signed(site, result.found)
    late = _compare_entries(federation, site, own, answered, result)
    _compare_sums(federation, site, signed, result.found)
    _compare_reading(federation, own.accesses, result.found)
    _compare_charges(federation, site, [signed[leaf] for leaf in late if leaf in signed], result.found)
    _compare_histories(federation, site, own.anchors, result.found)
    return result


def _sorted(entries: Iterable[bytes], site: SiteSide, found: list[Disagreement]) -> _Federation:
    federation, frontier = _Federation(), EMPTY
    federation.roots[0] = frontier.root
    for index, leaf in enumerate(entries):
        frontier = frontier.extend([leaf_hash(leaf)])[0]
        federation.roots[index + 1] = frontier.root
        try:
            event = read_event(leaf)
        except PeerError:
            found.append(Disagreement(Dispute.UNREADABLE, federation=index))
            continue
        own = event.org == site.org
        if own:
            federation.of_site[leaf] = index
        match event.body:
            case RunCreated() as body if event.run is not None:
                federation.created[event.run] = body
            case Aggregated() as body:
                federation.aggregated.append((index, event, body))
            case Charged() as body if own:
                federation.charged.append((index, event.run, body))
            case Contributed() as body if own:
                federation.contributed[_key(event.run, body)] = (index, body)
    return federation


def _key(run: str | None, body: Contributed | Aggregated | Access | Charged) -> Key:
    return (run, body.release, body.sequence, body.attempt)


def _own(site: SiteSide, found: list[Disagreement]) -> _Own:
    own = _Own()
    for index, leaf in enumerate(site.own):
        try:
            event = read_event(leaf, "this site")
        except PeerError:
            found.append(Disagreement(Dispute.UNREADABLE, own=index))
            continue
        match event.body:
            case Access() as body:
                own.accesses[_key(event.run, body)] = (index, body)
            case ForeignAnchor() as body:
                own.anchors.append((index, body))
            case Shared() as body:
                own.shared[body.leaf] = index
    return own


def _signed(site: SiteSide, found: list[Disagreement]) -> dict[bytes, Event]:
    """The events in what the site has signed, by leaf."""
    events = {}
    for leaf in site.signed:
        try:
            events[leaf] = read_event(leaf, "this site")
        except PeerError:
            found.append(Disagreement(Dispute.UNREADABLE))
    return events


def _compare_entries(
    federation: _Federation, site: SiteSide, own: _Own, answered: int, result: Reconciled
) -> list[bytes]:
    """What the site has signed, and what the log has of it: the same bytes, all that have arrived. The others."""
    signed = set(site.signed)
    arrived = max((index for index, anchor in own.anchors if anchor.size == answered), default=-1)
    late, ahead = [], 0
    for leaf in site.signed:
        place = federation.of_site.get(leaf)
        if place is None:
            index = own.shared.get(sha256(leaf))
            # An answer brings so many of the entries that the site had not seen in the log by then, oldest first.
            brought = index is not None and index < arrived and ahead < MOST_EVENTS
            if leaf in site.seen or brought:
                result.found.append(Disagreement(Dispute.UNLOGGED, own=index))
            else:
                late.append(leaf)
        ahead += place is None or place >= answered
    invented = [i for leaf, i in federation.of_site.items() if leaf not in signed]
    result.found.extend(Disagreement(Dispute.INVENTED, i) for i in invented)
    result.waiting = len(late)
    return late


def _compare_sums(
    federation: _Federation, site: SiteSide, signed: Mapping[bytes, Event], found: list[Disagreement]
) -> None:
    """Sums that claim the site, and what it has sent for them."""
    sent = {_key(e.run, e.body): e.body for e in signed.values() if isinstance(e.body, Contributed)}
    for index, event, body in federation.aggregated:
        mine = sent.get(_key(event.run, body))
        if site.number in body.sites and (mine is None or mine.header != body.header):
            found.append(Disagreement(Dispute.PARTICIPATION, index))


def _compare_reading(
    federation: _Federation, accesses: Mapping[Key, tuple[int, Access]], found: list[Disagreement]
) -> None:
    """What the site signed for, what it read and ran, and what the run was created with."""
    for key, (index, body) in federation.contributed.items():
        own, read = accesses.get(key, (None, None))
        if read is None or read.dataset != body.dataset:
            found.append(Disagreement(Dispute.DATASET, index, own))
        if read is None or read.label_set != body.label_set:
            found.append(Disagreement(Dispute.LABELS, index, own))
        created = None if key[0] is None else federation.created.get(key[0])
        planned = None if created is None else created.code
        other = body.code is not None and planned is not None and body.code != planned
        if read is None or read.code != body.code or other:
            found.append(Disagreement(Dispute.CODE, index, own))


def _compare_charges(federation: _Federation, site: SiteSide, late: Sequence[Event], found: list[Disagreement]) -> None:
    """The plan of the run, the plans charged, and the site's ledger. ``late``: entries on their way to the log."""
    for index, run, body in federation.charged:
        created = None if run is None else federation.created.get(run)
        if created is not None and body.release is ReleaseName.UPDATE and body.plan != created.plan:
            found.append(Disagreement(Dispute.PLAN, index))
    stated = [(run, body) for _, run, body in federation.charged]
    stated += [(event.run, event.body) for event in late if isinstance(event.body, Charged)]
    if Counter((run or "", body.plan.encoded) for run, body in stated) != Counter(site.charges):
        found.append(Disagreement(Dispute.CHARGES))


def _compare_histories(
    federation: _Federation, site: SiteSide, anchors: Sequence[tuple[int, ForeignAnchor]], found: list[Disagreement]
) -> None:
    """Each log at the sizes that the other has named."""
    frontier, roots = EMPTY, {0: EMPTY.root}
    for index, leaf in enumerate(site.own):
        frontier = frontier.extend([leaf_hash(leaf)])[0]
        roots[index + 1] = frontier.root
    for at, body in federation.contributed.values():
        root = roots.get(body.anchor.size)
        if root is None or f"sha256:{root.hex()}" != body.anchor.root:
            found.append(Disagreement(Dispute.OWN_HISTORY, at))
    for own, anchor in anchors:
        root = federation.roots.get(anchor.size)
        if root is None or f"sha256:{root.hex()}" != anchor.root:
            found.append(Disagreement(Dispute.FEDERATION_HISTORY, own=own))
