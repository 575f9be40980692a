"""A malicious server, with or without a colluding site, against one honest site: every abort rule, and its twin.

Each attack alters one request to site 1 and nothing else. The site has to refuse it, say why, and stay as it was;
unaltered, the same round goes through (`test_the_honest_round_goes_through`), so it is the alteration that was
refused.
"""

import copy
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.keys import SERVER, key
from support.rounds import Cohort, clear_sum, make_cohort, ring_layout, signed_sum

from fedseal.errors import PeerError
from fedseal.privacy.secagg import client, sharing
from fedseal.privacy.secagg.checks import survivors_digest
from fedseal.privacy.secagg.client_states import Confirmed, Shared
from fedseal.privacy.secagg.header import AdvertiseRequest, Header, sign_header
from fedseal.privacy.secagg.keys import Agreement, envelope_key, seal, signed_message, unseal
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    Delivery,
    Openings,
    Refusal,
    RefusalCode,
    SealedShares,
    SecretKind,
    ShareHead,
    ShareReply,
    Signed,
    Stage,
    sign,
)
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished, Request
from fedseal.privacy.secagg.shamir import PRIME
from fedseal.privacy.secagg.sharing import share_commitment
from fedseal.privacy.secret import Secret
from fedseal.wire import decode, encode

Attack = Callable[[Cohort, Any], Request]
N = 5


def opening(header: Header) -> Request:
    """The opening request for any header, signed by the server."""
    return sign_header(header, SERVER)


def illegal(cohort: Cohort, field: str, value: Any) -> Request:
    """An opening request for a header that could not be made, signed by the server all the same."""
    header = copy.copy(cohort.header)
    object.__setattr__(header, field, value)
    return opening(header)


def signed_bytes(raw: bytes) -> Request:
    """An opening request over any bytes, signed by the server."""
    return AdvertiseRequest(raw, SERVER.sign(signed_message("header", hashlib.sha256(raw).digest(), raw)))


def readvertised(cohort: Cohort, request: Any, site: int, **changes: Any) -> Any:
    """The advertisement of a colluding site with some fields changed, signed by that site."""
    messages = list(request.advertisements)
    place = [m.site for m in messages].index(site)
    payload = replace(decode(messages[place].payload, Advertisement), **changes)
    messages[place] = sign(Stage.ADVERTISE, site, cohort.header.digest(), payload, key(f"site-{site}"))
    return replace(request, advertisements=tuple(messages))


def overcounted(cohort: Cohort, request: Any, site: int, counter: int) -> Any:
    """The advertisement of a colluding site with a counter that its class forbids, signed by that site."""
    messages = list(request.advertisements)
    place = [m.site for m in messages].index(site)
    payload = copy.copy(decode(messages[place].payload, Advertisement))
    object.__setattr__(payload, "ledger_counter", counter)
    messages[place] = sign(Stage.ADVERTISE, site, cohort.header.digest(), payload, key(f"site-{site}"))
    return replace(request, advertisements=tuple(messages))


def forged(message: Signed) -> Signed:
    """The same message with one bit of its signature changed."""
    return replace(message, signature=bytes([message.signature[0] ^ 1]) + message.signature[1:])


def advertisement_of(request: Any, site: int) -> Advertisement:
    return decode(next(m for m in request.advertisements if m.site == site).payload, Advertisement)


