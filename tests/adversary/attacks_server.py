"""Malicious sites, and whoever stands between a site and the server, against an honest server and honest sites.

What such a site wants is to spoil a sum unnoticed, to be counted for another, or to have somebody else blamed.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from adversary.attack import Attack, Fault, Level, Refusal
from adversary.attacks_sites import INVITED
from adversary.field import stored
from adversary.lying import (
    BAD,
    Refusals,
    another_share,
    changed_opening,
    copied_key,
    framing,
    lying,
    other_survivors,
    picture,
    played,
    rebuilt,
    redealt,
    reheaded,
    spoiled,
    too_few_entries,
    unnamed_end,
    wrong_secret,
)
from adversary.mole import moles
from adversary.removal import Check
from support.keys import SERVER
from support.rounds import make_cohort, signed_sum

from fedseal.errors import PeerError
from fedseal.privacy.secagg import server
from fedseal.privacy.secagg.checks import vector_digest
from fedseal.privacy.secagg.messages import (
    Masked,
    RefusalCode,
    SecretKind,
    Stage,
)
from fedseal.privacy.secagg.messages import Refusal as SiteRefusal
from fedseal.privacy.secagg.server_states import Aborted, Finished, MaskedReply

BY_SITE_2 = Fault("the server", peer="site 2")


def out_of_range(high: float, ball: bool, value: int) -> Callable[[Refusals], bool]:
    """Site 2 sends values that its range forbids."""

    def play(refusals: Refusals) -> bool:
        cohort = make_cohort(5, 6, m=1)
        layout = cohort.header.layout
        segment = replace(layout.segments[0], low=-high, high=high, ball=ball)
        cohort.header = replace(cohort.header, layout=replace(layout, segments=(segment,)))
        for site in cohort.header.cohort:
            cohort.values[site] = np.zeros(6)
        cohort.values[BAD] = np.full(6, value)
        outcome = played(refusals, cohort, {})
        return isinstance(outcome, Finished) and bool((signed_sum(outcome) == value).all())

    return play


def wrapped(refusals: Refusals) -> bool:
    """Ranges so wide that the sum of what sites may send wraps around: nobody can see that it is wrong."""
    cohort = make_cohort(3, 6)
    layout = cohort.header.layout
    segment = replace(layout.segments[0], low=-float(1 << 30), high=float(1 << 30))
    wide = copy.copy(cohort.header)
    object.__setattr__(wide, "layout", replace(layout, segments=(segment,)))
    cohort.header = wide
    for site in wide.cohort:
        cohort.values[site] = np.full(6, 1 << 30)
    return spoiled(played(refusals, cohort, {}), cohort)


def on_the_way(refusals: Refusals) -> bool:
    """Somebody between site 3 and the server changes the vector that site 3 signed."""
    cohort = make_cohort(5, 6, m=1)

    def change(stage: Stage, site: int, reply: Any) -> Any:
        if (stage, site) == (Stage.MASK, 3) and isinstance(reply, MaskedReply):
            return MaskedReply(reply.message, reply.vector + np.uint32(1))
        return reply

    cohort.reply_hook = change
    return spoiled(played(refusals, cohort, {}), cohort)


def in_anothers_name(refusals: Refusals) -> bool:
    """Site 3 falls silent; site 2 answers through its connection, with a vector and a signature of its own."""
    cohort = make_cohort(5, 6, m=1)

    def speak(stage: Stage, site: int, reply: Any) -> Any:
        if (stage, site) != (Stage.MASK, 3):
            return reply
        session = cohort.states[3].session  # type: ignore[union-attr]
        vector = np.arange(6, dtype=np.uint32)
        return MaskedReply(rebuilt(cohort, Masked(session, vector_digest(vector)), Stage.MASK), vector)

    cohort.reply_hook = speak
    return spoiled(played(refusals, cohort, {}), cohort)


def uninvited(refusals: Refusals) -> bool:
    """Site 6 of the roster advertises in a round that it was not asked to; honest sites deal it shares."""
    cohort = make_cohort(5, 6, m=1, others=1)
    step = server.open_round(cohort.header, cohort.roster, SERVER)
    cohort.request_hook = lambda stage, site, request: None if site == 6 else request
    state = cohort.collect(step)
    before = picture(state)
    try:
        state = server.receive(state, 6, moles(6)[6].advertise(cohort.header.digest()))
    except PeerError as error:
        refusals.append(Refusal(Fault.of("the server", error), error.message, picture(state) == before))
        return False
    shared = cohort.collect(server.close(state))
    dealt = [{e.receiver for e in reply.entries} for reply in shared.replies.values()]
    return len(dealt) == 5 and all(6 in receivers for receivers in dealt)


def slander(refusals: Refusals) -> bool:
    """Site 2 refuses and says that it was site 3; too few are left, so the round ends with names."""
    cohort = make_cohort(5, 6, m=1, silent={Stage.MASK: {4}})
    refusal = SiteRefusal(int(RefusalCode.BAD_PEER), 3)
    outcome = played(refusals, cohort, {Stage.MASK: lambda c, r: refusal})
    return isinstance(outcome, Aborted) and 3 in outcome.blamed


def tampering_server(refusals: Refusals) -> bool:
    """The server changes what site 3 sealed for site 1, so that site 1 takes site 3 for a cheat."""
    cohort = make_cohort(5, 6, m=1)
    answer = cohort.answer

    def tampered(number: int, request: Any) -> Any:
        if number == 1 and hasattr(request, "deliveries"):
            parcels = list(request.deliveries)
            at = [d.head.site for d in parcels].index(3)
            text = parcels[at].entry.ciphertext
            entry = replace(parcels[at].entry, ciphertext=bytes([text[0] ^ 1]) + text[1:])
            parcels[at] = replace(parcels[at], entry=entry)
            request = replace(request, deliveries=tuple(parcels))
        return answer(number, request)

    step = server.open_round(cohort.header, cohort.roster, SERVER)
    while not isinstance(step.state, Finished | Aborted):
        state: Any = step.state
        for number, request in step.requests.items():
            before = stored(cohort.states[number])
            reply = tampered(number, request)
            if isinstance(reply, SiteRefusal):
                error = cohort.refusals[number]
                unchanged = stored(cohort.states[number]) == before
                refusals.append(Refusal(Fault.of(f"site {number}", error), error.message, unchanged))
                return error.blamed == 3
            state = server.receive(state, number, reply)
        step = server.close(state)
    return False


RECEIVE = "privacy.secagg.server."
REBUILT = "privacy.secagg.unmasking._rebuilt_truly"

ATTACKS = (
    Attack(
        "At UNMASK site 2 opens another share of site 1 than the one it was dealt",
        "site 1 is named as the one who dealt wrong shares",
        Level.SERVER,
        Check(RECEIVE + "_receive_openings", "not sharing.opens(opening, entry, masking.session, site)"),
        framing(Stage.UNMASK, changed_opening(another_share), 1),
        Fault("the server", peer="site 2", blamed=2),
        "does not open its dealer's commitment",
    ),
    Attack(
        "At UNMASK site 2 opens its true share of site 1's other secret",
        "site 1 is named as the one who dealt wrong shares",
        Level.SERVER,
        Check(RECEIVE + "_receive_openings", "opening.kind != wanted"),
        wrong_secret,
        Fault("the server", peer="site 2", blamed=2),
        "does not open its dealer's commitment",
    ),
    Attack(
        "Site 2 deals site 1 another share than the one it commits to",
        "site 1 is named when it opens that share",
        Level.SERVER,
        Check("privacy.secagg.sharing.receive", "not opens(held.opening(kind), delivery.entry, session, receiver)"),
        framing(Stage.SHARE, redealt(SecretKind.SELF, committed=False, to=(1,)), 1),
        Fault("site 1", peer="server", blamed=2),
        "does not match its commitment",
    ),
    Attack(
        "The server changes what site 3 sealed for site 1",
        "site 3 is named",
        Level.SITE,
        Check(
            "privacy.secagg.sharing.receive",
            "not merkle.verify_inclusion(leaf, position, size, delivery.path, head.root)",
        ),
        tampering_server,
        Fault("site 1", peer="server"),
        "did not sign for this site",
    ),
    Attack(
        "Site 2 deals well-committed shares of another mask than its own",
        "a wrong sum that nobody notices",
        Level.SERVER,
        Check(REBUILT, "self_commitment(digest, dealer, secret) == advertised.self_commitment", "True"),
        lying(Stage.SHARE, redealt(SecretKind.SELF, committed=True)),
        Fault("the server", "WRONG_SHARES", blamed=2),
    ),
    Attack(
        "Site 2 deals well-committed shares of another mask seed than its own, and falls silent",
        "a wrong sum that nobody notices",
        Level.SERVER,
        Check(REBUILT, "x25519_public(mask_private_key(Secret(secret), digest)) == advertised.mask_key", "True"),
        lying(
            Stage.SHARE,
            redealt(SecretKind.MASK_SEED, committed=True),
            # Of random words most are outside what four sites can make, so of many some are noticed.
            length=1,
            silent={Stage.MASK: {BAD}},
        ),
        Fault("the server", "WRONG_SHARES", blamed=2),
    ),
    Attack(
        "A masked vector is changed on its way",
        "a wrong sum that nobody notices",
        Level.SERVER,
        Check(RECEIVE + "_receive_vector", "vector_digest(reply.vector) != payload.vector_digest"),
        on_the_way,
        Fault("the server", peer="site 3"),
        "not the signed one",
    ),
    Attack(
        "Site 2 answers in the place of site 3",
        "a wrong sum that site 3 seems to be in",
        Level.SERVER,
        Check(RECEIVE + "_envelope", "message.site != site"),
        in_anothers_name,
        Fault("the server", peer="site 3"),
        "a message of site 2",
    ),
    Attack(
        "Site 6 of the roster takes part without having been asked",
        "honest sites share their secrets with it",
        Level.SERVER,
        Check(RECEIVE + "_receive_advertisement", "site not in state.round.header.cohort"),
        uninvited,
        Fault("the server", peer="site 6"),
        "outside the cohort",
        (INVITED,),
    ),
    Attack(
        "Site 2 advertises the key of site 1",
        "the round ends, and nobody is named",
        Level.SERVER,
        Check(RECEIVE + "_receive_advertisement", "state.taken & own_keys"),
        unnamed_end(Stage.ADVERTISE, copied_key),
        BY_SITE_2,
        "already taken",
    ),
    Attack(
        "Site 2 signs shares for another session",
        "the round ends, and nobody is named",
        Level.SERVER,
        Check(RECEIVE + "_receive_shares", "head.session != state.session"),
        unnamed_end(Stage.SHARE, reheaded(session=b"\x01" * 32)),
        BY_SITE_2,
        "another session",
    ),
    Attack(
        "Site 2 sends other entries than those it signed",
        "the round ends, and nobody is named",
        Level.SERVER,
        Check(RECEIVE + "_receive_shares", "sharing.entry_root(reply.entries) != head.root"),
        unnamed_end(Stage.SHARE, reheaded(root=b"\x01" * 32)),
        BY_SITE_2,
        "not the signed ones",
    ),
    Attack(
        "Site 2 deals to some sites only",
        "the round ends, and nobody is named",
        Level.SERVER,
        Check(RECEIVE + "_receive_shares", "tuple((e.receiver for e in reply.entries)) != holders"),
        unnamed_end(Stage.SHARE, too_few_entries),
        BY_SITE_2,
        "others than those who hold them",
    ),
    Attack(
        "Site 2 signs another survivor set",
        "the round ends, and nobody is named",
        Level.SERVER,
        Check(RECEIVE + "_receive_confirmation", "reply.payload != encode(expected)"),
        unnamed_end(Stage.CONSISTENCY, other_survivors),
        BY_SITE_2,
        "another survivor set",
    ),
    Attack(
        "Site 2 accuses site 3 of what it did not do",
        "site 3 is named",
        Level.SERVER,
        Check(RECEIVE + "_abort", "len(by) > round_.header.colluders", "True"),
        slander,
        Fault("the server", "TOO_FEW"),
    ),
    Attack(
        "Site 2 sends values outside their range",
        "a sum that honest sites cannot make",
        Level.SERVER,
        Check("privacy.quantize.check_sum", "outside"),
        out_of_range(10.0, False, 10_000),
        Fault("the server", "OUT_OF_RANGE"),
    ),
    Attack(
        "Site 2 sends values inside their range whose norm is beyond the radius",
        "a sum that honest sites cannot make",
        Level.SERVER,
        Check(
            "privacy.quantize.check_sum",
            "segment.ball and _norm(part) > segment.norm_limit(sites, Rounding(layout.rounding))",
        ),
        out_of_range(10.0, True, 45),
        Fault("the server", "OUT_OF_RANGE"),
    ),
    Attack(
        "Ranges so wide that the sum wraps around",
        "a wrong sum that nobody notices",
        Level.SITE,
        Check("privacy.secagg.header.Header.__post_init__", "self.layout.capacity() < len(self.cohort)"),
        wrapped,
        Fault("site 1", peer="server"),
        "could wrap around the ring",
    ),
)
