"""A federation's log with everything in it that the console's pages of evidence show: small, made once and copied."""

import base64
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from support.histories import digest, secret
from support.keys import SERVER, key, make_roster, signed
from support.registry import NOW, QUIET, TIME, World, bundle

from fedseal.compliance.data.facts import LegalBasis, PrivacyUnit, Purpose, SpecialCategory
from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.fields import (
    AbortReason,
    Alias,
    CodeKind,
    DropReason,
    DropStage,
    IncidentKind,
    Meaning,
    ModelKind,
    ReleaseName,
    Role,
    RollbackReason,
    Severity,
)
from fedseal.compliance.events.leaf import Place, sign_event
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.journal.federation import Fact
from fedseal.compliance.registry.approvals import Request, sign
from fedseal.compliance.registry.bundle import Bundle
from fedseal.compliance.registry.directory import Directory
from fedseal.compliance.registry.promotion import Origin
from fedseal.config import Frozen
from fedseal.privacy.inference.drift.cusum import Excess
from fedseal.privacy.secagg.keys import SigningKey
from fedseal.server.console.evidence.place import Evidence
from fedseal.server.monitoring.outcome import Found, Measured
from fedseal.server.monitoring.policy import MonitorTable, Triggers
from fedseal.server.monitoring.recording import begin, models_in, record_window
from fedseal.server.monitoring.trigger import TriggerState
from fedseal.server.store import ServerStore

RULES = """
version = 1
[candidate]
[[candidate.approvals]]
meaning = "authored"
roles = ["ml-engineer"]

[production]
organisations = 2
[[production.approvals]]
meaning = "authored"
roles = ["ml-engineer"]
[[production.approvals]]
meaning = "approved"
roles = ["approver"]
persons = 2
[[production.gates]]
kind = "metric"
measure = "auc"
at_least = 0.8
[[production.gates]]
kind = "epsilon"
at_most = 3.0
"""
# In use; suspended; waiting for signatures; the figures too low for the gate.
USED, BARRED, WAITING, WEAK = bundle(1), bundle(2), bundle(3), bundle(4)
FIRST, SECOND, WATCH, BROKEN = (digest(f"run {n}")[7:39] for n in range(4))
POLICY = MonitorTable(
    windows_per_year=50, alpha=1.0, min_sites=3, triggers=Triggers(alarm="propose", concept="roll_back", cooldown=1)
)
WINDOWS = (0.5, 0.31, 0.012, 0.4, 1e-9, 0.6, None, 0.07)
HOSTILE = "%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E"


class Clock:
    """So many seconds later at each look."""

    def __init__(self, step: float) -> None:
        self._now, self._step = NOW, timedelta(seconds=step)

    def __call__(self) -> datetime:
        self._now += self._step
        return self._now


