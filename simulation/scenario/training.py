"""One training of a scenario, by the real protocol or its model, and what it cost whom."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedseal.errors import RoundAborted
from fedseal.privacy import accounting
from fedseal.privacy.plan import PlanKind, PrivacyPlan
from fedseal.privacy.planning import plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.simulation.engine.carrier import nobody
from fedseal.simulation.engine.modelled import train_modelled
from fedseal.simulation.federation import site_privacy
from fedseal.simulation.scenario.faulty import Real, train_real
from fedseal.simulation.training import Material, Trained
from fedseal.simulation.virtual.clock import VirtualClock
from fedseal.study import Contract


@dataclass(frozen=True, slots=True)
class Attempt:
    """A training that ended: with what was trained, or with the reason why nothing was. ``releases`` were charged."""

    trained: Trained | None
    plan: PrivacyPlan
    releases: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which a training runs.

    ``clock``: of virtual time; None where nobody asks how long it took. ``real``: what the real protocol needs; None
    where it is modelled, by ``workers`` processes that compute sites as ``engine`` says. ``faulty``: whether something
    goes wrong on purpose.
    """

    clock: VirtualClock | None = None
    real: Real | None = None
    workers: int = 1
    engine: Literal["one-by-one", "batched", "vmap"] = "one-by-one"
    faulty: bool = False


def attempt(material: Material, contract: Contract, conditions: Conditions) -> Attempt:
    """Train once. Where something goes wrong on purpose, a federation that gives up is a finding and not the end.

    Args:
        material: what is trained on.
        contract: the promise and the settings.
        conditions: under which.

    Raises:
        RoundAborted: a round failed and nothing was meant to go wrong.
    """
    sites = len(material.splits)
    plan = plan_run(contract, Extent(sum(a.size for a in material.first_model().values()), max(sites, 1))).update
    needed = max(contract.cohort.minimum, contract.cohort.colluders + 2)
    if sites < needed:
        return Attempt(None, plan, 0, f"{sites} sites have persons to train on, a cohort needs {needed}")
    try:
        trained = _train(material, contract, conditions)
    except RoundAborted as error:
        if not conditions.faulty:
            raise
        return Attempt(None, plan, _charged(conditions, contract), error.message)
    return Attempt(trained, plan, max(p.releases for p in trained.privacy.values()))


def _train(material: Material, contract: Contract, conditions: Conditions) -> Trained:
    """By the real protocol or its model."""
    if conditions.real is not None and conditions.clock is not None:
        return train_real(material, contract, conditions.real, conditions.clock)
    losses = nobody if conditions.clock is None else conditions.clock.losses
    engine, workers = conditions.engine, conditions.workers
    return train_modelled(material, contract, workers=workers, vectorised=engine, losses=losses)


def _charged(conditions: Conditions, contract: Contract) -> int:
    """How many releases the site that was charged for most was charged for, in a training that has no result.

    Where the protocol is modelled nothing is left to look at: all attempts that were made count.
    """
    if conditions.real is not None:
        return max((site_privacy(path).releases for path in conditions.real.folder.glob("*.sqlite")), default=0)
    attempts = 0 if conditions.clock is None else len(conditions.clock.timings)
    return min(attempts, contract.training.rounds + contract.privacy.retries)


@dataclass(slots=True)
class Account:
    """What persons have taken part in, over all trainings of a scenario.

    A person of several trainings pays for all of them; persons of one site only, each is one site's.
    """

    delta: float
    plans: list[tuple[PrivacyPlan, int]] = field(default_factory=list)
    _took_part: dict[int, int] = field(default_factory=dict)

    def charge(self, plan: PrivacyPlan, releases: int, persons: Mapping[str, NDArray[np.int64]]) -> None:
        """Add a training: so many releases under this plan, for these persons."""
        bit = 1 << len(self.plans)
        self.plans.append((plan, releases))
        if releases:
            for found in persons.values():
                for person in found.tolist():
                    self._took_part[person] = self._took_part.get(person, 0) | bit

    def epsilon(self) -> float | None:
        """Epsilon at ``delta`` for the person whose trainings cost most; None if one of them had no plan."""
        costs = [self._epsilon(mask) for mask in set(self._took_part.values())]
        return None if None in costs else max((c for c in costs if c is not None), default=0.0)

    def _epsilon(self, mask: int) -> float | None:
        taken = tuple(p for i, p in enumerate(self.plans) if mask >> i & 1)
        if any(plan.kind is PlanKind.NONE for plan, _ in taken):
            return None
        return accounting.spent_by(taken, self.delta)
