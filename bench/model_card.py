"""How close a model card from one private release is to the exact one, and how often its intervals hold.

    python bench/model_card.py [--trials 400] [--out FILE]

Persons are drawn anew for every trial; errors are those of the released card against the exact scores of the very same
persons (so of bins and noise together), coverage is of the exact number without bins by the noise interval widened by
the stated bin error. All sites' shares of noise are needed (shares = honest): the least noise of the plan.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from fedseal.privacy.counts import counted
from fedseal.privacy.inference.card import model_card
from fedseal.privacy.inference.evaluation import estimates, evaluation_tables
from fedseal.privacy.inference.scores import group_starts
from fedseal.privacy.inference.tally import CountNoise, Tally
from fedseal.study import Evaluation

Real = NDArray[np.float64]
GROUPS = ("a", "b", "c", "d", "e")


def persons(rng: np.random.Generator, count: int) -> tuple[Real, Real, Real]:
    """Scores that are a little too sure of themselves, labels, and one of five groups of unequal size."""
    label = (rng.random(count) < 0.4).astype(float)
    logit = rng.normal(size=count) * 1.2 + 1.6 * label - 0.8
    group = rng.choice(5, size=count, p=[0.4, 0.25, 0.2, 0.1, 0.05]).astype(float)
    return 1 / (1 + np.exp(-1.3 * logit)), label, group


def exact(score: Real, label: Real, bins: int) -> dict[str, float]:
    """The exact figures; calibration error with the same groups of bins and the scores themselves."""
    said = score >= 0.5
    places = np.searchsorted(group_starts(bins) / bins, score, side="right") - 1
    gaps = [abs(float((score - label)[places == g].sum())) for g in range(len(group_starts(bins)))]
    return {
        "auc": float(roc_auc_score(label, score)),
        "average_precision": float(average_precision_score(label, score)),
        "accuracy": float((said == (label == 1)).mean()),
        "brier": float(np.square(score - label).mean()),
        "calibration_error": sum(gaps) / len(score),
        "tpr": float(said[label == 1].mean()),
        "fpr": float(said[label == 0].mean()),
    }


def trial(
    rng: np.random.Generator, evaluation: Evaluation, count: int, epsilon: float
) -> tuple[Tally, Real, Real, Real]:
    """A released tally of fresh persons."""
    score, label, group = persons(rng, count)
    tables = evaluation_tables(evaluation)
    numbers = {0: label, 2: group, 3: score}
    noise = CountNoise(epsilon, 1, 1)
    found = counted(tables, lambda axis: numbers[axis.source])
    return Tally(tables, found + noise.draw(rng, found.shape), 5, noise), score, label, group


def study(count: int, epsilon: float, trials: int, *, groups: bool) -> dict[str, dict[str, float]]:
    """Mean and 95th percentile of the errors, and coverage, by figure."""
    more = {"subgroup": "group", "groups": GROUPS} if groups else {}
    evaluation = Evaluation.model_validate({"epsilon": epsilon, "bins": "auto", "persons": count, **more})
    rng = np.random.default_rng(count + groups)
    errors: dict[str, list[float]] = {}
    held: dict[str, list[bool]] = {}
    for _ in range(trials):
        tally, score, label, group = trial(rng, evaluation, count, epsilon)
        found = estimates(tally)
        for name, value in exact(score, label, evaluation.bin_count).items():
            e = found[name]
            if e.value is None or e.low is None or e.high is None:
                continue
            errors.setdefault(name, []).append(abs(e.value - value))
            held.setdefault(name, []).append(e.low - e.bin_error <= value <= e.high + e.bin_error)
        card = model_card(tally, evaluation)
        if card is None or card.subgroups is None:
            continue
        for place, shown in enumerate(card.subgroups.groups):
            inside = group == place
            value_of = shown.estimates.get("auc")
            if value_of is None or value_of.value is None or len(np.unique(label[inside])) < 2:
                continue
            name = f"auc of group {shown.name}"
            errors.setdefault(name, []).append(abs(value_of.value - roc_auc_score(label[inside], score[inside])))
    return {
        name: {
            "trials": len(found),
            "mean error": float(np.mean(found)),
            "p95 error": float(np.quantile(found, 0.95)),
            "coverage": float(np.mean(held[name])) if name in held else float("nan"),
        }
        for name, found in errors.items()
    }


def main() -> None:
    """Print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--out", type=Path, default=Path("bench/results/model_card.json"))
    options = parser.parse_args()
    found = {}
    for count, epsilon, groups in ((1000, 1.0, False), (10_000, 1.0, False), (1000, 0.5, False), (5000, 1.0, True)):
        title = f"{count} persons, epsilon {epsilon:g}{', five groups' if groups else ''}"
        found[title] = study(count, epsilon, options.trials, groups=groups)
        print(title)
        for name, row in found[title].items():
            print(f"  {name:22}" + "".join(f"  {k} {v:.4g}" for k, v in row.items()))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
