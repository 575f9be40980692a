"""What a run leaves behind: result.json, metrics.parquet, model.safetensors, config.json and report.html."""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import platform
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.numpy

from fedseal import __version__
from fedseal.client.metrics import LOSS
from fedseal.privacy.inference.evaluation import PERSONS, estimates
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PlanKind, SharedSkellam
from fedseal.privacy.releases import VALIDATION_RATIO
from fedseal.privacy.roster import public_persons
from fedseal.privacy.secagg.assurance import Assurance
from fedseal.privacy.secagg.parameters import threshold
from fedseal.simulation import result as schema
from fedseal.simulation.card import card_entry
from fedseal.simulation.oracle import Judged, Scores
from fedseal.simulation.population import Population
from fedseal.simulation.proof import Proof, log_facts
from fedseal.simulation.report import write_report
from fedseal.simulation.training import RoundView, Trained
from fedseal.study import Contract

PACKAGES = ("fedseal", "flwr", "torch", "opacus", "dp-accounting", "cryptography", "numpy", "pandas", "safetensors")


@dataclass(slots=True)
class Findings:
    """Everything a simulation has found, before it is written."""

    run: str
    created: str
    contract: Contract
    options: dict[str, str | int | float | None]
    population: Population
    sizes: dict[str, tuple[int, int, int]]
    main: Trained
    majority: Judged | None = None
    local: Judged | None = None
    pooled: Judged | None = None
    plain: Trained | None = None
    other_epsilons: dict[float, Trained] = field(default_factory=dict)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    proof: Proof | None = None


def write_run(folder: Path, findings: Findings) -> schema.Result:
    """Write all files of a run into its folder."""
    model = safetensors.numpy.save(findings.main.model)
    (folder / "model.safetensors").write_bytes(model)
    result = as_result(findings, hashlib.sha256(model).hexdigest())
    (folder / "result.json").write_text(result.model_dump_json(indent=2, by_alias=True) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(configuration(findings), indent=2) + "\n", encoding="utf-8")
    metrics_table(result).to_parquet(folder / "metrics.parquet", index=False)
    write_report(folder / "report.html", result, findings.contract)
    return result


def as_result(findings: Findings, model_digest: str) -> schema.Result:
    """The findings in the published schema."""
    main, contract = findings.main, findings.contract
    sites = len(findings.population.sites)
    plans = {name: plan_facts(findings.main, p.releases) for name, p in main.privacy.items()}
    privacy = schema.Privacy(
        sites={
            name: schema.SitePrivacy(
                plan=plans[name],
                epsilon=None if math.isinf(p.epsilon) else p.epsilon,
                epsilon_enforced=None if p.plan == "none" else p.epsilon_enforced,
                epsilon_budget=p.epsilon_budget,
                delta=p.delta,
                releases=p.releases,
            )
            for name, p in main.privacy.items()
        }
    )
    rounds = [round_entry(findings, view) for view in main.rounds]
    final = judgement(main.rounds[-1].judged)
    evaluation = evaluation_entry(main, sum(test for _, _, test in findings.sizes.values()))
    return schema.Result(
        study=contract.name,
        title=contract.title or contract.name,
        run=findings.run,
        seed=contract.simulation.seed,
        strategy=contract.training.strategy,
        created=findings.created,
        seconds=round(findings.seconds, 3),
        sites=site_entries(findings),
        final=final,
        metric_errors=main.rounds[-1].judged.errors,
        baselines=baselines(findings),
        other_epsilons=[
            schema.Epsilon(
                epsilon=epsilon,
                judgement=judgement(trained.rounds[-1].judged),
                epsilon_spent=trained.rounds[-1].epsilon,
            )
            for epsilon, trained in sorted(findings.other_epsilons.items())
        ],
        privacy=privacy,
        rounds=rounds,
        threshold=threshold(sites, contract.cohort.colluders),
        colluders=contract.cohort.colluders,
        model_sha256=model_digest,
        digest=digest(model_digest, final, rounds, evaluation),
        notes=list(findings.notes),
        log=None if findings.proof is None else log_facts(findings.proof),
        evaluation=evaluation,
    )


