"""Cohorts on small rings, and a look at the ring that a round has."""

from typing import Any

from support.rounds import Cohort, make_cohort

from fedseal.privacy.secagg.checks import ring_session_id
from fedseal.privacy.secagg.graph import Graph, graph_of
from fedseal.privacy.secagg.messages import NeighbourRequest, Stage
from fedseal.privacy.secagg.parameters import GraphRules

# A ring of seven with four neighbours, of whom three are needed: every case of it can be tried.
SMALL = GraphRules(complete_up_to=2, sigma=1, eta=0)
N, K, T = 7, 4, 3


def small(**script: Any) -> Cohort:
    return make_cohort(N, 5, dropouts=1 / N, rules=SMALL, **script)


def watched(cohort: Cohort) -> dict[str, Graph]:
    """The graph of the round that this cohort goes through, once SHARE was asked for."""
    seen: dict[str, Graph] = {}

    def look(stage: Stage, site: int, request: Any) -> Any:
        if isinstance(request, NeighbourRequest):
            session = ring_session_id(request.header_hash, request.members, request.root)
            seen["graph"] = graph_of(cohort.header, session, request.members)
        return request

    cohort.request_hook = look
    return seen
