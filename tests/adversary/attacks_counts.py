"""A malicious server against sites that count persons: more of a person in the sum than the noise covers."""

import numpy as np
from adversary.attack import Attack, Level
from adversary.attacks_stores import ALL, BY_SERVER, charges
from adversary.removal import Check
from adversary.stores import EXAMPLES, Stores, at_stores
from flwr.app import Array, ArrayRecord, ConfigRecord
from support.flower import OPEN_POLICY, Federation, header_for

from fedseal.client.records import TABLES, WATCH, WINDOW
from fedseal.privacy.counts import Table, Tables, encode_tables, labels
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import SharedGeometric, decode_plan
from fedseal.privacy.quantize import Rounding
from fedseal.privacy.releases import COUNTS, DRIFT, REGISTRY, VALUES, release_layout
from fedseal.privacy.secagg.header import Header
from fedseal.privacy.shares import Room
from fedseal.privacy.watch import Stratum, Watch, encode_watch

# The same person in each of five tables: five times the sensitivity of one.
ASKED = Tables((Table((labels(3),)),) * 5)
PLAN = SharedGeometric(epsilon=1.0, cells=1, length=ASKED.length, releases=2, retries=0)
COUNTING = OPEN_POLICY + 'counts = ["histogram"]\ndrift = ["histogram"]\n'


# A person moves it by 20 units: 2 x 8 in the differences, 1 and 3 in the numbers.
WATCHED = Watch((Stratum("label", Table((labels(3),)), False),), (), 8, 0, 0, 1.0)
WATCHING = SharedGeometric(epsilon=1.0, cells=1, length=WATCHED.length, releases=2, retries=0)


def task(settings: dict[str, bytes | int], length: int) -> dict[str, ArrayRecord | ConfigRecord]:
    """What the sites are sent: what is asked, and arrays for the attacker's app to hand back."""
    arrays = ArrayRecord({COUNTS: Array(np.ones(length, np.float32))})
    return {"arrays": arrays, "config": ConfigRecord(dict(settings))}


def counting() -> dict[str, ArrayRecord | ConfigRecord]:
    return task({TABLES: encode_tables(ASKED)}, ASKED.length)


def watching() -> dict[str, ArrayRecord | ConfigRecord]:
    return task({WATCH: encode_watch(WATCHED), WINDOW: 0}, WATCHED.length)


def header(federation: Federation) -> Header:
    """A round over three sites, charged for one cell a person."""
    return _header(federation, COUNTS, PLAN, counting())


def window_header(federation: Federation) -> Header:
    """A window over three sites, charged for a person who moves it by one unit."""
    return _header(federation, DRIFT, WATCHING, watching())


def _header(
    federation: Federation, name: str, plan: SharedGeometric, asked: dict[str, ArrayRecord | ConfigRecord]
) -> Header:
    layout = release_layout(
        REGISTRY[name],
        values=plan.length,
        value_range=EXAMPLES,
        weight_key="num-examples",
        largest_weight=EXAMPLES,
        metrics={},
        sites=3,
        rounding=Rounding.NEAREST,
        room=Room(plan, 3, 2),
    )
    kind = REGISTRY[name]
    return header_for(federation, plan, kind=kind, task=asked, layout=layout, colluders=1, noise_minimum=3)


def five_cells_for_one(s: Stores) -> bool:
    s.task = lambda _: counting()
    s.whole_round()
    plans = [decode_plan(e.plan) for e in charges(s, 1)]
    counted = len(s.read(VALUES, s.sum_over(ALL))) == ASKED.length
    return counted and any(isinstance(p, SharedGeometric) and p.cells < len(ASKED.tables) for p in plans)


def a_window_for_one(s: Stores) -> bool:
    s.task = lambda _: watching()
    s.whole_round()
    with s.federation.site(1).transaction() as transaction:
        entries = transaction.entries("monitor")
    plans = [decode_plan(e.plan) for e in entries if e.kind == EntryKind.CHARGE]
    counted = len(s.read(VALUES, s.sum_over(ALL))) == WATCHED.length
    return counted and any(isinstance(p, SharedGeometric) and p.cells < WATCHED.sensitivity for p in plans)


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
    Attack(
        "A window that a person moves by twenty units, under noise for one",
        "every person's part of a window at a twentieth of the price",
        Level.STORE,
        Check(
            "privacy.watch.check_watch",
            "isinstance(plan, SharedGeometric) and watch.sensitivity > plan.cells",
        ),
        at_stores(a_window_for_one, window_header, policy=COUNTING),
        BY_SERVER,
        "by more than the plan",
    ),
)
