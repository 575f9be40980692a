"""What an auditor has and knows: the server, its accomplices among the sites, and what the claim says of the rest.

Three sites take part. One, the victim, holds the canaries. Under plan local both others are accomplices: the claim
holds against everyone but the site itself. Under plan distributed one is, as many as ``colluders`` says: the claim
counts on the noise of the others. An accomplice knows what it sent. Here that is computed again, with the random bits
that it used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedseal.client.facts import ReleaseStreams
from fedseal.client.task import SiteData
from fedseal.client.trainer import Arrays, Trainer, TrainSettings
from fedseal.errors import ConfigError, LocalError
from fedseal.privacy.audit.scores import Mechanism
from fedseal.privacy.ledger import EntryKind
from fedseal.privacy.plan import LocalGaussian, SharedSkellam, Unit
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.releases import UPDATE, Population
from fedseal.privacy.roster import public_persons
from fedseal.privacy.shared_planning import Extent
from fedseal.privacy.shares import draw_share, noise_minimum, share_variance
from fedseal.privacy.store import SiteStore
from fedseal.simulation.audit.canaries import DIMENSION, Canaries
from fedseal.simulation.federation import Federation
from fedseal.study import Cohort, Contract, Normalisation

Real = NDArray[np.float64]

VICTIM, OTHERS = "victim", ("second", "third")
SITES = (VICTIM, *OTHERS)
TASK = "fedseal.simulation.audit.canaries:Canaries"
# As many as the smallest cohort with shared noise may have.
COLLUDERS = 1


@dataclass(frozen=True, slots=True)
class Target:
    """A claim made ready: what runs, and what the auditor expects to see of it.

    Attributes:
        contract: with the auditor's task and sites, and steps of a length that suits them.
        plans: of the contract.
        plan: the update's.
        mechanism: what is left of a release once the accomplices' part is taken off.
        honest: under plan distributed, how many sites' shares the plan counts on.
        persons: what every site publishes as its number of persons; it does not depend on the coins.
    """

    contract: Contract
    plans: RunPlans
    plan: LocalGaussian | SharedSkellam
    mechanism: Mechanism
    honest: int
    persons: int

    @property
    def accomplices(self) -> tuple[str, ...]:
        """The sites that work with the server."""
        return OTHERS if isinstance(self.plan, LocalGaussian) else OTHERS[:COLLUDERS]

    @property
    def as_sums(self) -> float:
        """By what a mean update is multiplied to become a sum of clipped gradients."""
        return len(SITES) * self.divisor / self.contract.training.learning_rate

    @property
    def divisor(self) -> float:
        """What a site's or the sites' sum is divided by: the number of persons expected in a step."""
        return max(self.mechanism.sample_rate * self.persons, 1.0)


def prepare(claim: Contract, canaries: int) -> Target:
    """The claim with the auditor's task, sites and strategy in it.

    Raises:
        ConfigError: the plan is none that this audit knows, or no noise keeps the promise.
    """
    if claim.privacy.plan not in ("local", "distributed"):
        raise ConfigError(
            f"the study's plan is {claim.privacy.plan}: an audit with persons as canaries knows local and distributed",
            next_step="Give --plan local or --plan distributed, to audit what such a plan would promise.",
        )
    if claim.privacy.adaptive_clip is not None:
        raise ConfigError(
            "an audit with persons as canaries needs to know by what they are clipped, and this clip norm adapts",
            next_step="Leave adaptive_clip out: what a release costs does not depend on its clip norm.",
        )
    shared = claim.privacy.plan == "distributed"
    changes: dict[str, object] = {
        "name": "audit",
        "task": TASK,
        "cohort": Cohort(minimum=len(SITES), colluders=COLLUDERS if shared else 0),
        "normalisation": Normalisation(),
    }
    first = _expectation(claim.model_copy(update=changes), canaries)
    mechanism = first.mechanism
    noise = mechanism.noise_multiplier * math.sqrt(mechanism.steps * DIMENSION)
    longest = claim.privacy.clip_norm * (noise + mechanism.steps * math.sqrt(canaries)) / first.divisor
    # So an update has a length of about 1: far below its range, and fine enough in a ring of 32 bits.
    training = {"learning_rate": 1.0 / longest, "strategy": "fedavg", "update_range": 4.0}
    changes["training"] = claim.training.model_copy(update=training)
    return _expectation(claim.model_copy(update=changes), canaries)


def _expectation(contract: Contract, canaries: int) -> Target:
    plans, persons = plan_run(contract, Extent(DIMENSION, len(SITES))), public_persons(canaries // 2)
    match plans.update:
        case LocalGaussian() as local:
            mechanism = Mechanism(local.noise_multiplier, local.sample_rate, local.steps)
            return Target(contract, plans, local, mechanism, 0, persons)
        case SharedSkellam(unit=Unit.PERSON) as shared:
            honest = noise_minimum(shared, len(SITES), COLLUDERS, contract.cohort.minimum) - COLLUDERS
            # Nobody drops out here, so all shares but the accomplices' are left: at least those counted on.
            left = (len(SITES) - COLLUDERS) * share_variance(shared, honest)
            mechanism = Mechanism(math.sqrt(left) / shared.resolution, 1.0, 1)
            return Target(contract, plans, shared, mechanism, honest, persons)
        case _:
            raise LocalError("a plan that no contract to be audited has")


class Accomplice:
    """A site that works with the server.

    Args:
        target: what runs.
        federation: holds the site's store.
        data: the sites' folders.
        name: the site's.
    """

    def __init__(self, target: Target, federation: Federation, data: Mapping[str, Path], name: str) -> None:
        self._target = target
        store = SiteStore.open(federation.site_stores[name])
        self._identity = store.identity
        persons = Canaries().data(SiteData(name, data[name])).train
        self._trainer = Trainer(Canaries(), persons, public_persons=target.persons)
        with store.transaction() as transaction:
            entries = transaction.entries(Population.TRAIN.value)
        # The last charge of a release is the attempt that was released.
        charged = {e.release_seq: e.attempt for e in entries if e.kind == EntryKind.CHARGE and e.release_name == UPDATE}
        self._releases = sorted(charged.items())

    def sent(self, number: int, received: Arrays) -> Real:
        """Its part of the sum of clipped gradients in a round, counted from 0; shape (DIMENSION,)."""
        streams, plan = ReleaseStreams(self._identity, *self._releases[number]), self._target.plan
        if isinstance(plan, SharedSkellam):
            share = draw_share(plan, self._target.honest, DIMENSION, streams("noise-share"))
            return share.astype(np.float64) * (plan.clip_norm / plan.resolution)
        rate = self._target.contract.training.learning_rate
        settings = TrainSettings(rate, plan.sample_rate, plan.steps)
        reached = self._trainer.fit(received, settings, plan, streams)
        return flat(received, reached) * (self._target.divisor / rate)


def flat(before: Arrays, after: Arrays) -> Real:
    """How far the parameters went against their gradient; shape (DIMENSION,)."""
    (name,) = before
    return (before[name].astype(np.float64) - after[name]).ravel()
