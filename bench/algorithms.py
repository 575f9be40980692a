"""Which algorithm for which difference between sites: nine of them, and two variants, on scikit-learn's digits, spread
over ten sites in six ways.

    python bench/algorithms.py --out bench/results/algorithms.json
    python bench/algorithms.py --worlds iid clusters --seeds 1 2 --out some.json

The server, the strategies and the sites' code are those of a real run; the protocol is modelled, which changes no bit
of a model. Every algorithm takes the same passes over the same persons with the same learning rate, and trains the same
network, but that FedBN's has a BatchNorm and the variants' a LayerNorm. Their own parameters are their papers' or the
library's defaults, and nothing is tuned, on no rows. A site tests on 30 % of its rows, on which nobody trains. *all* is
accuracy over the test rows of all sites, *mean* the mean of the sites' accuracies, *worst* the least; where sites have
models of their own, each is judged on its own site's rows. A seed fixes spread, first model and all draws; numbers are
means over seeds, and what follows +- is their standard deviation.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from fedseal.client.metrics import accuracy
from fedseal.client.task import Batch, Metric, SiteData, Split
from fedseal.privacy.randomness import KeyedRandomness
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.oracle import Judged, Oracle
from fedseal.simulation.partition import generator
from fedseal.simulation.partitions.labels import label_dirichlet, labels_per_site
from fedseal.simulation.training import Material
from fedseal.study import Contract, Study

SITES = 10
SMALLEST = 20
TRAINING = {"rounds": 20, "local_epochs": 2, "batch_size": 16, "learning_rate": 0.1, "update_range": 1000.0}

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


class Digits:
    """A small network, with or without a normalisation layer."""

    def __init__(self, norm: Callable[[int], nn.Module] | None) -> None:
        self._norm = norm

    def model(self) -> nn.Module:
        """64 inputs, 64 hidden units, 10 classes."""
        norm = {} if self._norm is None else {"norm": self._norm(64)}
        layers: dict[str, nn.Module] = {"body": nn.Linear(64, 64), **norm, "act": nn.ReLU(), "head": nn.Linear(64, 10)}
        return nn.Sequential(OrderedDict(layers))

    def data(self, site: SiteData) -> Split:
        """Not used: rows are made here."""
        raise NotImplementedError

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross-entropy of each row."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    def metrics(self) -> Sequence[Metric]:
        """Accuracy."""
        return [accuracy()]


def digits() -> Rows:
    """The 1797 images, in [0, 1], and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return (found.data / 16).astype(np.float32), found.target.astype(np.int64)


