"""From a study's contract to the plans of its releases: how much noise the promised epsilon asks for.

The noise is calibrated to what the sites' ledgers enforce (Rényi divergence at one order, all attempts reserved), so
a run that was planned here is affordable to the last retry. The tight epsilon of what really ran comes out below the
promise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fedseal.errors import ConfigError
from fedseal.privacy import accounting
from fedseal.privacy.inference.evaluation import evaluation_tables
from fedseal.privacy.ledger import Terms, open_terms
from fedseal.privacy.plan import LocalGaussian, NoPrivacy, PrivacyPlan, SharedGeometric
from fedseal.privacy.polya import SMALLEST_DECAY
from fedseal.privacy.releases import Population
from fedseal.privacy.shared_planning import Extent, Promise, adaptive, plan_shared
from fedseal.study import Contract

# The order of a ledger that nothing private is planned for yet: the best one for epsilon 3 at delta 1e-5 of a plain
# Gaussian.
DEFAULT_ORDER = 7.25
# Of ledgers that pay for pure epsilon: the higher the order, the less is lost to the conversion to (epsilon, delta).
PURE_ORDERS = (*accounting.ORDERS, 1024.0, 4096.0)


@dataclass(frozen=True, slots=True)
class RunPlans:
    """The plan of each release of a run, the order a ledger has to be opened at to afford them all, and the ring their
    sums fit in. The evaluation is of other persons, whose ledger has an order of its own.
    """

    update: PrivacyPlan
    moments: PrivacyPlan | None
    order: float
    ring_bits: int = 32
    evaluation: "PlannedEvaluation | None" = None


@dataclass(frozen=True, slots=True)
class PlannedEvaluation:
    """The plan of a run's evaluation, and the order at which the test persons' ledger affords it."""

    plan: SharedGeometric
    order: float


@lru_cache(maxsize=64)
def plan_run(contract: Contract, extent: Extent | None = None) -> RunPlans:
    """The plans that keep a contract's promise.

    Args:
        contract: the study's.
        extent: the size of the model and the number of sites; plans with shared noise need it.

    Raises:
        ConfigError: no noise can keep it.
    """
    return replace(_training_plans(contract, extent), evaluation=plan_evaluation(contract))


def ledger_terms(contract: Contract, plans: RunPlans) -> tuple[Terms, ...]:
    """One ledger a population. Persons trained on and persons tested on are different persons."""
    privacy, order = contract.privacy, plans.order
    if privacy.plan == "none":
        # Nothing is counted, so any order will do that the promise can be stated at.
        order = max(accounting.ORDERS, key=lambda a: accounting.rdp_budget(privacy.epsilon, privacy.delta, a))
    promises = dict.fromkeys(Population, (privacy.epsilon, order))
    if contract.evaluation.epsilon is not None and plans.evaluation is not None:
        promises[Population.TEST] = contract.evaluation.epsilon, plans.evaluation.order
    return tuple(
        open_terms(population.value, epsilon=epsilon, delta=privacy.delta, order=at)
        for population, (epsilon, at) in promises.items()
    )


def plan_evaluation(contract: Contract) -> PlannedEvaluation | None:
    """The plan of the final evaluation; None if the contract has none.

    Raises:
        ConfigError: its promise leaves nothing for it.
    """
    evaluation = contract.evaluation
    if evaluation.epsilon is None:
        return None
    tables, attempts = evaluation_tables(evaluation), 1 + evaluation.retries
    found = counts_epsilon(evaluation.epsilon, contract.privacy.delta, attempts)
    cells = len(tables.tables)
    if found is None or found[0] / cells < SMALLEST_DECAY:
        raise ConfigError(
            f"evaluation.epsilon {evaluation.epsilon:g} at delta {contract.privacy.delta:g} leaves too little for "
            f"{attempts} attempt{'s' if attempts > 1 else ''} and {cells} table{'s' if cells > 1 else ''}",
            next_step="Raise it, or ask for fewer retries or tables in [tool.fedseal.evaluation].",
        )
    epsilon, order = found
    plan = SharedGeometric(epsilon=epsilon, cells=cells, length=tables.length, releases=1, retries=evaluation.retries)
    return PlannedEvaluation(plan, order)


def counts_epsilon(
    epsilon: float, delta: float, attempts: int, orders: Sequence[float] = PURE_ORDERS
) -> tuple[float, float] | None:
    """The largest pure epsilon of one release of counts of which a ledger of (epsilon, delta) affords so many attempts,
    and the order at which it does; None if it affords none.

    A release costs min(e, order e^2 / 2), so a cost of c allows an e of max(c, sqrt(2 c / order)).
    """
    best: tuple[float, float] | None = None
    for order in orders:
        one = (accounting.rdp_budget(epsilon, delta, order) - 1e-9) / attempts - accounting.COST_UNIT
        if one > 0 and (best is None or max(one, math.sqrt(2 * one / order)) > best[0]):
            best = max(one, math.sqrt(2 * one / order)), order
    return best


def _training_plans(contract: Contract, extent: Extent | None) -> RunPlans:
    """The plans about training persons."""
    privacy, training, normalisation = contract.privacy, contract.training, contract.normalisation
    federated = normalisation.kind == "federated"
    if privacy.plan == "none":
        update: PrivacyPlan = NoPrivacy(releases=training.rounds, retries=privacy.retries)
        moments = NoPrivacy(releases=1, retries=privacy.retries) if federated else None
        return RunPlans(update, moments, DEFAULT_ORDER, training.word_bits)
    if privacy.plan != "local":
        return _shared_plans(contract, extent)
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
        return RunPlans(update, None, found.order, training.word_bits)
    return RunPlans(update, _moments_plan(contract, found.order, share), found.order, training.word_bits)


def _shared_plans(contract: Contract, extent: Extent | None) -> RunPlans:
    """The update's plan, and with federated normalisation the moments', both with noise inside the sums."""
    if extent is None:
        raise ConfigError(f"plan {contract.privacy.plan!r} depends on the model's size and the number of sites")
    privacy, normalisation = contract.privacy, contract.normalisation
    share = normalisation.budget_share if normalisation.kind == "federated" else 0.0
    promised = Promise(
        share=1.0 - share,
        order=None,
        length=extent.values,
        clip_norm=privacy.clip_norm,
        releases=contract.training.rounds,
        count_share=0.0 if privacy.adaptive_clip is None else privacy.adaptive_clip.budget_share,
    )
    update = plan_shared(contract, promised, extent.sites)
    plan: PrivacyPlan = update.plan
    if privacy.adaptive_clip is not None:
        plan = adaptive(privacy.adaptive_clip, promised, update.plan, extent.sites)
    if not share:
        return RunPlans(plan, None, update.order, update.ring_bits)
    length = 2 * len(normalisation.low)
    clip = normalisation.clip_norm or math.sqrt(len(normalisation.low))
    promise = Promise(share=share, order=update.order, length=length, clip_norm=clip, releases=1)
    moments = plan_shared(contract, promise, extent.sites, (update.ring_bits,))
    return RunPlans(plan, moments.plan, update.order, update.ring_bits)


def _moments_plan(contract: Contract, order: float, share: float) -> LocalGaussian:
    """A single Gaussian release has a closed form: its Rényi divergence is order / (2 z^2).

    Raises:
        ConfigError: the share leaves so little that no noise keeps it.
    """
    privacy, normalisation = contract.privacy, contract.normalisation
    attempts = 1 + privacy.retries
    budget = share * accounting.rdp_budget(privacy.epsilon, privacy.delta, order) - attempts * accounting.COST_UNIT
    noise = math.sqrt(attempts * order / (2 * budget)) if budget > 0 else math.inf
    if noise > accounting.LARGEST_NOISE:
        raise ConfigError(
            f"normalisation.budget_share {share:g} leaves too little of epsilon {privacy.epsilon:g} for the mean and "
            "deviation of the features",
            next_step="Raise budget_share or epsilon, lower retries, or let the task bring features to one scale "
            'itself: kind = "task".',
        )
    # Rows of (u, u^2) with u in [-1, 1] have norms up to sqrt(2 k); most are much shorter.
    clip = normalisation.clip_norm or math.sqrt(len(normalisation.low))
    return LocalGaussian(
        clip_norm=clip,
        noise_multiplier=noise,
        sample_rate=1.0,
        steps=1,
        releases=1,
        retries=privacy.retries,
    )
