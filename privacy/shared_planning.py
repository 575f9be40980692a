"""From a promise to a plan with shared noise: how fine the integers are, and how much noise a sum needs."""

import math
from dataclasses import dataclass

from fedseal.errors import ConfigError
from fedseal.privacy.accounting import ORDERS
from fedseal.privacy.plan import AdaptiveSkellam, SharedSkellam, Unit, moves
from fedseal.privacy.quantize import LARGEST_LEVEL
from fedseal.privacy.secagg.parameters import minimum_sites, threshold
from fedseal.privacy.shares import Room
from fedseal.privacy.skellam_accounting import smallest_variance
from fedseal.study import AdaptiveClip, Contract

# Rounding moves one contribution by sqrt(length) units; where that costs more than this share of it, more bits are
# taken.
ROUNDING_COST = 0.005
LARGEST_VARIANCE = 1 << 50
_MARGIN = 4.0


@dataclass(frozen=True, slots=True)
class Extent:
    """What a shared plan has to know of a run besides its contract: the model's trainable numbers, and how many sites
    take part.
    """

    values: int
    sites: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A part of a contract's budget for one kind of release, and what it is for.

    ``share`` is the part of the budget, ``order`` the ledger's order if that is fixed already; ``length`` and
    ``clip_norm`` are those of the released vector. ``count_share`` is the part of its cost that the count takes by
    which its clip norm adapts, 0 for a fixed one.
    """

    share: float
    order: float | None
    length: int
    clip_norm: float
    releases: int
    count_share: float = 0.0

    def count_units(self, resolution: int) -> int:
        """How many integer units the count of who was not clipped has, for its share of the cost; 0 without one.

        Costs go with squares of sensitivities: of the vector its ``resolution``, of the count half of its units.
        """
        if not self.count_share:
            return 0
        return 2 * max(1, round(resolution * math.sqrt(self.count_share / (1 - self.count_share))))


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, the order its cost was counted at, and the ring its sums fit in."""

    plan: SharedSkellam
    order: float
    ring_bits: int


def plan_shared(contract: Contract, promise: Promise, sites: int, ring_bits: tuple[int, ...] = (32, 64)) -> Planned:
    """The plan that keeps a promise with as fine integers as fit the smallest ring in which rounding costs little.

    Args:
        contract: the study's.
        promise: what may be spent on what.
        sites: how many take part at most.
        ring_bits: the rings to choose from, smallest first.

    Raises:
        ConfigError: no noise keeps it, or no ring is large enough.
    """
    found = None
    for bits in ring_bits:
        found = _finest(contract, promise, sites, bits)
        if found is not None and math.sqrt(promise.length) <= ROUNDING_COST * found.plan.resolution:
            break
    if found is None:
        raise ConfigError(
            f"sums over {sites} sites of up to {contract.cohort.largest_site} persons fit no ring with their noise",
            next_step="Lower [tool.fedseal.cohort] largest_site, or raise epsilon.",
        )
    return found


def adaptive(rule: AdaptiveClip, promise: Promise, vector: SharedSkellam, sites: int) -> AdaptiveSkellam:
    """The plan with a clip norm that adapts, of the plan of its first round.

    Raises:
        ConfigError: sites are counted, and the count's noise is larger than half of them: the clip norm would only
            wander. How many persons there are is not known here.
    """
    plan = AdaptiveSkellam(
        vector=vector,
        count_units=promise.count_units(vector.resolution),
        lowest=rule.lowest,
        highest=rule.highest,
        quantile=rule.quantile,
        rate=rule.learning_rate,
    )
    if vector.unit == Unit.SITE and plan.count_deviation > sites / 2:
        raise ConfigError(
            f"a clip norm cannot follow a count of {sites} sites with noise of {plan.count_deviation:.1f} sites in it",
            next_step="Raise epsilon or adaptive_clip.budget_share, plan fewer rounds, or leave adaptive_clip out.",
        )
    return plan


def _finest(contract: Contract, promise: Promise, sites: int, bits: int) -> Planned | None:
    """The plan with the largest power of two as resolution that fits; None if none does."""
    unit = _unit(contract)
    largest = contract.cohort.largest_site if unit is Unit.PERSON else 1
    # With integers much finer than the noise the multiplier no longer depends on how fine they are.
    multiplier = math.sqrt(_calibrated(contract, promise, 1 << 20)[0]) / (1 << 20)
    room = min(LARGEST_LEVEL / largest, math.sqrt(LARGEST_VARIANCE) / multiplier, 2.0**44)
    room = min(room, _MARGIN * 2.0 ** (bits - 1) / (sites * largest))
    for power in range(int(math.log2(room)) if room >= 1 else 0, 3, -1):
        variance, order = _calibrated(contract, promise, 1 << power)
        if not 1 << 10 <= variance <= LARGEST_VARIANCE:
            continue
        plan = SharedSkellam(
            unit=int(unit),
            clip_norm=promise.clip_norm,
            resolution=1 << power,
            length=promise.length,
            variance=variance,
            releases=promise.releases,
            retries=contract.privacy.retries,
        )
        if _fits(contract, plan, sites, largest, bits):
            return Planned(plan, order, bits)
    return None


def _unit(contract: Contract) -> Unit:
    return Unit.SITE if contract.privacy.plan == "client" else Unit.PERSON


def _calibrated(contract: Contract, promise: Promise, resolution: int) -> tuple[int, float]:
    privacy, far = contract.privacy, moves(_unit(contract))
    found = smallest_variance(
        promise.releases + privacy.retries,
        resolution=far * resolution,
        length=promise.length,
        epsilon=privacy.epsilon,
        delta=privacy.delta,
        share=promise.share,
        orders=ORDERS if promise.order is None else (promise.order,),
        count_units=far * promise.count_units(resolution),
    )
    if found is None:
        raise ConfigError(
            f"no noise makes this plan fit epsilon {privacy.epsilon:g} at delta {privacy.delta:g}",
            next_step="Raise epsilon, or plan fewer rounds.",
        )
    return found


def _fits(contract: Contract, plan: SharedSkellam, sites: int, largest: int, bits: int) -> bool:
    """Whether no cohort of the run can wrap around: its values, one unit of rounding a site, and the noise of all."""
    cohort = contract.cohort
    for n in range(max(cohort.minimum, cohort.colluders + 2), sites + 1):
        honest = minimum_sites(threshold(n, cohort.colluders), cohort.minimum, cohort.colluders, 0) - cohort.colluders
        headroom = Room(plan, n, honest).headroom
        if n * (plan.resolution * largest + 1) + headroom > (1 << bits - 1) - 1:
            return False
    return True