class Chronicle:
    """The federation while its log is written. ``names``: what is behind a person's first name in the directory."""

    def __init__(self, folder: Path, names: str) -> None:
        self.names = names
        roster = make_roster(3)
        ServerStore.create(folder / "server.sqlite", key=SERVER, roster=signed(roster), pinned=roster.digest())
        self.world = World(folder, now=Clock(37.25))
        (folder / "registry.toml").write_text(RULES, encoding="utf-8")

    def server(self, body: Frozen, run: str | None = None) -> int:
        """The server says something."""
        return self.world.journal.commit([Fact(body, None if run is None else bytes.fromhex(run))]) - 1

    def beginnings(self) -> None:
        """Who takes part, with which data, running what."""
        world = self.world
        self.server(bodies.CodeRegistered(code=digest("code"), kind=CodeKind.STUDY))
        packages = (bodies.Package(name="numpy", version="2.3.0"), bodies.Package(name="torch", version="2.9.1"))
        self.server(bodies.EnvironmentRecorded(environment=digest("environment"), python="3.11.9", packages=packages))
        for site in (1, 2, 3):
            name, roster = f"site-{site}", "sha256:" + world.journal.roster.digest().hex()
            world.site_says(site, bodies.Joined(site=site, name=name, key=key(name).public.hex(), roster=roster))
            world.site_says(
                site,
                subjects.DatasetRegistered(
                    dataset=secret(f"data {site}"),
                    population=secret(f"population {site}"),
                    unit=PrivacyUnit.PERSON,
                    data_schema=None,
                    preprocessing=None,
                    legal_basis=(next(iter(LegalBasis)),),
                    special_categories=tuple(SpecialCategory)[:1],
                    purpose=next(iter(Purpose)),
                    retention_until="2031-12-31",
                    parents=(),
                ),
            )
        world.people()
        world.person("sam", Role.APPROVER, site=2)
        world.person("old", Role.APPROVER)
        world.remove("old")
        with ServerStore.open(world.folder / "server.sqlite").engine.begin() as connection:
            for name in ("ana", "ben", "eva"):
                Directory(connection).put(
                    "act_" + key(f"actor-{name}").public.hex()[:32], f"{name.title()} {self.names}"
                )

    def run(self, run: str, start: str | None, models: Sequence[str], *, study: str = "tiny") -> None:
        """A run through these models; site 3 falls out of its second round."""
        plan = plan_facts(QUIET)
        created = bodies.RunCreated(
            study=study,
            contract=digest("contract"),
            code=digest("code"),
            environment=digest("environment"),
            model_in=start,
            strategy="FedAvg",
            rounds=len(models) - 1,
            sites=(1, 2, 3),
            plan=plan,
        )
        self.server(created, run)
        for site in (1, 2, 3):
            accepted = bodies.RunAccepted(
                code=digest("code"),
                policy=secret(f"policy {site}"),
                population=secret(f"population {site}"),
                dataset=secret(f"data {site}"),
                label_set=None,
            )
            self.world.site_says(site, accepted, run)
        for number, model in enumerate(models[:-1], start=1):
            self.round(run, number, model, (1, 2) if number == 2 else (1, 2, 3))
        self.server(bodies.RunFinished(rounds=len(models) - 1, model=models[-1]), run)

    def round(self, run: str, number: int, model: str, sites: tuple[int, ...]) -> None:
        """One round: charged, contributed, summed."""
        release, at = ReleaseName.UPDATE, {"round": number, "sequence": number, "attempt": 0}
        for site in sites:
            charged = bodies.Charged(
                release=release,
                sequence=number,
                attempt=0,
                population=secret(f"population {site}"),
                plan=plan_facts(QUIET),
                delta="0.00001",
                alpha="8",
            )
            self.world.site_says(site, charged, run)
            sent = bodies.Contributed(
                release=release,
                header=digest(f"header {run} {number}"),
                update=digest(f"update {run} {number} {site}"),
                dataset=secret(f"data {site}"),
                label_set=None,
                code=digest("code"),
                anchor=bodies.Anchor(size=number, root=digest("root")),
                **at,
            )
            self.world.site_says(site, sent, run)
        for site in {1, 2, 3} - set(sites):
            fell = bodies.Dropped(release=release, site=site, stage=DropStage.MASK, reason=DropReason.SILENT, **at)
            self.server(fell, run)
        summed = bodies.Aggregated(
            release=release,
            header=digest(f"header {run} {number}"),
            sites=sites,
            threshold=2,
            colluders=0,
            aggregate=digest(f"sum {run} {number}"),
            model_in=model,
            **at,
        )
        self.server(summed, run)

    def register(self, made: Bundle, run: str, auc: str, margin: str, parent: str | None) -> None:
        """A bundle with its figures."""
        origin = Origin(run=bytes.fromhex(run), round=3, parent=parent, kind=ModelKind.GLOBAL)
        self.world.registry.register(made, origin)
        measures = [
            subjects.Measure(name="auc", value=auc, margin=margin),
            subjects.Measure(name="auc~women", value="0.87", margin="0.02"),
            subjects.Measure(name="accuracy", value="0.83", margin="0"),
        ]
        self.world.registry.evaluate(made.model_digest, measures, simulated=True, report=digest("report"))

    def windows(self) -> None:
        """Windows of the model in use: quiet, suspicious, an alarm, one that cannot be evaluated."""
        begin(self.world.journal, POLICY)
        state = TriggerState()
        for number, score in enumerate(WINDOWS):
            tests = (
                Found("score", 3.3, 4, 0.5 if score is None else score),
                Found("label", 1 / 3, 1, 0.61),
                Found("error", 0.1, None, 1 / 7),
            )
            sites = 2 if score is None else 3
            measured = Measured(number, sites, 1.0, 901.5, tests, Excess(1 / 3, 97.3))
            models = models_in(self.world.registry.state())
            if models is None:
                raise AssertionError("nothing is in use")
            state, _ = record_window(self.world.journal, bytes.fromhex(WATCH), POLICY, state, measured, models)


