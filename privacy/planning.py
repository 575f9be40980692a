"""From a study's contract to the plans of its releases: how much noise the promised epsilon asks for.

The noise is calibrated to what the sites' ledgers enforce (Rényi divergence at one order, all attempts reserved), so
a run that was planned here is affordable to the last retry. The tight epsilon of what really ran comes out below the
promise.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from fedseal.privacy import accounting
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan
from fedseal.study import Contract

# The order of a ledger that nothing private is planned for yet: the best one for epsilon 3 at delta 1e-5 of a plain
# Gaussian.
DEFAULT_ORDER = 7.25


@dataclass(frozen=True, slots=True)
class RunPlans:
    """The plan of each release of a run, and the order a ledger has to be opened at to afford them all."""

    update: PrivacyPlan
    moments: PrivacyPlan | None
    order: float


@lru_cache(maxsize=64)
def plan_run(contract: Contract) -> RunPlans:
    """The plans that keep a contract's promise.

    Raises:
        ConfigError: no noise can keep it.
    """
    privacy, training, normalisation = contract.privacy, contract.training, contract.normalisation
    federated = normalisation.kind == "federated"
    if privacy.plan == "none":
        update: PrivacyPlan = NoPrivacy(releases=training.rounds, retries=privacy.retries)
        return RunPlans(update, NoPrivacy(releases=1, retries=privacy.retries) if federated else None, DEFAULT_ORDER)
    share = normalisation.budget_share if federated else 0.0
    noiseless = LocalGaussian(
        clip_norm=privacy.clip_norm,
        noise_multiplier=1.0,
        sample_rate=training.sample_rate,
        steps=training.local_steps,
        releases=training.rounds,
        retries=privacy.retries,
    )
    found = accounting.calibrate(
        lambda z: replace(noiseless, noise_multiplier=z).event(noiseless.attempts),
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        charges=noiseless.attempts,
        share=1.0 - share,
    )
    update = replace(noiseless, noise_multiplier=found.noise_multiplier)
    if not federated:
        return RunPlans(update, None, found.order)
    return RunPlans(update, _moments_plan(contract, found.order, share), found.order)


def _moments_plan(contract: Contract, order: float, share: float) -> LocalGaussian:
    """A single Gaussian release has a closed form: its Rényi divergence is order / (2 z^2)."""
    privacy, normalisation = contract.privacy, contract.normalisation
    attempts = 1 + privacy.retries
    budget = share * accounting.rdp_budget(privacy.epsilon, privacy.delta, order) - attempts * accounting.COST_UNIT
    # Rows of (u, u^2) with u in [-1, 1] have norms up to sqrt(2 k); most are much shorter.
    clip = normalisation.clip_norm or math.sqrt(len(normalisation.low))
    return LocalGaussian(
        clip_norm=clip,
        noise_multiplier=math.sqrt(attempts * order / (2 * budget)),
        sample_rate=1.0,
        steps=1,
        releases=1,
        retries=privacy.retries,
    )