def digest(
    model_digest: str,
    final: schema.Judgement,
    rounds: list[schema.Round],
    evaluation: schema.Evaluation | None = None,
) -> str:
    """A hash of everything that the seed fixes: the model's bytes and all scores, no times and no bytes on the wire."""
    facts = [model_digest, final.model_dump_json(by_alias=True)]
    facts += [
        entry.model_dump_json(include={"number", "sites", "clipped", "epsilon", "oracle", "sealed"}) for entry in rounds
    ]
    facts += [f"{entry.clip_norm!r} {entry.unclipped!r}" for entry in rounds if entry.clip_norm is not None]
    if evaluation is not None:
        facts.append(evaluation.model_dump_json())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def evaluation_entry(trained: Trained, persons: int) -> schema.Evaluation | None:
    """The private evaluation in the schema, beside what the oracle says; None if there was none.

    Args:
        trained: the training.
        persons: how many test persons there truly are.
    """
    tally, planned = trained.evaluation, trained.plans.evaluation
    if tally is None or planned is None:
        return None
    oracle = trained.rounds[-1].judged.everyone | {PERSONS: float(persons)}
    ledgers = trained.test_privacy.values()
    return schema.Evaluation(
        tables=list(trained.contract.evaluation.tables),
        epsilon=planned.plan.epsilon,
        epsilon_spent=max(ledger.epsilon for ledger in ledgers),
        epsilon_budget=max(ledger.epsilon_budget for ledger in ledgers),
        sites=tally.sites,
        noise_deviation=0.0 if tally.noise is None else math.sqrt(tally.noise.variance),
        estimates={
            name: schema.Estimate(value=e.value, low=e.low, high=e.high, bin_error=e.bin_error, oracle=oracle.get(name))
            for name, e in estimates(tally).items()
        },
        card=card_entry(tally, trained.contract.evaluation),
    )


def scores(found: Scores) -> schema.Scores:
    """Loss, accuracy and AUC by name, everything else under ``further``."""
    known = {"loss", "accuracy", "auc"}
    further = {name: value for name, value in found.items() if name not in known}
    return schema.Scores(loss=found[LOSS], accuracy=found.get("accuracy"), auc=found.get("auc"), further=further)


def judgement(judged: Judged) -> schema.Judgement:
    """A judgement in the schema."""
    everyone, sites = scores(judged.everyone), {name: scores(s) for name, s in judged.sites.items()}
    return schema.Judgement.model_validate({"global": everyone, "sites": sites})


def baselines(findings: Findings) -> schema.Baselines | None:
    """The baselines in the schema; None if the run was asked to leave them out."""
    majority, local, pooled, plain = findings.majority, findings.local, findings.pooled, findings.plain
    if local is None or pooled is None or plain is None:
        return None
    return schema.Baselines(
        majority=None if majority is None else judgement(majority),
        local=judgement(local),
        federated_plain=judgement(plain.rounds[-1].judged),
        pooled=judgement(pooled),
    )


def plan_facts(trained: Trained, releases: int) -> schema.PlanFacts:
    """The update plan in the schema."""
    plan = trained.plans.update
    if isinstance(plan, SharedSkellam | AdaptiveSkellam):
        return schema.PlanFacts(
            kind="client" if plan.kind is PlanKind.CLIENT else "distributed",
            clip_norm=plan.clip_norm,
            adaptive_clip=adaptive_facts(plan) if isinstance(plan, AdaptiveSkellam) else None,
            noise_multiplier=plan.noise_multiplier,
            releases=releases,
        )
    if not isinstance(plan, LocalGaussian):
        return schema.PlanFacts(kind="none", releases=releases)
    return schema.PlanFacts(
        kind="local",
        clip_norm=plan.clip_norm,
        noise_multiplier=plan.noise_multiplier,
        sample_rate=plan.sample_rate,
        steps_per_release=plan.steps,
        releases=releases,
    )


def adaptive_facts(plan: AdaptiveSkellam) -> schema.AdaptiveClip:
    """How a plan's clip norm adapts, in the schema."""
    return schema.AdaptiveClip(
        quantile=plan.quantile,
        learning_rate=plan.rate,
        lowest=plan.lowest,
        highest=plan.highest,
        count_deviation=plan.count_deviation,
    )