def write_chronicle(folder: Path, names: str = "<b>Muster</b>", study: str = HOSTILE) -> Evidence:
    """Write the whole log; it needs a second or two.

    Args:
        folder: an empty one.
        names: what persons are called by behind their first names.
        study: what the second run's study is called.
    """
    made = Chronicle(folder, names)
    world = made.world
    made.beginnings()
    steps = [digest(f"step {n}") for n in range(6)]
    made.run(FIRST, None, [steps[0], steps[1], steps[2], USED.model_digest])
    made.register(USED, FIRST, "0.91", "0.012", None)
    world.sign(USED, "ana", Meaning.AUTHORED, Role.ML_ENGINEER)
    for name in ("ben", "sam"):
        world.sign(USED, name)
    world.sign(USED, "ana", Meaning.AUTHORED, Role.ML_ENGINEER, Alias.CANDIDATE)
    world.witness()
    world.promote(USED, Alias.CANDIDATE, RULES)
    world.promote(USED, text=RULES)
    made.windows()
    made.run(SECOND, USED.model_digest, [USED.model_digest, steps[3], WAITING.model_digest], study=study)
    for one, auc in ((BARRED, "0.9"), (WEAK, "0.7"), (WAITING, "0.93")):
        made.register(one, SECOND, auc, "0.01", USED.model_digest)
    world.sign(WAITING, "ana", Meaning.AUTHORED, Role.ML_ENGINEER)
    world.registry.suspend(world.registry.find(BARRED.digest, world.registry.state()), RollbackReason.QUALITY)
    made.server(bodies.RunAborted(rounds=1, reason=AbortReason.TOO_FEW_SITES), BROKEN)
    made.server(
        subjects.Incident(kind=IncidentKind.MODEL, severity=Severity.LOW, evidence=None, model=WEAK.model_digest)
    )
    world.witness((1, 2))
    made.server(bodies.CodeRegistered(code=digest("later"), kind=CodeKind.RECIPE))
    world.engine.dispose()
    return evidence_at(folder)


def evidence_at(folder: Path) -> Evidence:
    """Where everything of a chronicle is."""
    return Evidence(folder / "server.sqlite", folder / "bundles", folder / "registry.toml")


def signed_file(asked: Request, signer: SigningKey) -> bytes:
    """What `fedseal model sign` writes."""
    return base64.b64encode(sign(asked, signer, TIME)) + b"\n"


def forged(
    asked: Request, signer: SigningKey, body: Frozen, *, org: str | None = None, seq: int | None = None
) -> bytes:
    """The same with another body, organisation or place: what somebody with a key can make without our programs."""
    place = Place(asked.seq if seq is None else seq, asked.prev)
    later = (NOW + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    leaf = sign_event(body, signer, place, org=org or asked.org, time=later, actor=asked.person)
    return base64.b64encode(leaf) + b"\n"