ADVERTISE: dict[str, tuple[Attack, str]] = {
    "header signed by someone else": (lambda c, r: sign_header(c.header, key("mallory")), "not signed"),
    "header of another federation": (lambda c, r: opening(replace(c.header, federation="x")), "another federation"),
    "header of another roster": (lambda c, r: opening(replace(c.header, roster_hash=bytes(32))), "another roster"),
    "cohort without this site": (lambda c, r: opening(replace(c.header, cohort=(2, 3, 4, 5, 6))), "lacks this site"),
    "cohort with a stranger": (lambda c, r: opening(replace(c.header, cohort=(1, 2, 3, 4, 99))), "not in the roster"),
    "threshold 1": (lambda c, r: illegal(c, "threshold", 1), "threshold is not"),
    "more colluders than the threshold is for": (lambda c, r: illegal(c, "colluders", 3), "threshold is not"),
    "colluders that leave nobody honest": (lambda c, r: illegal(c, "colluders", 4), "at most cohort - 2"),
    "cohort of one": (lambda c, r: illegal(c, "cohort", (1,)), "2 to 256"),
    "cohort out of order": (lambda c, r: illegal(c, "cohort", (2, 1, 3, 4, 5)), "increasing order"),
    "a ring in which the sum wraps": (lambda c, r: illegal(c, "layout", ring_layout(8, 2)), "could wrap"),
    "another protocol": (lambda c, r: illegal(c, "protocol", "fedseal/sa0"), "this build speaks"),
    "another mask generator": (lambda c, r: illegal(c, "mask_generator", 7), "this build speaks"),
    "a sparse graph": (lambda c, r: illegal(c, "graph", 1), "this build speaks"),
    "a release number that no run reaches": (lambda c, r: illegal(c, "release_seq", 1 << 63), "no run reaches"),
    "the largest release number that can be written": (
        lambda c, r: illegal(c, "release_seq", (1 << 64) - 1),
        "no run reaches",
    ),
    "trailing bytes": (lambda c, r: signed_bytes(encode(c.header) + b"\x00"), "after the end"),
    "truncated": (lambda c, r: signed_bytes(encode(c.header)[:-1]), "ends too early"),
}

SHARE: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r: replace(r, header_hash=bytes(32)), "another round"),
    "own advertisement left out": (lambda c, r: replace(r, advertisements=r.advertisements[1:]), "own advertisement"),
    "own keys swapped, signed by a stranger": (
        lambda c, r: replace(
            r,
            advertisements=(
                sign(
                    Stage.ADVERTISE,
                    1,
                    c.header.digest(),
                    replace(advertisement_of(r, 1), mask_key=bytes(32)),
                    key("mallory"),
                ),
                *r.advertisements[1:],
            ),
        ),
        "signature of site 1",
    ),
    "a peer's keys swapped in the middle": (
        lambda c, r: replace(
            r,
            advertisements=(
                r.advertisements[0],
                sign(
                    Stage.ADVERTISE,
                    2,
                    c.header.digest(),
                    replace(advertisement_of(r, 2), channel_key=bytes(31) + b"\x09"),
                    key("mallory"),
                ),
                *r.advertisements[2:],
            ),
        ),
        "signature of site 2",
    ),
    "forged signature": (
        lambda c, r: replace(r, advertisements=(*r.advertisements[:-1], forged(r.advertisements[-1]))),
        "signature of site 5",
    ),
    "a site outside the cohort": (
        lambda c, r: replace(
            r,
            advertisements=(
                *r.advertisements,
                sign(Stage.ADVERTISE, 6, c.header.digest(), advertisement_of(r, 2), key("site-6")),
            ),
        ),
        "outside the cohort",
    ),
    "an advertisement of another round": (
        lambda c, r: replace(
            r,
            advertisements=(
                *r.advertisements[:-1],
                sign(Stage.ADVERTISE, 5, bytes(32), advertisement_of(r, 5), key("site-5")),
            ),
        ),
        "another round",
    ),
    "a message of another stage": (
        lambda c, r: replace(
            r,
            advertisements=(
                *r.advertisements[:-1],
                sign(Stage.MASK, 5, c.header.digest(), advertisement_of(r, 5), key("site-5")),
            ),
        ),
        "another round, stage",
    ),
    "too few": (lambda c, r: replace(r, advertisements=r.advertisements[:2]), "at least"),
    "one key twice": (
        lambda c, r: readvertised(c, r, 2, mask_key=advertisement_of(r, 3).mask_key),
        "the same key",
    ),
    "this site's key taken by another": (
        lambda c, r: readvertised(c, r, 2, channel_key=advertisement_of(r, 1).channel_key),
        "the same key",
    ),
    "low-order channel key": (lambda c, r: readvertised(c, r, 2, channel_key=bytes(32)), "low order"),
    "a ledger that went back": (lambda c, r: readvertised(c, r, 2, ledger_counter=0), "went back"),
    "a counter that no ledger reaches": (lambda c, r: overcounted(c, r, 2, 1 << 62), "no ledger reaches"),
    "a counter that cannot be remembered": (lambda c, r: overcounted(c, r, 2, (1 << 64) - 1), "no ledger reaches"),
}


def tampered(delivery: Delivery) -> Delivery:
    """A ciphertext changed on its way."""
    text = delivery.entry.ciphertext
    return replace(delivery, entry=replace(delivery.entry, ciphertext=bytes([text[0] ^ 1]) + text[1:]))


