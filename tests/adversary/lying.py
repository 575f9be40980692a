"""A round with one malicious site in it: how it goes, and the lies that such a site can tell."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from adversary.attack import Fault, Refusal
from adversary.field import stored
from support.keys import SERVER, key
from support.rounds import Cohort, clear_sum, make_cohort, signed_sum

from fedseal.errors import PeerError
from fedseal.privacy.secagg import server, sharing
from fedseal.privacy.secagg.checks import survivors_digest
from fedseal.privacy.secagg.client_states import MaskedOut, Shared
from fedseal.privacy.secagg.keys import Agreement, envelope_key, seal, unseal
from fedseal.privacy.secagg.masks import MaskedSum
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    Opening,
    Openings,
    SealedShares,
    SecretKind,
    ShareEntry,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
    sign,
)
from fedseal.privacy.secagg.messages import Refusal as SiteRefusal
from fedseal.privacy.secagg.server_states import Aborted, Finished
from fedseal.privacy.secagg.shamir import PRIME
from fedseal.privacy.secagg.sharing import share_commitment
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode

Refusals = list[Refusal]
BAD = 2
# What the malicious site's answer becomes at a stage; None if it stays silent.
Lie = Callable[[Cohort, Any], Any]
BY_SITE_2 = Fault("the server", peer="site 2")


def rebuilt(cohort: Cohort, payload: Any, stage: Stage) -> Signed:
    """Anything, signed by the malicious site."""
    return sign(stage, BAD, cohort.header.digest(), payload, key(f"site-{BAD}"))


def picture(state: Any) -> str:
    """A state of the server as text, with the running sum's words."""
    total = getattr(state, "total", None)
    return repr(state) + (repr(total._total.tolist()) if isinstance(total, MaskedSum) else "")


def played(refusals: Refusals, cohort: Cohort, lies: dict[Stage, Lie]) -> Finished | Aborted:
    """A round in which site 2 lies; what server and sites refused is noted."""

    def answer(number: int, request: Any) -> Any:
        before = copy.deepcopy(cohort.states[number])
        reply = Cohort.answer(cohort, number, request)
        if isinstance(reply, SiteRefusal):
            error, unchanged = cohort.refusals[number], stored(cohort.states[number]) == stored(before)
            refusals.append(Refusal(Fault.of(f"site {number}", error), error.message, unchanged))
        return reply

    step = server.open_round(cohort.header, cohort.roster, SERVER)
    while not isinstance(step.state, Finished | Aborted):
        state: Any = step.state
        stage = server.stage_of(state)
        for number, request in step.requests.items():
            quiet = any(number in sites for at, sites in cohort.silent.items() if at <= stage)
            reply = answer(number, request) if number in cohort.sites and not quiet else None
            if number == BAD and stage in lies:
                reply = lies[stage](cohort, reply)
            elif cohort.reply_hook is not None and reply is not None:
                reply = cohort.reply_hook(stage, number, reply)
            if reply is None:
                continue
            before = picture(state)
            try:
                state = server.receive(state, number, reply)
            except PeerError as error:
                unchanged = picture(state) == before
                refusals.append(Refusal(Fault.of("the server", error), error.message, unchanged))
        step = server.close(state)
    outcome = step.state
    if isinstance(outcome, Aborted) and outcome.blamed:
        fault = Fault("the server", outcome.reason.name, blamed=outcome.blamed[0])
        refusals.append(Refusal(fault, outcome.reason.value, unchanged=True))
    elif isinstance(outcome, Aborted):
        refusals.append(Refusal(Fault("the server", outcome.reason.name), outcome.reason.value, unchanged=True))
    return outcome


def spoiled(outcome: Finished | Aborted, cohort: Cohort) -> bool:
    """Whether a sum came out that is not the sum of the survivors' vectors."""
    if isinstance(outcome, Aborted):
        return False
    named = tuple(s for s in outcome.survivors if s in cohort.values)
    return not np.array_equal(signed_sum(outcome), clear_sum(cohort, named))


def lying(stage: Stage, lie: Lie, length: int = 6, **options: Any) -> Callable[[Refusals], bool]:
    """Site 2 lies at one stage so that the sum is wrong."""

    def play(refusals: Refusals) -> bool:
        cohort = make_cohort(5, length, m=1, **options)
        return spoiled(played(refusals, cohort, {stage: lie}), cohort)

    return play


def unnamed_end(stage: Stage, lie: Lie) -> Callable[[Refusals], bool]:
    """Site 2 lies at one stage so that the round ends and nobody knows by whose fault."""

    def play(refusals: Refusals) -> bool:
        outcome = played(refusals, make_cohort(5, 6, m=1), {stage: lie})
        return isinstance(outcome, Aborted) and not any(names(r, BAD) for r in refusals)

    return play


def framing(stage: Stage, lie: Lie, victim: int, **options: Any) -> Callable[[Refusals], bool]:
    """Site 2 lies at one stage so that an honest site is named."""

    def play(refusals: Refusals) -> bool:
        played(refusals, make_cohort(5, 6, m=1, **options), {stage: lie})
        return any(names(r, victim) for r in refusals)

    return play


