"""The tables of `fedseal privacy plan`."""

import math

from rich.console import Console
from rich.table import Table

from fedseal.cli.planning import Outlook, Verdict, noise_of
from fedseal.errors import BudgetExceeded
from fedseal.privacy.forecast import Statement, all_plans, most_releases, with_noise
from fedseal.privacy.ledger import UNITS, Terms, cost, open_terms
from fedseal.privacy.plan import AdaptiveSkellam, LocalGaussian, PlanKind, PrivacyPlan, Unit
from fedseal.study import Contract

TWO_NUMBERS = (
    "The tight epsilon is of what ran, the enforced one of the ledger's filter, which also holds when later plans "
    "depend on earlier results. Where noise is shared, both are Rényi bounds. Details: docs/privacy.md."
)


def show_outlook(console: Console, outlook: Outlook) -> None:
    """What a study's run costs in a new ledger, and what its neighbours would."""
    contract, plans = outlook.contract, outlook.plans
    privacy = contract.privacy
    terms = open_terms("train", epsilon=privacy.epsilon, delta=privacy.delta, order=plans.order)
    console.print(contract.title or contract.name, markup=False)
    console.print(f"Promise: {_promise(terms)}.", markup=False)
    table = Table(title="What it releases", title_justify="left")
    for name in ("release", "plan"):
        table.add_column(name, no_wrap=True)
    for name in ("noise", "clip", "draws", "with retries", "one costs", "all reserve"):
        table.add_column(name, justify="right")
    for plan in all_plans(plans):
        name = "update" if plan is plans.update else "moments"
        one = cost(plan, terms.order)
        counts = f"{plan.releases} + {plan.retries}"
        table.add_row(name, *_form(plan), counts, _share(one, terms), _share(one * plan.attempts, terms))
    console.print(table)
    if told_of := adapting(plans.update):
        console.print(told_of, markup=False)
    told = Table(title="What it costs", title_justify="left", show_header=False)
    told.add_column("what")
    told.add_column("epsilon", justify="right")
    told.add_row("tight, if no round has to be repeated", f"{outlook.epsilon:.3f}")
    told.add_row("tight, with all retries", f"{outlook.epsilon_with_retries:.3f}")
    told.add_row("enforced, with all retries", f"{outlook.enforced:.3f}")
    told.add_row("promised", f"{privacy.epsilon:g}")
    console.print(told)
    console.print(_neighbours(outlook))
    console.print(TWO_NUMBERS)


def _neighbours(outlook: Outlook) -> Table:
    promise = outlook.contract.privacy.epsilon
    table = Table(title="With other noise, or another number of rounds", title_justify="left")
    table.add_column("noise", justify="right")
    table.add_column("rounds", justify="right")
    table.add_column("tight", justify="right")
    table.add_column("enforced", justify="right")
    table.add_column(f"keeps {promise:g}")
    table.add_column("rounds at this noise", justify="right")
    table.add_column("noise for these rounds", justify="right")
    for n in outlook.neighbours:
        table.add_row(
            _number(n.noise_multiplier),
            str(n.rounds),
            f"{n.epsilon:.3f}",
            f"{n.enforced:.3f}",
            "yes" if n.rounds <= n.fitting else "no",
            str(n.fitting),
            _number(n.needed),
        )
    return table


def show_statement(console: Console, stands: Statement) -> None:
    """Where a ledger stands, who spent and who holds what, and what still fits."""
    ledger, terms = stands.ledger, stands.ledger.terms
    console.print(f"Population {terms.population}: {_promise(terms)}.", markup=False)
    budget = Table(title="The budget", title_justify="left")
    budget.add_column("what")
    budget.add_column("of the budget", justify="right")
    budget.add_column("epsilon", justify="right")
    budget.add_row("spent, enforced", _share(ledger.last.charged, terms), f"{stands.enforced:.3f}")
    budget.add_row("spent, tight", "", _epsilon(stands.epsilon))
    budget.add_row("reserved by runs", _share(ledger.last.reserved, terms), "")
    budget.add_row("left for new runs", _share(ledger.available, terms), "")
    console.print(budget)
    if not stands.spent and not stands.held:
        console.print("Nothing was spent, and nobody holds anything.")
        return
    console.print(_spent(stands))
    if stands.held:
        console.print(_held(stands))
    if (more := _more(stands)).row_count:
        console.print(more)
    console.print(TWO_NUMBERS)


def _spent(stands: Statement) -> Table:
    terms = stands.ledger.terms
    table = Table(title="Spent on", title_justify="left")
    table.add_column("run", no_wrap=True)
    for name in ("release", "plan"):
        table.add_column(name)
    for name in ("noise", "charges", "of the budget", "tight, alone"):
        table.add_column(name, justify="right")
    for s in stands.spent:
        share = "not counted" if s.plan.kind is PlanKind.NONE else _share(s.units, terms)
        noise = _number(noise_of(s.plan))
        table.add_row(s.run.hex(), s.release, s.plan.kind.label, noise, str(s.charges), share, _epsilon(s.epsilon))
    return table


