"""One study trained in several ways, seed by seed: which parameters are trained and released, and under which plan.

What a site uploads and what its ledger says comes from the runs; accuracy is the oracle's, on persons who were never
trained on. `examples/text-lora/compare.py` is a table of arms.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Literal

from fedseal.client.task import build_model
from fedseal.client.trainer import Arrays
from fedseal.privacy.plan import LocalGaussian
from fedseal.privacy.secagg.messages import Stage
from fedseal.simulation.baselines import majority_baseline
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import check_cohort, prepared_material
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, Trained, train
from fedseal.study import Contract, Study

Part = Literal["validation", "test"]
# Never one that results are reported for.
CHOOSING_SEED = 101


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train a study: its task says which parameters are trained, the plan what a person is promised.

    ``learning_rate`` and ``clip_norm`` are this arm's own, because parameters by the dozen and by the ten thousand
    want different ones; everything else is the study's.
    """

    name: str
    task: str
    plan: Literal["none", "local"]
    learning_rate: float
    clip_norm: float = 1.0

    def of(self, contract: Contract, seed: int) -> Contract:
        """The study's contract for this arm."""
        tables = contract.model_dump()
        tables["task"] = self.task
        tables["training"]["learning_rate"] = self.learning_rate
        tables["privacy"] |= {"plan": self.plan, "clip_norm": self.clip_norm}
        tables["simulation"]["seed"] = seed
        return Contract.model_validate(tables)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One arm under one seed.

    ``upload`` is what one site sends in a round's MASK exchange, which holds the masked vector; ``whole_upload`` what
    it sends in all exchanges of a round; both are bytes, means over sites and rounds. ``epsilon`` is what was charged,
    None if unbounded.
    """

    seed: int
    trained: int
    frozen: int
    upload: float
    whole_upload: float
    epsilon: float | None
    noise_multiplier: float | None
    accuracy: float
    loss: float


@dataclass(frozen=True, slots=True)
class ArmRow:
    """An arm and its outcomes, one for each seed."""

    arm: Arm
    outcomes: tuple[Outcome, ...]

    @property
    def accuracies(self) -> list[float]:
        """One for each seed."""
        return [outcome.accuracy for outcome in self.outcomes]

    def record(self) -> dict[str, object]:
        """For a JSON file."""
        return {"arm": asdict(self.arm), "outcomes": [asdict(outcome) for outcome in self.outcomes]}


def run_arm(study: Study, arm: Arm, seed: int, *, part: Part = "test") -> Outcome:
    """Simulate one arm under one seed and judge its final model.

    Args:
        study: the study.
        arm: how it is trained.
        seed: fixes spread, first model, sampling and noise.
        part: whom the oracle judges on; choose settings by ``"validation"``.

    Raises:
        FedsealError: says whose fault it is.
    """
    contract = arm.of(study.contract, seed)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        material = _material(Study(study.folder, contract), seed, Path(folder) / "data", part)
        trained = train(material, contract, Path(folder) / "federation")
        return _outcome(material, trained, seed)


def run_arms(
    study: Study, arms: Sequence[Arm], seeds: Iterable[int], progress: Callable[[Arm, Outcome], None]
) -> list[ArmRow]:
    """Every arm under every seed, judged on test persons."""
    found: dict[Arm, list[Outcome]] = {arm: [] for arm in arms}
    for seed in seeds:
        for arm in arms:
            outcome = run_arm(study, arm, seed)
            found[arm].append(outcome)
            progress(arm, outcome)
    return [ArmRow(arm, tuple(outcomes)) for arm, outcomes in found.items()]


def majority_accuracy(study: Study, seed: int) -> float:
    """What a model reaches on test persons that says of everybody what most training persons are."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        judged = majority_baseline(_material(study, seed, Path(folder), "test"))
    return 0.0 if judged is None else float(judged.everyone["accuracy"] or 0.0)


def choose(study: Study, arm: Arm, rates: Sequence[float], seed: int, progress: Callable[[Arm, Outcome], None]) -> Arm:
    """The arm with the learning rate of the lowest loss on validation persons.

    Args:
        study: the study.
        arm: whose learning rate is sought.
        rates: what is tried.
        seed: another one than those that results are reported for.
        progress: told of every trial.
    """
    tried = [replace(arm, learning_rate=rate) for rate in rates]
    losses = []
    for trial in tried:
        outcome = run_arm(study, trial, seed, part="validation")
        progress(trial, outcome)
        losses.append(outcome.loss)
    return tried[losses.index(min(losses))]


