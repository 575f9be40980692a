"""The protocol on the sparse graph: exact sums whoever drops out, clean aborts, and sites that cheat."""

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from support.keys import key
from support.rings import SMALL, K, N, T, small, watched
from support.rounds import Cohort, clear_sum, make_cohort, signed_sum

from fedseal.privacy.secagg import sharing
from fedseal.privacy.secagg.assurance import assurance
from fedseal.privacy.secagg.client_states import STORED_STATES, MaskedOut, Shared
from fedseal.privacy.secagg.degree import gap_pairs
from fedseal.privacy.secagg.graph import Graph
from fedseal.privacy.secagg.header import HARARY_GRAPH, Sparse
from fedseal.privacy.secagg.hypergeometric import Urn
from fedseal.privacy.secagg.messages import (
    Openings,
    SecretKind,
    ShareHead,
    ShareReply,
    Stage,
    sign,
)
from fedseal.privacy.secagg.parameters import GraphRules
from fedseal.privacy.secagg.server_states import Aborted, AbortReason, Finished, MaskedReply
from fedseal.privacy.secagg.shamir import PRIME, combine, lagrange_at_zero
from fedseal.wire import decode, encode


def test_seven_sites_have_four_neighbours() -> None:
    degree = small().header.degree(N)
    assert (degree.neighbours, degree.threshold) == (K, T)


def expected(stage: Stage, gone: set[int], graph: Graph | None, cohort: Cohort) -> AbortReason | None:
    """Why the round has to end when these fall silent at this stage; None where it has to finish."""
    left = set(cohort.header.cohort) - gone
    if stage <= Stage.MASK and len(left) < cohort.header.minimum:
        return AbortReason.TOO_FEW
    if graph is None:
        return AbortReason.NO_GRAPH
    dealers = left if stage <= Stage.SHARE else set(cohort.header.cohort)
    bereft = any(len(left & set(graph.neighbours(d))) < graph.threshold for d in dealers if d in graph.places)
    witnesses = len(left & set(graph.witnesses))
    if stage is Stage.CONSISTENCY and witnesses < graph.threshold:
        return AbortReason.TOO_FEW
    if bereft or (stage is Stage.MASK and witnesses < graph.threshold):
        return AbortReason.TOO_FEW_NEIGHBOURS
    return None


@pytest.mark.quick("0", "1")
@pytest.mark.parametrize("stage", list(Stage))
def test_every_set_of_a_few_dropouts(stage: Stage) -> None:
    """The sum is bit-exact or there is none, and the reason is the one that the graph gives."""
    outcomes = set()
    for count in range(5 if stage is Stage.ADVERTISE else 4):
        for gone in map(set, combinations(range(1, N + 1), count)):
            cohort = small(silent={stage: gone})
            seen = watched(cohort)
            outcome = cohort.run()
            reason = expected(stage, gone, seen.get("graph"), cohort)
            if reason is None:
                assert isinstance(outcome, Finished), (stage, gone)
                survivors = set(cohort.header.cohort) - (gone if stage <= Stage.MASK else set())
                assert set(outcome.survivors) == survivors
                assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))
            else:
                assert isinstance(outcome, Aborted), (stage, gone)
                assert outcome.reason is reason
            outcomes.add(reason)
    assert outcomes > {None}


def test_dropouts_at_every_stage_of_one_round() -> None:
    silent = {Stage.ADVERTISE: {3}, Stage.SHARE: {11}, Stage.MASK: {20, 29}, Stage.CONSISTENCY: {5}, Stage.UNMASK: {17}}
    cohort = make_cohort(40, 100, m=2, dropouts=0.2, rules=GraphRules(2, sigma=6, eta=6), silent=silent)
    outcome = cohort.run()
    assert isinstance(outcome, Finished)
    assert set(outcome.survivors) == set(range(1, 41)) - {3, 11, 20, 29}
    assert outcome.assurance.members == 39
    assert outcome.assurance.degree < 38
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


@pytest.mark.slow
def test_three_hundred_sites_with_the_protocols_own_numbers() -> None:
    silent = {Stage.SHARE: {7, 8}, Stage.MASK: set(range(100, 110)), Stage.UNMASK: {55, 201}}
    cohort = make_cohort(300, 8, silent=silent)
    assert (cohort.header.graph, cohort.header.sparse) == (HARARY_GRAPH, Sparse(30, 80, 20))
    outcome = cohort.run()
    assert isinstance(outcome, Finished)
    assert not cohort.refusals
    assert len(outcome.survivors) == 288
    assert (outcome.assurance.degree, outcome.assurance.threshold) == (30, 16)
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


