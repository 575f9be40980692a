"""`fedseal privacy plan --json`: the same numbers as the tables, none of them rounded."""

import math
from dataclasses import asdict
from typing import Any

from fedseal.cli.plan_evaluation import evaluation_numbers, look_at_evaluation, refusal_numbers
from fedseal.cli.planning import Outlook, Verdict, noise_of
from fedseal.privacy.forecast import Statement, all_plans, most_releases
from fedseal.privacy.plan import AdaptiveSkellam, PlanKind, PrivacyPlan


def as_numbers(outlook: Outlook | None, stands: Statement | None, verdict: Verdict | None) -> dict[str, Any]:
    """Everything that was found, for JSON; what is unbounded is null."""
    return {
        "study": None if outlook is None else _of_outlook(outlook),
        "ledger": None if stands is None else _of_statement(stands),
        "run": None if verdict is None else _of_verdict(verdict),
    }


def _of_outlook(outlook: Outlook) -> dict[str, Any]:
    privacy, plans = outlook.contract.privacy, outlook.plans
    return {
        "promise": {"epsilon": privacy.epsilon, "delta": privacy.delta, "order": plans.order},
        "plans": [_of_plan(plan) for plan in all_plans(plans)],
        "divergences": [plan.divergence(plans.order) for plan in all_plans(plans)],
        "epsilon": outlook.epsilon,
        "epsilon_with_retries": outlook.epsilon_with_retries,
        "epsilon_enforced": outlook.enforced,
        "neighbours": [asdict(neighbour) for neighbour in outlook.neighbours],
        "evaluation": evaluation_numbers(look_at_evaluation(outlook.contract)),
    }


def _of_statement(stands: Statement) -> dict[str, Any]:
    ledger, terms = stands.ledger, stands.ledger.terms
    return {
        "terms": asdict(terms),
        "budget": terms.budget,
        "charged": ledger.last.charged,
        "reserved": ledger.last.reserved,
        "available": ledger.available,
        "entries": ledger.counter,
        "epsilon_enforced": stands.enforced,
        "epsilon": _finite(stands.epsilon),
        "spent": [
            {
                "run": s.run.hex(),
                "release": s.release,
                "plan": _of_plan(s.plan),
                "charges": s.charges,
                "units": s.units,
                "epsilon": _finite(s.epsilon),
            }
            for s in stands.spent
        ],
        "reserved_by": [
            {"run": h.run.hex(), "plan": _of_plan(h.plan), "attempts": h.attempts, "units": h.units}
            for h in stands.held
        ],
        "releases_that_fit": [
            {"plan": _of_plan(plan), "releases": most_releases(ledger, plan)}
            for plan in stands.plans
            if plan.kind is not PlanKind.NONE
        ],
    }


def _of_verdict(verdict: Verdict) -> dict[str, Any]:
    refusal = verdict.refusal
    return {
        "accepted": refusal is None,
        "refusal": None if refusal is None else refusal_numbers(refusal),
        "epsilon_after": _finite(verdict.epsilon),
        "epsilon_enforced_after": verdict.enforced,
        "rounds_that_fit": verdict.rounds,
        "noise_factor_that_fits": verdict.noise,
        "epsilon_that_fits": verdict.promise,
    }


def _of_plan(plan: PrivacyPlan) -> dict[str, Any]:
    known: dict[str, Any] = {"kind": plan.kind.label, "noise_multiplier": noise_of(plan)}
    if isinstance(plan, AdaptiveSkellam):
        known["count_deviation"] = plan.count_deviation
    return known | asdict(plan)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
