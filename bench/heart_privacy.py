"""Heart disease in four real hospitals under a promise: accuracy over epsilon, noise shared in the sum beside noise at
each hospital, with what FLamby published for the same patients.

    python bench/heart_privacy.py --data FOLDER --out bench/results/heart_privacy.json
    python bench/heart_privacy.py --from bench/results/heart_privacy.json --plot docs/images/heart-privacy.png

Every run is the study's own simulation: real clients and server, every sum through the whole protocol, every release
charged to the hospitals' ledgers. Seeds change the noise and nothing else: split, first model and settings are fixed.
Settings are the study's; `heart_search.py` says where they come from. Takes some thirty minutes; `--epsilons 10`
measures one promise only.
"""

import argparse
import json
import logging
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from scipy import stats

from fedseal.client.task import size
from fedseal.privacy.plan import LocalGaussian, SharedSkellam
from fedseal.privacy.planning import plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.simulation import flamby
from fedseal.simulation.population import gather
from fedseal.simulation.simulate import prepared_material, write_tables
from fedseal.simulation.threads import one_thread
from fedseal.simulation.training import Material, train
from fedseal.study import Contract, Study, load_study

STUDY = Path(__file__).resolve().parents[1] / "examples" / "heart-disease"
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0, 10.0)
# FLamby's DP-SGD at each hospital, delta 1e-4, five seeds, mean and standard deviation of the mean of four hospitals:
# flamby/dp_example, results of Fed-Heart-Disease (Ogier du Terrail et al. 2022).
PUBLISHED_PRIVATE = {0.1: (0.606, 0.121), 1.0: (0.685, 0.055), 5.0: (0.704, 0.049), 10.0: (0.700, math.nan)}
PUBLISHED_POOLED = flamby.POOLED.centres
GOAL = 0.80


@dataclass(frozen=True, slots=True)
class Arm:
    """A way to train: which of the study's tasks, under which plan, for how many rounds (the study's, if None)."""

    name: str
    task: str
    plan: Literal["none", "local", "distributed"]
    rounds: int | None = None


