"""A deployed run beside a simulation of the same contract, on the same persons."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from fedseal.client.app import app as client_app
from fedseal.client.trainer import Arrays
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.quantize import Rounding
from fedseal.server.app import ROUNDING_KEY
from fedseal.server.app import app as server_app
from fedseal.server.rounds import RoundRecord
from fedseal.server.statistics import Moments
from fedseal.simulation.federation import enrol
from fedseal.simulation.grid import LocalGrid, Observer
from fedseal.simulation.training import Material, node_configs, run_config, train
from fedseal.study import Contract

SEEDS = (1, 2, 3, 4, 5)


def simulated_model(material: Material, contract: Contract, persons: dict[str, int], folder: Path) -> Arrays:
    """The model of a simulation with deterministic rounding.

    Args:
        material: the persons.
        contract: with plan none and everyone in every step nothing in it is random.
        persons: training persons by site name.
        folder: a new folder for its stores.
    """
    plans = plan_run(contract)
    federation = enrol(folder, contract, plans, persons, material.seed)
    model: Arrays = {}

    def nothing(_: RunPlans, __: Moments | None, ___: bytes) -> None:
        """Only the model is asked for."""

    def no_round(_: RoundRecord) -> None:
        """Only the model is asked for."""

    grid = LocalGrid(
        client_app,
        node_configs(material, federation),
        run_config=run_config(material, contract, federation) | {ROUNDING_KEY: Rounding.NEAREST.name.lower()},
        observer=Observer(nothing, no_round, model.update),
    )
    grid.serve(server_app, seed=material.seed)
    return model


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