@pytest.mark.slow
def test_three_hundred_sites_of_which_a_tenth_collude() -> None:
    cohort = make_cohort(300, 1000, m=30, silent={Stage.MASK: set(range(1, 31))})
    outcome = cohort.run()
    assert isinstance(outcome, Finished)
    assert (outcome.assurance.degree, outcome.assurance.threshold) == (94, 70)
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


def test_a_site_keeps_what_its_neighbours_gave_it_and_no_more() -> None:
    """What lies on a site's disk grows with its neighbours; of the rest only the numbers are kept."""
    sizes = {}
    for n in (30, 60):
        cohort = make_cohort(n, 4, dropouts=0, rules=SMALL)
        kept: list[MaskedOut] = []

        def look(stage: Stage, site: int, request: Any, cohort: Cohort = cohort, kept: list[MaskedOut] = kept) -> Any:
            if stage is Stage.CONSISTENCY and isinstance(state := cohort.states[site], MaskedOut):
                kept.append(state)
            return request

        cohort.request_hook = look
        assert isinstance(cohort.run(), Finished)
        k = cohort.header.degree(n).neighbours
        assert {(len(s.held), len(s.counters), len(s.witnesses)) for s in kept} == {(k, k + 1, k)}
        sizes[n] = {len(encode(s)) - len(s.header) - 4 * len(s.contributors) - 110 * k - 12 * (k + 1) for s in kept}
    assert sizes[30] == sizes[60]


def test_requests_replies_and_states_survive_the_wire_and_the_disk() -> None:
    """Everything that travels or is kept goes through its encoding in this round, as it does between machines."""
    cohort = make_cohort(13, 6, dropouts=0.1, rules=SMALL, silent={Stage.MASK: {4}})

    def sent(stage: Stage, site: int, request: Any) -> Any:
        if isinstance(state := cohort.states[site], STORED_STATES):
            cohort.states[site] = decode(encode(state), type(state))
        return decode(encode(request), type(request))

    def answered(stage: Stage, site: int, reply: Any) -> Any:
        if isinstance(reply, MaskedReply):
            return replace(reply, message=decode(encode(reply.message), type(reply.message)))
        return decode(encode(reply), type(reply))

    cohort.request_hook, cohort.reply_hook = sent, answered
    outcome = cohort.run()
    assert isinstance(outcome, Finished)
    assert not cohort.refusals
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


# Colluding sites


def test_a_dealer_that_deals_to_others_than_its_neighbours_is_refused_by_the_server() -> None:
    cohort = small()

    def redealt(stage: Stage, site: int, reply: Any) -> Any:
        if stage is Stage.SHARE and site == 2:
            state = cohort.states[2]
            assert isinstance(state, Shared)
            entries = tuple(
                sorted((*reply.entries[1:], replace(reply.entries[0], receiver=2)), key=lambda e: e.receiver)
            )
            head = ShareHead(state.session, sharing.entry_root(entries), len(entries))
            return ShareReply(sign(Stage.SHARE, 2, cohort.header.digest(), head, key("site-2")), entries)
        return reply

    cohort.reply_hook = redealt
    outcome = cohort.run()
    assert "others than those who hold them" in cohort.refusals[-2].message
    assert isinstance(outcome, Finished | Aborted)
    assert 2 not in getattr(outcome, "survivors", ())


def test_a_wrong_share_names_its_opener_and_the_sum_is_still_right() -> None:
    cohort = small()

    def lie(stage: Stage, site: int, reply: Any) -> Any:
        if (stage, site) != (Stage.UNMASK, 2):
            return reply
        openings = decode(reply.payload, Openings)
        first = openings.openings[0]
        wrong = ((int.from_bytes(first.share, "big") + 1) % PRIME).to_bytes(33, "big")
        altered = replace(openings, openings=(replace(first, share=wrong), *openings.openings[1:]))
        return sign(Stage.UNMASK, 2, cohort.header.digest(), altered, key("site-2"))

    cohort.reply_hook = lie
    outcome = cohort.run()
    assert cohort.refusals[-2].blamed == 2
    assert isinstance(outcome, Finished)
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


def test_the_server_rebuilds_one_secret_of_everybody_and_never_the_other() -> None:
    """Of every dealer the holders open one kind of share: whatever t of them are taken, the other kind is not there."""
    cohort = small(silent={Stage.MASK: {4}})
    opened: dict[int, dict[SecretKind, set[int]]] = {s: {kind: set() for kind in SecretKind} for s in range(1, N + 1)}

    def keep(stage: Stage, site: int, reply: Any) -> Any:
        if stage is Stage.UNMASK:
            for opening_ in decode(reply.payload, Openings).openings:
                opened[opening_.dealer][SecretKind(opening_.kind)].add(site)
        return reply

    graphs = watched(cohort)
    cohort.reply_hook = keep
    assert isinstance(cohort.run(), Finished)
    for dealer, kinds in opened.items():
        one, other = (SecretKind.MASK_SEED, SecretKind.SELF) if dealer == 4 else (SecretKind.SELF, SecretKind.MASK_SEED)
        assert kinds[other] == set()
        assert kinds[one] <= set(graphs["graph"].neighbours(dealer))
        assert len(kinds[one]) >= T


