"""What a site refuses on the sparse graph. Each attack alters one request to site 1 and nothing else."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.keys import SERVER, key
from support.rings import SMALL, watched
from support.rounds import Cohort, clear_sum, make_cohort, make_header, ring_layout, signed_sum

from fedseal.errors import PeerError
from fedseal.privacy.secagg import client
from fedseal.privacy.secagg.checks import survivors_digest
from fedseal.privacy.secagg.client_states import Confirmed
from fedseal.privacy.secagg.graph import Graph
from fedseal.privacy.secagg.header import AdvertiseRequest, Sparse, sign_header
from fedseal.privacy.secagg.messages import (
    Advertisement,
    Confirmation,
    NeighbourRequest,
    ShareHead,
    ShareRequest,
    Stage,
    sign,
)
from fedseal.privacy.secagg.server_states import Finished
from fedseal.wire import decode

Attack = Callable[[Cohort, Any, Graph], Any]


def opening(cohort: Cohort, **changes: Any) -> AdvertiseRequest:
    header = cohort.header
    fields = {"colluders": header.colluders, "graph": header.graph, "sparse": header.sparse} | changes
    return sign_header(make_header(cohort.roster, list(header.cohort), header.layout, **fields), SERVER)


def stranger(graph: Graph, site: int) -> int:
    return next(s for s in sorted(graph.order) if s != site and s not in graph.neighbours(site))


def proof_of(cohort: Cohort, requests: dict[int, Any], wanted: int) -> Any:
    """The proven advertisement of any member, taken from whoever was sent it."""
    return next(m for r in requests.values() for m in r.neighbourhood if m.advertisement.site == wanted)


def swapped(request: Any, index: int, member: Any) -> Any:
    members = list(request.neighbourhood)
    members[index] = member
    return replace(request, neighbourhood=tuple(sorted(members, key=lambda m: m.advertisement.site)))


def own_place(request: Any) -> int:
    return [m.advertisement.site for m in request.neighbourhood].index(1)


def another(request: Any) -> int:
    """The place of the first neighbour of site 1 in its request."""
    return 1 - own_place(request) if own_place(request) in (0, 1) else 0


def broken_path(request: Any) -> Any:
    member = request.neighbourhood[another(request)]
    return swapped(request, another(request), replace(member, path=(bytes(32), *member.path[1:])))


def rekeyed(cohort: Cohort, request: Any) -> Any:
    """A neighbour's other keys, truly signed by that colluding neighbour, under the old root."""
    member = request.neighbourhood[another(request)]
    site = member.advertisement.site
    payload = replace(decode(member.advertisement.payload, Advertisement), mask_key=b"\x09" + bytes(31))
    signed = sign(Stage.ADVERTISE, site, cohort.header.digest(), payload, key(f"site-{site}"))
    return swapped(request, another(request), replace(member, advertisement=signed))


def moved(request: Any, graph: Graph) -> Any:
    """One member less: another session, and with it another order."""
    outsider = stranger(graph, 1)
    return replace(request, members=tuple(s for s in request.members if s != outsider))


ALL: dict[int, Any] = {}

SHARE: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r, g: replace(r, header_hash=bytes(32)), "another round"),
    "all advertisements, as on the complete graph": (
        lambda c, r, g: ShareRequest(r.header_hash, tuple(m.advertisement for m in r.neighbourhood)),
        "in a round on the sparse one",
    ),
    "a neighbour left out": (
        lambda c, r, g: replace(r, neighbourhood=r.neighbourhood[1:]),
        "others than this site and its neighbours",
    ),
    "a stranger in a neighbour's place": (
        lambda c, r, g: swapped(r, another(r), proof_of(c, ALL, stranger(g, 1))),
        "others than this site and its neighbours",
    ),
    "a stranger beside the neighbours": (
        lambda c, r, g: replace(
            r,
            neighbourhood=tuple(
                sorted((*r.neighbourhood, proof_of(c, ALL, stranger(g, 1))), key=lambda m: m.advertisement.site)
            ),
        ),
        "others than this site and its neighbours",
    ),
    "a proof that does not hold": (lambda c, r, g: broken_path(r), "not under the root"),
    "another root": (lambda c, r, g: replace(r, root=bytes(32)), "neighbours|root"),
    "a neighbour's keys exchanged": (lambda c, r, g: rekeyed(c, r), "not under the root"),
    "the members of another session": (lambda c, r, g: moved(r, g), "neighbours|root"),
    "members outside the cohort": (lambda c, r, g: replace(r, members=(*r.members, 99)), "outside the cohort"),
    "members without this site": (lambda c, r, g: replace(r, members=r.members[1:]), "without this site"),
    "too few members": (lambda c, r, g: replace(r, members=r.members[:6]), "at least 7 are needed"),
}


