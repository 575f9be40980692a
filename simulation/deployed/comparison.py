"""A deployed run beside a simulation of the same contract, on the same persons."""

import math
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from fedseal.client.trainer import Arrays
from fedseal.privacy.quantize import Rounding
from fedseal.simulation.training import Material, train
from fedseal.study import Contract

SEEDS = (1, 2, 3, 4, 5)
# Of a hundred runs of one and the same program so many are expected inside `expected_range`.
EXPECTED = 99


def simulated_model(material: Material, contract: Contract, folder: Path) -> Arrays:
    """The model of a simulation with deterministic rounding.

    Args:
        material: the persons.
        contract: with plan none and everyone in every step nothing in it is random.
        folder: a new folder for its stores.
    """
    return train(material, contract, folder, rounding=Rounding.NEAREST).model


def simulated_accuracies(
    material: Material, contract: Contract, folder: Path, begin: Callable[[int], None]
) -> dict[int, float]:
    """The accuracy after the last round for several seeds, each with noise, sampling and initial model of its own.

    Args:
        material: the persons; the same for all seeds.
        contract: the deployed run's.
        folder: a new folder for the stores.
        begin: told of every seed before it is simulated.
    """
    found = {}
    for seed in SEEDS:
        begin(seed)
        trained = train(replace(material, seed=seed), contract, folder / f"seed-{seed}")
        accuracy = trained.rounds[-1].judged.everyone.get("accuracy")
        if accuracy is not None:
            found[seed] = accuracy
    return found


def expected_range(accuracies: Collection[float]) -> tuple[float, float] | None:
    """Where one more run of the same program lies, `EXPECTED` times in a hundred; None for fewer than two runs.

    The prediction interval of normal values, mean +- t s sqrt(1 + 1/n) with Student's t of n - 1 degrees of freedom.
    The smallest and largest of five values are no such range: one time in three a sixth lies outside them.
    """
    count = len(accuracies)
    if count < 2:
        return None
    quantile = float(student.ppf((1 + EXPECTED / 100) / 2, count - 1))
    middle, reach = mean(accuracies), quantile * stdev(accuracies) * math.sqrt(1 + 1 / count)
    return max(middle - reach, 0.0), min(middle + reach, 1.0)
