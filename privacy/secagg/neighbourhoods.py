"""What the server sends at SHARE on the sparse graph: to each site its neighbours' keys, proven to be the session's."""

from collections.abc import Sequence

from fedseal import merkle
from fedseal.privacy.secagg.checks import ring_session_id
from fedseal.privacy.secagg.graph import Graph, graph_of
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.secagg.messages import Member, NeighbourRequest, Signed
from fedseal.wire import encode


def sparse_session(
    header: Header, header_hash: bytes, advertisements: Sequence[Signed]
) -> tuple[bytes, Graph, dict[int, NeighbourRequest]]:
    """The session, its graph, and the requests by site.

    Args:
        header: the round's, with a sparse graph.
        header_hash: its hash.
        advertisements: those of all members (U1), by increasing number.

    Raises:
        NoDegreeError: the members are too few for a graph that withstands the header's colluders.
    """
    members = tuple(a.site for a in advertisements)
    leaves = [merkle.leaf_hash(encode(a)) for a in advertisements]
    root = merkle.root(leaves)
    session = ring_session_id(header_hash, members, root)
    graph = graph_of(header, session, members)
    proven = {a.site: Member(a, path) for a, path in zip(advertisements, merkle.inclusion_paths(leaves), strict=True)}
    requests = {}
    for site in members:
        near = sorted((*graph.neighbours(site), site))
        requests[site] = NeighbourRequest(header_hash, members, root, tuple(proven[s] for s in near))
    return session, graph, requests
