"""What must never be, whatever happens to the processes; and who looks, from outside, at what they left on disk.

Nothing here asks a program how it is: files are read, and compared with files read earlier and with the simulation.
"""

import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from support.trials.study import Federation

from fedseal.compliance.audit.reconcile import reconcile
from fedseal.compliance.audit.site_side import site_side
from fedseal.compliance.audit.source import open_log
from fedseal.compliance.audit.whole import verify_copy
from fedseal.compliance.log.checkpoint import site_origin
from fedseal.errors import FedsealError
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.secagg.messages import Stage
from fedseal.privacy.store import SiteStore
from fedseal.server.coordination import read_order
from fedseal.server.recording import EVENTS


class Invariant(StrEnum):
    """What every trial has to keep."""

    SUM = "no wrong sum"
    ANSWER = "no second, different answer"
    CHARGE = "no lost charge"
    ENTRY = "no lost log entry"
    DATA = "no data out"
    RECOVERY = "recovery without hands"


@dataclass(slots=True)
class Findings:
    """How often each was looked at, and every time it did not hold, in words without data."""

    checks: Counter[Invariant] = field(default_factory=Counter)
    breaches: list[tuple[Invariant, str]] = field(default_factory=list)

    def check(self, invariant: Invariant, holds: bool, what: str) -> None:
        """Count a look, and note a breach."""
        self.checks[invariant] += 1
        if not holds:
            self.breaches.append((invariant, what))

    def add(self, other: "Findings") -> None:
        """Count what another trial found, too."""
        self.checks.update(other.checks)
        self.breaches.extend(other.breaches)


@dataclass(frozen=True, slots=True)
class Note:
    """An answer as its node wrote it down before sending it; digests in hex. A refusal has no stage and no session."""

    request: str
    answer: str
    stage: int | None
    session: str | None


def read_notes(path: Path) -> list[Note]:
    """All whole lines of a node's notes."""
    text = path.read_text(encoding="ascii").rpartition("\n")[0] if path.is_file() else ""
    rows = (line.split() for line in text.splitlines())
    return [Note(a, b, None if stage == "-" else int(stage), None if s == "-" else s) for a, b, stage, s in rows]


# Rows of these tables are written once and never changed or deleted: by key, what they hold.
KEPT = {
    "entries": ("population || ':' || counter", "entry"),
    "log_leaves": ("position", "leaf"),
    "log_outbox": ("seq", "leaf"),
}
Rows = Mapping[tuple[str, str], bytes]


def kept_rows(store: Path) -> Rows:
    """What a store holds that must stay: ledger entries, log entries, and entries on their way; digests by place."""
    found: dict[tuple[str, str], bytes] = {}
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=30)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")}
        for table in tables & set(KEPT):
            key, value = KEPT[table]
            for place, content in connection.execute(f"SELECT {key}, {value} FROM {table}"):  # noqa: S608 - our names
                found[table, str(place)] = hashlib.sha256(content).digest()
    return found


