"""The whole protocol, in processes of this machine: keys, shares, masks, a store and a log at every site.

A federation of as many sites as a round has users: everybody trains in each round, on the data of the workload's first
users.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

from flower_apps import client_app, server_app
from measure import Watch
from workloads import Workload, user_data

from fedseal.client.mod import STORE_KEY, sealed_mod
from fedseal.privacy.ledger import open_terms
from fedseal.privacy.releases import Population
from fedseal.privacy.roster import Roster, sign_roster
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.grid import SealedGrid
from fedseal.server.store import ServerStore
from fedseal.simulation.engine.pool import PoolGrid
from fedseal.simulation.engine.workers import Workers
from fedseal.simulation.federation import new_key, roster_entries

POLICY = 'version = 1\n[cohort]\nminimum = 2\n[releases]\nupdate = ["none"]\nmoments = []\nevaluation = []\n'


def enrolled(folder: Path, sites: int, persons: int) -> tuple[Path, dict[int, Path]]:
    """The server's store, and those of the sites by number from 1."""
    root, server = new_key(), new_key()
    keys = {f"site-{n}": new_key() for n in range(1, sites + 1)}
    entries = roster_entries(dict.fromkeys(keys, persons), keys)
    roster = Roster("bench", 1, True, root.public, server.public, entries)
    signed = sign_roster(roster, root)
    ServerStore.create(folder / "server.sqlite", key=server, roster=signed, pinned=roster.digest())
    terms = tuple(open_terms(p.value, epsilon=8.0, delta=1e-5, order=8.0) for p in Population)
    stores = {}
    for entry in entries:
        stores[entry.site] = folder / f"{entry.name}.sqlite"
        enrolment = Enrolment(entry.site, keys[entry.name], signed, roster.digest(), POLICY, terms, 1)
        SiteStore.create(stores[entry.site], enrolment)
    return folder / "server.sqlite", stores


def run(workload: Workload, rounds: int, watch: Watch) -> float:
    """The accuracy."""
    workload = replace(workload, users=workload.cohort)
    user_data(workload.name, 0)
    with (
        Workers(client_app(workload.name, mods=[sealed_mod]), 2) as started,
        tempfile.TemporaryDirectory() as folder,
    ):
        server, stores = enrolled(Path(folder), workload.users, workload.examples)
        app, accuracy = server_app(
            workload,
            rounds,
            watch,
            wrap=lambda grid, strategy: SealedGrid(grid, strategy, store=server, max_examples=workload.examples),
        )
        nodes = {n - 1: {STORE_KEY: str(path), "partition-id": n - 1} for n, path in stores.items()}
        PoolGrid(started, nodes, run_config={}, sticky=True).serve(app)
    return accuracy[0]
