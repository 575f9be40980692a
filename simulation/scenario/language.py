"""A scenario's file as a whole, and what may be changed of it from the command line or by a sweep."""

import hashlib
import json
from typing import Any, get_args

from pydantic import Field, ValidationError, model_validator

from fedseal.config import Frozen
from fedseal.errors import ConfigError
from fedseal.server.monitoring.policy import MonitorTable
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.scenario.tables import Gate, Head, Run, Sweep
from fedseal.simulation.virtual.tables import Devices
from fedseal.simulation.worlds.tables import (
    ConsentTable,
    DriftTable,
    LabelNoiseTable,
    LabelsTable,
    MissingTable,
    PartitionTable,
    PopulationTable,
    WorldTables,
)
from fedseal.study import WITHOUT_ONE_MODEL, Training

STRATEGIES: tuple[str, ...] = get_args(Training.model_fields["strategy"].annotation)


# What the modelled protocol knows of: who is silent when.
MODELLED_FAULTS = ("dropout", "lost", "slow")


class Scenario(Frozen):
    """A scenario: who there is, what changes, what goes wrong, how it is trained and watched, and what has to hold.

    Only ``[scenario]`` and ``[population]`` are needed. The tables of one kind in double brackets may stand several
    times and are applied in the order of the file.
    """

    scenario: Head
    population: PopulationTable
    partition: PartitionTable = PartitionTable()
    drift: tuple[DriftTable, ...] = ()
    label_noise: tuple[LabelNoiseTable, ...] = ()
    missing: tuple[MissingTable, ...] = ()
    labels: LabelsTable = LabelsTable()
    consent: tuple[ConsentTable, ...] = ()
    devices: Devices = Devices()
    fault: tuple[Fault, ...] = ()
    run: Run = Run()
    monitor: MonitorTable | None = None
    sweep: Sweep = Sweep()
    gate: tuple[Gate, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> "Scenario":
        deep = next((f for f in self.fault if f.kind not in MODELLED_FAULTS), None)
        if deep is not None and self.run.secagg == "model":
            raise ValueError(
                f'a fault of kind {deep.kind!r} happens to the protocol itself: set secagg = "real" in [run]'
            )
        steps = self.scenario.steps
        late = next((g for g in self.gate if isinstance(g.at, int) and not 0 <= g.at < steps), None)
        if late is not None:
            raise ValueError(f"a gate is at step {late.at}, and steps are 0 to {steps - 1}")
        unknown = [name for name in self.sweep.strategy if name not in STRATEGIES]
        if unknown:
            raise ValueError(f"sweep.strategy {unknown[0]!r} is none of {', '.join(STRATEGIES)}")
        without = [name for name in (self.run.strategy, *self.sweep.strategy) if name in WITHOUT_ONE_MODEL]
        if without:
            raise ValueError(f"a scenario trains, watches and judges one model of all sites: {without[0]} leaves none")
        if any(g.confidence for g in self.gate) and len(self.sweep.seed) < 2:
            raise ValueError("a gate with confidence needs several seeds in [sweep]")
        return self

    @property
    def world(self) -> WorldTables:
        """The tables that make its world."""
        return WorldTables(
            population=self.population,
            partition=self.partition,
            drift=self.drift,
            label_noise=self.label_noise,
            missing=self.missing,
            labels=self.labels,
            consent=self.consent,
        )

    @property
    def swept(self) -> bool:
        """Whether it is several runs."""
        return bool(self.sweep.strategy or self.sweep.seed or self.sweep.epsilon)


class Changes(Frozen):
    """What may be set from outside; None keeps the scenario's own. An ``epsilon`` of 0 is plan none, and a positive one
    turns plan local on where there is none.
    """

    seed: int | None = Field(default=None, ge=0, lt=2**63)
    strategy: str | None = None
    epsilon: float | None = Field(default=None, ge=0, le=1000)
    rounds: int | None = Field(default=None, ge=1, le=10_000)


def changes_from(*, seed: int | None, strategy: str | None, epsilon: float | None, rounds: int | None) -> Changes:
    """Changes as options give them; ConfigError if one is out of range."""
    try:
        return Changes(seed=seed, strategy=strategy, epsilon=epsilon, rounds=rounds)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    raise ConfigError(f"--{first['loc'][0]}: {first['msg'][:1].lower()}{first['msg'][1:]}")


def changed(scenario: Scenario, changes: Changes) -> Scenario:
    """The scenario with these changes, without its sweep over what was set.

    Raises:
        ConfigError: the outcome is not allowed.
    """
    tables = set_keys(scenario)
    if changes.seed is not None:
        tables["scenario"]["seed"] = changes.seed
        tables.get("sweep", {}).pop("seed", None)
    if changes.strategy is not None:
        tables["run"]["strategy"] = changes.strategy
        tables.get("sweep", {}).pop("strategy", None)
    if changes.rounds is not None:
        tables["run"]["rounds"] = changes.rounds
    if changes.epsilon is not None:
        tables["run"]["privacy"] |= _promise(scenario, changes.epsilon)
        tables.get("sweep", {}).pop("epsilon", None)
    if changes.seed is not None and any(gate.confidence for gate in scenario.gate):
        tables["gate"] = [gate for gate in tables["gate"] if not gate.get("confidence")]
    try:
        return Scenario.model_validate(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "the scenario"
    raise ConfigError(f"{place}: {first['msg'].removeprefix('Value error, ')}")


def _promise(scenario: Scenario, epsilon: float) -> dict[str, Any]:
    if epsilon == 0:
        return {"plan": "none"}
    plan = scenario.run.privacy.plan
    return {"plan": "local" if plan == "none" else plan, "epsilon": epsilon}


def set_keys(scenario: Scenario) -> dict[str, Any]:
    """The tables as they would be written: the keys that were set, and all of ``[scenario]`` and ``[run]``."""
    tables: dict[str, Any] = json.loads(scenario.model_dump_json(by_alias=True, exclude_unset=True, exclude_none=True))
    for name, table in (("scenario", scenario.scenario), ("run", scenario.run)):
        tables[name] = json.loads(table.model_dump_json(by_alias=True, exclude_none=True))
    return tables


def scenario_digest(scenario: Scenario) -> str:
    """SHA-256 of what the scenario says, whatever its layout and comments.

    A key with its default value says nothing: a key more in the language leaves digests as they were.
    """
    said = scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