MASK: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r: replace(r, header_hash=bytes(32)), "another round"),
    "this site left out": (
        lambda c, r: replace(r, contributors=r.contributors[1:]),
        "not among the contributors",
    ),
    "a stranger among the contributors": (
        lambda c, r: replace(r, contributors=(*r.contributors, 99)),
        "did not take part",
    ),
    "too few contributors": (
        lambda c, r: replace(r, contributors=(1, 2), deliveries=r.deliveries[:1]),
        "at least",
    ),
    "a delivery left out": (lambda c, r: replace(r, deliveries=r.deliveries[1:]), "not those of the contributors"),
    "a ciphertext changed on its way": (
        lambda c, r: replace(r, deliveries=(tampered(r.deliveries[0]), *r.deliveries[1:])),
        "did not sign",
    ),
    "two dealers' entries swapped": (
        lambda c, r: replace(
            r,
            deliveries=(
                replace(r.deliveries[0], entry=r.deliveries[1].entry),
                replace(r.deliveries[1], entry=r.deliveries[0].entry),
                *r.deliveries[2:],
            ),
        ),
        "did not sign",
    ),
    "a forged head": (
        lambda c, r: replace(
            r, deliveries=(replace(r.deliveries[0], head=forged(r.deliveries[0].head)), *r.deliveries[1:])
        ),
        "signature of site 2",
    ),
    "a head of another session": (
        lambda c, r: replace(
            r,
            deliveries=(
                replace(
                    r.deliveries[0],
                    head=sign(
                        Stage.SHARE,
                        2,
                        c.header.digest(),
                        ShareHead(bytes(32), bytes(32), N),
                        key("site-2"),
                    ),
                ),
                *r.deliveries[1:],
            ),
        ),
        "another session",
    ),
}

CONSISTENCY: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r: replace(r, header_hash=bytes(32)), "another round"),
    "this site left out": (lambda c, r: replace(r, survivors=r.survivors[1:]), "not among the survivors"),
    "a stranger": (lambda c, r: replace(r, survivors=(*r.survivors, 77)), "did not take part"),
    "too few": (lambda c, r: replace(r, survivors=(1, 2)), "at least"),
}


def confirmed_by(cohort: Cohort, sites: list[int], survivors: tuple[int, ...]) -> tuple[Signed, ...]:
    """Confirmations of a survivor set by colluding sites."""
    state = cohort.states[1]
    if not isinstance(state, Confirmed):
        pytest.fail("not at UNMASK")
    payload = Confirmation(state.session, survivors_digest(state.session, survivors))
    return tuple(sign(Stage.CONSISTENCY, s, cohort.header.digest(), payload, key(f"site-{s}")) for s in sites)


UNMASK: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r: replace(r, header_hash=bytes(32)), "another round"),
    "another survivor set": (lambda c, r: replace(r, survivors=r.survivors[:-1]), "another survivor set"),
    "too few confirmations": (
        lambda c, r: replace(r, confirmations=r.confirmations[: c.header.threshold - 1]),
        "fewer than",
    ),
    "a forged confirmation": (
        lambda c, r: replace(r, confirmations=(*r.confirmations[:-1], forged(r.confirmations[-1]))),
        "signature of site 5",
    ),
    "confirmations of another set": (
        lambda c, r: replace(r, confirmations=confirmed_by(c, [2, 3, 4, 5], (2, 3, 4, 5))),
        "another survivor set",
    ),
    "a confirmation by a site outside the set": (
        lambda c, r: replace(r, confirmations=(*r.confirmations, *confirmed_by(c, [6], r.survivors))),
        "outside it",
    ),
}

ATTACKS = [
    pytest.param(stage, attack, message, id=f"{stage.label}: {name}")
    for stage, table in (
        (Stage.ADVERTISE, ADVERTISE),
        (Stage.SHARE, SHARE),
        (Stage.MASK, MASK),
        (Stage.CONSISTENCY, CONSISTENCY),
        (Stage.UNMASK, UNMASK),
    )
    for name, (attack, message) in table.items()
]


def test_the_honest_round_goes_through() -> None:
    cohort = make_cohort(N, 8, m=1)
    finished = cohort.run()
    assert isinstance(finished, Finished)
    assert not cohort.refusals


