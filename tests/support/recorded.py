"""A log in which everything about a model was recorded: data, labels, two runs, figures, gates, approval, promotion."""

from pathlib import Path

from support.chains import Chain
from support.keys import SERVER, key

from fedseal.compliance.data.facts import LegalBasis, PrivacyUnit, Purpose, SpecialCategory
from fedseal.compliance.data.occurrences import ErasureReason
from fedseal.compliance.events import bodies, subjects
from fedseal.compliance.events.fields import (
    Alias,
    CodeKind,
    DropReason,
    DropStage,
    GateKind,
    IncidentKind,
    Meaning,
    ModelKind,
    ReleaseName,
    ReviewOutcome,
    Role,
    Severity,
    sha256,
)
from fedseal.compliance.events.plans import plan_facts
from fedseal.compliance.labels.consensus import Adjudication
from fedseal.compliance.labels.facts import Tool
from fedseal.compliance.log.checkpoint import Checkpoint, Cosigner, cosign, log_key, sign_checkpoint, site_origin
from fedseal.compliance.log.database import open_database
from fedseal.compliance.log.export import export
from fedseal.compliance.log.note import Note
from fedseal.compliance.log.quorum import Policy, federation_policy
from fedseal.compliance.log.store import Log
from fedseal.compliance.log.tree import root_of
from fedseal.config import Frozen
from fedseal.privacy.plan import LocalGaussian

PLAN = LocalGaussian(clip_norm=1.0, noise_multiplier=2.0, sample_rate=0.5, steps=1, releases=90, retries=10)
SITES = (1, 2, 3)
ORIGIN = "test/server"
ANN = "act_" + 32 * "1"
COSIGNERS = [Cosigner(site_origin("test", f"site-{n}"), key(f"site-{n}")) for n in SITES]
POLICY: Policy = federation_policy(log_key(ORIGIN, SERVER.public), [c.vkey for c in COSIGNERS], 0)
RUNS = ("1" * 32, "2" * 32)


def digest(text: str) -> str:
    return sha256(text.encode())


def secret(text: str) -> str:
    return "hmac:" + digest(text).removeprefix("sha256:")


FIRST, MIDDLE, LAST, OTHER = (digest(name) for name in ("first", "middle", "last", "other"))
REPORT = digest("evaluation report")


def whole() -> Chain:
    """The log."""
    log = Chain()
    log.add(bodies.Genesis(federation="test", roster=digest("r"), simulated=True, faulty=0, quorum=2))
    for n in SITES:
        name = f"site-{n}"
        by_site(log, n, bodies.Joined(site=n, name=name, key=key(name).public.hex(), roster=digest("r")))
        _data(log, n)
    by_site(log, 1, bodies.PersonAdded(person=ANN, key=key("ann").public.hex(), roles=(Role.APPROVER,)))
    log.add(subjects.ModelRegistered(model=FIRST, parent=None, kind=ModelKind.INITIAL, round=0, bundle=None))
    log.add(bodies.CodeRegistered(code=digest("code"), kind=CodeKind.STUDY))
    packages = (bodies.Package(name="numpy", version="2.4.6"), bodies.Package(name="flwr", version="1.41.0"))
    log.add(bodies.EnvironmentRecorded(environment=digest("env"), python="3.11.7", packages=packages))
    _run(log, RUNS[0], FIRST, MIDDLE)
    _run(log, RUNS[1], MIDDLE, LAST)
    log.add(subjects.ModelRegistered(model=OTHER, parent=None, kind=ModelKind.INITIAL, round=0, bundle=None))
    _judged(log, LAST)
    by_site(log, 2, subjects.DatasetWithdrawn(dataset=secret("data 2"), reason=ErasureReason.CONSENT_WITHDRAWN))
    log.add(subjects.Incident(kind=IncidentKind.DRIFT, severity=Severity.LOW, evidence=None, model=LAST))
    return log.add(subjects.Reviewed(first=0, end=20, outcome=ReviewOutcome.NOTHING))


def by_site(log: Chain, site: int, body: Frozen, run: str | None = None) -> None:
    """A site says something."""
    log.add(body, key(f"site-{site}"), f"site-{site}", run=run)


