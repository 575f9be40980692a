"""Honest sites in memory, and an attacker who is their server and some of them: what it may ask, and what it can
compute from the answers.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from adversary.attack import Fault, Refusal
from adversary.mole import Mole, moles, opening
from numpy.typing import NDArray
from support.rounds import Cohort, make_cohort

from fedseal import merkle
from fedseal.client.requests import decode_request
from fedseal.errors import FedsealError
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg import client, sharing
from fedseal.privacy.secagg.checks import ring_session_id, self_commitment, session_id, survivors_digest
from fedseal.privacy.secagg.client_states import STORED_STATES, MaskedUpdate, Ready, State, Vector
from fedseal.privacy.secagg.graph import Graph, graph_of
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.keys import (
    Agreement,
    envelope_key,
    mask_private_key,
    pair_mask_key,
    self_mask_key,
    unseal,
    x25519_public,
)
from fedseal.privacy.secagg.masks import apply_masks
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    ConsistencyRequest,
    MaskRequest,
    Member,
    NeighbourRequest,
    Openings,
    SealedShares,
    SecretKind,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
    sign,
)
from fedseal.privacy.secagg.shamir import combine, lagrange_at_zero
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode

Sites = tuple[int, ...]
Words = NDArray[Any]


@dataclass
class Told:
    """What one honest site was made to believe, and what it answered."""

    keys: dict[int, Advertisement]
    session: bytes
    graph: Graph
    reply: ShareReply
    partners: Sites = ()
    vector: Words | None = None


class Field:
    """Honest sites, each at its own state; the attacker asks them what it likes.

    Args:
        refusals: where to note what was refused.
        cohort: sites and values; those in ``moles`` are the attacker's.
        moles: by number. They collude, or they do not exist.
        header: what the attacker signs; the cohort's if not given.
    """

    def __init__(
        self, refusals: list[Refusal], cohort: Cohort, moles: Mapping[int, Mole], header: Header | None = None
    ) -> None:
        self.refusals, self.cohort, self.moles = refusals, cohort, dict(moles)
        self.use(header or cohort.header)
        self.sites: Sites = tuple(s for s in cohort.sites if s not in self.moles)
        self.adverts: dict[int, Signed] = {}
        self.told: dict[int, Told] = {}
        self.dealt: dict[int, ShareReply] = {}
        self.in_place_of: dict[int, ShareReply] = {}
        self.signed: list[Signed] = []
        self.shares: dict[tuple[int, SecretKind], dict[int, bytes]] = {}

    def use(self, header: Header) -> None:
        """The header of the round."""
        self.header, self.digest = header, hashlib.sha256(encode(header)).digest()

    def ask(self, site: int, request: Any) -> Any:
        """One request to an honest site; a refusal is noted and ends the attack."""
        cohort = self.cohort
        before = cohort.states[site]
        picture = stored(before)
        try:
            # As it comes over the wire.
            raw = request if isinstance(request, bytes) else encode(request)
            event: Any = decode_request(raw)
            step = client.step(cohort.sites[site], before, event)
            if isinstance(step.state, Ready):
                receipt = Receipt(self.digest, self.header.plan, 1)
                update = replace_layout(cohort, site, self.header)
                step = client.step(cohort.sites[site], step.state, Vector(update, receipt))
        except FedsealError as error:
            unchanged = cohort.states[site] is before and stored(before) == picture
            self.refusals.append(Refusal(Fault.of(f"site {site}", error), error.message, unchanged))
            raise
        cohort.states[site] = step.state
        return step.reply

    # The exchanges. What differs from site to site is given by a function of the site's number.

    def advertise(self, request: AdvertiseRequest | None = None) -> dict[int, Signed]:
        """Keys of all."""
        for site in self.sites:
            self.adverts[site] = self.ask(site, request or opening(self.header))
        for mole in self.moles.values():
            self.adverts[mole.number] = mole.advertise(self.digest)
        return self.adverts

    def share(self, shown: Callable[[int], Mapping[int, Signed]] | None = None) -> None:
        """Shares of all, each among those whose keys it is shown."""
        for site in self.sites:
            adverts = dict(sorted((shown(site) if shown else self.adverts).items()))
            self._share(site, adverts)

    def _share(self, site: int, adverts: Mapping[int, Signed]) -> None:
        session, graph, request = self.request(site, adverts)
        keys = {s: decode(a.payload, Advertisement) for s, a in adverts.items()}
        reply = self.ask(site, request)
        self.told[site] = Told(keys, session, graph, reply)
        self.dealt[site] = reply
        for mole in self.moles.values():
            if site in graph.holders(mole.number) or graph.kind == 0:
                self.dealt.setdefault(mole.number, mole.deal(self.digest, session, graph, keys))

    def request(self, site: int, adverts: Mapping[int, Signed]) -> tuple[bytes, Graph, Any]:
        """The session of these advertisements, its graph, and what it asks a site."""
        ordered, members = tuple(adverts.values()), tuple(adverts)
        if self.header.sparse is None:
            session = session_id(self.digest, ordered)
            return session, graph_of(self.header, session, members), ShareRequest(self.digest, ordered)
        leaves = [merkle.leaf_hash(encode(a)) for a in ordered]
        root, paths = merkle.root(leaves), merkle.inclusion_paths(leaves)
        session = ring_session_id(self.digest, members, root)
        graph = graph_of(self.header, session, members)
        near = {*graph.neighbours(site), site}
        shown = tuple(Member(a, p) for a, p in zip(ordered, paths, strict=True) if a.site in near)
        return session, graph, NeighbourRequest(self.digest, members, root, shown)

    def mask(self, contributors: Callable[[int], Sites] | None = None, sites: Sites | None = None) -> None:
        """Masked vectors of all."""
        for site in sites or self.sites:
            told = self.told[site]
            named = contributors(site) if contributors else tuple(sorted(told.graph.order))
            told.partners = tuple(v for v in told.graph.neighbours(site) if v in named)
            deliveries = tuple(
                next(d for d in sharing.deliveries(self.dealt_to(site, v)) if d.entry.receiver == site)
                for v in told.partners
            )
            reply = self.ask(site, MaskRequest(self.digest, named, deliveries))
            told.vector = reply.vector if isinstance(reply, MaskedUpdate) else None

    def dealt_to(self, site: int, dealer: int) -> ShareReply:
        """What a dealer dealt in the session that a site knows."""
        if dealer in self.in_place_of:
            return self.in_place_of[dealer]
        told, mole = self.told[site], self.moles.get(dealer)
        return self.dealt[dealer] if mole is None else mole.deal(self.digest, told.session, told.graph, told.keys)

    def confirm(self, survivors: Callable[[int], Sites], sites: Sites | None = None) -> None:
        """Signatures on survivor sets."""
        for site in sites or self.sites:
            self.signed.append(self.ask(site, ConsistencyRequest(self.digest, survivors(site))))

    def forged(self, session: bytes, survivors: Sites, by: Sequence[int] = ()) -> list[Signed]:
        """The moles' signatures on a survivor set."""
        payload = Confirmation(session, survivors_digest(session, survivors))
        return [
            sign(Stage.CONSISTENCY, m.number, self.digest, payload, m.key)
            for m in self.moles.values()
            if not by or m.number in by
        ]

    def confirmations(self, session: bytes, survivors: Sites) -> tuple[Signed, ...]:
        """All signatures on one survivor set, the moles' included, of those whom a site hears."""
        payload = encode(Confirmation(session, survivors_digest(session, survivors)))
        found = {c.site: c for c in (*self.signed, *self.forged(session, survivors)) if c.payload == payload}
        return tuple(found[s] for s in sorted(found) if s in survivors)

    def unmask(
        self,
        survivors: Callable[[int], Sites],
        sites: Sites | None = None,
        confirmations: Callable[[int], tuple[Signed, ...]] | None = None,
    ) -> None:
        """Shares opened by all."""
        for site in sites or self.sites:
            told, named = self.told[site], survivors(site)
            heard = {*told.graph.witnesses, *told.graph.neighbours(site), site}
            shown = confirmations(site) if confirmations else self.confirmations(told.session, named)
            request = UnmaskRequest(self.digest, named, tuple(c for c in shown if c.site in heard))
            for opened in decode(self.ask(site, request).payload, Openings).openings:
                self.learn(site, opened.dealer, SecretKind(opened.kind), opened.share)

    # What the attacker knows

    def learn(self, holder: int, dealer: int, kind: SecretKind, share: bytes) -> None:
        """One share of a secret."""
        if dealer in self.told:
            position = self.told[dealer].graph.holders(dealer).index(holder) + 1
            self.shares.setdefault((dealer, kind), {})[position] = share

    def open_envelopes(self) -> None:
        """All that honest sites sealed for moles."""
        for dealer, told in self.told.items():
            for entry in told.reply.entries:
                mole = self.moles.get(entry.receiver)
                if mole is None:
                    continue
                shared = Agreement(mole.channel.reveal()).shared(told.keys[dealer].channel_key)
                sealing = envelope_key(shared, told.session, dealer, mole.number)
                plain = unseal(sealing, entry.ciphertext, told.session, dealer, mole.number)
                if plain is not None:
                    both = decode(plain, SealedShares)
                    self.learn(mole.number, dealer, SecretKind.SELF, both.self_share.reveal())
                    self.learn(mole.number, dealer, SecretKind.MASK_SEED, both.seed_share.reveal())

    def secret(self, dealer: int, kind: SecretKind) -> bytes | None:
        """One of a site's secrets, if enough shares of it are known: it is what the site committed to."""
        mole = self.moles.get(dealer)
        if mole is not None:
            return (mole.self_seed if kind is SecretKind.SELF else mole.mask_seed).reveal()
        told, shares = self.told[dealer], self.shares.get((dealer, kind), {})
        used = sorted(shares)[: told.graph.threshold]
        made = combine(shares, lagrange_at_zero(used)) if used else None
        if made is None:
            return None
        advertised = told.keys[dealer]
        if kind is SecretKind.SELF:
            return made if self_commitment(self.digest, dealer, made) == advertised.self_commitment else None
        public = x25519_public(mask_private_key(Secret(made), self.digest))
        return made if public == advertised.mask_key else None

    def sum_over(self, sites: Sites) -> Words | None:
        """The sum of these honest sites' vectors, if all masks that do not cancel among them are known."""
        self.open_envelopes()
        total: Words | None = None
        for site in sites:
            told, own = self.told[site], self.secret(site, SecretKind.SELF)
            keys = [self.pair_key(site, v) for v in told.partners if not self._cancels(site, v, sites)]
            if told.vector is None or own is None or None in keys:
                return None
            masked = told.vector.copy()
            minus = [k for k, v in self._open_pairs(site, sites) if site < v]
            plus = [k for k, v in self._open_pairs(site, sites) if site > v]
            apply_masks(masked, plus, [*minus, self_mask_key(Secret(own), told.session, site)])
            total = masked if total is None else total + masked
        return total

    def _cancels(self, site: int, other: int, sites: Sites) -> bool:
        told = self.told.get(other)
        return other in sites and told is not None and site in told.partners and told.session == self.told[site].session

    def _open_pairs(self, site: int, sites: Sites) -> list[tuple[bytes, int]]:
        partners = [v for v in self.told[site].partners if not self._cancels(site, v, sites)]
        return [(k, v) for v in partners if (k := self.pair_key(site, v)) is not None]

    def pair_key(self, site: int, other: int) -> bytes | None:
        """The key of the mask that a site has in common with another, from either one's mask seed."""
        told = self.told[site]
        for own, peer in ((other, site), (site, other)):
            if own not in self.moles and (own not in self.told or told.keys[own] != self.told[own].keys[own]):
                continue
            seed = self.secret(own, SecretKind.MASK_SEED)
            if seed is not None:
                shared = Agreement(mask_private_key(Secret(seed), self.digest)).shared(told.keys[peer].mask_key)
                return pair_mask_key(shared, told.session, site, other)
        return None

    def has_sum_over(self, sites: Sites) -> bool:
        """Whether the attacker now holds the very sum of these sites' vectors, and of nobody else's."""
        return self.is_sum(self.sum_over(sites), sites)

    def is_sum(self, found: Words | None, sites: Sequence[int]) -> bool:
        """Whether a vector is the sum of these sites' vectors, bit by bit."""
        true = sum(
            (self.cohort.vector(s).vector for s in sites), np.zeros_like(self.cohort.vector(self.sites[0]).vector)
        )
        return found is not None and np.array_equal(found, true)


def stored(state: State) -> bytes:
    """A site's state as it lies on its disk."""
    return encode(state) if isinstance(state, STORED_STATES) else repr(state).encode()


def replace_layout(cohort: Cohort, site: int, header: Header) -> Any:
    """A site's vector in the layout of the header it answers."""
    update = cohort.vector(site)
    return type(update)(header.layout, update.vector)


def field(
    refusals: list[Refusal], n: int, m: int = 0, *, colluding: Mapping[int, Mole] | None = None, **options: Any
) -> Field:
    """n sites of six numbers each, made for m colluders; the last ones collude unless told otherwise."""
    cohort = make_cohort(n, 6, m=m, **options)
    return Field(refusals, cohort, moles(*range(n - m + 1, n + 1)) if colluding is None else colluding)