@pytest.mark.parametrize(("stage", "attack", "message"), ATTACKS)
def test_site_1_refuses_and_stays_as_it_was(stage: Stage, attack: Attack, message: str) -> None:
    cohort = make_cohort(N, 8, m=1, others=1)
    cohort.sites[1] = replace(cohort.sites[1], known_counters={2: 1})
    met = []

    def altered(at: Stage, site: int, request: Request) -> Request:
        if at is stage and site == 1:
            evil, before = attack(cohort, request), copy.deepcopy(cohort.states[1])
            with pytest.raises(PeerError, match=message):
                client.step(cohort.sites[1], cohort.states[1], evil)
            assert cohort.states[1] == before
            met.append(stage)
        return request

    cohort.request_hook = altered
    # The refused request left no trace: with the honest one the very same round still ends with the right sum.
    finished = cohort.run()
    assert met == [stage]
    assert isinstance(finished, Finished)
    assert (signed_sum(finished) == clear_sum(cohort, finished.survivors)).all()


# A colluding dealer, and a colluding responder.


def redeal(cohort: Cohort, reply: Any, change: Callable[[int, list[bytes]], list[bytes]]) -> ShareReply:
    """Site 2 deals other shares of its own mask than its honest code did, with commitments that match and a signature
    that holds.

    ``change`` gets a receiver's number and [the share to seal, the share to commit to].
    """
    state = cohort.states[2]
    if not isinstance(state, Shared):
        pytest.fail("site 2 has not shared")
    channel = Agreement(state.channel_key.reveal())
    entries = []
    for entry, advertisement in zip(reply.entries, state.advertisements, strict=True):
        keys = decode(advertisement.payload, Advertisement)
        if entry.receiver == 2:
            entries.append(entry)
            continue
        wrap = envelope_key(channel.shared(keys.channel_key), state.session, 2, entry.receiver)
        plain = decode(unseal(wrap, entry.ciphertext, state.session, 2, entry.receiver) or b"", SealedShares)
        sealed, committed = change(entry.receiver, [plain.self_share.reveal()] * 2)
        text = seal(wrap, encode(replace(plain, self_share=Secret(sealed))), state.session, 2, entry.receiver)
        commitment = share_commitment(state.session, 2, entry.receiver, SecretKind.SELF, committed, plain.self_salt)
        entries.append(replace(entry, ciphertext=text, self_commitment=commitment))
    head = ShareHead(state.session, sharing.entry_root(entries), len(entries))
    return ShareReply(sign(Stage.SHARE, 2, cohort.header.digest(), head, key("site-2")), tuple(entries))


def other_share(share: bytes) -> bytes:
    return ((int.from_bytes(share, "big") + 1) % PRIME).to_bytes(33, "big")


def with_site_2(cohort: Cohort, stage: Stage, change: Callable[[Any], Any]) -> None:
    """Let site 2 answer something else at a stage."""
    cohort.reply_hook = lambda at, site, reply: change(reply) if (at, site) == (stage, 2) else reply


def test_a_share_that_does_not_match_its_commitment_names_the_dealer() -> None:
    cohort = make_cohort(N, 8, m=1)
    with_site_2(
        cohort,
        Stage.SHARE,
        lambda r: redeal(cohort, r, lambda to, s: [other_share(s[0]), s[1]] if to == 1 else s),
    )
    finished = cohort.run()
    assert cohort.refusals[1].blamed == 2
    # One site refused; the others go on without it.
    assert isinstance(finished, Finished)
    assert finished.survivors == (2, 3, 4, 5)


def test_a_dealer_that_cheats_on_many_is_blamed_by_many_and_named_in_the_abort() -> None:
    cohort = make_cohort(N, 8, m=1)
    with_site_2(
        cohort, Stage.SHARE, lambda r: redeal(cohort, r, lambda to, s: [other_share(s[0]), s[1]] if to != 5 else s)
    )
    aborted = cohort.run()
    assert isinstance(aborted, Aborted)
    assert aborted.blamed == (2,)


def test_one_accuser_is_not_enough_to_convict() -> None:
    """With m = 1 a single accuser may be the liar."""
    refusal = Refusal(int(RefusalCode.BAD_PEER), 3)
    cohort = make_cohort(N, 8, m=1, silent={Stage.MASK: {4}})
    with_site_2(cohort, Stage.MASK, lambda r: refusal)
    aborted = cohort.run()
    assert isinstance(aborted, Aborted)
    assert aborted.blamed == ()


