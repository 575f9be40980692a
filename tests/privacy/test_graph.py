"""The sparse graph as a graph: symmetric, regular, connected, in an order that nobody chooses."""

import hashlib
import hmac
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedseal.privacy.secagg.checks import ring_session_id
from fedseal.privacy.secagg.graph import Graph, complete_graph, ring_graph, ring_place

SESSION = hashlib.sha256(b"session").digest()


@st.composite
def rings(draw: st.DrawFn) -> Graph:
    members = draw(st.sets(st.integers(0, (1 << 32) - 1), min_size=4, max_size=60))
    degree = 2 * draw(st.integers(1, (len(members) - 1) // 2))
    return ring_graph(draw(st.binary(min_size=32, max_size=32)), sorted(members), degree, degree // 2 + 1)


def reached(graph: Graph, left: set[int]) -> set[int]:
    """Who can be reached from the smallest of those who are left, through those who are left."""
    seen, front = set[int](), {min(left)}
    while front:
        seen |= front
        front = {n for s in front for n in graph.neighbours(s) if n in left} - seen
    return seen


@given(rings())
def test_a_ring_is_symmetric_regular_and_connected(graph: Graph) -> None:
    for site in graph.order:
        near = graph.neighbours(site)
        assert len(near) == len(set(near)) == graph.degree
        assert site not in near
        assert list(near) == sorted(near)
        assert graph.holders(site) == near
        assert all(site in graph.neighbours(other) for other in near)
    assert reached(graph, set(graph.order)) == set(graph.order)
    assert len(graph.witnesses) == graph.degree
    assert set(graph.witnesses) == set(graph.order[: graph.degree])


@given(rings(), st.data())
def test_whoever_keeps_more_than_half_on_each_side_keeps_the_ring_whole(graph: Graph, data: st.DataObject) -> None:
    """What docs/protocol.md rests on: if everyone left has someone left on both sides, nobody is cut off."""
    left = set(data.draw(st.lists(st.sampled_from(graph.order), min_size=1, unique=True)))
    half, size = graph.degree // 2, len(graph.order)

    def has_both_sides(site: int) -> bool:
        place = graph.places[site]
        right = {graph.order[(place + i) % size] for i in range(1, half + 1)}
        before = {graph.order[(place - i) % size] for i in range(1, half + 1)}
        return bool(right & left) and bool(before & left)

    if all(has_both_sides(site) for site in left):
        assert reached(graph, left) == left


def test_two_gaps_of_half_the_degree_do_cut_it() -> None:
    """The twin: this is all it takes."""
    graph = ring_graph(SESSION, range(1, 21), 6, 4)
    gone = {*graph.order[0:3], *graph.order[10:13]}
    left = set(graph.order) - gone
    assert reached(graph, left) != left


def test_the_order_is_that_of_the_hmac() -> None:
    graph = ring_graph(SESSION, [7, 1, 300], 2, 2)
    place = hmac.new(SESSION, b"fedseal/sa1/ring\x00" + (300).to_bytes(4, "big"), hashlib.sha256).digest()
    assert ring_place(SESSION, 300) == place
    assert list(graph.order) == sorted([1, 7, 300], key=lambda s: ring_place(SESSION, s))


@given(st.sets(st.integers(1, 10_000), min_size=4, max_size=30), st.randoms())
def test_the_order_depends_on_the_session_and_the_members_only(members: set[int], rng: object) -> None:
    shuffled = list(members)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ring_graph(SESSION, shuffled, 2, 2) == ring_graph(SESSION, sorted(members), 2, 2)


def test_sessions_shuffle_evenly() -> None:
    """Of 2000 sessions each of 5 sites is first about as often as any other."""
    firsts = [
        ring_graph(hashlib.sha256(bytes([i >> 8, i & 255])).digest(), range(5), 2, 2).order[0] for i in range(2000)
    ]
    counts = [firsts.count(s) for s in range(5)]
    assert (
        sum((c - 400) ** 2 / 400 for c in counts) < 24
    )  # 4 degrees of freedom: once in 13,000; the sessions are fixed


def test_the_session_commits_to_header_members_their_number_and_keys() -> None:
    base = (bytes(32), (1, 2, 3), b"r" * 32)
    others = [
        (b"x" * 32, (1, 2, 3), b"r" * 32),
        (bytes(32), (1, 2, 4), b"r" * 32),
        (bytes(32), (1, 2), b"r" * 32),
        (bytes(32), (1, 2, 3), b"s" * 32),
    ]
    sessions = {ring_session_id(*arguments) for arguments in (base, *others)}
    assert len(sessions) == 5


def test_the_complete_graph_joins_all_and_lets_dealers_keep_a_share() -> None:
    graph = complete_graph((2, 5, 9), 2)
    assert graph.neighbours(5) == (2, 9)
    assert graph.holders(5) == graph.witnesses == (2, 5, 9)
    assert graph.left_alone((2, 5, 9), (2, 5)) == ()
    assert graph.left_alone((2, 5, 9), (2,)) == (2, 5, 9)


def test_who_is_left_alone_is_who_has_too_few_holders_left() -> None:
    graph = ring_graph(SESSION, range(1, 13), 4, 3)
    for gone in combinations(range(1, 13), 2):
        left = [s for s in range(1, 13) if s not in gone]
        expected = tuple(s for s in graph.order if len(set(graph.neighbours(s)) - set(gone)) < 3)
        assert graph.left_alone(graph.order, left) == expected


@pytest.mark.parametrize("degree", [2, 4])
def test_neighbours_are_those_next_on_the_ring(degree: int) -> None:
    graph = ring_graph(SESSION, range(5), degree, 2)
    a, b, c, d, e = graph.order
    assert graph.neighbours(a) == tuple(sorted((e, b) if degree == 2 else (d, e, b, c)))
    assert graph.neighbours(e) == tuple(sorted((d, a) if degree == 2 else (c, d, a, b)))
