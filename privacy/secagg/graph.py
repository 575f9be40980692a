"""Who masks with whom, and who holds whose shares.

On the complete graph everyone does with everyone, and a dealer keeps one of its own shares. On the sparse one the
members stand on a ring and do so with the k/2 next on each side. The order on the ring follows from the session id,
which commits to the keys of all members, so the server does not choose it.
"""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fedseal.privacy.secagg.header import COMPLETE_GRAPH, HARARY_GRAPH, Header
from fedseal.privacy.secagg.keys import DOMAIN

RING_LABEL = DOMAIN + b"ring\x00"


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of one session, made by `complete_graph` or `ring_graph`.

    ``order`` are all members (U1), on the ring in their order there; ``degree`` of them are joined to each;
    ``threshold`` shares rebuild a secret, and as many witnesses have to sign a survivor set.
    """

    kind: int
    order: tuple[int, ...]
    degree: int
    threshold: int
    places: Mapping[int, int]

    def neighbours(self, site: int) -> tuple[int, ...]:
        """Those whom ``site`` has a mask in common with, by increasing number."""
        if self.kind == COMPLETE_GRAPH:
            return tuple(s for s in self.order if s != site)
        place, size, half = self.places[site], len(self.order), self.degree // 2
        around = (self.order[(place + step) % size] for step in range(-half, half + 1) if step)
        return tuple(sorted(around))

    def holders(self, dealer: int) -> tuple[int, ...]:
        """Those who hold the dealer's shares, by increasing number: the share with x-coordinate i + 1 is the i-th
        one's.

        The relation goes both ways: these are also those whose shares the dealer holds.
        """
        return self.order if self.kind == COMPLETE_GRAPH else self.neighbours(dealer)

    @property
    def witnesses(self) -> tuple[int, ...]:
        """Those whose signatures on a survivor set count, by increasing number: all, or the first k on the ring."""
        return self.order if self.kind == COMPLETE_GRAPH else tuple(sorted(self.order[: self.degree]))

    def left_alone(self, dealers: Sequence[int], left: Sequence[int]) -> tuple[int, ...]:
        """Of ``dealers`` those whose secrets cannot be rebuilt by ``left``: fewer than the threshold hold their
        shares.
        """
        still = set(left)
        if self.kind == COMPLETE_GRAPH:
            return tuple(dealers) if len(still) < self.threshold else ()
        return tuple(d for d in dealers if len(still.intersection(self.neighbours(d))) < self.threshold)


def complete_graph(members: Sequence[int], threshold: int) -> Graph:
    """Everyone joined to everyone; ``members`` by increasing number."""
    return Graph(COMPLETE_GRAPH, tuple(members), len(members) - 1, threshold, {})


def ring_graph(session: bytes, members: Sequence[int], degree: int, threshold: int) -> Graph:
    """The members on a ring, each joined to the degree/2 next on each side.

    Args:
        session: the session id.
        members: U1, in any order.
        degree: even, below the number of members.
        threshold: how many shares rebuild a secret.
    """
    order = tuple(sorted(members, key=lambda site: (ring_place(session, site), site)))
    return Graph(HARARY_GRAPH, order, degree, threshold, {site: place for place, site in enumerate(order)})


def ring_place(session: bytes, site: int) -> bytes:
    """HMAC-SHA256 under the session id: by this value, as 32 bytes in order, the members stand on the ring."""
    return hmac.digest(session, RING_LABEL + site.to_bytes(4, "big"), "sha256")


def graph_of(header: Header, session: bytes, members: Sequence[int]) -> Graph:
    """The one graph that this header, this session and these members have.

    Raises:
        NoDegreeError: the members are too few for a sparse graph that withstands the header's colluders.
    """
    if header.graph == COMPLETE_GRAPH:
        return complete_graph(members, header.threshold)
    degree = header.degree(len(members))
    return ring_graph(session, members, degree.neighbours, degree.threshold)
