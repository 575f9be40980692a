"""Two-sided truth: what the federation's log says of a site beside what the site's own log and ledger say.

The federation's log cannot put words into a site's mouth: it has not the key. It can leave words out, or claim that a
site was in a sum. And a site can sign one thing and do another. Each comparison here is one such disagreement.
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
from fedseal.compliance.events.fields import ReleaseName
from fedseal.compliance.events.leaf import Event, read_event
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
    and its ledger's charges as (run, plan) in hex.
    """

    number: int
    org: str
    own: Sequence[bytes]
    signed: Sequence[bytes]
    charges: Sequence[tuple[str, str]]


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


def reconcile(entries: Iterable[bytes], site: SiteSide) -> list[Disagreement]:
    """Everything that the federation's log and a site disagree about."""
    found: list[Disagreement] = []
    federation = _sorted(entries, site, found)
    accesses, anchors = _own(site, found)
    _compare_entries(federation, site, found)
    _compare_sums(federation, site, found)
    _compare_reading(federation, accesses, found)
    _compare_charges(federation, site, found)
    _compare_histories(federation, site, anchors, found)
    return found


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


def _own(
    site: SiteSide, found: list[Disagreement]
) -> tuple[dict[Key, tuple[int, Access]], list[tuple[int, ForeignAnchor]]]:
    accesses, anchors = {}, []
    for index, leaf in enumerate(site.own):
        try:
            event = read_event(leaf, "this site")
        except PeerError:
            found.append(Disagreement(Dispute.UNREADABLE, own=index))
            continue
        match event.body:
            case Access() as body:
                accesses[_key(event.run, body)] = (index, body)
            case ForeignAnchor() as body:
                anchors.append((index, body))
    return accesses, anchors


def _compare_entries(federation: _Federation, site: SiteSide, found: list[Disagreement]) -> None:
    """What the site has signed, and what the log has of it: the same bytes, all of them."""
    signed = set(site.signed)
    found.extend(Disagreement(Dispute.UNLOGGED) for leaf in site.signed if leaf not in federation.of_site)
    found.extend(Disagreement(Dispute.INVENTED, i) for leaf, i in federation.of_site.items() if leaf not in signed)


def _compare_sums(federation: _Federation, site: SiteSide, found: list[Disagreement]) -> None:
    """Sums that claim the site, and what it has sent for them."""
    sent = {}
    for leaf in site.signed:
        event = read_event(leaf, "this site")
        if isinstance(event.body, Contributed):
            sent[_key(event.run, event.body)] = event.body
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


def _compare_charges(federation: _Federation, site: SiteSide, found: list[Disagreement]) -> None:
    """The plan of the run, the plans charged, and the site's ledger."""
    for index, run, body in federation.charged:
        created = None if run is None else federation.created.get(run)
        if created is not None and body.release is ReleaseName.UPDATE and body.plan != created.plan:
            found.append(Disagreement(Dispute.PLAN, index))
    logged = Counter((run or "", body.plan.encoded) for _, run, body in federation.charged)
    if logged != Counter(site.charges):
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