def names(refusal: Refusal, site: int) -> bool:
    """Whether a refusal says it was this site."""
    return refusal.fault.blamed == site or (refusal.fault.blamed is None and refusal.fault.peer == f"site {site}")


# Lies


def changed_opening(change: Callable[[Cohort, Any], Any]) -> Lie:
    """Another share of site 1 than the one that it dealt."""

    def lie(cohort: Cohort, reply: Any) -> Any:
        openings = decode(reply.payload, Openings)
        first = change(cohort, openings.openings[0])
        return rebuilt(cohort, replace(openings, openings=(first, *openings.openings[1:])), Stage.UNMASK)

    return lie


def another_share(cohort: Cohort, opening: Any) -> Any:
    return replace(opening, share=other(opening.share))


def wrong_secret(refusals: Refusals) -> bool:
    """Site 2 opens a true share of the wrong secret of site 1, and site 1 is taken for a cheat."""
    kept: list[Opening] = []

    def remember(cohort: Cohort, reply: Any) -> Any:
        state = cohort.states[BAD]
        if isinstance(state, MaskedOut):
            kept.extend(h.opening(SecretKind.MASK_SEED) for h in state.held if h.dealer == 1)
        return reply

    lies = {Stage.MASK: remember, Stage.UNMASK: changed_opening(lambda c, o: kept[0])}
    played(refusals, make_cohort(5, 6, m=1), lies)
    return any(names(r, 1) for r in refusals)


def other(share: bytes) -> bytes:
    return ((int.from_bytes(share, "big") + 1) % PRIME).to_bytes(33, "big")


def redealt(kind: SecretKind, *, committed: bool, to: tuple[int, ...] = (1, 3, 4, 5)) -> Lie:
    """Other shares of a secret of site 2's than its honest code dealt; ``committed``: with commitments that match."""

    def lie(cohort: Cohort, reply: Any) -> Any:
        state = cohort.states[BAD]
        if not isinstance(state, Shared):
            return reply
        channel, entries = Agreement(state.channel_key.reveal()), []
        for entry, advertisement in zip(reply.entries, state.advertisements, strict=True):
            if entry.receiver not in to:
                entries.append(entry)
                continue
            public = decode(advertisement.payload, Advertisement).channel_key
            sealing = envelope_key(channel.shared(public), state.session, BAD, entry.receiver)
            sealed = unseal(sealing, entry.ciphertext, state.session, BAD, entry.receiver)
            plain = decode(sealed or b"", SealedShares)
            made, changed = swapped_share(plain, kind, state.session, entry)
            text = seal(sealing, encode(made), state.session, BAD, entry.receiver)
            entries.append(replace(changed if committed else entry, ciphertext=text))
        head = ShareHead(state.session, sharing.entry_root(entries), len(entries))
        return ShareReply(rebuilt(cohort, head, Stage.SHARE), tuple(entries))

    return lie


def swapped_share(
    plain: SealedShares, kind: SecretKind, session: bytes, entry: ShareEntry
) -> tuple[SealedShares, ShareEntry]:
    """Another share of one kind, and the entry whose commitments it matches."""
    to = entry.receiver
    if kind is SecretKind.SELF:
        share = other(plain.self_share.reveal())
        commitment = share_commitment(session, BAD, to, kind, share, plain.self_salt)
        return replace(plain, self_share=Secret(share)), replace(entry, self_commitment=commitment)
    share = other(plain.seed_share.reveal())
    commitment = share_commitment(session, BAD, to, kind, share, plain.seed_salt)
    return replace(plain, seed_share=Secret(share)), replace(entry, seed_commitment=commitment)


def reheaded(**changes: Any) -> Lie:
    """A signed head that says something else."""

    def lie(cohort: Cohort, reply: Any) -> Any:
        head = decode(reply.head.payload, ShareHead)
        return replace(reply, head=rebuilt(cohort, replace(head, **changes), Stage.SHARE))

    return lie


def too_few_entries(cohort: Cohort, reply: Any) -> Any:
    """Nothing for sites 1 and 3."""
    entries = tuple(e for e in reply.entries if e.receiver not in (1, 3))
    head = replace(decode(reply.head.payload, ShareHead), root=sharing.entry_root(entries))
    return ShareReply(rebuilt(cohort, head, Stage.SHARE), entries)


def copied_key(cohort: Cohort, reply: Any) -> Any:
    """The channel key of site 1."""
    stolen = decode(cohort.states[1].advertisement.payload, Advertisement).channel_key  # type: ignore[union-attr]
    payload = replace(decode(reply.payload, Advertisement), channel_key=stolen)
    return rebuilt(cohort, payload, Stage.ADVERTISE)


def other_survivors(cohort: Cohort, reply: Any) -> Any:
    session = cohort.states[BAD].session  # type: ignore[union-attr]
    return rebuilt(cohort, Confirmation(session, survivors_digest(session, (1, 2, 3, 4))), Stage.CONSISTENCY)
