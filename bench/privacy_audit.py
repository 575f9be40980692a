"""How often the audit falsifies a correct build, and how often it catches a wrong one.

    python bench/privacy_audit.py --out audit.json      # about ten CPU minutes; --seeds 10 for a first look

Every audit is a whole run: three sites, real trainer, real noise, real sealed sums, ledgers on disk. A correct build
must be falsified in at most 5 % of the seeds; the defects are wrapped around the real code by the tests' own
`support/sabotage.py`. A last part plays the worst mechanism that still is epsilon-private, randomised response,
against the statistics alone: there the 5 % are nearly used up. Exit code 1 if a number is not what it has to be.
"""

import argparse
import json
import logging
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy import stats

from fedseal.privacy.audit.one_run import Guesses, p_value
from fedseal.simulation.audit.claim import changed_claim, default_claim
from fedseal.simulation.audit.run import Audited, AuditOptions, audit

# The defects are the tests' own.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support.sabotage import Build, clip_times_three, correct, half_variance, noise_off

WORST_SEEDS, WORST_GUESSES = 100_000, 1000


@dataclass(frozen=True)
class Case:
    """A build, how long its runs are, and how many seeds out of --seeds it gets."""

    name: str
    build: Build
    plan: Literal["local", "distributed"]
    rounds: int
    canaries: int
    share: float
    caught: bool

    @property
    def label(self) -> str:
        """As the table has it."""
        return f"{self.name}, {self.plan}, {self.rounds} rounds, {self.canaries} canaries"


CASES = (
    Case("correct", correct, "local", 2, 1000, 1.0, caught=False),
    Case("noise off", noise_off, "local", 10, 2000, 0.1, caught=True),
    Case("half the variance", half_variance, "local", 2, 1000, 0.1, caught=True),
    Case("clip x 3", clip_times_three, "local", 2, 1000, 0.1, caught=True),
    Case("correct", correct, "distributed", 2, 1000, 0.5, caught=False),
    Case("noise off", noise_off, "distributed", 2, 2000, 0.1, caught=True),
    Case("half the variance", half_variance, "distributed", 2, 1000, 0.1, caught=True),
    Case("clip x 3", clip_times_three, "distributed", 2, 1000, 0.1, caught=True),
    Case("correct", correct, "local", 10, 2000, 0.05, caught=False),
)


def interval(hits: int, trials: int) -> tuple[float, float]:
    """Clopper and Pearson's exact 95 % interval of a probability."""
    low = float(stats.beta.ppf(0.025, hits, trials - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    return low, high


def row_of(case: Case, found: list[Audited]) -> dict[str, object]:
    """What all seeds of a case came to."""
    falsified = sum(a.falsified for a in found)
    low, high = interval(falsified, len(found))
    bounds = [a.lower_bound for a in found]
    return {
        "case": case.label,
        "seeds": len(found),
        "claim": found[0].epsilon,
        "falsified": falsified,
        "interval": [low, high],
        "by_guesses": sum(a.guesses_falsify for a in found),
        "by_noise": sum(a.noise_falsifies for a in found),
        "by_reach": sum(a.reach_falsifies for a in found),
        "lower_bound": [min(bounds), float(np.median(bounds)), max(bounds)],
        "cpu_seconds": float(np.median([a.cpu_seconds for a in found])),
    }


def as_it_must(case: Case, row: dict[str, object]) -> bool:
    """Whether a correct build stands in 95 % of the seeds, and a wrong one never."""
    falsified, seeds = int(str(row["falsified"])), int(str(row["seeds"]))
    return falsified == seeds if case.caught else falsified <= 0.05 * seeds


def worst_mechanism(epsilon: float) -> tuple[int, int]:
    """Randomised response of exactly epsilon: in how many of how many seeds the claim of epsilon is falsified."""
    right = np.random.default_rng(1).binomial(WORST_GUESSES, 1 / (1 + math.exp(-epsilon)), size=WORST_SEEDS)
    verdict = {
        int(v): p_value(Guesses(WORST_GUESSES, WORST_GUESSES, int(v)), epsilon, 0.0) <= 0.05 for v in np.unique(right)
    }
    return sum(verdict[int(v)] for v in right), WORST_SEEDS


def main() -> int:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--only", default="", help="cases whose label holds this text")
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    started, rows, good = time.process_time(), [], True
    for case in (c for c in CASES if arguments.only in c.label):
        claim, found = changed_claim(default_claim(), plan=case.plan, rounds=case.rounds), []
        for seed in range(max(1, round(case.share * arguments.seeds))):
            with case.build():
                found.append(audit(claim, AuditOptions(canaries=case.canaries, seed=seed)))
        row = row_of(case, found)
        rows.append(row)
        good &= as_it_must(case, row)
        print(json.dumps(row), flush=True)
    for epsilon in (0.5, 1.0, 3.0):
        hits, trials = worst_mechanism(epsilon)
        low, high = interval(hits, trials)
        rows.append({"case": f"randomised response, epsilon {epsilon:g}", "seeds": trials, "falsified": hits})
        good &= low <= 0.05
        print(f"randomised response, epsilon {epsilon:g}: {hits / trials:.4f} falsified, [{low:.4f}, {high:.4f}]")
    print(f"{time.process_time() - started:.0f} CPU seconds; {'as it must be' if good else 'NOT as it must be'}")
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
