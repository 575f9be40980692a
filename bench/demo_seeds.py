"""How much of the demo's outcome is luck: the same study over several seeds, each with its own skew, noise and first
model.

    python bench/demo_seeds.py --seeds 10 --out bench/results/demo_seeds.json

Prints accuracy of the sealed private model beside the median hospital alone, the federation without privacy, pooled
data and the majority class, and the paired difference to the median hospital with a 95 % interval. The study's
settings are those of the demo; nothing is tuned.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path
from statistics import mean, stdev

from scipy import stats

from fedseal.simulation.output import as_result
from fedseal.simulation.population import Population
from fedseal.simulation.simulate import Options, simulate
from fedseal.simulation.training import RoundView
from fedseal.study import Contract, load_study

STUDY = Path(__file__).resolve().parents[1] / "examples" / "breast-cancer"
MODELS = ("private", "local", "plain", "pooled", "majority")


class Silent:
    """Watches nothing."""

    def begin(self, contract: Contract, population: Population, run: str) -> None:
        """Nothing."""

    def phase(self, title: str) -> None:
        """Nothing."""

    def round(self, view: RoundView) -> None:
        """Nothing."""


def accuracies(seed: int, epsilon: float | None) -> dict[str, float]:
    """One simulation's accuracies, and how many hospitals alone the private model beats."""
    with tempfile.TemporaryDirectory() as folder:
        finished = simulate(load_study(STUDY), Options(seed=seed, epsilon=epsilon), Path(folder), Silent())
    result = as_result(finished.findings, "")
    found = result.baselines
    if found is None:
        raise SystemExit("the simulation compared nothing")
    judged = {
        "private": result.final,
        "local": found.local,
        "plain": found.federated_plain,
        "pooled": found.pooled,
        "majority": found.majority,
    }
    numbers = {name: float(j.global_.accuracy or 0.0) for name, j in judged.items()}
    alone = [s.accuracy or 0.0 for s in found.local.sites.values()]
    return numbers | {"beaten": sum(numbers["private"] > a for a in alone) / len(alone)}


def interval(differences: list[float]) -> tuple[float, float]:
    """A 95 % interval of the mean by Student's t."""
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * stdev(differences) / len(differences) ** 0.5
    return mean(differences) - half, mean(differences) + half


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epsilon", type=float, default=None)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    rows = []
    print(f"{'seed':>5} " + " ".join(f"{name:>9}" for name in (*MODELS, "beaten")))
    for seed in range(1, arguments.seeds + 1):
        row = accuracies(seed, arguments.epsilon)
        rows.append({"seed": seed, **row})
        print(f"{seed:>5} " + " ".join(f"{row[name]:>9.3f}" for name in (*MODELS, "beaten")), flush=True)
    print(f"{'mean':>5} " + " ".join(f"{mean(r[name] for r in rows):>9.3f}" for name in (*MODELS, "beaten")))
    low, high = interval([r["private"] - r["local"] for r in rows])
    print(f"private minus the median hospital alone: 95 % interval of the mean [{low:+.3f}, {high:+.3f}]")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"rows": rows, "interval": [low, high]}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
