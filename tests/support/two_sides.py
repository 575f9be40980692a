"""A federation's log and one site's side of it, signed and in memory: honest, or with one disagreement built in.

The other sites are there too, and sites fall out of rounds, before and after they have charged.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from support.keys import SERVER, key

from fedseal.compliance.audit.reconcile import Dispute, SiteSide
from fedseal.compliance.events import bodies
from fedseal.compliance.events.fields import ReleaseName, sha256
from fedseal.compliance.events.leaf import SERVER_ORG, Place, sign_event
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.events.registry import type_of
from fedseal.compliance.events.subjects import Shared
from fedseal.compliance.log.tree import root_of
from fedseal.config import Frozen
from fedseal.privacy.plan import LocalGaussian, PrivacyPlan, encode_plan
from fedseal.privacy.secagg.keys import SigningKey

TIME = "2026-11-20T22:04:05.123456Z"
PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=2.0, sample_rate=0.5, steps=1, releases=90, retries=10)
CHEAP = LocalGaussian(clip_norm=1.0, noise_multiplier=9.0, sample_rate=0.5, steps=1, releases=90, retries=10)
SITE = 1


class Lie(Enum):
    """One way in which the two sides can differ."""

    CLAIMED = auto()
    CLAIMED_HEADER = auto()
    LEFT_OUT_SEEN = auto()
    LEFT_OUT_ANSWERED = auto()
    INVENTED = auto()
    DATASET = auto()
    LABELS = auto()
    CODE_RUN = auto()
    CODE_OTHER = auto()
    NOT_READ = auto()
    PLAN = auto()
    CHARGE_HIDDEN = auto()
    CHARGE_EXTRA = auto()
    EPSILON = auto()
    OWN_REWRITTEN = auto()
    OWN_CUT = auto()
    OTHER_HISTORY = auto()
    ROLLED_BACK = auto()
    GARBAGE = auto()


# What has to be found, at the least.
FINDS = {
    Lie.CLAIMED: Dispute.PARTICIPATION,
    Lie.CLAIMED_HEADER: Dispute.PARTICIPATION,
    Lie.LEFT_OUT_SEEN: Dispute.UNLOGGED,
    Lie.LEFT_OUT_ANSWERED: Dispute.UNLOGGED,
    Lie.INVENTED: Dispute.INVENTED,
    Lie.DATASET: Dispute.DATASET,
    Lie.LABELS: Dispute.LABELS,
    Lie.CODE_RUN: Dispute.CODE,
    Lie.CODE_OTHER: Dispute.CODE,
    Lie.NOT_READ: Dispute.DATASET,
    Lie.PLAN: Dispute.PLAN,
    Lie.CHARGE_HIDDEN: Dispute.CHARGES,
    Lie.CHARGE_EXTRA: Dispute.CHARGES,
    Lie.EPSILON: Dispute.CHARGES,
    Lie.OWN_REWRITTEN: Dispute.OWN_HISTORY,
    Lie.OWN_CUT: Dispute.OWN_HISTORY,
    Lie.OTHER_HISTORY: Dispute.FEDERATION_HISTORY,
    Lie.ROLLED_BACK: Dispute.FEDERATION_HISTORY,
    Lie.GARBAGE: Dispute.UNREADABLE,
}


def digest(text: str) -> str:
    return sha256(text.encode())


def secret(text: str) -> str:
    return "hmac:" + digest(text).removeprefix("sha256:")


@dataclass
class Sides:
    """What `reconcile` is given."""

    entries: list[bytes]
    site: SiteSide
    answered: int


@dataclass
class _Writer:
    """One author's chain."""

    signer: SigningKey
    org: str
    place: Place = field(default_factory=Place)

    def write(self, body: Frozen, run: str | None = None) -> bytes:
        leaf = sign_event(body, self.signer, self.place, org=self.org, time=TIME, run=run)
        self.place = self.place.after(leaf)
        return leaf