def without(request: Any, sites: set[int]) -> Any:
    return replace(
        request,
        contributors=tuple(c for c in request.contributors if c not in sites),
        deliveries=tuple(d for d in request.deliveries if d.head.site not in sites),
    )


MASK: dict[str, tuple[Attack, str]] = {
    "another round": (lambda c, r, g: replace(r, header_hash=bytes(32)), "another round"),
    "too few neighbours among many contributors": (
        lambda c, r, g: without(r, set(g.neighbours(1)[: len(g.neighbours(1)) - g.threshold + 1])),
        "too few of this site's neighbours",
    ),
    "a delivery left out": (lambda c, r, g: replace(r, deliveries=r.deliveries[1:]), "not those of the contributors"),
    "a stranger's head in a neighbour's delivery": (
        lambda c, r, g: replace(
            r, deliveries=(replace(r.deliveries[0], head=alien(c, r.deliveries[0].head)), *r.deliveries[1:])
        ),
        "signature|did not sign",
    ),
    "a head over other holders": (
        lambda c, r, g: replace(
            r, deliveries=(replace(r.deliveries[0], head=longer(c, r.deliveries[0].head)), *r.deliveries[1:])
        ),
        "another session",
    ),
}


def alien(cohort: Cohort, head: Any) -> Any:
    return replace(head, signature=bytes(64))


def longer(cohort: Cohort, head: Any) -> Any:
    payload = decode(head.payload, ShareHead)
    return sign(
        Stage.SHARE,
        head.site,
        cohort.header.digest(),
        replace(payload, size=payload.size + 1),
        key(f"site-{head.site}"),
    )


CONSISTENCY: dict[str, tuple[Attack, str]] = {
    "this site left out": (lambda c, r, g: replace(r, survivors=r.survivors[1:]), "not among the survivors"),
    "too few": (lambda c, r, g: replace(r, survivors=r.survivors[:3]), "at least"),
    "too few neighbours among many survivors": (
        lambda c, r, g: replace(r, survivors=tuple(s for s in r.survivors if s not in cut_off(g))),
        "too few of this site's neighbours",
    ),
}


def cut_off(graph: Graph) -> set[int]:
    near = graph.neighbours(1)
    return set(near[: len(near) - graph.threshold + 1])


def confirmed_by(cohort: Cohort, sites: list[int]) -> tuple[Any, ...]:
    state = cohort.states[1]
    if not isinstance(state, Confirmed):
        pytest.fail("not at UNMASK")
    payload = Confirmation(state.session, survivors_digest(state.session, state.survivors))
    return tuple(sign(Stage.CONSISTENCY, s, cohort.header.digest(), payload, key(f"site-{s}")) for s in sorted(sites))


UNMASK: dict[str, tuple[Attack, str]] = {
    "another survivor set": (lambda c, r, g: replace(r, survivors=r.survivors[:-1]), "another survivor set"),
    "many confirmations, few of witnesses": (
        lambda c, r, g: replace(
            r, confirmations=confirmed_by(c, [s for s in r.survivors if s not in g.witnesses[g.threshold - 1 :]])
        ),
        "fewer than",
    ),
    "a confirmation of somebody who has no say": (
        lambda c, r, g: replace(
            r,
            confirmations=confirmed_by(
                c,
                [
                    *g.witnesses,
                    next(s for s in g.order if s not in g.witnesses and s not in g.neighbours(1) and s != 1),
                ],
            ),
        ),
        "outside it",
    ),
}

