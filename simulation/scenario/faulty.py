"""The real protocol in a scenario: its federation, and messages that arrive as devices and faults will have it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedseal.client.app import Warm
from fedseal.client.task import size
from fedseal.privacy.planning import plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.simulation.faults.delivery import FaultyDelivery, Patience, RealSite
from fedseal.simulation.faults.tables import Fault
from fedseal.simulation.federation import FIRST_NODE, Federation, enrol
from fedseal.simulation.grid import answer_of
from fedseal.simulation.training import Material, Trained, train
from fedseal.simulation.virtual.clock import VirtualClock
from fedseal.study import Contract


@dataclass(frozen=True, slots=True)
class Real:
    """What the real protocol needs besides: ``folder``, a new one for its stores; ``flipped``, by site a folder with
    the labels turned round, where a fault flips labels.
    """

    folder: Path
    faults: tuple[Fault, ...]
    seed: int
    patience: Patience
    flipped: Mapping[str, Path]


def train_real(material: Material, contract: Contract, real: Real, clock: VirtualClock) -> Trained:
    """Train by the real protocol, on the clock's time and with the scenario's faults.

    Raises:
        RoundAborted: as `simulation.training.train` does.
    """
    persons = {name: size(split.train) for name, split in material.splits.items()}
    plans = plan_run(contract, Extent(sum(a.size for a in material.first_model().values()), len(persons)))
    federation = enrol(real.folder, contract, plans, persons, material.seed)
    sites = _sites(federation, real.flipped)
    deliver = answer_of
    if real.faults:
        deliver = FaultyDelivery(
            real.faults,
            sites,
            real.seed,
            backups=real.folder / "backups",
            ordinary=Warm().train,
            patience=real.patience,
        )
    numbers = {site.node: number for number, site in enumerate(sites, start=1)}
    return train(material, contract, real.folder, federation=federation, deliver=clock.delivery(numbers, deliver))


def _sites(federation: Federation, flipped: Mapping[str, Path]) -> list[RealSite]:
    return [
        RealSite(name, FIRST_NODE + i, store, flipped.get(name))
        for i, (name, store) in enumerate(federation.site_stores.items())
    ]