def _data(log: Chain, n: int) -> None:
    data = subjects.DatasetRegistered(
        dataset=secret(f"data {n}"),
        data_schema=digest("schema"),
        population=secret(f"persons {n}"),
        unit=PrivacyUnit.PERSON,
        purpose=Purpose.RESEARCH,
        legal_basis=(LegalBasis.PUBLIC_TASK, LegalBasis.RESEARCH),
        special_categories=(SpecialCategory.HEALTH,),
        retention_until="2036-01-01",
        preprocessing=digest("cleaning"),
        parents=(),
    )
    labels = subjects.LabelSetRegistered(
        label_set=secret(f"labels {n}"),
        dataset=secret(f"data {n}"),
        guideline=digest("guideline"),
        label_schema=digest("label schema"),
        adjudication=Adjudication.MAJORITY,
        tool=Tool.LABEL_STUDIO,
        parents=(),
    )
    promise = bodies.BudgetSet(population=secret(f"persons {n}"), epsilon="8", delta="0.00001", alpha="3")
    for body in (data, subjects.Guideline(guideline=digest("guideline"), replaces=None), labels, promise):
        by_site(log, n, body)


def _run(log: Chain, run: str, start: str, end: str) -> None:
    log.add(
        bodies.RunCreated(
            study="heart",
            contract=digest("contract"),
            code=digest("code"),
            environment=digest("env"),
            model_in=start,
            strategy="FedAvg",
            rounds=2,
            sites=SITES,
            plan=plan_facts(PLAN),
        ),
        run=run,
    )
    for n in SITES:
        accepted = bodies.RunAccepted(
            code=digest("code"),
            policy=secret(f"policy {n}"),
            population=secret(f"persons {n}"),
            dataset=secret(f"data {n}"),
            label_set=secret(f"labels {n}"),
        )
        by_site(log, n, accepted, run)
    for number in (1, 2):
        _round(log, run, number, start if number == 1 else digest(f"between {run}"))
    log.add(bodies.RunFinished(rounds=2, model=end), run=run)
    log.add(subjects.ModelRegistered(model=end, parent=None, kind=ModelKind.GLOBAL, round=2, bundle=None), run=run)


def _round(log: Chain, run: str, number: int, model_in: str) -> None:
    update = ReleaseName.UPDATE
    for n in SITES:
        charged = bodies.Charged(
            release=update,
            sequence=number,
            attempt=0,
            population=secret(f"persons {n}"),
            plan=plan_facts(PLAN),
            delta="0.00001",
            alpha="3",
        )
        by_site(log, n, charged, run)
    dropped = bodies.Dropped(
        release=update,
        round=number,
        sequence=number,
        attempt=0,
        site=3,
        stage=DropStage.UNMASK,
        reason=DropReason.SILENT,
    )
    log.add(dropped, run=run)
    aggregated = bodies.Aggregated(
        release=update,
        round=number,
        sequence=number,
        attempt=0,
        header=digest(f"header {number}"),
        sites=SITES,
        threshold=2,
        colluders=1,
        aggregate=digest(f"sum {number}"),
        model_in=model_in,
    )
    log.add(aggregated, run=run)


def _judged(log: Chain, model: str) -> None:
    measures = (subjects.Measure(name="auc", value="0.91", margin="0.01"), subjects.Measure(name="loss", value="0.3"))
    log.add(subjects.Evaluated(model=model, measures=measures, simulated=True, report=REPORT))
    gate = subjects.GateChecked(
        model=model, alias=Alias.PRODUCTION, gate=GateKind.METRIC, name="auc", limit="0.8", found="0.91", passed=True
    )
    log.add(gate)
    approved = subjects.Signature(model=model, alias=Alias.PRODUCTION, meaning=Meaning.APPROVED, role=Role.APPROVER)
    log.add(approved, key("ann"), "site-1", actor=ANN)
    promoted = subjects.Promoted(
        model=model,
        alias=Alias.PRODUCTION,
        replaces=None,
        approvals=(len(log.leaves) - 1,),
        gates=(len(log.leaves) - 2,),
        final_size=len(log.leaves) - 3,
    )
    log.add(promoted)
    log.add(subjects.ModelRegistered(model=model, parent=None, kind=ModelKind.GLOBAL, round=2, bundle=digest("bundle")))


def exported(leaves: list[bytes], folder: Path, cosigners: int = 3) -> Path:
    """The log as files, with its checkpoint signed and cosigned."""
    engine = open_database("sqlite:///" + str(folder / "log.sqlite"))
    checkpoint = Checkpoint(ORIGIN, len(leaves), root_of(leaves))
    signed = sign_checkpoint(checkpoint, SERVER)
    lines = tuple(cosign(checkpoint, each, 1_800_000_000) for each in COSIGNERS[:cosigners])
    with engine.begin() as connection:
        log = Log(connection, ORIGIN)
        log.append(leaves)
        log.put_checkpoint(str(Note(signed.text, (*signed.signatures, *lines))))
        export(log, folder / "log", POLICY)
    engine.dispose()
    return folder / "log"