ATTACKS = [
    pytest.param(stage, attack, message, id=f"{stage.label}: {name}")
    for stage, table in (
        (Stage.SHARE, SHARE),
        (Stage.MASK, MASK),
        (Stage.CONSISTENCY, CONSISTENCY),
        (Stage.UNMASK, UNMASK),
    )
    for name, (attack, message) in table.items()
]


@pytest.mark.parametrize(("stage", "attack", "message"), ATTACKS)
def test_site_1_refuses_and_stays_as_it_was(stage: Stage, attack: Attack, message: str) -> None:
    """Unaltered, the very same round goes through: it is the alteration that is refused."""
    cohort = make_cohort(13, 6, dropouts=0, rules=SMALL)
    graphs = watched(cohort)
    look = cohort.request_hook
    met = []

    def altered(at: Stage, site: int, request: Any) -> Any:
        if look is not None:
            look(at, site, request)
        if at is stage and site == 1:
            evil, before = attack(cohort, request, graphs["graph"]), copy.deepcopy(cohort.states[1])
            with pytest.raises(PeerError, match=message):
                client.step(cohort.sites[1], cohort.states[1], evil)
            assert cohort.states[1] == before
            met.append(stage)
        return request

    cohort.request_hook = altered
    collect = cohort.collect

    def collected(step: Any) -> Any:
        ALL.clear()
        ALL.update({s: r for s, r in step.requests.items() if isinstance(r, NeighbourRequest)})
        return collect(step)

    cohort.collect = collected  # type: ignore[method-assign]
    outcome = cohort.run()
    assert met == [stage]
    assert isinstance(outcome, Finished)
    assert np.array_equal(signed_sum(outcome), clear_sum(cohort, outcome.survivors))


HEADERS: dict[str, dict[str, Any]] = {
    "less secrecy than the site insists on": {"sparse": Sparse(1, 79, 20)},
    "less correctness": {"sparse": Sparse(1, 80, 19)},
    "more of both": {"sparse": Sparse(1, 81, 21)},
    "the sparse graph for a small cohort": {"sites": 256},
}


@pytest.mark.parametrize("changes", HEADERS.values(), ids=HEADERS)
def test_a_site_takes_one_graph_for_a_size(changes: dict[str, Any]) -> None:
    n = changes.get("sites", 300)
    cohort = make_cohort(300, 2)
    whole = list(range(1, n + 1))
    sparse = changes.get("sparse", Sparse(25, 80, 20))
    good = make_header(cohort.roster, list(range(1, 301)), ring_layout(2, 300), graph=1, sparse=Sparse(1, 80, 20))
    bad = make_header(cohort.roster, whole, ring_layout(2, n), graph=1, sparse=sparse)
    client.step(cohort.sites[1], cohort.states[1], sign_header(good, SERVER))
    with pytest.raises(PeerError, match="another graph than the one"):
        client.step(cohort.sites[1], cohort.states[1], sign_header(bad, SERVER))


def test_the_complete_graph_has_256_sites_at_most() -> None:
    cohort = make_cohort(257, 2)
    with pytest.raises(ValueError, match="2 to 256"):
        make_header(cohort.roster, list(range(1, 258)), ring_layout(2, 257), graph=0, sparse=None)
    header = copy.copy(cohort.header)
    object.__setattr__(header, "sparse", None)
    object.__setattr__(header, "graph", 0)
    with pytest.raises(PeerError, match="2 to 256"):
        client.step(cohort.sites[1], cohort.states[1], sign_header(header, SERVER))
    assert make_cohort(256, 2).header.sparse is None


def test_a_header_without_a_possible_graph_cannot_exist() -> None:
    cohort = make_cohort(300, 2)
    with pytest.raises(ValueError, match="withstands so many"):
        make_header(
            cohort.roster, list(range(1, 301)), ring_layout(2, 300), colluders=150, graph=1, sparse=Sparse(100, 80, 20)
        )
