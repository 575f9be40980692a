"""Sites in memory: the production's state machine, ledger and rules, in the order of `client.session`, in milliseconds.

What a site keeps is one frozen value in place of its SQLite file, so a backup is that value and putting it back is an
assignment. What has *left* a site is written down outside of it, where no backup reaches: it is what the matrix judges
by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fedseal.client.mod import refusal_for
from fedseal.client.release import brought_within
from fedseal.client.requests import STAGES, LaterRequest, header_of, known, proven_counters
from fedseal.errors import FedsealError, PeerError
from fedseal.privacy.chain import check_chain
from fedseal.privacy.ledger import Entry, EntryKind, Ledger, Release, Terms, open_ledger
from fedseal.privacy.plan import decode_plan
from fedseal.privacy.quantize import CLIPPED, BoundedUpdate, bound, signed
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.releases import VALUES
from fedseal.privacy.roster import Roster
from fedseal.privacy.runs import RunRecord, admit
from fedseal.privacy.secagg import client
from fedseal.privacy.secagg.checks import open_header
from fedseal.privacy.secagg.client_states import Idle, MaskedUpdate, Ready, StoredState, Vector
from fedseal.privacy.secagg.header import AdvertiseRequest, Header
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secagg.messages import MaskRequest, Refusal, Stage
from fedseal.privacy.secagg.server_states import MaskedReply, Request, SiteReply
from fedseal.privacy.secagg.shamir import RandomBytes
from fedseal.simulation.faults.attacks import (
    Attack,
    Lie,
    attacked,
    dealing_another_secret,
    flipped_labels,
    masking_with_the_true_one,
)
from fedseal.simulation.partition import generator
from fedseal.wire import Message, encode

Reals = NDArray[np.float64]
COMPONENT = "fault-matrix"
PERSONS, FEATURES = 12, 3
LEARNING_RATE = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """All that a site would have on its disk."""

    ledger: Ledger
    entries: tuple[Entry, ...]
    run: RunRecord
    states: Mapping[bytes, StoredState] = field(default_factory=dict)
    replies: Mapping[tuple[bytes, Stage], tuple[bytes, SiteReply]] = field(default_factory=dict)
    known: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def new(cls, terms: Terms, run: bytes) -> "Kept":
        """A store that has seen nothing."""
        ledger, entry = open_ledger(terms)
        return cls(ledger, (entry,), RunRecord(run))

    @property
    def charges(self) -> int:
        """What the site advertises."""
        return sum(entry.kind == EntryKind.CHARGE for entry in self.entries)


@dataclass(slots=True)
class Left:
    """What has left a site, whatever became of the site since.

    ``answers``: every distinct answer by header and exchange; ``vectors``: the bounded update, as whole numbers, behind
    each masked vector.
    """

    answers: dict[tuple[bytes, Stage], set[bytes]] = field(default_factory=dict)
    vectors: dict[bytes, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(slots=True)
class MemorySite:
    """One site. ``attacks``: what it does on purpose from now on."""

    number: int
    key: SigningKey
    roster: Roster
    kept: Kept
    randomness: KeyedRandomness
    left: Left = field(default_factory=Left)
    attacks: tuple[Attack, ...] = ()
    drawn: int = 0

    def answer(self, request: Request, model: Reals) -> SiteReply:
        """What the site answers: a refusal where the production would refuse."""
        try:
            digest, stage, reply = self._answer(request, model)
        except FedsealError as error:
            return refusal_for(error)
        self.left.answers.setdefault((digest, stage), set()).add(reply_bytes(reply))
        return reply

    def _answer(self, request: Request, model: Reals) -> tuple[bytes, Stage, SiteReply]:
        raw = encode(request)
        if isinstance(request, AdvertiseRequest):
            header = open_header(request, self.roster, self.number)
            digest, stage = header.digest(), Stage.ADVERTISE
        else:
            digest, stage = request.header_hash, STAGES[type(request)]
        if (stored := self.answered(digest, stage, raw)) is not None:
            return digest, stage, stored
        if isinstance(request, AdvertiseRequest):
            kept, step = self._advertised(request, open_header(request, self.roster, self.number))
        elif isinstance(request, MaskRequest):
            kept, step = self._masked(request, model)
        else:
            state = self.kept.states.get(digest)
            step = self._stepped(digest, stage, state, request)
            kept = replace(self.kept, known=_highest(self.kept.known, proven_counters(state, request)))
        if isinstance(step.state, Idle | Ready) or step.reply is None:
            raise PeerError("a step that answers nothing", peer="server")
        reply = step.reply
        made: SiteReply = MaskedReply(reply.message, reply.vector) if isinstance(reply, MaskedUpdate) else reply
        self.kept = replace(
            kept,
            states={**kept.states, digest: step.state},
            replies={**kept.replies, (digest, stage): (raw, made)},
        )
        return digest, stage, made

    def _stepped(self, digest: bytes, stage: Stage, state: StoredState | None, request: LaterRequest) -> client.Step:
        site = self._site(digest, stage)
        deals = stage is Stage.SHARE and any(a == Attack(Lie.WRONG_SHARE, stage) for a in self.attacks)
        if not deals:
            return client.step(site, known(state), request)
        dealing = dealing_another_secret(state, self._random_bytes(digest, "other-secret"))
        step = client.step(site, known(dealing), request)
        return client.Step(masking_with_the_true_one(step.state, state), step.reply)

    def answered(self, digest: bytes, stage: Stage, raw: bytes) -> SiteReply | None:
        """The answer that was given to this request; PeerError if another request was answered in its place."""
        stored = self.kept.replies.get((digest, stage))
        if stored is not None and stored[0] != raw:
            raise PeerError(f"another request for {stage.label}, which was answered already", peer="server")
        return None if stored is None else stored[1]

    def _advertised(self, request: AdvertiseRequest, header: Header) -> tuple[Kept, client.Step]:
        plan, kept = decode_plan(header.plan), self.kept
        record = admit(kept.run, header)
        if (header.run, header.plan) not in kept.ledger.reservations:
            ledger, entry = kept.ledger.reserve(header.run, plan)
            kept = replace(kept, ledger=ledger, entries=(*kept.entries, entry))
        # Not kept: a round that could not be charged is refused before anyone works for it.
        kept.ledger.charge(_release(header), plan)
        step = client.step(self._site(header.digest(), Stage.ADVERTISE), Idle(kept.charges), request)
        # As the production: with a new header what was answered under earlier ones is forgotten.
        return replace(kept, run=record, states={}, replies={}), step

    def _masked(self, request: MaskRequest, model: Reals) -> tuple[Kept, client.Step]:
        before = self.kept.states.get(request.header_hash)
        header = header_of(before)
        site = self._site(header.digest(), Stage.MASK)
        ready = client.step(site, known(before), request).state
        plan, digest = decode_plan(header.plan), header.digest()
        # Before the data is touched, and on disk whatever happens then.
        ledger, entry, receipt = self.kept.ledger.charge(_release(header), plan)
        self.kept = replace(self.kept, ledger=ledger, entries=(*self.kept.entries, entry))
        update = self._bounded(header, model)
        self.left.vectors[digest] = signed(update.vector).astype(np.int64)
        return self.kept, client.step(site, ready, Vector(update, Receipt(digest, header.plan, receipt.counter)))

    def _bounded(self, header: Header, model: Reals) -> BoundedUpdate:
        """Train, lie if it does, and bound: as `client.release` does without a private plan's weights."""
        layout = header.layout
        weight, flat = float(PERSONS), attacked(self._trained(model), self.attacks)
        factor = brought_within(flat, layout.segment(VALUES).high)
        if factor is None:
            flat, weight = np.zeros(FEATURES + 1), 0.0
        values = {
            VALUES: flat * (weight / layout.weight.high),
            layout.weight.name: np.array([weight]),
            CLIPPED: np.array([float(factor != 1.0)]),
        }
        return bound(values, layout, self.randomness.stream("rounding", self.number, header.release_seq))

    def _trained(self, model: Reals) -> Reals:
        """One step of logistic regression on this site's persons: what it changes."""
        rng = generator(self.randomness.stream("persons", self.number))
        persons = np.hstack([rng.normal(size=(PERSONS, FEATURES)), np.ones((PERSONS, 1))])
        labels = (persons @ np.array([1.0, -1.0, 0.5, 0.2]) + rng.normal(size=PERSONS) > 0).astype(np.float64)
        if any(a.lie is Lie.LABEL_FLIP for a in self.attacks):
            labels = flipped_labels(labels, np.array([0.0, 1.0]))
        slope: Reals = persons.T @ (1 / (1 + np.exp(-persons @ model)) - labels) / PERSONS
        return -LEARNING_RATE * slope

    def _site(self, digest: bytes, stage: Stage) -> client.Site:
        random_bytes = self._random_bytes(digest, stage.label)
        return client.Site(self.number, self.key, self.roster, self.kept.known, random_bytes)

    def _random_bytes(self, digest: bytes, purpose: str) -> RandomBytes:
        # Never the same twice, as from an operating system: a second answer must not look like the first.
        self.drawn += 1
        return self.randomness.stream("secrets", self.number, digest.hex(), purpose, self.drawn).raw

    def check_ledger(self) -> None:
        """Replay the ledger; LocalError where it does not hold together."""
        check_chain(self.kept.ledger.terms, list(self.kept.entries))


def reply_bytes(reply: SiteReply) -> bytes:
    """An answer as it crosses the wire."""
    if isinstance(reply, MaskedReply):
        return encode(reply.message) + reply.vector.tobytes()
    plain: Message | Refusal = reply
    return encode(plain)


def _highest(known_counters: Mapping[int, int], proven: Mapping[int, int]) -> dict[int, int]:
    higher = {site: counter for site, counter in proven.items() if counter > known_counters.get(site, -1)}
    return {**known_counters, **higher}


def _release(header: Header) -> Release:
    return Release(header.run, header.release_name, header.release_seq, header.attempt, header.digest())
