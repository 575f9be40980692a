"""A sweep: every combination of strategies, seeds and promises, each a run of its own."""

from dataclasses import dataclass
from itertools import product

from fedseal.simulation.scenario.language import Changes, Scenario, changed
from fedseal.simulation.scenario.tables import Sweep


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a sweep: its name among the others, and its scenario."""

    name: str
    strategy: str
    seed: int
    epsilon: float | None
    scenario: Scenario


def cells(scenario: Scenario) -> list[Cell]:
    """The runs of a scenario, in the order of strategies, promises and seeds; one if it has no sweep."""
    sweep, run = scenario.sweep, scenario.run
    found = []
    strategies: tuple[str | None, ...] = sweep.strategy or (None,)
    epsilons: tuple[float | None, ...] = sweep.epsilon or (None,)
    for strategy, epsilon, seed in product(strategies, epsilons, sweep.seed or (scenario.scenario.seed,)):
        one = changed(scenario, Changes(seed=seed, strategy=strategy, epsilon=epsilon))
        privacy = one.run.privacy
        promise = None if privacy.plan == "none" else privacy.epsilon
        name = f"{strategy or run.strategy}-eps{'none' if promise is None else f'{promise:g}'}-seed{seed}"
        found.append(Cell(name, one.run.strategy, seed, promise, one))
    return found


def single(scenario: Scenario) -> Scenario:
    """Of a sweep the run of the scenario's own seed, strategy and promise."""
    return changed(scenario, Changes(seed=scenario.scenario.seed)).model_copy(update={"sweep": Sweep()})