class Story:
    """Tells a run of a few rounds. The lie, if any, happens in a round in which the site takes part to the end."""

    def __init__(self, seed: int, lie: Lie | None = None, sites: int = 3, rounds: int = 3) -> None:
        self.rng, self.lie, self.rounds = random.Random(seed), lie, rounds
        self.server = _Writer(SERVER, SERVER_ORG)
        self.sites = {n: _Writer(key(f"site-{n}"), f"site-{n}") for n in range(1, sites + 1)}
        self.own_writer = _Writer(key("site-1"), "site-1")
        self.run = f"{self.rng.getrandbits(128):032x}"
        self.fed: list[bytes] = []
        self.own: list[bytes] = []
        self.signed: list[bytes] = []
        self.seen: set[bytes] = set()
        self.pending: list[bytes] = []
        self.charges: list[tuple[str, str]] = []
        self.answered = 0
        self.worst = self.rng.randrange(rounds)

    def told(self) -> Sides:
        self._begin()
        for number in range(self.rounds):
            self._round(number)
        if self.rng.random() < 0.5:
            self._listen(answered=self.rng.random() < 0.5)
        self._finish()
        return Sides(
            self.fed,
            SiteSide(SITE, "site-1", self.own, self.signed, frozenset(self.seen), self.charges),
            self.answered,
        )

    # What the site does

    def _record(self, body: Frozen, run: str | None = None) -> None:
        self.own.append(self.own_writer.write(body, run))

    def _share(self, body: Frozen, run: str | None = None) -> bytes:
        leaf = self.sites[SITE].write(body, run)
        self.signed.append(leaf)
        self.pending.append(leaf)
        self._record(Shared(leaf=sha256(leaf), event_type=_name(body)), run)
        return leaf

    def _listen(self, answered: bool) -> None:
        """The site is shown the log, cosigns it, and answers, which may get lost."""
        self.seen |= {leaf for leaf in self.pending if leaf in self.fed}
        self.pending = [leaf for leaf in self.pending if leaf not in self.seen]
        root = "sha256:" + root_of(self.fed).hex()
        size = len(self.fed)
        self._record(bodies.ForeignAnchor(origin="test/server", size=size, root=root))
        if answered:
            self.fed += [leaf for leaf in self.pending if leaf not in self.fed]
            self.answered = size

    # What happens

    def _begin(self) -> None:
        genesis = bodies.Genesis(federation="test", roster=digest("r"), simulated=True, faulty=0, quorum=2)
        self.fed.append(self.server.write(genesis))
        self._record(genesis)
        for n, writer in self.sites.items():
            body = bodies.Joined(site=n, name=writer.org, key=writer.signer.public.hex(), roster=digest("r"))
            if n == SITE:
                self._share(body)
            else:
                self.fed.append(writer.write(body))
        self._listen(answered=True)
        created = bodies.RunCreated(
            study="study",
            contract=digest("contract"),
            code=digest("code"),
            environment=digest("environment"),
            model_in=digest("model"),
            strategy="FedAvg",
            rounds=self.rounds,
            sites=tuple(self.sites),
            plan=plan_facts(PLAN),
        )
        self.fed.append(self.server.write(created, self.run))

    def _round(self, number: int) -> None:
        lying = self.lie if number == self.worst else None
        # From outside a round: is the site silent, does its answer get lost, or does it take part?
        fate = (
            "whole" if self.lie is not None and number == self.worst else self.rng.choice(["whole"] * 3 + list(FATES))
        )
        silent = fate == "silent" or lying is Lie.CLAIMED
        if not silent:
            self._listen(answered=True)
            self._train(number, lying)
        present = [n for n in self.sites if n != SITE and (lying is not None or self.rng.random() < 0.8)]
        for n in present:
            for body in (_charged(number, PLAN), self._contributed(number, None, None)):
                self.fed.append(self.sites[n].write(body, self.run))
        if fate == "whole" and not silent:
            self.fed += [leaf for leaf in self.pending if leaf not in self.fed]
            present.append(SITE)
        elif lying is Lie.CLAIMED:
            present.append(SITE)
        if len(present) >= 2:
            header = digest("another header") if lying is Lie.CLAIMED_HEADER else _header(number)
            self.fed.append(self.server.write(_aggregated(number, sorted(present), header), self.run))

    def _train(self, number: int, lying: Lie | None) -> None:
        plan = CHEAP if lying is Lie.PLAN else PLAN
        access = bodies.Access(
            release=ReleaseName.UPDATE,
            sequence=number,
            attempt=0,
            dataset=secret("other data" if lying is Lie.DATASET else "data"),
            label_set=secret("other labels" if lying is Lie.LABELS else "labels"),
            code=digest("other code" if lying is Lie.CODE_RUN else "code"),
        )
        if lying is Lie.CODE_OTHER:
            access = access.model_copy(update={"code": digest("third code")})
        if lying is not Lie.NOT_READ:
            self._record(access, self.run)
        self._share(_charged(number, plan), self.run)
        if lying is not Lie.CHARGE_HIDDEN:
            self.charges.append((self.run, encode_plan(CHEAP if lying in (Lie.PLAN, Lie.EPSILON) else PLAN).hex()))
        if lying is Lie.CHARGE_EXTRA:
            self.charges.append(self.charges[-1])
        self._share(self._contributed(number, self.own, lying), self.run)

    def _contributed(self, number: int, own: list[bytes] | None, lying: Lie | None) -> bodies.Contributed:
        return bodies.Contributed(
            release=ReleaseName.UPDATE,
            round=number,
            sequence=number,
            attempt=0,
            header=_header(number),
            update=digest(f"masked {number}"),
            dataset=secret("data"),
            label_set=secret("labels"),
            code=digest("third code" if lying is Lie.CODE_OTHER else "code"),
            anchor=bodies.Anchor(size=len(own or ()), root="sha256:" + root_of(own or ()).hex()),
        )

    # Lies about all that was said

    def _finish(self) -> None:
        match self.lie:
            case Lie.LEFT_OUT_SEEN:
                self._leave_out()
            case Lie.LEFT_OUT_ANSWERED:
                self._answer_and_forget()
            case Lie.INVENTED:
                self.fed.append(self.sites[SITE].write(_charged(99, PLAN), self.run))
                self.charges.append((self.run, encode_plan(PLAN).hex()))
            case Lie.OWN_REWRITTEN:
                self._rewrite()
            case Lie.OWN_CUT:
                self.own = self.own[:1]
            case Lie.OTHER_HISTORY:
                first = self.server.write(_aggregated(98, [2, 3], _header(98)), self.run)
                self.fed[0] = first
            case Lie.ROLLED_BACK:
                self._listen(answered=False)
                self.fed.pop()
            case Lie.GARBAGE:
                self.own.append(b"{}")
            case _:
                pass

    def _leave_out(self) -> None:
        """The site has seen its entries in the log, and the last of them is gone."""
        self._listen(answered=True)
        self.fed.remove([leaf for leaf in self.fed if leaf in self.seen][-1])

    def _answer_and_forget(self) -> None:
        """The site signs an entry and answers with it; the server keeps the cosignature, and not the entry."""
        self._share(bodies.Left(site=SITE))
        self._listen(answered=False)
        self.answered = len(self.fed)

    def _rewrite(self) -> None:
        """The site tells another story of an entry of its own log, with all that follows signed anew."""
        first = bodies.Genesis(federation="test", roster=digest("other"), simulated=True, faulty=0, quorum=0)
        self.own[0] = _Writer(key("site-1"), "site-1").write(first)


FATES = ("silent", "lost", "charged")


def _charged(number: int, plan: PrivacyPlan) -> bodies.Charged:
    return bodies.Charged(
        release=ReleaseName.UPDATE,
        sequence=number,
        attempt=0,
        population=secret("persons"),
        plan=plan_facts(plan),
        delta="0.00001",
        alpha="3",
    )


def _aggregated(number: int, sites: Sequence[int], header: str) -> bodies.Aggregated:
    return bodies.Aggregated(
        release=ReleaseName.UPDATE,
        round=number,
        sequence=number,
        attempt=0,
        header=header,
        sites=tuple(sites),
        threshold=2,
        colluders=0,
        aggregate=digest(f"sum {number}"),
        model_in=digest(f"model {number}"),
    )


def _header(number: int) -> str:
    return digest(f"header {number}")


def _name(body: Frozen) -> str:
    return type_of(body).name