@dataclass(frozen=True, slots=True)
class Absent:
    """Who was not in the sum of which round, by number: ``silent`` are those who were asked, ``unasked`` those who were
    not, having declined when the run or the round before was closed to them. A round that asks fewer sites has a header
    for fewer, and quantizes otherwise.
    """

    silent: Mapping[int, frozenset[int]] = field(default_factory=dict)
    unasked: Mapping[int, frozenset[int]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How often a site was missing."""
        return sum(len(sites) for sites in (*self.silent.values(), *self.unasked.values()))


def rounds_in(path: Path) -> list[dict[str, Any]]:
    """The ends of rounds in a file of events, in order; a line that was cut off is none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return [event for event in found if event.get("event") == "round"]


class Oracle:
    """Looks at one federation. What it has seen it remembers.

    Args:
        federation: on disk.
        expected: the model's bytes where the plan is none.
        notes: each node's notes by its site's name, where it writes any.
    """

    def __init__(self, federation: Federation, expected: bytes | None, notes: Mapping[str, Path] | None = None) -> None:
        self._federation = federation
        self._expected = expected
        self.notes = dict(notes or {})
        self._seen: dict[Path, Rows] = {}
        self.findings = Findings()

    @property
    def stores(self) -> dict[str, Path]:
        """All stores by name; the server's is ``server``."""
        enrolled = self._federation.files.enrolled
        return {"server": enrolled.server_store, **enrolled.site_stores}

    def watch(self, name: str) -> None:
        """Look at a store: all that was there before has to be there. Whoever calls it before a kill, and at the end,
        sees what a kill has lost.
        """
        store = self.stores[name]
        before, now = self._seen.get(store, {}), kept_rows(store)
        for invariant, tables in ((Invariant.CHARGE, {"entries"}), (Invariant.ENTRY, {"log_leaves", "log_outbox"})):
            lost = [place for place, digest in before.items() if place[0] in tables and now.get(place) != digest]
            self.findings.check(invariant, not lost, f"{name}: {len(lost)} rows seen before are gone or changed")
        self._seen[store] = now

    def model(self, folder: Path, expected: bytes | None = None) -> None:
        """Look at the model in a run's folder: is it what is expected here, or else of every run?"""
        path = folder / "model.safetensors"
        there = path.read_bytes() if path.is_file() else None
        expected = expected or self._expected
        if expected is None:
            self.findings.check(Invariant.SUM, there is not None, f"{folder.name}: no model")
            return
        self.findings.check(Invariant.SUM, there == expected, f"{folder.name}: not the simulation's model")

    def missing(self, folder: Path) -> Absent:
        """Which sites were not in the sum of which round of a run, as the server's store has it, and which of them were
        not asked, as the run's events have it.
        """
        run, found = read_order(folder).run, dict[int, frozenset[int]]()
        everyone = frozenset(range(1, self._federation.shape.sites + 1))
        query = "SELECT fl_round, survivors FROM attempts WHERE run = ? AND status = 'finished' ORDER BY seq, attempt"
        with closing(sqlite3.connect(f"file:{self.stores['server']}?mode=ro", uri=True, timeout=30)) as connection:
            # Of a round that was begun anew the last counts.
            for fl_round, survivors in connection.execute(query, (run,)):
                found[int(fl_round)] = everyone - frozenset(json.loads(survivors))
        asked = {event["number"]: event["asked"] for event in rounds_in(folder / EVENTS)}
        unasked = {n for n, absent in found.items() if absent and asked.get(n) == len(everyone) - len(absent)}
        return Absent(
            {n: absent for n, absent in found.items() if absent and n not in unasked}, {n: found[n] for n in unasked}
        )

    def answers(self) -> None:
        """Look at the nodes' notes: one answer to a request, and every vector charged once."""
        for name, path in self.notes.items():
            notes = read_notes(path)
            by_request: dict[str, set[str]] = {}
            for note in notes:
                if note.stage is not None:
                    by_request.setdefault(note.request, set()).add(note.answer)
            for answers in by_request.values():
                self.findings.check(Invariant.ANSWER, len(answers) == 1, f"{name}: two answers to one request")
            if self._federation.shape.plan != "none":
                self._charged(name, {n.session for n in notes if n.stage == Stage.MASK and n.session is not None})

    def _charged(self, name: str, sessions: Iterable[str]) -> None:
        charges = charged_sessions(self.stores[name])
        for session in sessions:
            self.findings.check(
                Invariant.CHARGE, charges[session] == 1, f"{name}: a vector that was charged {charges[session]} times"
            )
        twice = [session for session, times in charges.items() if times > 1]
        self.findings.check(Invariant.CHARGE, not twice, f"{name}: {len(twice)} sessions charged twice")

    def books(self) -> None:
        """Look at every ledger and log as an auditor does, and at what sites and federation say of each other."""
        stores = self.stores
        server = stores["server"]
        self._log(server, "federation", own=False)
        for name in self._federation.shape.names:
            store = SiteStore.open(stores[name])
            self._holds(Invariant.CHARGE, f"{name}: ledger", partial(_ledger, store))
            self._log(stores[name], name, own=False)
            self._log(stores[name], f"{name}, own", own=True)
            self._holds(Invariant.ENTRY, f"{name} and federation", partial(_disputes, server, store))

    def _log(self, store: Path, what: str, *, own: bool) -> None:
        def wrong() -> list[str]:
            with open_log(store, own=own) as copy:
                found = verify_copy(copy)
                return [f"{finding.index}: {finding.what}" for finding in found.findings] + (
                    ["rolled back"] if found.rolled_back else []
                )

        self._holds(Invariant.ENTRY, f"log of {what}", wrong)

    def _holds(self, invariant: Invariant, what: str, wrong: Callable[[], list[str]]) -> None:
        try:
            found = wrong()
        except FedsealError as error:
            found = [error.message]
        self.findings.check(invariant, not found, f"{what}: {'; '.join(found[:3])}")

    def everything(self, folders: Iterable[Path]) -> Findings:
        """Look at it all, once the runs are over and everything stands still."""
        for name in self.stores:
            self.watch(name)
        for folder in folders:
            self.model(folder)
        self.answers()
        self.books()
        return self.findings


def _ledger(store: SiteStore) -> list[str]:
    store.verify_ledgers()
    return []


def _disputes(server: Path, store: SiteStore) -> list[str]:
    identity = store.identity
    with open_log(server) as copy, store.transaction() as transaction:
        side = site_side(transaction, identity)
        answered = copy.cosigned_by(site_origin(identity.roster.federation, identity.name))
        return [found.dispute.name for found in reconcile(copy.leaves(), side, answered=answered).found]


def charged_sessions(store: Path) -> Counter[str]:
    """How often each session was charged, over all ledgers of a site's store."""
    with SiteStore.open(store).transaction() as transaction:
        entries = [e for population in transaction.populations() for e in transaction.entries(population)]
    return Counter(entry.session.hex() for entry in entries if entry.kind == EntryKind.CHARGE)


def found_in(bodies: Iterable[bytes], canaries: Mapping[str, bytes]) -> Iterator[str]:
    """The names of canaries that are in any of these bodies, once a body."""
    for body in bodies:
        yield from (name for name, pattern in canaries.items() if pattern in body)