def test_shares_that_rebuild_nothing_name_their_dealer() -> None:
    cohort = make_cohort(N, 8, m=1)
    with_site_2(cohort, Stage.SHARE, lambda r: redeal(cohort, r, lambda to, s: [other_share(x) for x in s]))
    aborted = cohort.run()
    assert isinstance(aborted, Aborted)
    assert (aborted.reason, aborted.blamed) == (AbortReason.WRONG_SHARES, (2,))


def test_a_wrong_share_at_unmask_names_the_opener_and_the_sum_is_still_right() -> None:
    cohort = make_cohort(N, 8, m=1)

    def lie(reply: Signed) -> Signed:
        openings = decode(reply.payload, Openings)
        first = replace(openings.openings[0], share=other_share(openings.openings[0].share))
        wrong = replace(openings, openings=(first, *openings.openings[1:]))
        return sign(Stage.UNMASK, 2, cohort.header.digest(), wrong, key("site-2"))

    with_site_2(cohort, Stage.UNMASK, lie)
    finished = cohort.run()
    assert cohort.refusals[-2].blamed == 2
    assert isinstance(finished, Finished)
    assert (signed_sum(finished) == clear_sum(cohort, finished.survivors)).all()


def test_a_vector_outside_the_range_is_found_in_the_sum() -> None:
    cohort = make_cohort(N, 8, m=1)
    layout = cohort.header.layout
    segment = replace(layout.segments[0], high=10.0, low=-10.0)
    cohort.header = replace(cohort.header, layout=replace(layout, segments=(segment,)))
    for site in cohort.header.cohort:
        cohort.values[site] = np.zeros(8)
    cohort.values[2] = np.full(8, 10_000)
    aborted = cohort.run()
    assert isinstance(aborted, Aborted)
    assert aborted.reason is AbortReason.OUT_OF_RANGE


def test_no_site_ever_opens_both_secrets_of_another() -> None:
    """Whatever the server asks, in whatever order, after UNMASK was answered: of each dealer one kind of share is
    out.
    """
    cohort = make_cohort(N, 8, m=1, silent={Stage.MASK: {5}})
    requests: list[Any] = []

    def remember(at: Stage, site: int, request: Any) -> Any:
        if site == 1:
            requests.append(request)
        return request

    cohort.request_hook = remember
    opened: list[Any] = []

    def keep(at: Stage, site: int, reply: Any) -> Any:
        if at is Stage.UNMASK and site == 1:
            opened.extend(decode(reply.payload, Openings).openings)
        return reply

    cohort.reply_hook = keep
    assert isinstance(cohort.run(), Finished)
    kinds = {o.dealer: SecretKind(o.kind) for o in opened}
    assert len(kinds) == len(opened) == N
    assert kinds == {
        1: SecretKind.SELF,
        2: SecretKind.SELF,
        3: SecretKind.SELF,
        4: SecretKind.SELF,
        5: SecretKind.MASK_SEED,
    }
    for request in requests:
        with pytest.raises(PeerError, match="cannot follow"):
            client.step(cohort.sites[1], cohort.states[1], request)


def test_two_survivor_sets_cannot_both_gather_enough_signatures() -> None:
    """The server shows one half {1,2,3,4} and the other {2,3,4,5}; with m = 1 nobody ends up with t = 4 equal
    confirmations.
    """
    cohort = make_cohort(N, 8, m=1)
    sets = {1: (1, 2, 3, 4), 2: (1, 2, 3, 4), 3: (2, 3, 4, 5), 4: (2, 3, 4, 5), 5: (2, 3, 4, 5)}

    def split_view(at: Stage, site: int, request: Any) -> Any:
        return replace(request, survivors=sets[site]) if at is Stage.CONSISTENCY else request

    signed: dict[bytes, int] = {}

    def count(at: Stage, site: int, reply: Any) -> Any:
        if at is Stage.CONSISTENCY:
            signed[reply.payload] = signed.get(reply.payload, 0) + 1
        return reply

    cohort.request_hook, cohort.reply_hook = split_view, count
    assert isinstance(cohort.run(), Aborted)
    assert max(signed.values()) < cohort.header.threshold
