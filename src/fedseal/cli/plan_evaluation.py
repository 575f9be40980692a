"""`fedseal privacy plan`, about test persons: what the final evaluation costs, and whether a site accepts it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from fedseal.compliance.policy import check_plan, read_policy
from fedseal.errors import BudgetExceeded, ConfigError, FedsealError, PolicyRefused
from fedseal.privacy.accounting import spent_by
from fedseal.privacy.forecast import Statement, fits, round_down
from fedseal.privacy.inference.tally import CountNoise
from fedseal.privacy.ledger import UNITS, epsilon_enforced, open_ledger, open_terms
from fedseal.privacy.plan import SharedGeometric
from fedseal.privacy.planning import plan_evaluation
from fedseal.privacy.releases import EVALUATION, REGISTRY, Population
from fedseal.privacy.store import Identity
from fedseal.study import Contract

# Of what a ledger has left, tried from above: rounding and the conversion take a little.
_RATIOS = (1.0, 0.999, 0.995, 0.99, 0.98, 0.95, 0.9, 0.75, 0.5, 0.25)


@dataclass(frozen=True, slots=True)
class EvaluationOutlook:
    """What a study's evaluation costs in a new ledger of its promise.

    ``epsilon`` is pure and of one release, ``enforced`` with all retries; ``deviation`` the least noise in a count,
    that of the sites that are counted on.
    """

    plan: SharedGeometric
    promise: float
    delta: float
    order: float
    epsilon: float
    enforced: float
    deviation: float


@dataclass(frozen=True, slots=True)
class EvaluationVerdict:
    """Whether a site accepts the evaluation now; ``promise`` is an `evaluation.epsilon` that its ledger can pay."""

    outlook: EvaluationOutlook
    refusal: FedsealError | None
    enforced: float
    promise: float | None


def look_at_evaluation(contract: Contract) -> EvaluationOutlook | None:
    """What a study's evaluation costs; None if it has none.

    Raises:
        ConfigError: its promise leaves nothing for it.
    """
    planned, promise, delta = plan_evaluation(contract), contract.evaluation.epsilon, contract.privacy.delta
    if planned is None or promise is None:
        return None
    terms = open_terms(Population.TEST.value, epsilon=promise, delta=delta, order=planned.order)
    ledger, _ = open_ledger(terms)[0].reserve(bytes(16), planned.plan)
    return EvaluationOutlook(
        planned.plan,
        promise,
        delta,
        planned.order,
        spent_by(((planned.plan, 1),), delta),
        epsilon_enforced(terms, ledger.last.reserved),
        math.sqrt(CountNoise(planned.plan.decay, 1, 1).variance),
    )


def judge_evaluation(contract: Contract, stands: Statement, identity: Identity) -> EvaluationVerdict:
    """Try a study's evaluation on a copy of a site's ledger of test persons, after the site's policy.

    Raises:
        ConfigError: the study has none.
    """
    outlook = look_at_evaluation(contract)
    if outlook is None:
        raise ConfigError(
            "the study has no private evaluation, and nothing else is about test persons",
            next_step="Set epsilon in [tool.fedseal.evaluation].",
        )
    refusal: FedsealError | None = None
    ledger, enforced = stands.ledger, stands.enforced
    try:
        check_plan(read_policy(identity.policy), REGISTRY[EVALUATION], outlook.plan)
        after, _ = ledger.reserve(b"\xff" * 16, outlook.plan)
        enforced = epsilon_enforced(ledger.terms, after.last.charged + after.last.reserved)
    except (PolicyRefused, BudgetExceeded) as error:
        refusal = error
    promise = outlook.promise if fits(ledger, [outlook.plan]) else _promise(contract, stands)
    return EvaluationVerdict(outlook, refusal, enforced, promise)


def _promise(contract: Contract, stands: Statement) -> float | None:
    """An `evaluation.epsilon`, rounded down, whose release fits what the ledger has left; None if none does."""
    left, attempts = stands.ledger.available / UNITS, 1 + contract.evaluation.retries
    if left <= 0:
        return None
    order = stands.ledger.terms.order
    most = max(left, attempts * math.sqrt(2 * left / attempts / order))

    def accepted(epsilon: float) -> bool:
        evaluation = contract.evaluation.model_copy(update={"epsilon": epsilon})
        try:
            planned = plan_evaluation(contract.model_copy(update={"evaluation": evaluation}))
        except ConfigError:
            return False
        return planned is not None and fits(stands.ledger, [planned.plan])

    return next((e for e in (round_down(most * ratio) for ratio in _RATIOS) if accepted(e)), None)


def show_evaluation(console: Console, outlook: EvaluationOutlook) -> None:
    """What the evaluation costs, as a table."""
    plan = outlook.plan
    table = Table(
        title="What it releases of test persons, on their own ledger", title_justify="left", show_header=False
    )
    table.add_column("what")
    table.add_column("found", justify="right")
    table.add_row("release, plan", f"evaluation, {plan.kind.label}")
    table.add_row("tables, counts", f"{plan.cells}, {plan.length}")
    table.add_row("noise in each count, at least", f"{outlook.deviation:.3g}")
    table.add_row("pure epsilon of one release", f"{outlook.epsilon:.3f}")
    table.add_row("enforced, with all retries", f"{outlook.enforced:.3f}")
    table.add_row("promised", f"{outlook.promise:g}")
    console.print(table)


def show_evaluation_verdict(console: Console, verdict: EvaluationVerdict) -> None:
    """Whether a site would accept the evaluation, and what would fit where it does not."""
    table = Table(title="The final evaluation", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("found")
    table.add_row("accepted", "yes" if verdict.refusal is None else "no")
    if isinstance(verdict.refusal, BudgetExceeded):
        found = "none does" if verdict.promise is None else f"{verdict.promise:g}, not {verdict.outlook.promise:g}"
        table.add_row("evaluation.epsilon with which it fits", found)
    elif verdict.refusal is None:
        table.add_row("enforced after it", f"{verdict.enforced:.3f}, with all retries")
    console.print(table)


def evaluation_numbers(outlook: EvaluationOutlook | None) -> dict[str, Any] | None:
    """For JSON."""
    if outlook is None:
        return None
    plan = {"kind": outlook.plan.kind.label} | asdict(outlook.plan)
    return asdict(outlook) | {"plan": plan}


def verdict_numbers(verdict: EvaluationVerdict) -> dict[str, Any]:
    """For JSON."""
    refusal = verdict.refusal
    return {
        "evaluation": evaluation_numbers(verdict.outlook),
        "accepted": refusal is None,
        "refusal": None if refusal is None else refusal_numbers(refusal),
        "epsilon_enforced_after": verdict.enforced,
        "epsilon_that_fits": verdict.promise,
    }


def refusal_numbers(refusal: FedsealError) -> dict[str, str]:
    """For JSON: the class of the refusal, and its message. Which rule of a policy it was is in the message."""
    kind = PolicyRefused if isinstance(refusal, PolicyRefused) else type(refusal)
    return {"class": kind.__name__, "message": refusal.message}
