"""What a ledger says to those who plan: what was spent on what, who holds the rest, and what still fits. Pure.

Every answer is the ledger's own: whether a run fits is tried on a copy, so a forecast and a site cannot disagree.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedseal.errors import BudgetExceeded, ConfigError, LocalError
from fedseal.privacy import accounting
from fedseal.privacy.chain import check_chain
from fedseal.privacy.ledger import Entry, EntryKind, Ledger, Terms, cost, epsilon_enforced, epsilon_shown, epsilon_spent
from fedseal.privacy.plan import (
    AdaptiveSkellam,
    LocalGaussian,
    NoPrivacy,
    PrivacyPlan,
    SharedGeometric,
    SharedSkellam,
    decode_plan,
)
from fedseal.privacy.planning import RunPlans, plan_run
from fedseal.privacy.shared_planning import Extent
from fedseal.study import Contract

# No run is planned for more.
MOST_ROUNDS = 10_000
# Nobody promises less.
SMALLEST_PROMISE = 1e-3
_RATIOS = (1.0, 0.995, 0.99, 0.98, 0.96, 0.92, 0.85, 0.7, 0.5, 0.25, 0.1)
# Names nobody's run: on the copy of a ledger that is asked whether something fits.
_TRIAL = b"\xff" * 16


@dataclass(frozen=True, slots=True)
class Spent:
    """What one run was charged for one release under one plan: how often, in units of 10^-12, and its epsilon alone
    (infinite without privacy).
    """

    run: bytes
    release: str
    plan: PrivacyPlan
    charges: int
    units: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Held:
    """What a run has set aside and not spent: for how many attempts, in units of 10^-12."""

    run: bytes
    plan: PrivacyPlan
    attempts: int
    units: int


@dataclass(frozen=True, slots=True)
class Statement:
    """Where a ledger stands.

    ``epsilon`` is the tight number of everything charged (infinite once something was released without privacy),
    ``enforced`` what the filter holds against the promise.
    """

    ledger: Ledger
    spent: tuple[Spent, ...]
    held: tuple[Held, ...]
    epsilon: float
    enforced: float

    @property
    def plans(self) -> tuple[PrivacyPlan, ...]:
        """Every plan that was charged or is held, once, in the order of its first entry."""
        charged = [spent.plan for spent in self.spent]
        return tuple(dict.fromkeys(charged + [held.plan for held in self.held]))


def statement(terms: Terms, entries: Sequence[Entry]) -> Statement:
    """Replay a ledger and account for it.

    Raises:
        LocalError: the entries do not follow from one another.
    """
    ledger = check_chain(terms, list(entries))
    counted: dict[tuple[bytes, str, bytes], tuple[int, int]] = {}
    for entry in entries:
        if entry.kind == EntryKind.CHARGE:
            key = (entry.run, entry.release_name, entry.plan)
            charges, units = counted.get(key, (0, 0))
            counted[key] = charges + 1, units + entry.amount
    spent = []
    for (run, name, raw), (charges, units) in counted.items():
        plan = decode_plan(raw)
        alone = epsilon_shown(((plan, charges),), terms.delta)
        spent.append(Spent(run, name, plan, charges, units, alone))
    held = [(run, decode_plan(raw), left) for (run, raw), left in ledger.reservations.items() if left]
    return Statement(
        ledger,
        tuple(spent),
        tuple(Held(run, plan, left // cost(plan, terms.order), left) for run, plan, left in held),
        epsilon_spent(terms, list(entries)),
        epsilon_enforced(terms, ledger.last.charged),
    )


def after_reserving(ledger: Ledger, plans: Sequence[PrivacyPlan]) -> Ledger:
    """The ledger once a new run has set aside all attempts of its plans, in the order in which it asks for them.

    Raises:
        BudgetExceeded: they do not fit; the text is what the site would write down.
    """
    for plan in plans:
        ledger, _ = ledger.reserve(_TRIAL, plan)
    return ledger


def fits(ledger: Ledger, plans: Sequence[PrivacyPlan]) -> bool:
    """Whether a new run with these plans would be accepted."""
    try:
        after_reserving(ledger, plans)
    except (BudgetExceeded, LocalError):
        return False
    return True


def most_releases(ledger: Ledger, plan: PrivacyPlan, beside: Sequence[PrivacyPlan] = ()) -> int:
    """How many releases of a plan, with its retries, a new run could reserve; 0 if not even one.

    Args:
        ledger: where it stands.
        plan: whose number of releases is asked for; what it says itself does not matter.
        beside: the run's other plans, reserved first.
    """
    left = ledger.available - sum(cost(other, ledger.terms.order) * other.attempts for other in beside)
    return max(left // cost(plan, ledger.terms.order) - plan.retries, 0)


def with_noise(plan: PrivacyPlan, factor: float) -> PrivacyPlan:
    """The plan with so many times the noise.

    Raises:
        ValueError: no plan has that much noise.
    """
    match plan:
        case LocalGaussian():
            return replace(plan, noise_multiplier=plan.noise_multiplier * factor)
        case SharedSkellam():
            return _noisier(plan, factor)
        case AdaptiveSkellam(vector=vector):
            return replace(plan, vector=_noisier(vector, factor))
        case SharedGeometric():
            return replace(plan, epsilon=plan.epsilon / factor)
        case NoPrivacy():
            return plan


def _noisier(plan: SharedSkellam, factor: float) -> SharedSkellam:
    return replace(plan, variance=2 * math.ceil(plan.variance * factor * factor / 2))


def noise_that_fits(ledger: Ledger, plans: Sequence[PrivacyPlan]) -> float | None:
    """The smallest factor of at least 1, to 0.01 %, by which the noise of all plans has to grow to fit; None if no
    noise is enough.
    """

    def enough(factor: float) -> bool:
        try:
            return fits(ledger, [with_noise(plan, factor) for plan in plans])
        except ValueError:
            return False

    if enough(1.0):
        return 1.0
    return accounting.least(enough, 1.0, 2.0, growth=2.0, most=accounting.LARGEST_NOISE)


def all_plans(plans: RunPlans) -> tuple[PrivacyPlan, ...]:
    """A run's plans in the order in which its releases ask for them."""
    return (plans.update,) if plans.moments is None else (plans.moments, plans.update)


