"""What a run of a scenario needs before its first step: its world, its task, and that the two go together."""

from dataclasses import dataclass
from pathlib import Path

from fedseal.client.tabular import Tabular
from fedseal.errors import ConfigError
from fedseal.privacy.planning import plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.simulation.monitoring import Monitored, monitor
from fedseal.simulation.scenario.language import Scenario
from fedseal.simulation.scenario.material import contract_of, tabular
from fedseal.simulation.scenario.sweep import cells
from fedseal.simulation.training import initial_model
from fedseal.simulation.virtual.fleet import Fleet, make_fleet
from fedseal.simulation.worlds.build import build_world
from fedseal.simulation.worlds.world import World


@dataclass(frozen=True, slots=True)
class Setting:
    """A scenario with its world, its task, its devices and what is watched. ``folder`` is where names of files in it
    start from.
    """

    scenario: Scenario
    world: World
    task: Tabular
    fleet: Fleet
    folder: Path
    monitored: Monitored | None = None

    @property
    def faulty(self) -> bool:
        """Whether sites may fall silent or worse, so that a training may end without a model."""
        return bool(self.scenario.fault) or "devices" in self.scenario.model_fields_set


def setting_of(scenario: Scenario, folder: Path, data: Path | None = None) -> Setting:
    """Make a scenario's world and task.

    Args:
        scenario: the scenario.
        folder: where names of files in it start from.
        data: the folder of files that its source needs, if it needs one.

    Raises:
        ConfigError, DataError: the world cannot be made, or there are too few sites for a cohort.
    """
    head = scenario.scenario
    world = build_world(scenario.world, steps=head.steps, seed=head.seed, folder=folder, data=data)
    cohort = scenario.run.cohort
    needed = max(cohort.minimum, cohort.colluders + 2)
    if len(world.sites) < needed:
        raise ConfigError(
            f"{len(world.sites)} sites, and a cohort needs at least {needed}",
            next_step="Use more sites, or lower minimum and colluders in [run.cohort].",
        )
    _check_names(scenario, world)
    fleet = make_fleet(scenario.devices, len(world.sites), head.seed, folder)
    monitored = None
    if scenario.monitor is not None:
        monitored = monitor(
            scenario.monitor,
            classes=len(world.classes),
            sites=len(world.sites),
            steps=head.steps,
            seed=head.seed,
            colluders=min(cohort.colluders, len(world.sites) - 2),
        )
    return Setting(scenario, world, tabular(scenario, world), fleet, folder, monitored)


def _check_names(scenario: Scenario, world: World) -> None:
    """That the sites that faults name are there."""
    for fault in scenario.fault:
        for name in fault.where or ():
            if name not in world.sites:
                known = ", ".join(world.sites[:8]) + (", ..." if len(world.sites) > 8 else "")
                raise ConfigError(f"a fault names {name!r}, which is no site", next_step=f"Sites: {known}.")


def checked(scenario: Scenario, folder: Path, data: Path | None = None) -> tuple[int, int, int, int]:
    """Check all of a scenario that can be checked without training: numbers of sites, features, classes and runs.

    Raises:
        ConfigError, DataError: as `setting_of`; no noise keeps the promise; a run of the sweep is not allowed.
    """
    setting = setting_of(scenario, folder, data)
    size = sum(array.size for array in initial_model(setting.task, 0).values())
    runs = cells(scenario)
    for cell in runs:
        contract = contract_of(cell.scenario, cell.scenario.run.rounds)
        plan_run(contract, Extent(size, len(setting.world.sites)))
    world = setting.world
    return len(world.sites), len(world.features), len(world.classes), len(runs)
