"""The legal pairs are data. Every pair that is not in the table is refused and changes nothing."""

import copy
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from support.rounds import Cohort, make_cohort

from fedseal.errors import PeerError
from fedseal.privacy.receipt import Receipt
from fedseal.privacy.secagg import client, server
from fedseal.privacy.secagg.client_states import (
    Advertised,
    Confirmed,
    Counter,
    Done,
    Idle,
    MaskedOut,
    Ready,
    Shared,
    Vector,
)
from fedseal.privacy.secagg.header import AdvertiseRequest
from fedseal.privacy.secagg.masks import MaskedSum
from fedseal.privacy.secagg.messages import (
    ConsistencyRequest,
    MaskRequest,
    NeighbourRequest,
    Refusal,
    ShareReply,
    ShareRequest,
    Signed,
    Stage,
    UnmaskRequest,
)
from fedseal.privacy.secagg.parameters import GraphRules
from fedseal.privacy.secagg.server_states import (
    Aborted,
    Advertising,
    Confirming,
    Finished,
    MaskedReply,
    Masking,
    Sharing,
    Unmasking,
)
from fedseal.wire import decode, encode

CLIENT_STATES = (Idle, Advertised, Shared, Ready, MaskedOut, Confirmed, Done)
CLIENT_EVENTS = (
    AdvertiseRequest,
    ShareRequest,
    NeighbourRequest,
    MaskRequest,
    Vector,
    ConsistencyRequest,
    UnmaskRequest,
)
SERVER_STATES = (Advertising, Sharing, Masking, Confirming, Unmasking, Finished, Aborted)
SERVER_REPLIES = (Signed, ShareReply, MaskedReply)


@pytest.fixture(scope="module")
def walked() -> dict[Any, Any]:
    """Site 1 in every state, every event it met, the server in every state, and every reply it got, from one real
    round.
    """
    found: dict[Any, Any] = {Idle: Idle(7)}
    cohort = make_cohort(3, 4)
    for site in cohort.states:
        cohort.states[site] = Idle(7 * site)

    def on_request(stage: Stage, site: int, request: Any) -> Any:
        if site == 1:
            found[type(request)] = request
            if stage is Stage.MASK:
                ready = client.step(cohort.sites[1], cohort.states[1], request).state
                found[Ready] = ready
                receipt = Receipt(cohort.header.digest(), cohort.header.plan, 1)
                found[Vector] = Vector(cohort.vector(1), receipt)
        return request

    def on_reply(stage: Stage, site: int, reply: Any) -> Any:
        if site == 1:
            found.setdefault(type(cohort.states[1]), cohort.states[1])
            found.setdefault(("reply", stage), reply)
        return reply

    cohort.request_hook, cohort.reply_hook = on_request, on_reply
    step = server.open_round(cohort.header, cohort.roster, cohort_server_key())
    while not isinstance(step.state, Finished):
        found[type(step.state)] = copy.deepcopy(step.state)
        step = server.close(cohort.collect(step))
    found[Finished] = step.state
    found[Aborted] = make_cohort(3, 4, silent={Stage.SHARE: {1, 2}}).run()
    found[Signed] = found["reply", Stage.ADVERTISE]
    found[ShareReply], found[MaskedReply] = found["reply", Stage.SHARE], found["reply", Stage.MASK]
    found[Cohort] = cohort
    found[NeighbourRequest], found["ring"] = on_a_ring()
    return found


def on_a_ring() -> tuple[NeighbourRequest, tuple[client.Site, Advertised]]:
    """The one request that the complete graph does not know, and who can answer it."""
    cohort = make_cohort(7, 4, dropouts=1 / 7, rules=GraphRules(2, sigma=1, eta=0))
    met: list[tuple[NeighbourRequest, tuple[client.Site, Any]]] = []

    def look(stage: Stage, site: int, request: Any) -> Any:
        if isinstance(request, NeighbourRequest) and site == 1:
            met.append((request, (cohort.sites[1], cohort.states[1])))
        return request

    cohort.request_hook = look
    assert isinstance(cohort.run(), Finished)
    return met[0]


def cohort_server_key() -> Any:
    from support.keys import SERVER

    return SERVER


def test_the_client_table_names_every_state_and_event_once() -> None:
    assert {s for s, _ in client.TRANSITIONS} == set(CLIENT_STATES) - {Done}
    assert {e for _, e in client.TRANSITIONS} == set(CLIENT_EVENTS)
    assert len(client.TRANSITIONS) == len(CLIENT_EVENTS)


