"""A malicious server against sites that count persons: more cells than the noise covers."""

import numpy as np
from adversary.attack import Attack, Level
from adversary.attacks_stores import ALL, BY_SERVER, charges
from adversary.removal import Check
from adversary.stores import EXAMPLES, Stores, at_stores
from flwr.app import Array, ArrayRecord, ConfigRecord
from support.flower import OPEN_POLICY, Federation, header_for

from fedseal.client.records import TABLES
from fedseal.privacy.counts import Table, Tables, encode_tables, labels
from fedseal.privacy.plan import SharedGeometric, decode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import COUNTS, REGISTRY, VALUES, release_layout
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import Room

# The same person in each of five tables: five times the sensitivity of one.
ASKED = Tables((Table((labels(3),)),) * 5)
PLAN = SharedGeometric(epsilon=1.0, cells=1, length=ASKED.length, releases=2, retries=0)
COUNTING = OPEN_POLICY + 'counts = ["histogram"]\n'


def task() -> dict[str, ArrayRecord | ConfigRecord]:
    """What the sites are sent: the tables, and arrays for the attacker's app to hand back."""
    arrays = ArrayRecord({COUNTS: Array(np.ones(ASKED.length, np.float32))})
    return {"arrays": arrays, "config": ConfigRecord({TABLES: encode_tables(ASKED)})}


def header(federation: Federation) -> Header:
    """A round over three sites, charged for one cell a person."""
    layout = release_layout(
        REGISTRY[COUNTS],
        values=ASKED.length,
        value_range=EXAMPLES,
        weight_key="num-examples",
        largest_weight=EXAMPLES,
        metrics={},
        sites=3,
        rounding=Rounding.NEAREST,
        room=Room(PLAN, 3, 2),
    )
    kind = REGISTRY[COUNTS]
    return header_for(federation, PLAN, kind=kind, task=task(), layout=layout, colluders=1, noise_minimum=3)


def five_cells_for_one(s: Stores) -> bool:
    s.task = lambda _: task()
    s.whole_round()
    plans = [decode_plan(e.plan) for e in charges(s, 1)]
    counted = len(s.read(VALUES, s.sum_over(ALL))) == ASKED.length
    return counted and any(isinstance(p, SharedGeometric) and p.cells < len(ASKED.tables) for p in plans)


ATTACKS = (
    Attack(
        "Counts in which a person is five times, under noise for once",
        "five counts of every person at the price of one",
        Level.STORE,
        Check(
            "privacy.counts.check_tables",
            "isinstance(plan, SharedGeometric) and len(tables.tables) > plan.cells",
        ),
        at_stores(five_cells_for_one, header, policy=COUNTING),
        BY_SERVER,
        "more cells than the plan",
    ),
)
