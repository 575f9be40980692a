"""A malicious server against sites with a policy and a store: who speaks, what the owner allows, ranges and scales."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from adversary.attack import Attack, Fault, Level
from adversary.mole import moles
from adversary.removal import Check
from adversary.stores import DATA, EXAMPLES, Stores, at_stores
from support.flower import OPEN_POLICY, PRIVATE, Federation, header_for
from support.keys import SERVER, key

from fedseal.compliance.site_rules.refused import Refused
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PrivacyPlan, SharedSkellam, decode_plan
from fedseal.privacy.quantize import CLIPPED, Rounding
from fedseal.privacy.releases import METRIC_PREFIX, REGISTRY, UPDATE, VALUES, MetricRange, release_layout
from fedseal.privacy.runs import (
    CloseRun,
    ControlMessage,
    Hello,
    Introduction,
    control_signed_by,
    sign_control,
)
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import Room, share_variance
from fedseal.wire import decode, encode

BY_SERVER = Fault("site 1", peer="server")
BY_POLICY = Fault("site 1", Refused.__name__)
ALL = (1, 2, 3)
LOSS = {"loss": MetricRange(0.0, 5.0)}
NONCE = b"\x05" * 32
OTHER_NODE = 999


def header(plan: PrivacyPlan | None = None, **changes: Any) -> Callable[[Federation], Header]:
    """A header over all sites, with rounding that does not depend on chance."""
    return lambda federation: header_for(federation, plan, rounding=Rounding.NEAREST, **changes)


def policy(text: str) -> str:
    """The open policy with other lines."""
    return OPEN_POLICY + text


# Who speaks


def closed_by_a_stranger(s: Stores) -> bool:
    s.whole_round()
    s.ask(1, encode(sign_control(CloseRun(s.header.run), key("mallory"))))
    with s.federation.site(1).transaction() as transaction:
        return transaction.run(s.header.run).closed


def introduction(**changes: Any) -> Callable[[Stores], bool]:
    """Whether site 1 says, signed, that it runs under a node or in a federation in which it does not."""

    def script(s: Stores) -> bool:
        true = {"roster_hash": s.header.roster_hash, "node": 101}
        hello = Hello(s.header.run, nonce=NONCE, **{**true, **changes})
        said = decode(s.ask(1, encode(sign_control(hello, SERVER))), ControlMessage)
        entry = s.federation.roster.entry(1)
        if entry is None or not control_signed_by(said, entry.signing_key):
            return False
        found = decode(said.payload, Introduction)
        return found.site == 1 and any(getattr(found, name) == value for name, value in changes.items())

    return script


# The owner's policy


def pair_with_a_colluder(s: Stores) -> bool:
    s.whole_round()
    return s.has_sum_over((1,))


def halves(s: Stores) -> bool:
    """Made for no colluder: two shares are enough, and site 3 has one of each."""
    s.advertise()
    s.share()
    s.mask()

    def view(site: int) -> tuple[int, ...]:
        return ALL if site == 1 else (2, 3)

    s.confirm(view)
    s.unmask(view)
    return s.has_sum_over((1,))


def exact_sum(s: Stores) -> bool:
    s.whole_round()
    return s.has_sum_over(ALL)


def charged_for_wider_clipping(s: Stores) -> bool:
    s.whole_round()
    plans = [decode_plan(e.plan) for e in charges(s, 1)]
    return any(isinstance(p, LocalGaussian) and p.clip_norm > 1 for p in plans)


def charges(s: Stores, site: int) -> list[Any]:
    """What a site was charged for."""
    with s.federation.site(site).transaction() as transaction:
        return [e for e in transaction.entries("train") if e.kind == EntryKind.CHARGE]


# Ranges and scales


def one_level(federation: Federation) -> Header:
    """A loss of 2.5 or more is 1, a smaller one 0."""
    made = header(metrics=LOSS)(federation)
    segments = tuple(replace(s, scale=0.2) if s.name == METRIC_PREFIX + "loss" else s for s in made.layout.segments)
    return replace(made, layout=replace(made.layout, segments=segments))


def above(limit: float) -> int:
    """How many sites have a larger loss."""
    return sum(DATA[s].loss > limit for s in ALL)


def counted_above(s: Stores) -> bool:
    s.whole_round()
    levels = s.read(METRIC_PREFIX + "loss", s.sum_over(ALL)) * 0.2
    return bool(levels == above(2.5))


def exact_metric(s: Stores) -> bool:
    s.whole_round()
    return bool(np.isclose(s.read(METRIC_PREFIX + "loss", s.sum_over(ALL)), sum(DATA[i].loss for i in ALL), atol=1e-3))


def feeling_for_a_value(s: Stores) -> bool:
    """A second question in the same run, with another range: how many sites are beyond it?"""
    s.whole_round()
    answers = [s.read(CLIPPED, s.sum_over(ALL))]
    s.again(header(metrics={"loss": MetricRange(0.0, 2.5)}, release_seq=2)(s.federation))
    s.whole_round()
    answers.append(s.read(CLIPPED, s.sum_over(ALL)))
    return [round(float(a[0])) for a in answers] == [above(5.0), above(2.5)]


# Noise in shares


def with_shares(plan: SharedSkellam, colluders: int) -> Callable[[Federation], Header]:
    """A header over three sites whose noise comes in shares, with the layout that belongs to it."""

    def made(federation: Federation) -> Header:
        plain = header(plan, colluders=colluders)(federation)
        layout = release_layout(
            REGISTRY[UPDATE],
            values=plain.layout.segment(VALUES).length,
            value_range=plan.clip_norm,
            weight_key="num-examples",
            largest_weight=EXAMPLES,
            metrics={},
            sites=3,
            rounding=Rounding.NEAREST,
            room=Room(plan, 3, 3 - colluders),
        )
        return replace(plain, layout=layout, noise_minimum=3)

    return made


def own_share_subtracted(s: Stores) -> bool:
    """Site 3 knows its own share: what is left in the sum is less than what the honest sites were charged for."""
    s.whole_round()
    left = 2 * share_variance(SHARED, 3)
    return s.sum_over((1, 2)) is not None and len(charges(s, 1)) == 1 and left < SHARED.variance


def charged_for_less(s: Stores) -> bool:
    s.whole_round()
    plans = [decode_plan(e.plan) for e in charges(s, 1)]
    sent = len(s.read(VALUES, s.told[1].vector))
    return any(isinstance(p, SharedSkellam) and p.length < sent for p in plans)


def clipped_to_nothing(s: Stores) -> bool:
    """From one round to the next everyone is clipped to a ten thousandth: what is summed is noise, and charged for."""
    s.whole_round()
    s.again(with_clip(ADAPTIVE.lowest, release_seq=2, fl_round=2)(s.federation))
    s.whole_round()
    return s.sum_over(ALL) is not None and len(charges(s, 1)) == 2


def with_clip(clip_norm: float, **changes: Any) -> Callable[[Federation], Header]:
    """A header of a run whose clip norm adapts, with the layout that belongs to it."""

    def made(federation: Federation) -> Header:
        plain = header(ADAPTIVE, colluders=1, **changes)(federation)
        layout = release_layout(
            REGISTRY[UPDATE],
            values=plain.layout.segment(VALUES).length,
            value_range=clip_norm,
            weight_key="num-examples",
            largest_weight=EXAMPLES,
            metrics={},
            sites=3,
            rounding=Rounding.NEAREST,
            room=Room(ADAPTIVE.at(clip_norm), 3, 2, ADAPTIVE.count_units),
        )
        return replace(plain, layout=layout, noise_minimum=3)

    return made


SHARED = SharedSkellam(unit=1, clip_norm=100.0, resolution=16, length=15, variance=1 << 30, releases=90, retries=10)
SHORT = replace(SHARED, length=1)
ADAPTIVE = AdaptiveSkellam(vector=SHARED, count_units=4, lowest=0.01, highest=1000.0, quantile=0.5, rate=0.2)
SHARING = OPEN_POLICY.replace('update = ["none", "local"]', 'update = ["client"]')
SESSION = "client.session.Session."
POLICY = "compliance.policy."
WIDE = replace(PRIVATE, clip_norm=100.0)

ATTACKS = (
    Attack(
        "Somebody else than the server closes a run",
        "the site leaves the run",
        Level.STORE,
        Check(SESSION + "_control", "not control_signed_by(message, self._identity.roster.server_key)"),
        at_stores(closed_by_a_stranger, header()),
        BY_SERVER,
        "the roster's server did not sign",
    ),
    Attack(
        "The node of somebody else has site 1 answer the question who it is",
        "a signed word that this node is site 1",
        Level.STORE,
        Check(SESSION + "_introduce", "hello.node != self._node"),
        at_stores(introduction(node=OTHER_NODE), header()),
        BY_SERVER,
        "another federation, roster or node",
    ),
    Attack(
        "Site 1 is asked who it is in another federation",
        "a signed word that it belongs there",
        Level.STORE,
        Check(SESSION + "_introduce", "hello.roster_hash != self._identity.roster.digest()"),
        at_stores(introduction(roster_hash=b"\x07" * 32), header()),
        BY_SERVER,
        "another federation, roster or node",
    ),
    Attack(
        "A round of two, one of which colludes, at a site that asks for three",
        "the vector of site 1",
        Level.STORE,
        Check(POLICY + "check_cohort", "smallest < policy.cohort.minimum"),
        at_stores(
            pair_with_a_colluder,
            header(),
            sites=2,
            moles=lambda: moles(2),
            policy=OPEN_POLICY.replace("minimum = 2", "minimum = 3"),
        ),
        BY_POLICY,
        "as few as 2",
    ),
    Attack(
        "A round made for no colluding site, at a site that reckons with one",
        "the vector of site 1",
        Level.STORE,
        Check(POLICY + "check_cohort", "colluders < policy.cohort.colluders"),
        at_stores(
            halves,
            header(),
            moles=lambda: moles(3),
            policy=OPEN_POLICY.replace("minimum = 2", "minimum = 2\ncolluders = 1"),
        ),
        BY_POLICY,
        "safe against 0",
    ),
    Attack(
        "An exact sum, from a site that allows noisy ones only",
        "the exact sum",
        Level.STORE,
        Check(POLICY + "check_plan", "name not in policy.releases.allowed(kind.name)"),
        at_stores(exact_sum, header(), policy=OPEN_POLICY.replace('update = ["none", "local"]', 'update = ["local"]')),
        BY_POLICY,
        "is not allowed at this site",
    ),
    Attack(
        "Clipping a hundred times wider than the site allows",
        "a vector that one person moves a hundred times as far",
        Level.STORE,
        Check(
            POLICY + "check_plan",
            "isinstance(plan, LocalGaussian | SharedSkellam) and plan.clip_norm > policy.limits.clip_norm",
        ),
        at_stores(charged_for_wider_clipping, header(WIDE), policy=policy("[limits]\nclip_norm = 1.0\n")),
        BY_POLICY,
        "clip norm 100",
    ),
    Attack(
        "Words of fewer bits than the site allows",
        "a sum that is coarser than the owner wants, or wraps sooner",
        Level.STORE,
        Check(POLICY + "check_header", "header.layout.ring_bits < policy.limits.ring_bits"),
        at_stores(exact_sum, header(), policy=policy("[limits]\nring_bits = 64\n")),
        BY_POLICY,
        "in words of 32 bits",
    ),
    Attack(
        "A scale of one level: the sum of a loss becomes a count of the sites above a threshold",
        "how many sites have a loss above 2.5",
        Level.STORE,
        Check("privacy.releases.check_layout", "made != layout"),
        at_stores(counted_above, one_level),
        BY_SERVER,
        "a layout that is not that of release",
    ),
    Attack(
        "A metric of persons beside a noisy update",
        "the exact sum of the losses",
        Level.STORE,
        Check("privacy.releases.check_layout", "metrics and plan is not PlanKind.NONE"),
        at_stores(exact_metric, header(PRIVATE, metrics=LOSS)),
        BY_SERVER,
        "beside a private release",
    ),
    Attack(
        "A range that moves from round to round of one run",
        "how many sites lie beyond each range",
        Level.STORE,
        Check(
            SESSION + "_advertise",
            "not transaction.pin_terms(header.run, header.release_name, terms_digest(header.layout, header.plan))",
        ),
        at_stores(feeling_for_a_value, header(metrics=LOSS)),
        BY_SERVER,
        "other ranges or another plan",
    ),
    Attack(
        "Noise in shares, in a round made for no colluding site: a site knows its own share",
        "a sum with less noise than was charged for",
        Level.STORE,
        Check("privacy.shares.room_of", "header.colluders < 1"),
        at_stores(own_share_subtracted, with_shares(SHARED, 0), moles=lambda: moles(3), policy=SHARING),
        BY_SERVER,
        "trusts every site",
    ),
    Attack(
        "Noise in shares for one number, and a vector of fifteen",
        "a vector fifteen times as long as what was charged for",
        Level.STORE,
        Check(
            "privacy.shares.room_of",
            "isinstance(plan, SharedSkellam | SharedGeometric) and header.layout.segments[0].length != plan.length",
        ),
        at_stores(charged_for_less, with_shares(SHORT, 1), policy=SHARING),
        BY_SERVER,
        "another length than its plan",
    ),
    Attack(
        "A clip norm that adapts, moved further than its rule goes",
        "another charge to every site, for a sum of noise",
        Level.STORE,
        Check("privacy.adaptive.accepted", "not least <= clip_norm <= most"),
        at_stores(clipped_to_nothing, with_clip(100.0), policy=SHARING),
        BY_SERVER,
        "the plan's rule cannot have led",
    ),
)