@pytest.mark.parametrize(
    ("state", "event"), [p for p in product(CLIENT_STATES, CLIENT_EVENTS) if p not in client.TRANSITIONS]
)
def test_a_site_refuses_every_pair_outside_the_table(walked: dict[Any, Any], state: Any, event: Any) -> None:
    site, before = walked[Cohort].sites[1], copy.deepcopy(walked[state])
    with pytest.raises(PeerError, match="cannot follow"):
        client.step(site, walked[state], walked[event])
    assert walked[state] == before


def test_a_site_takes_every_pair_in_the_table(walked: dict[Any, Any]) -> None:
    for state, event in client.TRANSITIONS:
        arrived = walked[event]
        if event is Vector:
            arrived = Vector(copy.deepcopy(arrived.update), arrived.receipt)
        site, before = walked["ring"] if event is NeighbourRequest else (walked[Cohort].sites[1], walked[state])
        step = client.step(site, before, arrived)
        assert type(step.state) is client.TRANSITIONS[state, event].to


def test_a_site_keeps_what_every_member_advertised_until_it_opens_shares(walked: dict[Any, Any]) -> None:
    """A confirmation proves one charge more than its site advertised in this very session."""
    counters = tuple(Counter(site, 7 * site) for site in (1, 2, 3))
    assert [walked[state].counters for state in (Ready, MaskedOut, Confirmed)] == [counters] * 3
    for state in (MaskedOut, Confirmed):
        assert decode(encode(walked[state]), state) == walked[state]


def test_the_counters_of_a_site_that_dropped_out_are_kept_too() -> None:
    cohort = make_cohort(5, 4, silent={Stage.SHARE: {2}, Stage.MASK: {4}})
    for site in cohort.states:
        cohort.states[site] = Idle((1 << 62) - site)
    found: dict[int, Any] = {}

    def remember(stage: Stage, site: int, request: Any) -> Any:
        if stage is Stage.UNMASK:
            found[site] = cohort.states[site]
        return request

    cohort.request_hook = remember
    assert isinstance(cohort.run(), Finished)
    assert set(found) == {1, 3, 5}
    for state in found.values():
        assert state.counters == tuple(Counter(site, (1 << 62) - site) for site in (1, 2, 3, 4, 5))
        assert (state.contributors, state.survivors) == ((1, 3, 4, 5), (1, 3, 5))


def test_the_end_of_a_stage_leads_where_the_table_says(walked: dict[Any, Any]) -> None:
    """With all answers in to the next state, with none to an abort."""
    order = [Advertising, Sharing, Masking, Confirming, Unmasking, Finished]
    for state, following in pairwise(order):
        assert server.CLOSES[state].to is following
        assert type(server.close(copy.deepcopy(walked[state])).state) is Aborted


@pytest.mark.parametrize(
    ("state", "reply"), [p for p in product(SERVER_STATES, SERVER_REPLIES) if p not in server.RECEIVES]
)
def test_the_server_refuses_every_pair_outside_the_table(walked: dict[Any, Any], state: Any, reply: Any) -> None:
    before = _picture(walked[state])
    with pytest.raises(PeerError, match="cannot be received"):
        server.receive(walked[state], 1, walked[reply])
    assert _picture(walked[state]) == before


@pytest.mark.parametrize("state", [Finished, Aborted])
def test_a_round_that_is_over_takes_nothing_more(walked: dict[Any, Any], state: Any) -> None:
    with pytest.raises(PeerError, match="no stage to close"):
        server.close(walked[state])
    with pytest.raises(PeerError, match="not asked"):
        server.receive(walked[state], 1, Refusal(2, None))


@pytest.mark.parametrize("state", [Advertising, Sharing, Masking, Confirming, Unmasking])
def test_a_second_answer_or_refusal_at_one_stage_is_refused(walked: dict[Any, Any], state: Any) -> None:
    asked = server.receive(walked[state], 1, Refusal(2, None))
    with pytest.raises(PeerError, match="second answer"):
        server.receive(asked, 1, Refusal(2, None))


def _picture(state: Any) -> str:
    """A state as text, with the running sum's words."""
    total = getattr(state, "total", None)
    words = np.array2string(total._total) if isinstance(total, MaskedSum) else ""
    return repr(state) + words


def test_a_request_of_the_other_graph_is_refused(walked: dict[Any, Any]) -> None:
    site, before = walked["ring"]
    mine = replace(walked[NeighbourRequest], header_hash=walked[ShareRequest].header_hash)
    with pytest.raises(PeerError, match="sparse graph in a round on the complete one"):
        client.step(walked[Cohort].sites[1], walked[Advertised], mine)
    other = replace(walked[ShareRequest], header_hash=walked[NeighbourRequest].header_hash)
    with pytest.raises(PeerError, match="complete graph in a round on the sparse one"):
        client.step(site, before, other)