def promise_that_fits(contract: Contract, extent: Extent | None, ledger: Ledger) -> float | None:
    """A `privacy.epsilon`, rounded down to three digits, with which a study's run fits what a ledger has left, and
    close to the largest; None if none does.

    A study states a promise and not a noise: its noise grows as the promise shrinks.
    """

    def accepted(epsilon: float) -> bool:
        privacy = contract.privacy.model_copy(update={"epsilon": epsilon})
        try:
            return fits(ledger, all_plans(plan_run(contract.model_copy(update={"privacy": privacy}), extent)))
        except ConfigError:
            return False

    if accepted(contract.privacy.epsilon):
        return contract.privacy.epsilon
    plans = all_plans(plan_run(contract, extent))
    factor = noise_that_fits(ledger, plans)
    if factor is None:
        return None
    # The promise that asks for this noise, by the planner's own measure; then a little less until it is accepted.
    noisier, delta = [with_noise(plan, factor) for plan in plans], contract.privacy.delta
    guess = min(
        sum(plan.attempts * plan.divergence(a) for plan in noisier) + accounting.conversion(a, delta)
        for a in accounting.ORDERS
    )
    tried = (round_down(guess * ratio) for ratio in _RATIOS if guess * ratio >= SMALLEST_PROMISE)
    return next((epsilon for epsilon in tried if accepted(epsilon)), None)


def round_down(value: float, digits: int = 3) -> float:
    """A positive number with so many significant digits, never a larger one."""
    step = 10.0 ** (math.floor(math.log10(value)) - digits + 1)
    rounded = float(f"{math.floor(value / step) * step:.{digits}g}")
    return rounded if rounded <= value else float(f"{rounded - step:.{digits}g}")
