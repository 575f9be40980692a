"""The whole list."""

from adversary import (
    attacks_counts,
    attacks_graph,
    attacks_runs,
    attacks_server,
    attacks_sets,
    attacks_sites,
    attacks_stores,
    attacks_wire,
)
from adversary.attack import Attack

ATTACKS: tuple[Attack, ...] = (
    *attacks_sites.ATTACKS,
    *attacks_sets.ATTACKS,
    *attacks_graph.ATTACKS,
    *attacks_stores.ATTACKS,
    *attacks_counts.ATTACKS,
    *attacks_runs.ATTACKS,
    *attacks_server.ATTACKS,
    *attacks_wire.ATTACKS,
)