SHARED = Arm("distributed", "task:WithHospitals", "distributed")
ARMS = (
    SHARED,
    Arm("distributed, not told the hospital", "task:PublicRanges", "distributed"),
    Arm("local", "task:WithHospitals", "local"),
)
PLAIN = (
    Arm("none", "task:WithHospitals", "none"),
    Arm("none, 100 rounds", "task:WithHospitals", "none", 100),
    Arm("none, not told the hospital", "task:PublicRanges", "none"),
    Arm("none, not told the hospital, 100 rounds", "task:PublicRanges", "none", 100),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run. ``hospitals`` are the accuracies on each hospital's test patients; ``charged`` is epsilon by the site
    whose ledger it is largest in, None if unbounded; ``noise`` the multiplier in the plan.
    """

    arm: str
    epsilon: float | None
    seed: int
    hospitals: dict[str, float]
    pooled: float
    auc: float
    charged: float | None
    noise: float | None

    @property
    def centres(self) -> float:
        """The mean of the four hospitals."""
        return mean(self.hospitals.values())


def contract_of(contract: Contract, arm: Arm, epsilon: float | None) -> Contract:
    """The study's contract for an arm; nothing but its task, plan, promise and number of rounds is changed."""
    tables = contract.model_dump()
    tables["task"] = arm.task
    tables["privacy"]["plan"] = arm.plan
    if epsilon is not None:
        tables["privacy"]["epsilon"] = epsilon
    if arm.rounds is not None:
        tables["training"]["rounds"] = arm.rounds
    return Contract.model_validate(tables)


def run(study: Study, data: Path, arm: Arm, epsilon: float | None, seed: int) -> Outcome:
    """One simulation, from the four files to the scores of its last model."""
    contract = contract_of(study.contract, arm, epsilon)
    changed = Study(study.folder, contract)
    with tempfile.TemporaryDirectory() as folder, one_thread():
        population = gather(changed, data=data, sites=None, seed=seed)
        material = prepared_material(changed, population, Path(folder) / "data", seed)
        trained = train(material, contract, Path(folder) / "federation")
        noise = _noise(contract, material)
    judged = trained.rounds[-1].judged
    return Outcome(
        arm=arm.name,
        epsilon=epsilon,
        seed=seed,
        hospitals={name: float(scores["accuracy"] or 0.0) for name, scores in judged.sites.items()},
        pooled=float(judged.everyone["accuracy"] or 0.0),
        auc=float(judged.everyone["auc"] or 0.0),
        charged=trained.rounds[-1].epsilon,
        noise=noise,
    )


def _noise(contract: Contract, material: Material) -> float | None:
    values = sum(array.size for array in material.first_model().values())
    plan = plan_run(contract, Extent(values, len(material.splits))).update
    return plan.noise_multiplier if isinstance(plan, LocalGaussian | SharedSkellam) else None


def references(study: Study, data: Path) -> dict[str, float]:
    """The majority of each hospital, and how far chance in who is a test patient may move a mean of hospitals of .80:
    its standard error.
    """
    with tempfile.TemporaryDirectory() as folder:
        population = gather(study, data=data, sites=None, seed=1)
        prepared = flamby.prepare(study, write_tables(population, Path(folder)))
        tests = [size(split.test) for split in prepared.materials[flamby.PER_HOSPITAL].splits.values()]
        majority = flamby.majority_per_centre(prepared)
    error = math.sqrt(sum(GOAL * (1 - GOAL) / n for n in tests)) / len(tests)
    return {"majority": majority.centres, "majority_pooled": majority.pooled, "test_error": error}


def interval(values: list[float]) -> float:
    """Half of a 95 % interval of the mean by Student's t."""
    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def table(outcomes: list[Outcome], known: dict[str, float]) -> str:
    """Markdown: each arm and promise with the mean of hospitals over seeds."""
    lines = [
        "| plan | epsilon | charged | noise | mean of hospitals (95 %) | sd | lowest | pooled test | AUC | runs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    groups: dict[tuple[str, float | None], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.arm, outcome.epsilon), []).append(outcome)
    for (arm, epsilon), runs in groups.items():
        centres = [o.centres for o in runs]
        charged = max((o.charged for o in runs if o.charged is not None), default=None)
        cells = [
            arm,
            "" if epsilon is None else f"{epsilon:g}",
            "unbounded" if charged is None else f"{charged:.3f}",
            "" if runs[0].noise is None else f"{runs[0].noise:.2f}",
            f"{mean(centres):.3f} ± {interval(centres):.3f}",
            f"{stdev(centres):.3f}" if len(centres) > 1 else "",
            f"{min(centres):.3f}",
            f"{mean(o.pooled for o in runs):.3f}",
            f"{mean(o.auc for o in runs):.3f}",
            f"{len(runs)}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        f"| majority of each hospital | | | | {known['majority']:.3f} | | | {known['majority_pooled']:.3f} | | |"
    )
    for epsilon, (centres_, _) in PUBLISHED_PRIVATE.items():
        lines.append(f"| FLamby, published | {epsilon:g} | | | {centres_:.3f} | | | | | 5 |")
    lines.append(f"| FLamby, published, best without privacy | | | | {PUBLISHED_POOLED:.3f} | | | | | 5 |")
    return "\n".join(lines)


def measure(data: Path, seeds: int, arms: tuple[Arm, ...], epsilons: tuple[float, ...] = EPSILONS) -> list[Outcome]:
    """Every arm at every epsilon under every seed, and each plan without privacy once: it has no chance in it."""
    study, found = load_study(STUDY), []
    jobs = [(arm, None, 1) for arm in PLAIN]
    planned = [(arm, epsilon, seed) for arm in arms for epsilon in epsilons for seed in range(1, seeds + 1)]
    for arm, epsilon, seed in [*jobs, *planned]:
        outcome = run(study, data, arm, epsilon, seed)
        found.append(outcome)
        promise = "" if epsilon is None else f" epsilon {epsilon:g}"
        print(f"{arm.name}{promise} seed {seed}: {outcome.centres:.4f}", flush=True)
    return found


def plot(outcomes: list[Outcome], known: dict[str, float], path: Path) -> None:
    """Accuracy over epsilon: the runs of each seed as dots, their mean as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8.0, 5.6), dpi=150)
    looks = (("#0b6e4f", "o", "one noise inside the sealed sum"), ("#5b7fb9", "s", "the same, not told the hospital"))
    looks = (*looks, ("#c2722c", "^", "noise at each hospital"))
    for arm, (colour, mark, label), shift in zip(ARMS, looks, (0.97, 1.0, 1.03), strict=True):
        means, halves = [], []
        # A picture of promises that were not all measured shows those that were.
        epsilons = [e for e in EPSILONS if any(o.epsilon == e for o in outcomes)]
        for epsilon in epsilons:
            runs = [o.centres for o in outcomes if o.arm == arm.name and o.epsilon == epsilon]
            axes.plot([epsilon * shift] * len(runs), runs, mark, color=colour, alpha=0.18, markersize=4, linewidth=0)
            means.append(mean(runs))
            halves.append(interval(runs))
        places = [epsilon * shift for epsilon in epsilons]
        axes.errorbar(places, means, halves, color=colour, marker=mark, linewidth=2, capsize=3, label=label)
    private = {e: v for e, v in PUBLISHED_PRIVATE.items() if e >= EPSILONS[0]}
    axes.plot(
        list(private), [v[0] for v in private.values()], "D--", color="#8a2b57", label="FLamby, published private"
    )
    plain = next(o for o in outcomes if o.arm == PLAIN[0].name).centres
    for height, style, text in (
        (plain, "-", f"no privacy, same rounds {plain:.3f}"),
        (PUBLISHED_POOLED, "--", f"FLamby, best without privacy {PUBLISHED_POOLED:.3f}"),
        (known["majority"], ":", f"majority of each hospital {known['majority']:.3f}"),
    ):
        axes.axhline(height, color="#555555", linestyle=style, linewidth=1.1, label=text)
    axes.set_xscale("log")
    ticks = [0.5, 1, 2, 4, 8, 10]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("ε for each patient, δ = 1e-4")
    axes.set_ylabel("accuracy, mean of four hospitals")
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Measure or read, print the table, write JSON and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, help="the folder with UCI's four files")
    source.add_argument("--from", dest="read", type=Path, help="an earlier --out, to print and plot again")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--epsilons", type=float, nargs="+", default=EPSILONS, help="measure these promises only")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--plot", type=Path, default=None)
    arguments = parser.parse_args()
    for name in ("flwr", "fedseal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if arguments.read is not None:
        record = json.loads(arguments.read.read_text(encoding="utf-8"))
        outcomes, known = [Outcome(**row) for row in record["outcomes"]], record["known"]
    else:
        outcomes = measure(arguments.data, arguments.seeds, ARMS, tuple(arguments.epsilons))
        known = references(load_study(STUDY), arguments.data)
    print(table(outcomes, known))
    print(f"standard error of a mean of hospitals of {GOAL} by who is a test patient: {known['test_error']:.3f}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"known": known, "outcomes": [asdict(o) for o in outcomes]}, indent=1)
        arguments.out.write_text(text + "\n", encoding="utf-8")
    if arguments.plot is not None:
        plot(outcomes, known, arguments.plot)


if __name__ == "__main__":
    main()
