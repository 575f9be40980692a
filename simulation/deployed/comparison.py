"""A deployed run beside a simulation of the same contract, on the same persons."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedseal.client.trainer import Arrays
from fedseal.privacy.quantize import Rounding
from fedseal.simulation.training import Material, train
from fedseal.study import Contract

SEEDS = (1, 2, 3, 4, 5)


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