def test_a_server_that_shows_two_survivor_sets_gets_no_shares_for_at_least_one() -> None:
    """Half of the ring is shown one set, half the other: the witnesses stand in one place and cannot sign both."""
    cohort = make_cohort(16, 4, dropouts=0.25, rules=SMALL)
    graphs = watched(cohort)
    look = cohort.request_hook
    everyone = cohort.header.cohort

    def view(site: int) -> tuple[int, ...]:
        order = graphs["graph"].order
        dropped = {order[0], order[8]} - {site} if graphs["graph"].places[site] < 8 else set()
        return tuple(s for s in everyone if s not in dropped)

    def split_view(stage: Stage, site: int, request: Any) -> Any:
        if look is not None:
            look(stage, site, request)
        return replace(request, survivors=view(site)) if stage is Stage.CONSISTENCY else request

    signed: dict[bytes, set[int]] = {}

    def count(stage: Stage, site: int, reply: Any) -> Any:
        if stage is Stage.CONSISTENCY and hasattr(reply, "payload"):
            signed.setdefault(reply.payload, set()).add(site)
        return reply

    cohort.request_hook, cohort.reply_hook = split_view, count
    cohort.run()
    graph = graphs["graph"]
    assert len(signed) > 1
    enough = [sites for sites in signed.values() if len(sites & set(graph.witnesses)) >= graph.threshold]
    assert len(enough) <= 1


def test_shares_at_other_positions_rebuild_nothing() -> None:
    """The position is the place among the dealer's holders; in U1 it is another one."""
    cohort = small()
    held: dict[int, dict[int, bytes]] = {}

    def keep(stage: Stage, site: int, request: Any) -> Any:
        if stage is Stage.CONSISTENCY and isinstance(state := cohort.states[site], MaskedOut):
            for share in state.held:
                held.setdefault(share.dealer, {})[site] = share.self_share.reveal()
        return request

    graphs = watched(cohort)
    look = cohort.request_hook
    cohort.request_hook = lambda a, s, r: keep(a, s, look(a, s, r) if look else r)
    seeds: dict[int, bytes] = {}

    def learn(stage: Stage, site: int, reply: Any) -> Any:
        if isinstance(state := cohort.states[site], Shared):
            seeds[site] = state.self_seed.reveal()
        return reply

    cohort.reply_hook = learn
    assert isinstance(cohort.run(), Finished)
    for dealer, shares in held.items():
        holders = graphs["graph"].holders(dealer)
        used = sorted(shares)[:T]
        right = {holders.index(s) + 1: shares[s] for s in used}
        wrong = {s: shares[s] for s in used}
        assert combine(right, lagrange_at_zero(list(right))) == seeds[dealer]
        if list(right) != list(wrong):
            assert combine(wrong, lagrange_at_zero(list(wrong))) != seeds[dealer]


# What a run prints


def test_a_round_says_how_sure_its_graph_is() -> None:
    """The bounds are those of the ring that the round had, within what the protocol asks for."""
    header = make_cohort(300, 2, m=30).header
    sure = assurance(header, 290)
    degree = header.degree(290)
    assert (sure.members, sure.colluders, sure.dropouts) == (290, 30, 29)
    assert (sure.degree, sure.threshold, sure.sum_minimum) == (degree.neighbours, degree.threshold, 166)
    k, t = sure.degree, sure.threshold
    surrounded = 291 * Urn(290, 30, k).exactly_at_least(2 * t - k)
    cut = gap_pairs(290, k) * Urn(290, 30, k // 2).exactly_at_least(t - k // 2) ** 2
    deserted = 291 * Urn(290, 261, k).exactly_below(t)
    assert sure.secrecy_bound == pytest.approx(float(surrounded + cut), rel=1e-6)
    assert sure.failure_bound == pytest.approx(float(deserted), rel=1e-6)
    assert 0 < sure.secrecy_bound <= 2.0**-80
    assert 0 < sure.failure_bound <= 2.0**-20


def test_the_complete_graph_rests_on_no_chance() -> None:
    sure = assurance(make_cohort(10, 2, m=3).header, 9)
    assert (sure.degree, sure.threshold, sure.dropouts, sure.sigma, sure.eta) == (8, 7, 2, None, None)
    assert (sure.secrecy_bound, sure.failure_bound) == (0.0, 0.0)