def compare(study: Study, arms: Sequence[Arm], rates: Mapping[Arm, Sequence[float]], out: Path) -> None:
    """The command line of a study's `compare.py`: print a table and write it as Markdown and JSON.

    Args:
        study: the study.
        arms: the ways, with the settings that were chosen.
        rates: the learning rates that ``--choose`` tries for each.
        out: the folder to write to, if ``--out`` names no other.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 1 on")
    parser.add_argument("--out", type=Path, default=out, help="folder for comparison.md and comparison.json")
    parser.add_argument("--choose", action="store_true", help="only try learning rates, on validation persons")
    arguments = parser.parse_args()
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if arguments.choose:
        for arm in arms:
            print("chosen:", choose(study, arm, rates[arm], CHOOSING_SEED, _say))
        return
    seeds = range(1, arguments.seeds + 1)
    rows = run_arms(study, arms, seeds, _say)
    constant = [majority_accuracy(study, seed) for seed in seeds]
    text = table(rows, constant, study.contract)
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = {"rows": [row.record() for row in rows], "majority": constant}
    (arguments.out / "comparison.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (arguments.out / "comparison.md").write_text(text, encoding="utf-8")
    print(text)


def table(rows: Sequence[ArmRow], majority: Sequence[float], contract: Contract) -> str:
    """The comparison as Markdown: means over seeds, and the least and largest accuracy."""
    lines = [
        "| trained | plan | parameters | uploaded by a site a round | epsilon spent | noise multiplier | accuracy |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        first, arm = row.outcomes[0], row.arm
        plan = f"local, epsilon {contract.privacy.epsilon:g}" if arm.plan == "local" else "none"
        epsilon = "unbounded" if first.epsilon is None else f"{max(o.epsilon or 0.0 for o in row.outcomes):.2f}"
        noise = "-" if first.noise_multiplier is None else f"{first.noise_multiplier:.2f}"
        upload = f"{mean(o.upload for o in row.outcomes) / 1000:.1f} kB"
        found = _spread(row.accuracies)
        lines.append(f"| {arm.name} | {plan} | {first.trained:,} | {upload} | {epsilon} | {noise} | {found} |")
    lines.append(f"| the majority class | - | 0 | - | - | - | {_spread(majority)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _say(arm: Arm, outcome: Outcome) -> None:
    where = f"seed {outcome.seed}, {arm.name}, plan {arm.plan}, rate {arm.learning_rate:g}"
    print(f"{where}: accuracy {outcome.accuracy:.3f}, loss {outcome.loss:.3f}", file=sys.stderr, flush=True)


def _material(study: Study, seed: int, data: Path, part: Part) -> Material:
    population = gather(study, data=None, sites=None, seed=seed)
    check_cohort(study.contract, len(population.sites))
    material = prepared_material(study, population, data, seed)
    if part == "test":
        return material
    splits = {name: replace(split, test=split.validation) for name, split in material.splits.items()}
    return replace(material, oracle=Oracle(material.task, splits))


def _outcome(material: Material, trained: Trained, seed: int) -> Outcome:
    released = _count(trained.model)
    everything = sum(p.numel() for p in build_model(material.task).parameters())
    plan, last, sites = trained.plans.update, trained.rounds[-1], len(material.splits)
    uploads = [{stage: cost.bytes_up for stage, cost in v.record.stages.items()} for v in trained.rounds]
    return Outcome(
        seed=seed,
        trained=released,
        frozen=everything - released,
        upload=mean(up[Stage.MASK.label] for up in uploads) / sites,
        whole_upload=mean(sum(up.values()) for up in uploads) / sites,
        epsilon=last.epsilon if isinstance(plan, LocalGaussian) else None,
        noise_multiplier=plan.noise_multiplier if isinstance(plan, LocalGaussian) else None,
        accuracy=float(last.judged.everyone["accuracy"] or 0.0),
        loss=float(last.judged.everyone["loss"] or 0.0),
    )


def _count(model: Arrays) -> int:
    """How many numbers a model of arrays has."""
    return sum(array.size for array in model.values())