def round_entry(findings: Findings, view: RoundView) -> schema.Round:
    """One round in the schema."""
    record = view.record
    return schema.Round(
        number=record.number,
        seconds=round(record.seconds, 4),
        sites=record.sites,
        attempts=record.attempts,
        clipped=record.clipped,
        epsilon=view.epsilon,
        oracle=scores(view.judged.everyone),
        sealed=sealed_scores(findings, view),
        stages={
            name: schema.Stage(seconds=round(c.seconds, 4), bytes_down=c.bytes_down, bytes_up=c.bytes_up)
            for name, c in record.stages.items()
        },
        graph=None if record.assurance is None else graph_facts(record.assurance),
        clip_norm=None if record.clip is None else record.clip.clip_norm,
        unclipped=None if record.clip is None else record.clip.unclipped,
    )


def graph_facts(assurance: Assurance) -> schema.Graph:
    """What a round's graph is sure of, in the schema."""
    return schema.Graph(kind="complete" if assurance.sigma is None else "sparse", **dataclasses.asdict(assurance))


def sealed_scores(findings: Findings, view: RoundView) -> schema.Scores | None:
    """Validation metrics that came out of the secure sum: of the model that the round began with, over all validation
    persons.
    """
    metrics = view.record.metrics
    ratio = metrics.get(VALIDATION_RATIO)
    if not isinstance(ratio, float) or ratio <= 0:
        return None
    found: Scores = {LOSS: float(np.asarray(metrics[LOSS])) / ratio}
    for metric in findings.main.metrics:
        found[metric.name] = metric.value(np.atleast_1d(np.asarray(metrics[metric.name], dtype=np.float64)) / ratio)
    return scores(found)


def site_entries(findings: Findings) -> dict[str, schema.Site]:
    """How much each site holds."""
    table, names = findings.population.class_table, findings.population.classes
    entries = {}
    for i, (name, (train, validation, test)) in enumerate(findings.sizes.items()):
        classes = {} if table is None else {c: int(n) for c, n in zip(names, table[i], strict=True)}
        entries[name] = schema.Site(
            train=train, validation=validation, test=test, public_persons=public_persons(train), classes=classes
        )
    return entries


def metrics_table(result: schema.Result) -> pd.DataFrame:
    """All scores as one long table: run, seed, model, round, scope, metric, value, source.

    Of the private evaluation the values; their intervals are in result.json.
    """
    rows: list[tuple[str, int, str, str, float, str]] = []

    def add(model: str, number: int, scope: str, found: schema.Scores, source: str) -> None:
        named = found.named().items()
        rows.extend((model, number, scope, k, float("nan") if v is None else v, source) for k, v in named)

    def add_all(model: str, number: int, found: schema.Judgement) -> None:
        add(model, number, "global", found.global_, "oracle")
        for site, site_scores in found.sites.items():
            add(model, number, site, site_scores, "oracle")

    for entry in result.rounds:
        add("federated", entry.number, "global", entry.oracle, "oracle")
        if entry.sealed is not None:
            add("federated", entry.number - 1, "global", entry.sealed, "sealed")
    last = len(result.rounds)
    add_all("federated", last, result.final)
    if result.baselines is not None:
        for name in ("majority", "local", "federated_plain", "pooled"):
            if (judged := getattr(result.baselines, name)) is not None:
                add_all(name, last, judged)
    found = {} if result.evaluation is None else result.evaluation.estimates
    for name, e in found.items():
        rows.append(("federated", last, "global", name, float("nan") if e.value is None else e.value, "private"))
    for other in result.other_epsilons:
        add_all(f"epsilon-{other.epsilon:g}", last, other.judgement)
    table = pd.DataFrame(rows, columns=["model", "round", "scope", "metric", "value", "source"]).drop_duplicates()
    table.insert(0, "seed", result.seed)
    table.insert(0, "run", result.run)
    return table


def configuration(findings: Findings) -> dict[str, object]:
    """Everything needed to run this again: the resolved contract, the options, and the versions it ran with."""
    return {
        "schema_version": 1,
        "fedseal": __version__,
        "contract": json.loads(findings.contract.model_dump_json()),
        "options": findings.options,
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "platform": platform.platform(),
        "simulated": True,
    }
