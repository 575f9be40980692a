"""How many sites fit one run: logistic regression of digits on 1,000, 10,000 and 100,000 simulated sites.

    python bench/scale.py            # all three
    python bench/scale.py thousand   # one

The protocol is modelled: sums are taken in the integer ring, bytes by formula. Sites' persons are drawn from the 1,437
training rows of scikit-learn's digits, 20 a site (each person is at many sites of 10,000 and more); 360 rows are the
test set and belong to no site. Each run is a process of its own. A last one trains 40 of the sites one by one and
together, as a check of what the fast way computes. Results: bench/results/scale.json.
"""

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy
from fedseal.client.task import Batch, Metric, SiteData, Split
from fedseal.simulation.digest import run_digest
from fedseal.simulation.engine.crew import Engine
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.engine.splits import IndexedSplits
from fedseal.simulation.oracle import Oracle
from fedseal.simulation.training import Material
from fedseal.study import Contract, Study

RESULTS = Path(__file__).resolve().parent / "results" / "scale.json"
PERSONS, VALIDATION, TEST = 20, 4, 360


@dataclass(frozen=True, slots=True)
class Run:
    """One run. ``seconds`` and ``megabytes`` are what it may take."""

    sites: int
    rounds: int
    fraction: float
    seconds: float
    megabytes: float


RUNS = {
    "thousand": Run(1_000, 100, 1.0, 20, 2_000),
    "ten-thousand": Run(10_000, 100, 1.0, 180, 2_000),
    "hundred-thousand": Run(100_000, 5, 0.1, 180, 4_000),
}


class Digits:
    """Logistic regression of ten digits."""

    def model(self) -> nn.Module:
        return nn.Linear(64, 10)

    def data(self, site: SiteData) -> Split:
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        return [accuracy()]


def material(sites: int, rounds: int) -> tuple[Material, Contract]:
    """Sites with persons drawn at random, five steps of half of them a round."""
    digits = load_digits()
    pool = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(pool[0]))
    test, training = torch.from_numpy(order[:TEST]), order[TEST:]
    # Site by site, so that more sites leave the earlier ones as they are.
    places = training[rng.integers(0, len(training), (sites, PERSONS + VALIDATION))]
    ends = np.arange(1, sites + 1)
    splits = IndexedSplits(
        pool,
        places[:, :PERSONS].reshape(-1),
        ends * PERSONS,
        places[:, PERSONS:].reshape(-1),
        ends * VALIDATION,
    )
    contract = Contract.model_validate(
        {
            "version": 1,
            "name": "digits",
            "training": {"rounds": rounds, "learning_rate": 0.5, "local_steps": 5, "sample_rate": 0.5},
            "privacy": {"plan": "none"},
            "cohort": {"largest_site": PERSONS},
        }
    )
    nobody = TensorDataset(pool[0][:0], pool[1][:0])
    judged = {"everyone": Split(nobody, nobody, TensorDataset(*(t.index_select(0, test) for t in pool)))}
    task = Digits()
    return Material(Study(Path(), contract), task, splits, {}, Oracle(task, judged), 1), contract


def run(name: str, workers: int) -> dict[str, object]:
    """Do one run in this process; its figures."""
    asked = RUNS[name]
    started = time.perf_counter()
    gathered, contract = material(asked.sites, asked.rounds)
    trained = train_modelled(gathered, contract, workers=workers, fraction=asked.fraction)
    seconds = time.perf_counter() - started
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # Of forked processes the largest one's; what they share with the first is counted again.
    megabytes = (own.ru_maxrss + workers * others.ru_maxrss * (workers > 1)) / 1024
    return {
        **asdict(asked),
        "took": round(seconds, 1),
        "cpu": round(own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime, 1),
        "rss_mb": round(megabytes),
        "rss_first_mb": round(own.ru_maxrss / 1024),
        "workers": workers,
        "engine": trained.engine,
        "asked_a_round": trained.rounds[-1].record.sites,
        "accuracy": trained.rounds[-1].judged.everyone["accuracy"],
        "virtual_bytes_up": sum(c.bytes_up for c in trained.rounds[-1].record.stages.values()),
        "load": os.getloadavg()[0],
        "digest": run_digest(trained),
    }


def check() -> dict[str, object]:
    """Forty sites and ten rounds, one by one and together."""
    gathered, contract = material(40, 10)
    ways: tuple[Engine, ...] = ("one-by-one", "batched", "vmap")
    found = {way: train_modelled(gathered, contract, vectorised=way) for way in ways}
    alone = found["one-by-one"]
    return {
        way: {
            "accuracy": trained.rounds[-1].judged.everyone["accuracy"],
            "largest_difference": max(float(np.abs(trained.model[n] - alone.model[n]).max()) for n in alone.model),
        }
        for way, trained in found.items()
    }


def main() -> None:
    """Each run in a process of its own, for its memory to be its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("names", nargs="*", default=[*RUNS, "check"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--inside", action="store_true", help="do the one run in this process and print it")
    given = parser.parse_args()
    if given.inside:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        name = given.names[0]
        print(json.dumps(check() if name == "check" else run(name, given.workers)))
        return
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    for name in given.names:
        command = [sys.executable, __file__, name, "--inside", "--workers", str(given.workers)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
        results[name] = json.loads(done.stdout.strip().splitlines()[-1])
        print(name, json.dumps(results[name], indent=1))
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
