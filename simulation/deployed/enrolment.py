"""Enrolling a federation for Flower's stock programs, all at one place: a roster, and a store for each party.

It is not simulated: no store has a seed, all randomness is the operating system's. There is no membership, because the
stock SuperLink has certificates and node keys of its own. Resident nodes are enrolled by requests and a bundle, see
`residence`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.compliance.default_policy import default_policy
from fedseal.compliance.enrolment.files import new_signing_key, save_signing_key
from fedseal.privacy.planning import RunPlans, ledger_terms
from fedseal.privacy.roster import Roster, RosterEntry, SignedRoster, sign_roster
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.store import ServerStore
from fedseal.simulation.federation import roster_entries
from fedseal.study import Contract
from fedseal.wire import encode


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The files of an enrolled federation. The root's key is needed again only for another roster.

    ``roster`` is the signed roster, or the bundle that holds it.
    """

    root_key: Path
    roster: Path
    roster_hash: str
    server_store: Path
    site_stores: Mapping[str, Path]


def enrol_for_real(folder: Path, contract: Contract, plans: RunPlans, persons: Mapping[str, int]) -> Enrolled:
    """Make root key, roster and stores.

    Args:
        folder: a new folder; every site gets one of its own in it.
        contract: its plan is what the sites' policies allow.
        plans: says at which order the ledgers are opened.
        persons: training persons by site name; what is published of them is rounded.
    """
    root_folder, server_folder = folder / "root", folder / "server"
    for made in (root_folder, server_folder):
        made.mkdir(parents=True)
    keys = {name: new_signing_key() for name in persons}
    root, server = new_signing_key(), new_signing_key()
    entries = roster_entries(persons, keys)
    roster = Roster(contract.name, 1, False, root.public, server.public, entries)
    signed = sign_roster(roster, root)
    save_signing_key(root_folder / "root.key", root)
    (root_folder / "roster.bin").write_bytes(encode(signed))
    ServerStore.create(server_folder / "server.sqlite", key=server, roster=signed, pinned=roster.digest())
    return Enrolled(
        root_folder / "root.key",
        root_folder / "roster.bin",
        roster.digest().hex(),
        server_folder / "server.sqlite",
        {e.name: _site_store(folder / "sites", e, keys[e.name], signed, contract, plans) for e in entries},
    )


def _site_store(
    folder: Path, entry: RosterEntry, key: SigningKey, signed: SignedRoster, contract: Contract, plans: RunPlans
) -> Path:
    path = folder / entry.name / "site.sqlite"
    path.parent.mkdir(parents=True, mode=0o700)
    pinned = hashlib.sha256(signed.roster).digest()
    terms = ledger_terms(contract, plans)
    SiteStore.create(path, Enrolment(entry.site, key, signed, pinned, default_policy(contract), terms))
    return path