def _held(stands: Statement) -> Table:
    terms = stands.ledger.terms
    table = Table(title="Reserved by", title_justify="left")
    table.add_column("run", no_wrap=True)
    table.add_column("plan")
    for name in ("noise", "attempts", "of the budget"):
        table.add_column(name, justify="right")
    for h in stands.held:
        share = "not counted" if h.plan.kind is PlanKind.NONE else _share(h.units, terms)
        table.add_row(h.run.hex(), h.plan.kind.label, _number(noise_of(h.plan)), str(h.attempts), share)
    return table


def _more(stands: Statement) -> Table:
    """How many releases of each plan that was used here a new run could reserve."""
    ledger = stands.ledger
    table = Table(title="What a new run could reserve", title_justify="left")
    table.add_column("plan")
    for name in ("noise", "draws", "one costs", "retries", "releases"):
        table.add_column(name, justify="right")
    for plan in [plan for plan in stands.plans if plan.kind is not PlanKind.NONE]:
        label, noise, _, drawn = _form(plan)
        one = _share(cost(plan, ledger.terms.order), ledger.terms)
        table.add_row(label, noise, drawn, one, str(plan.retries), str(most_releases(ledger, plan)))
    return table


def show_verdict(console: Console, contract: Contract, stands: Statement, verdict: Verdict) -> None:
    """Whether a site would accept a study's run, and what would fit where it does not."""
    terms, rounds = stands.ledger.terms, contract.training.rounds
    plan = verdict.plans.update
    table = Table(title=f"A run of {contract.name}, {rounds} rounds", title_justify="left", show_header=False)
    table.add_column("what")
    table.add_column("found")
    table.add_row("accepted", "yes" if verdict.refusal is None else "no")
    if isinstance(verdict.refusal, BudgetExceeded):
        table.add_row("rounds that fit at this noise", f"{verdict.rounds} (noise {_number(noise_of(plan))})")
        if verdict.noise is None:
            table.add_row("noise for these rounds", "none is enough")
        else:
            needed = _number(noise_of(with_noise(plan, verdict.noise)))
            table.add_row("noise for these rounds", f"{needed}, {verdict.noise:.2f} times as much")
        found = (
            "none does" if verdict.promise is None else f"{verdict.promise:g}, instead of {contract.privacy.epsilon:g}"
        )
        table.add_row("privacy.epsilon with which it fits", found)
    elif verdict.refusal is None:
        table.add_row("tight epsilon after it", f"{_epsilon(verdict.epsilon)}, if no round has to be repeated")
        table.add_row("enforced after it", f"{verdict.enforced:.3f} of {terms.epsilon:g}, with all retries")
        if plan.kind is not PlanKind.NONE:
            table.add_row("rounds that fit at this noise", f"{verdict.rounds} (noise {_number(noise_of(plan))})")
    console.print(table)
    if told_of := adapting(plan):
        console.print(told_of, markup=False)
    if isinstance(verdict.refusal, BudgetExceeded) and verdict.promise is not None:
        console.print(
            "A study states a promise and its noise follows: with that epsilon it asks for as much noise as fits here."
        )


def _promise(terms: Terms) -> str:
    kind = f"epsilon {terms.epsilon:g} at delta {terms.delta:g} to every {terms.unit}"
    return f"{kind}, {terms.adjacency}; a divergence of {terms.budget / UNITS:.4g} at order {terms.order:g}"


def _form(plan: PrivacyPlan) -> tuple[str, str, str, str]:
    """Kind, noise multiplier, clip norm, and how persons are drawn."""
    drawn = f"{plan.steps} x {plan.sample_rate:g}" if isinstance(plan, LocalGaussian) else "all once"
    clip = getattr(plan, "clip_norm", None)
    adapts = ", adapts" if isinstance(plan, AdaptiveSkellam) else ""
    return plan.kind.label, _number(noise_of(plan)), "-" if clip is None else f"{clip:g}{adapts}", drawn


def adapting(plan: PrivacyPlan) -> str:
    """How a plan's clip norm adapts, in a sentence; empty where it does not."""
    if not isinstance(plan, AdaptiveSkellam):
        return ""
    counted = "sites" if plan.vector.unit == Unit.SITE else "persons"
    return (
        f"The clip norm begins at {plan.clip_norm:g} and follows the {plan.quantile:g} quantile of the norms, from "
        f"{plan.lowest:g} to {plan.highest:g}. The count that it follows has noise of {plan.count_deviation:.3g} "
        f"{counted}: it can follow only where that is few beside all of them."
    )


def _share(units: int, terms: Terms) -> str:
    return f"{100 * units / terms.budget:.2f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _epsilon(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "unbounded: released without privacy"
