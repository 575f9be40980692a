"""Enrolling a simulated federation: keys, a signed roster, a store for the server and one for every site.

The same objects that a real enrolment makes, all marked as simulated: their stores carry a seed, and no store of a
real federation does.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.compliance.default_policy import default_policy
from fedseal.privacy.ledger import EntryKind, Terms, epsilon_enforced, epsilon_spent
from fedseal.privacy.plan import PlanKind, decode_plan
from fedseal.privacy.planning import RunPlans, ledger_terms
from fedseal.privacy.releases import Population
from fedseal.privacy.roster import Roster, RosterEntry, public_persons, sign_roster
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.privacy.secret import Secret
from fedseal.privacy.store import Enrolment, SiteStore
from fedseal.server.store import ServerStore
from fedseal.study import Contract

FIRST_NODE = 1001


@dataclass(frozen=True, slots=True)
class Federation:
    """The stores of one simulated federation, by path."""

    folder: Path
    server_store: Path
    site_stores: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class SitePrivacy:
    """What a site's ledger says at the end: tight epsilon of what was released, what the filter counts, the promise."""

    plan: str
    epsilon: float
    epsilon_enforced: float
    epsilon_budget: float
    delta: float
    releases: int


def roster_entries(persons: Mapping[str, int], keys: Mapping[str, SigningKey]) -> tuple[RosterEntry, ...]:
    """The sites of a roster, numbered from 1 in their order, with the number of persons that each publishes."""
    return tuple(
        RosterEntry(number, name, name, keys[name].public, public_persons(count))
        for number, (name, count) in enumerate(persons.items(), start=1)
    )


def enrol(
    folder: Path,
    contract: Contract,
    plans: RunPlans,
    persons: Mapping[str, int],
    seed: int,
    terms: tuple[Terms, ...] | None = None,
) -> Federation:
    """Make the stores of a federation.

    Args:
        folder: a new folder for them.
        contract: the study's; its plan is what the sites' policies allow.
        plans: says at which order the ledgers are opened.
        persons: training persons by site name.
        seed: the simulation's.
        terms: of the sites' ledgers; those that afford the contract once if not given.
    """
    folder.mkdir(parents=True)
    root, server = new_key(), new_key()
    keys = {name: new_key() for name in persons}
    entries = roster_entries(persons, keys)
    roster = Roster(f"simulated-{contract.name}", 1, True, root.public, server.public, entries)
    signed, pinned = sign_roster(roster, root), roster.digest()
    # In a folder of its own: a site may be called "server".
    server_store = folder / "server" / "server.sqlite"
    server_store.parent.mkdir()
    ServerStore.create(server_store, key=server, roster=signed, pinned=pinned)
    stores = {}
    for entry in entries:
        stores[entry.name] = folder / f"{entry.name}.sqlite"
        enrolment = Enrolment(
            entry.site,
            keys[entry.name],
            signed,
            pinned,
            default_policy(contract),
            terms or ledger_terms(contract, plans),
            seed,
        )
        SiteStore.create(stores[entry.name], enrolment)
    return Federation(folder, server_store, stores)


def site_privacy(path: Path, population: Population = Population.TRAIN) -> SitePrivacy:
    """Read a site's ledger of a population after a run."""
    store = SiteStore.open(path)
    with store.transaction() as transaction:
        terms, entries = transaction.terms(population.value), transaction.entries(population.value)
    charged = [e for e in entries if e.kind == EntryKind.CHARGE]
    kinds = {decode_plan(e.plan).kind for e in charged}
    return SitePrivacy(
        plan=min(kinds, default=PlanKind.LOCAL).label,
        epsilon=epsilon_spent(terms, entries),
        epsilon_enforced=epsilon_enforced(terms, entries[-1].charged),
        epsilon_budget=terms.epsilon,
        delta=terms.delta,
        releases=len(charged),
    )


def incidents(path: Path) -> list[tuple[str, str]]:
    """Codes and texts of what went wrong at a site, oldest first."""
    with SiteStore.open(path).transaction() as transaction:
        return transaction.incidents()


def new_key() -> SigningKey:
    """A signing key of the operating system's randomness."""
    # Also in a simulation from the operating system: masks cancel, so keys change no result.
    return SigningKey(Secret(os.urandom(32)))