def spread_evenly(randomness: KeyedRandomness, labels: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Equal parts of everything."""
    order = generator(randomness.stream("iid")).permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, SITES)]


def dirichlet(alpha: float) -> Callable[[KeyedRandomness, Rows], list[Rows]]:
    """Classes by Dirichlet draws."""

    def spread(randomness: KeyedRandomness, rows: Rows) -> list[Rows]:
        parts = label_dirichlet(
            rows[1].astype(np.intp),
            sites=SITES,
            alpha=alpha,
            min_rows=SMALLEST,
            self_balancing=False,
            randomness=randomness,
        )
        return [(rows[0][p], rows[1][p]) for p in parts]

    return spread


def iid(randomness: KeyedRandomness, rows: Rows) -> list[Rows]:
    """All sites alike."""
    return [(rows[0][p], rows[1][p]) for p in spread_evenly(randomness, rows[1])]


def two_classes(randomness: KeyedRandomness, rows: Rows) -> list[Rows]:
    """Two of the ten classes a site."""
    parts = labels_per_site(rows[1].astype(np.intp), sites=SITES, count=2, stream=randomness.stream("classes"))
    return [(rows[0][p], rows[1][p]) for p in parts]


def scanners(randomness: KeyedRandomness, rows: Rows) -> list[Rows]:
    """Alike but for each site's own gain from 1/3 to 3, offset of every pixel, and noise that grows with its number."""
    found = []
    for site, (x, y) in enumerate(iid(randomness, rows)):
        rng = generator(randomness.stream("scanner", site))
        gain, offset = np.exp(rng.uniform(-np.log(3), np.log(3))), rng.normal(0, 0.5, x.shape[1])
        noise = rng.normal(0, 0.3 * (site + 1) / SITES, x.shape)
        found.append(((gain * (x + noise) + offset).astype(np.float32), y))
    return found


def two_concepts(randomness: KeyedRandomness, rows: Rows) -> list[Rows]:
    """Alike, but half the sites call every digit d what the others call 9 - d."""
    return [(x, y if site < SITES // 2 else 9 - y) for site, (x, y) in enumerate(iid(randomness, rows))]


WORLDS: dict[str, Callable[[KeyedRandomness, Rows], list[Rows]]] = {
    "iid": iid,
    "dir .5": dirichlet(0.5),
    "dir .1": dirichlet(0.1),
    "2 classes": two_classes,
    "scanners": scanners,
    "clusters": two_concepts,
}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "FedAvg": {"strategy": "fedavg"},
    "FedProx": {"strategy": "fedprox", "proximal_mu": 0.01},
    "SCAFFOLD": {"strategy": "scaffold", "local_epochs": None},
    "FedNova": {"strategy": "fednova"},
    "FedBN": {"strategy": "fedbn", "batch_level": True},
    "FedRep": {"strategy": "fedrep", "personal_layers": ["head"]},
    "Ditto": {"strategy": "ditto"},
    "fine-tuned": {"strategy": "fedavg", "personalise": "finetune"},
    "clustered": {"strategy": "clustered", "clusters": 2},
    # With a layer that FedAvg can average too: what leaving it at the sites is worth.
    "FedAvg, LayerNorm": {"strategy": "fedavg"},
    "FedBN, LayerNorm": {"strategy": "fedbn"},
}
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "FedBN": nn.BatchNorm1d,
    "FedAvg, LayerNorm": nn.LayerNorm,
    "FedBN, LayerNorm": nn.LayerNorm,
}


@dataclass(frozen=True, slots=True)
class Scores:
    """Accuracies of one run."""

    everyone: float
    mean: float
    worst: float


def contract_of(algorithm: str, persons: Sequence[int]) -> Contract:
    """An algorithm's settings. Steps that are not passes are as many as a site of the mean size takes in its passes."""
    changes = dict(ALGORITHMS[algorithm])
    steps = -(-int(mean(persons)) // int(TRAINING["batch_size"])) * int(TRAINING["local_epochs"])
    if algorithm == "FedRep":
        changes["head_steps"] = steps
    if algorithm == "SCAFFOLD":
        changes["local_steps"] = steps
    if algorithm in ("Ditto", "fine-tuned"):
        changes["personal_steps"] = steps
    return Contract.model_validate(
        {
            "version": 1,
            "name": "digits",
            "training": {**TRAINING, **changes},
            "privacy": {"plan": "none"},
            "cohort": {"minimum": 3, "largest_site": 1024},
        }
    )


def splits_of(world: str, seed: int) -> dict[str, Split]:
    """Every site's rows, each in one part: 60 % training, 10 % validation, 30 % test."""
    randomness = KeyedRandomness(seed, "bench", world)
    found = {}
    for site, (x, y) in enumerate(WORLDS[world](randomness, digits())):
        order = generator(randomness.stream("split", site)).permutation(len(y))
        ends = [round(0.6 * len(y)), round(0.7 * len(y))]
        parts = [TensorDataset(torch.from_numpy(x[p]), torch.from_numpy(y[p])) for p in np.split(order, ends)]
        found[f"site-{site + 1}"] = Split(*parts)
    return found


def run(world: str, algorithm: str, seed: int, folder: Path) -> Scores:
    """Train once and judge what came of it."""
    splits = splits_of(world, seed)
    task = Digits(NORMS.get(algorithm))
    contract = contract_of(algorithm, [len(s.train) for s in splits.values()])  # type: ignore[arg-type]
    material = Material(Study(folder, contract), task, splits, {}, Oracle(task, splits), seed)
    trained = train_modelled(material, contract)
    return scores(trained.rounds[-1].judged if trained.judged_own is None else trained.judged_own)


def scores(judged: Judged) -> Scores:
    """The three numbers of a judgement."""
    each = [float(found["accuracy"] or 0.0) for found in judged.sites.values()]
    return Scores(float(judged.everyone["accuracy"] or 0.0), mean(each), min(each))


def table(results: dict[str, dict[str, list[Scores]]]) -> str:
    """What was found, a row an algorithm."""
    lines = ["| | " + " | ".join(results) + " |", "|---|" + "---|" * len(results)]
    for algorithm in next(iter(results.values())):
        cells = []
        for found in results.values():
            runs = found[algorithm]
            spread = f" +- {stdev([r.mean for r in runs]):.3f}" if len(runs) > 1 else ""
            cells.append(
                f"{mean(r.everyone for r in runs):.3f} / {mean(r.mean for r in runs):.3f}{spread}"
                f" / {mean(r.worst for r in runs):.3f}"
            )
        lines.append(f"| {algorithm} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run, print a table, and write all numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--algorithms", nargs="+", default=list(ALGORITHMS), choices=list(ALGORITHMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    results: dict[str, dict[str, list[Scores]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for world in arguments.worlds:
            results[world] = {}
            for algorithm in arguments.algorithms:
                start = time.process_time()
                results[world][algorithm] = [run(world, algorithm, seed, Path(folder)) for seed in arguments.seeds]
                print(f"{world}, {algorithm}: {time.process_time() - start:.1f} s", file=sys.stderr, flush=True)
    print("all / mean of sites +- over seeds / worst site\n\n" + table(results))
    if arguments.out is not None:
        rows = [
            {"world": w, "algorithm": a, "seed": s, "all": r.everyone, "mean": r.mean, "worst": r.worst}
            for w, found in results.items()
            for a, runs in found.items()
            for s, r in zip(arguments.seeds, runs, strict=True)
        ]
        arguments.out.write_text(json.dumps({"training": TRAINING, "runs": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
